"""The OpenAPI document."""

import json
import re

import pytest
from openapi_spec_validator import validate

import phresh
from phresh.accounts.schemas import UserSchema
from phresh.cleanings.schemas import CleaningSchema
from phresh.config import ROOT
from phresh.web.openapi_examples import resolved
from phresh.web.openapi_operations import OWN_ACCOUNT
from tests.tools.contract import document_path
from tests.tools.features import routes

METHODS = {"get", "post", "put", "patch", "delete"}


@pytest.fixture
def document(client):
    response = client.get("/openapi.json")
    assert response.content_type == "application/json"
    return json.loads(response.data)


def operations(document):
    for path, item in document["paths"].items():
        for method in METHODS & set(item):
            yield path, method, item[method]


def test_the_document_is_valid_openapi_3_1(document):
    validate(document)
    assert document["openapi"].startswith("3.1.")
    info = document["info"]
    assert (info["title"], info["version"]) == ("Phresh", phresh.__version__)
    assert info["contact"]["name"] == "The Phresh authors"
    assert info["license"]["name"] == "MIT"
    assert (ROOT / "LICENSE").read_text().startswith("MIT License")
    assert document["externalDocs"]["url"]


@pytest.mark.parametrize(
    "word",
    [
        *("Authorization: Bearer", "`username`", "`Link`", "application/problem+json", "`pointer`"),
        *("Retry-After", "Idempotency-Key", "ETag", "If-Match", "RateLimit", "`taken`"),
    ],
)
def test_the_description_explains_how_to_use_the_api(document, word):
    assert word in document["info"]["description"]


def test_the_operations_in_the_description_exist(document):
    found = re.findall(r"`([A-Z]+) (/[^`]*)`", document["info"]["description"])
    assert len(found) >= 8
    for method, path in found:
        assert method.lower() in document["paths"][path], path


def test_every_operation_has_a_summary_a_description_and_a_unique_id(document):
    found = [operation for *_, operation in operations(document)]
    for operation in found:
        assert operation["summary"]
        assert operation.get("description"), operation["operationId"]
    ids = [operation["operationId"] for operation in found]
    assert len(set(ids)) == len(ids)
    assert {"update_cleaning_patch", "update_cleaning_put"} < set(ids)


def expected_statuses(route, operation):
    """Return the statuses that an operation must name, by its route and its kind."""
    statuses = {500, *route.errors, *(status for status in route.statuses if status >= 300)}
    if route.rule.startswith("/api/"):
        statuses |= {412, 422, 503}
        statuses |= {304} if route.method == "GET" else {429}
    if route.method == "POST" and 201 in route.statuses:
        statuses |= {409}  # an Idempotency-Key whose first request is running
    if "requestBody" in operation:
        statuses |= {400, 413, 415}
    if operation["security"]:
        statuses |= {401}
        if route.method != "GET" and not route.rule.startswith(OWN_ACCOUNT):
            statuses |= {403}  # REQUIRE_CONFIRMED_EMAIL
    if operation["operationId"] == "create_token":
        statuses -= {422}  # RFC 6749 5.2: 400
    return statuses | {status for status in route.statuses if status < 300}


def test_every_operation_names_the_statuses_of_its_table(document):
    expected = {}
    found = {(method, path): operation for path, method, operation in operations(document)}
    for _, route in routes():
        name = (route.method.lower(), document_path(route.rule))
        if name in found:
            statuses = expected.setdefault(name, set())
            statuses |= expected_statuses(route, found[name])
    assert {
        name: {int(status) for status in operation["responses"]}
        for name, operation in found.items()
    } == expected, "The views' @blp.alt_response and tests/<feature>/routes.py (`errors`) differ."


def test_there_is_one_way_to_send_a_token(document):
    """With two, clients of openapi-generator send none, and Postman takes the wrong one."""
    [(name, scheme)] = document["components"]["securitySchemes"].items()
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    assert scheme["description"]
    for *_, operation in operations(document):
        assert operation["security"] in ([], [{name: []}], [{name: []}, {}])


# That in which one learns the API.
TAGS = ["users", "cleanings", "offers", "evaluations", "profiles", "feed", "health"]


def test_the_tags_are_in_the_order_in_which_one_learns_the_api(document):
    listed = [tag["name"] for tag in document["tags"]]
    used = dict.fromkeys(tag for *_, operation in operations(document) for tag in operation["tags"])
    assert listed == list(used)
    assert [tag for tag in listed if tag in TAGS] == TAGS


def test_the_document_says_that_guests_may_not_post(make_app):
    document = make_app(GUEST_POSTING=False).test_client().get("/openapi.json").json
    assert {} not in document["paths"]["/api/cleanings/"]["post"]["security"]


