"""The examples of docs/api.md in Python, JavaScript and TypeScript run as they are."""

import json
import re

import pytest

from phresh.config import ROOT

PAGE = (ROOT / "docs" / "api.md").read_text()
SECTIONS = PAGE.partition("\n## Clients\n")[2].split("\n### ")[1:]
EXAMPLES = {
    section.partition("\n")[0]: example.groups()
    for section in SECTIONS
    if (example := re.search(r"^```(python|ts|js)\n(.*?)^```", section, re.DOTALL | re.MULTILINE))
}


@pytest.fixture(scope="module")
def anna(served):
    """Register Anna, and post a cleaning of hers: the list has a next page after one more."""
    new = {"email": "anna@phresh.example", "username": "anna", "password": "four cats on a roof"}
    body = json.dumps({"new_user": new}).encode()
    token = json.loads(served.request("POST", "/api/users/", body)[1])["access_token"]
    bearer = f"Bearer {token['access_token']}"
    body = json.dumps({"new_cleaning": {"name": "Clean my bath", "price": 30}}).encode()
    served.request("POST", "/api/cleanings/", body, Authorization=bearer)


@pytest.mark.slow
@pytest.mark.parametrize("title", EXAMPLES)
def test_an_example_runs(title, run, generated, base_url, anna, tmp_path):
    kind, text = EXAMPLES[title]
    text = text.replace("http://localhost:8000", base_url)
    if kind == "ts":
        # Beside the types that it imports, with the settings of the story.
        (generated / "typescript" / "example.ts").write_text(text)
        settings = {"extends": "../tsconfig.json", "files": ["typescript/example.ts"]}
        settings["compilerOptions"] = {"rootDir": ".", "outDir": "example"}
        (generated / "tsconfig.json").write_text(json.dumps(settings))
        run("tsc", "--project", generated)
        printed = run("node", generated / "example" / "typescript" / "example.js")
    else:
        file = tmp_path / {"python": "example.py", "js": "example.mjs"}[kind]
        file.write_text(text)
        printed = run("python" if kind == "python" else "node", file)
    assert re.match(r"Clean my attic 25(\.0)? open\nnext page: 200\n422 ", printed), printed
    assert "/new_cleaning/price" in printed


def test_every_client_has_an_example():
    titles = {section.partition("\n")[0] for section in SECTIONS}
    assert titles - EXAMPLES.keys() == {"curl", "HTTPie", "Postman", "Bruno"}
