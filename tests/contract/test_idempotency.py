"""Every POST that creates something takes an Idempotency-Key, unless it returns a secret."""

import pytest

from tests.tools.contract import body_of, contract_of
from tests.tools.features import WHO, path_of, routes

KEY = {"$ref": "#/components/parameters/IDEMPOTENCY_KEY"}
# Their responses have a token.
WITH_SECRETS = {"/api/users/"}
CREATING = [
    pytest.param(feature, route, who, id=f"{route}-{who}")
    for feature, route in routes()
    for who, status in zip(WHO, route.statuses, strict=True)
    if route.method == "POST" and status == 201
]


def takes_key(app, route):
    operation = contract_of(app).operation(route.rule, "POST")
    return KEY in operation["parameters"]


@pytest.mark.parametrize(("feature", "route", "who"), CREATING)
def test_every_post_that_creates_takes_a_key(app, clients, world, tables, feature, route, who):
    assert takes_key(app, route) == (route.rule not in WITH_SECRETS)
    if route.rule in WITH_SECRETS:
        return
    path = path_of(feature, route, world)
    sent = {"headers": {"Idempotency-Key": "k"}, **body_of(app, route)}
    first = clients[who].post(path, **sent)
    assert first.status_code == 201
    before = tables()
    again = clients[who].post(path, **sent)
    assert (again.status_code, again.data) == (201, first.data)
    for name in ("ETag", "Location", "Cache-Control", "Vary"):
        assert again.headers[name] == first.headers[name]
    assert tables() == before


def test_no_other_operation_takes_a_key(app):
    taking = {
        path
        for path, item in contract_of(app).document["paths"].items()
        for method in {"get", "put", "post", "patch", "delete"} & set(item)
        if KEY in item[method].get("parameters", []) and (method != "post" or path in WITH_SECRETS)
    }
    assert not taking