def test_every_operation_names_its_headers(document):
    """If-Match and If-None-Match with all, Idempotency-Key with POST."""
    found = {}
    for path, method, operation in operations(document):
        for parameter in operation.get("parameters", []):
            if "$ref" in parameter:
                name = parameter["$ref"].rpartition("/")[2]
                parameter = document["components"]["parameters"][name]
            if parameter["in"] == "header":
                assert not parameter.get("required")
                found.setdefault(parameter["name"], set()).add((path, method))
    every = {(path, method) for path, method, _ in operations(document) if path.startswith("/api/")}
    responding = {
        status: {
            (path, method)
            for path, method, operation in operations(document)
            if status in operation["responses"]
        }
        for status in ("304", "409", "412")
    }
    assert found["If-None-Match"] == found["If-Match"]
    # Where nothing can be read, no ETag is known; both are honoured all the same.
    users = "/api/users/"
    unreadable = {users, *(f"{users}{each}/" for each in ("login/token", "logout", "recovery"))}
    writes = {(path, "post") for path in {*unreadable, f"{users}confirmation/"}}
    writes |= {(f"{users}me/two-factor/", method) for method in ("post", "put", "delete")}
    writes |= {(f"{users}recovery/", "put"), (f"{users}me/sessions/{{session_id}}/", "delete")}
    account = "/api/admin/accounts/{username}"
    writes |= {(f"{account}/{each}/", "delete") for each in ("sessions", "two-factor")}
    writes |= {(f"{account}/recovery/", "post"), ("/api/admin/profiles/{username}/", "patch")}
    hidden = ("cleanings", "evaluations")
    writes |= {(f"/api/admin/{each}/{{cleaning_id}}/", "patch") for each in hidden}
    assert every - found["If-Match"] == writes
    assert responding["412"] == every
    assert responding["304"] == {(path, method) for path, method in every if method == "get"}
    assert ("/api/cleanings/", "post") in found["Idempotency-Key"]
    assert found["Idempotency-Key"] <= responding["409"]
    assert {method for _, method in found["Idempotency-Key"]} == {"post"}


# The index, the document, its pages with what they load.
NOT_IN_THE_DOCUMENT = {
    "/",
    "/openapi.json",
    "/account/confirmation/",
    "/account/recovery/",
    "/docs/",
    "/docs/swagger-ui/{filename}",
    "/redoc/",
    "/static/{filename}",
}


def test_every_route_is_in_the_document(app, document):
    found = {
        (document_path(rule.rule), method.lower())
        for rule in app.url_map.iter_rules()
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }
    documented = {(path, method) for path, method, _ in operations(document)}
    assert documented <= found
    assert found - documented == {(path, "get") for path in NOT_IN_THE_DOCUMENT}


def test_every_error_is_a_problem(document):
    for *_, operation in operations(document):
        for status, response in operation["responses"].items():
            if int(status) >= 400:
                assert set(resolved(document, response)["content"]) == {"application/problem+json"}


def test_the_schemas_of_cleanings_say_what_is_accepted(document):
    schemas = document["components"]["schemas"]
    price = schemas["CleaningCreate"]["properties"]["price"]
    assert (price["type"], price["minimum"], price["maximum"]) == ("number", 0, 99999999.99)
    assert schemas["Cleaning"]["properties"]["price"]["type"] == "number"
    assert schemas["CleaningCreate"]["required"] == ["name", "price"]
    assert schemas["CleaningCreate"]["properties"]["description"]["type"] == ["string", "null"]
    assert schemas["CleaningCreate"]["properties"]["name"]["pattern"].startswith(r"^[^\x00-\x08")


@pytest.mark.parametrize("text", ["\0", "\0a", "a\0", " \0 "])
def test_no_pattern_of_text_accepts_nul(document, text):
    """Found by schemathesis: the one character that is not blank could be NUL."""
    schemas = document["components"]["schemas"]
    for name in ("name", "description"):
        assert not re.search(schemas["CleaningCreate"]["properties"][name]["pattern"], text)


def test_the_pattern_of_an_idempotency_key_is_what_is_accepted(client, document):
    """Found by schemathesis: the document said that any string is a key."""
    key = document["components"]["parameters"]["IDEMPOTENCY_KEY"]
    new = {"new_cleaning": {"name": "Job", "price": 1}}
    for text in (
        "k",
        '"k"',
        r'"\""',
        "x" * 255,
        "",
        '""',
        "a b",
        '"a b"',
        '"a',
        '"a"b"',
        "é",
        "x" * 256,
    ):
        response = client.post("/api/cleanings/", json=new, headers={key["name"]: text})
        assert (response.status_code == 201) == bool(re.search(key["schema"]["pattern"], text)), (
            text
        )


def test_responses_load_by_their_schemas_in_the_same_order(client, anna, make_cleaning):
    """PostgreSQL renders the responses; this holds them to the schemas that document them."""
    schema = CleaningSchema()
    make_cleaning(description="x", price="0.10", owner_id=anna.id)
    make_cleaning(name="청소", price="99999999.99")
    returned = [(schema, cleaning) for cleaning in client.get("/api/cleanings/").json]
    returned.append((UserSchema(), anna.client.get("/api/users/me/").json))
    for schema, row in returned:
        assert list(row) == list(schema.fields)
        assert schema.validate(row) == {}
        assert schema.load(schema.dump(schema.load(row))) == schema.load(row)
