"""The examples of responses in the OpenAPI document are responses that are seen here."""

import json
import os
from contextlib import contextmanager
from functools import partial, wraps
from pathlib import Path

import pytest
from sqlalchemy import text

import phresh.web
from phresh.database.base import db
from phresh.web.openapi_examples import LOCAL_URL, operations_of, resolved
from tests.tools.contract import contract_of
from tests.tools.examples import Recorder
from tests.tools.features import World

COMMITTED = Path(phresh.web.__file__).with_name("examples.json")
PASSWORD = "four cats on a roof"  # as in the examples of requests
CLEANING = {
    "name": "Clean my house",
    "description": "Three rooms and a cat.",
    "price": "29.99",
}
CLAIM = """
    INSERT INTO idempotency_keys (sender, method, path, key, body_hash)
    VALUES (:sender, 'POST', :path, 'busy', '')
"""
LIMITS = ("WRITES_PER_ACCOUNT", "WRITES_PER_ADDRESS", "GUEST_WRITES_PER_ADDRESS")


def failing(view):
    """Return a view that fails."""

    @wraps(view)
    def fail(**_):
        raise RuntimeError("It is broken on purpose.")

    return fail


@pytest.fixture
def apps(app, make_app):
    make_app = partial(make_app, PUBLIC_URL=LOCAL_URL, LOCK_TIMEOUT=0.05)
    broken = make_app(TESTING=False)
    broken.view_functions = {name: failing(v) for name, v in broken.view_functions.items()}
    limited = make_app(**dict.fromkeys(LIMITS, 1))
    short = {"STATEMENT_TIMEOUT": 0.1, "POOL_TIMEOUT": 0.1}
    nowhere = "postgresql://nobody@127.0.0.1:1/phresh?sslmode=disable"
    down = make_app(DATABASE_URL=nowhere, DATABASE_TIMEOUT=0.2, **short)
    strict = make_app(REQUIRE_CONFIRMED_EMAIL=True)
    return {"": make_app(), "broken": broken, "limited": limited, "down": down, "strict": strict}


@pytest.fixture
def recorder(apps, make_user, make_cleaning, sql, owner_engine):
    tables = [table.name for table in reversed(db.metadata.sorted_tables)]
    tables.sort(key="released_usernames".__eq__)
    tables.remove("audit_log")

    def person(name):
        user = make_user(name)
        sql(
            "UPDATE profiles SET full_name = initcap(:name) || ' Winter', "
            "bio = 'Quick, and kind to cats.', phone_number = '+49 30 1234567', "
            "image = 'https://phresh.example/' || :name || '.jpg' WHERE user_id = :id",
            name=name,
            id=user.id,
        )
        return user

    def reset():
        for name in tables:
            sql(f"DELETE FROM {name}")
        anna, ben = person("anna"), person("ben")
        world = World(anna, ben, person, lambda **v: make_cleaning(**{**v, **CLEANING}), sql)
        attic = make_cleaning(**{**CLEANING, "name": "Clean my attic"}, owner_id=anna.id)
        sql(
            "INSERT INTO offers (cleaning_id, user_id, message) VALUES (:one, :ben, 'On Friday?')",
            one=attic,
            ben=ben.id,
        )
        return world

    @contextmanager
    def claim(user_id, url):
        running = owner_engine.execution_options(isolation_level="READ COMMITTED")
        values = {"sender": str(user_id), "path": url.rstrip("/")}
        with running.connect() as connection:  # never committed
            connection.execute(text(CLAIM), values)
            yield "busy"

    return Recorder(apps, reset, claim)


@pytest.mark.slow
def test_the_examples_are_responses_that_are_seen(recorder):
    recorded = recorder.record()
    missing = [
        f"{operation['operationId']} {status}"
        for operation, status, _ in responses(recorder.apps[""])
        if status not in recorded[operation["operationId"]]
    ]
    assert not missing, "Add a Route that gets these, or `rejected`, to tests/<feature>/routes.py."
    seen = json.dumps(recorded, indent=1) + "\n"
    if os.environ.get("WRITE_EXAMPLES"):
        COMMITTED.write_text(seen)
    assert seen == COMMITTED.read_text(), "Run make openapi, and look at what has changed."


def responses(app):
    """Yield each response that has a body: its operation, status and content."""
    document = contract_of(app).document
    for item in document["paths"].values():
        for operation in operations_of(item):
            for status, response in operation["responses"].items():
                for content in resolved(document, response).get("content", {}).values():
                    yield operation, status, content


def test_every_response_has_an_example_that_is_true_for_it(app):
    contract = contract_of(app)
    recorded = json.loads(COMMITTED.read_text())
    found = {}
    for operation, status, content in responses(app):
        name, example = operation["operationId"], content.get("example")
        assert example is not None, f"{name} {status} has no example: run make openapi."
        assert contract.validator(content["schema"]).is_valid(example), f"{name} {status}"
        assert example == recorded[name][status]["body"]
        if int(status) >= 400:
            assert example["status"] == int(status)
            assert ("errors" in example) == (status == "422"), f"{name} {status}"
        found.setdefault(name, set()).add(status)
    assert found == {name: set(examples) for name, examples in recorded.items()}


def test_the_pointer_of_an_invalid_value_is_in_the_body_and_a_parameter_elsewhere(app):
    for operation, status, content in responses(app):
        if status == "422":
            [error] = content["example"]["errors"]
            kind = [*operation.get("requestBody", {}).get("content", {})]
            assert ("pointer" in error) == (kind == ["application/json"]), operation["operationId"]
            assert ("parameter" in error) != ("pointer" in error)


def test_every_request_body_has_an_example_that_is_valid(app):
    """That it is accepted, tests/contract/test_authorization.py shows."""
    contract = contract_of(app)
    for item in contract.document["paths"].values():
        for operation in operations_of(item):
            for content in operation.get("requestBody", {}).get("content", {}).values():
                assert contract.validator(content["schema"]).is_valid(content["example"])
