"""openapi.json, and what changes in it."""

import json
import re
from copy import deepcopy
from difflib import unified_diff

import pytest

from phresh.config import ROOT
from tests.tools.compatibility import breaking_changes

COMMITTED = ROOT / "openapi.json"
# The documents of released versions. A release adds its openapi.json here.
RELEASED = sorted((ROOT / "tests" / "contract" / "released").glob("openapi-*.json"))

# What was released and is different now on purpose, with the reason.
DEVIATIONS = {
    # Documented otherwise, and still accepted.
    r".*price(_min|_max)?: type string removed": "a string is accepted; the document says number, "
    "for which generated clients get a number",
    r".* (username|owner|body.*\.username): (minLength|maxLength) .*": "the pattern said so",
    r"POST /api/cleanings/ Idempotency-Key: maxLength .*": "255 characters as before, and quoted",
    r".*\.(email|password|old_password): another pattern": "the same in escapes that generators of "
    "clients read",
    r"POST /api/users/login/token/: status (401|422) removed": "RFC 6749 5.2: errors of the token "
    "endpoint are 400",
    # Rejected since 2.0, so that the work of a request is bounded.
    r"GET .* after: maxLength .*": "no cursor that was returned is longer",
    r"GET /api/cleanings/ cleaning_type: maxItems .*": "there are three types",
    r"GET /api/cleanings/ q: another pattern": "control characters, and more than 8 words",
    r".* body\.(?!.*(email|password):).*: another pattern": "control characters "
    "other than tabs and line breaks",
}


def served_document(client):
    """Return what is served where ``PUBLIC_URL`` is that of make run."""
    text = client.get("/openapi.json").text
    assert '"servers": [\n    {\n      "url": "/"\n' in text
    return text.replace('"url": "/"', '"url": "http://localhost:8000"')


def test_the_committed_document_is_the_served_one(client):
    served = served_document(client).splitlines(keepends=True)
    committed = COMMITTED.read_text().splitlines(keepends=True)
    difference = "".join(unified_diff(committed, served, "openapi.json", "served", n=2))
    assert not difference, f"Run flask openapi write.\n{difference}"


def test_the_commands_print_and_write_the_served_document(client, run, tmp_path):
    served = served_document(client)
    assert run("openapi", "print") == (0, served)
    assert run("openapi", "write", str(tmp_path / "api.json")) == (0, "")
    assert (tmp_path / "api.json").read_text() == served


def breaks(change):
    """Return what breaks when something is changed in the committed document."""
    old = json.loads(COMMITTED.read_text())
    new = deepcopy(old)
    change(new, new["components"]["schemas"])
    return breaking_changes(old, new)


@pytest.mark.parametrize("path", RELEASED, ids=lambda path: path.stem)
def test_what_was_released_is_still_valid(path):
    found = breaking_changes(json.loads(path.read_text()), json.loads(COMMITTED.read_text()))
    unexpected = [each for each in found if not any(re.fullmatch(d, each) for d in DEVIATIONS)]
    assert not unexpected, "Clients of a released version break: keep what they use."


def test_every_deviation_is_one():
    new = json.loads(COMMITTED.read_text())
    documents = [json.loads(path.read_text()) for path in RELEASED]
    found = [change for old in documents for change in breaking_changes(old, new)]
    assert [d for d in DEVIATIONS if not any(re.fullmatch(d, each) for each in found)] == []


CHANGES = {
    "removed field": (
        lambda _, schemas: schemas["Stats"]["properties"].pop("avg_efficiency"),
        ["GET /api/users/{username}/evaluations/stats/ 200.avg_efficiency: removed"],
    ),
    "field that can be missing": (
        lambda _, schemas: schemas["Health"].pop("required"),
        ["GET /healthz 200.status: can be missing", "GET /readyz 200.status: can be missing"],
    ),
    "removed operation": (
        lambda document, _: document["paths"].pop("/readyz"),
        ["GET /readyz: removed"],
    ),
    "removed status": (
        lambda document, _: document["paths"]["/readyz"]["get"]["responses"].pop("503"),
        ["GET /readyz: status 503 removed"],
    ),
    "removed value": (
        lambda _, schemas: schemas["EventType"]["enum"].remove("is_update"),
        ["GET /api/feed/cleanings/ 200[].event_type: value is_update removed"],
    ),
    "narrowed type": (
        lambda _, schemas: schemas["Stats"]["properties"]["avg_efficiency"].update(type="number"),
        [
            "GET /api/users/{username}/evaluations/stats/ 200.avg_efficiency: "
            "type null or number became number"
        ],
    ),
    "newly required": (
        lambda _, schemas: schemas["OfferCreateBody"].update(required=["new_offer"]),
        ["POST /api/cleanings/{cleaning_id}/offers/ body.new_offer: is required"],
    ),
    "narrowed bound": (
        lambda _, schemas: schemas["OfferCreate"]["properties"]["message"].update(maxLength=10),
        [
            "POST /api/cleanings/{cleaning_id}/offers/ body.new_offer.message: "
            "maxLength 2000 became 10"
        ],
    ),
    "required parameter": (
        lambda document, _: document["paths"]["/readyz"]["get"].update(
            parameters=[{"in": "query", "name": "x", "required": True, "schema": {}}]
        ),
        ["GET /readyz: query parameter x is required"],
    ),
    "token": (
        lambda document, _: document["paths"]["/readyz"]["get"].update(security=[{"bearer": []}]),
        ["GET /readyz: needs a token"],
    ),
    "header": (
        lambda document, _: document["components"]["responses"]["TOO_MANY_REQUESTS"]["headers"].pop(
            "Retry-After"
        ),
        None,
    ),
}


@pytest.mark.parametrize(("change", "expected"), CHANGES.values(), ids=CHANGES)
def test_a_breaking_change_is_found(change, expected):
    found = breaks(change)
    if expected is None:
        assert found
        assert all(each.endswith(" 429: header Retry-After removed") for each in found)
    else:
        assert found == expected


def test_what_is_added_breaks_nobody():
    def add(document, schemas):
        document["paths"]["/new"] = {"get": {"responses": {}}}
        document["paths"]["/healthz"]["get"]["responses"]["418"] = {"description": "New"}
        schemas["Stats"]["properties"]["new"] = {"type": "string"}
        schemas["CleaningStatus"]["enum"].append("expired")
        schemas["OfferCreate"]["properties"]["price"] = {"type": "number"}
        schemas["OfferCreate"]["properties"]["message"]["maxLength"] = 9_999
        del schemas["CleaningCreate"]["required"]

    assert breaks(add) == []
