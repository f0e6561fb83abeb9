"""Collections that Postman and Bruno import from the document: their requests work as imported.

What someone fills in who has imported a collection: the address, the token, and the parameters in
a path. All else is sent as the document has it.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from phresh.config import ROOT
from tests.tools.processes import serving

DOCUMENT = ROOT / "openapi.json"


class Postman:
    """Postman's importer and runner, with the settings that docs/api.md names."""

    def __init__(self, run: Any, folder: Path) -> None:
        self.run, self.folder = run, folder
        options = "folderStrategy=Tags,parametersResolution=Example,enableOptionalParameters=false"
        imported = folder / "imported.json"
        run("openapi2postmanv2", "-s", DOCUMENT, "-o", imported, "-O", options)
        self.collection = json.loads(imported.read_text())
        self.items = {}
        for tag in self.collection["item"]:
            for item in tag["item"]:
                path = "/".join(["", *item["request"]["url"]["path"]])
                self.items[item["request"]["method"], path] = item

    def fill_in(self, operation: Any, token: str, parameters: dict[str, str]) -> None:
        """Fill in what one request needs."""
        request = self.items[operation]["request"]
        for variable in request["url"].get("variable", []):
            variable["value"] = parameters[variable["key"]]
        if auth := request.get("auth"):
            assert auth["bearer"] == [{"key": "token", "value": "{{bearerToken}}"}]
            auth["bearer"][0]["value"] = token

    def send(self, operations: list[Any], base_url: str) -> Any:
        """Yield the status and the body of each."""
        items = [self.items[operation] for operation in operations]
        source, output = self.folder / "collection.json", self.folder / "output.json"
        source.write_text(json.dumps(self.collection | {"item": items}))
        variable = ("--env-var", f"baseUrl={base_url}")
        reporter = ("--reporters", "json", "--reporter-json-export", output)
        self.run("newman", "run", source, *variable, *reporter)
        for sent in json.loads(output.read_text())["run"]["executions"]:
            yield sent["response"]["code"], bytes(sent["response"]["stream"]["data"])


class Bruno:
    """Bruno's importer and runner."""

    def __init__(self, run: Any, folder: Path) -> None:
        self.run, self.folder = run, folder / "Phresh"
        name = ("--collection-name", "Phresh")
        run("bru", "import", "openapi", "--source", DOCUMENT, "--output", folder, *name)
        self.files = {}
        for file in self.folder.glob("*/*.yml"):
            if request := yaml.safe_load(file.read_text()).get("http"):
                path = request["url"].removeprefix("{{baseUrl}}").partition("?")[0]
                self.files[request["method"], path] = file

    def fill_in(self, operation: Any, token: str, parameters: dict[str, str]) -> None:
        """Fill in what one request needs."""
        content = yaml.safe_load(self.files[operation].read_text())
        request = content["http"]
        for parameter in request.get("params", []):
            if parameter["type"] == "path":
                parameter["value"] = parameters[parameter["name"]]
        if isinstance(auth := request["auth"], dict):
            assert (auth["type"], auth["token"]) == ("bearer", "{{token}}")
            auth["token"] = token
        self.files[operation].write_text(yaml.safe_dump(content))

    def send(self, operations: list[Any], base_url: str) -> Any:
        """Yield the status and the body of each."""
        files = [self.files[operation] for operation in operations]
        output = self.folder.parent / "output.json"
        variable = ("--env-var", f"baseUrl={base_url}")
        self.run("bru", "run", *files, *variable, "--reporter-json", output, cwd=self.folder)
        for sent in json.loads(output.read_text())[0]["results"]:
            yield sent["response"]["status"], json.dumps(sent["response"]["data"]).encode()


# The story of README, with the token that each request has. What is not in it comes after it.
STORY = {
    **dict.fromkeys(["create_user", "create_token"], ""),
    **dict.fromkeys(["get_health", "get_readiness", "list_cleanings", "list_events"], ""),
    **dict.fromkeys(["get_me", "update_me", "create_cleaning", "get_cleaning"], "anna"),
    **dict.fromkeys(["list_sessions", "delete_session", "delete_other_sessions"], "anna"),
    **dict.fromkeys(["begin_two_factor", "delete_two_factor", "export_me"], "anna"),
    **dict.fromkeys(["confirm_email", "request_recovery"], ""),
    **dict.fromkeys(["update_cleaning_put", "update_cleaning_patch"], "anna"),
    **dict.fromkeys(["create_offer", "list_my_offers"], "ben"),
    **dict.fromkeys(["list_offers", "get_offer", "accept_offer", "create_evaluation"], "anna"),
    **dict.fromkeys(["list_evaluations", "get_stats"], ""),
    "get_evaluation": "anna",
    **dict.fromkeys(["get_profile", "update_profile_put", "update_profile_patch"], "ben"),
    "delete_token": "ben",
}


@pytest.mark.slow
@pytest.mark.parametrize("tool", [Postman, Bruno])
def test_every_request_of_an_imported_collection_works(tool, run, tmp_path):
    operations = {
        operation["operationId"]: (method.upper(), path, operation["responses"])
        for path, methods in json.loads(DOCUMENT.read_text())["paths"].items()
        for method, operation in methods.items()
        if method != "parameters"
    }
    collection = tool(run, tmp_path)

    def send(*names: str) -> Any:
        """Send these requests in one run; return the body of the last one."""
        requests = [
            (method, re.sub(r"{(\w+)}", r":\1", path))
            for method, path, _ in (operations[name] for name in names)
        ]
        for name, request in zip(names, requests, strict=True):
            collection.fill_in(request, tokens[STORY.get(name, "anna")], parameters)
        sent = list(collection.send(requests, f"http://localhost:{served.port}"))
        assert len(sent) == len(names)
        for name, (status, body) in zip(names, sent, strict=True):
            assert str(status) in operations[name][2], (name, status, body)
            assert status < (300 if name in STORY else 500), (name, status, body)
        return json.loads(sent[-1][1] or "null")

    tokens, parameters = {"": ""}, {"username": "ben"}
    with serving() as served:
        tokens["anna"] = send("create_user", "create_token")["access_token"]
        new = {"email": "ben@phresh.example", "username": "ben", "password": "no cats at all"}
        # The newest one is in use.
        bearer = {"Authorization": f"Bearer {tokens['anna']}"}
        sessions = served.request("GET", "/api/users/me/sessions/", **bearer)
        parameters["session_id"] = json.loads(sessions[1])[-1]["id"]
        ben = served.request("POST", "/api/users/", json.dumps({"new_user": new}).encode())
        tokens["ben"] = json.loads(ben[1])["access_token"]["access_token"]
        # Ids are not reused, and the samples are the only rows: this one is what is posted next.
        newest = json.loads(served.request("GET", "/api/cleanings/?limit=1")[1])[0]["id"]
        parameters["cleaning_id"] = str(newest + 1)
        left = operations.keys() - STORY.keys()
        send(*list(STORY)[2:], *sorted(left, key=lambda name: name == "delete_me"))
