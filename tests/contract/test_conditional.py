"""Every route honours If-Match and If-None-Match, and a write returns the new ETag."""

import pytest
from flask import g, request

from phresh.accounts.tokens import Account
from tests.tools.contract import body_of, contract_of
from tests.tools.features import NOBODY, OTHER, WHO, path_of, routes

# Each route, for the last caller who succeeds.
SUCCEEDING = {
    str(route): pytest.param(feature, route, who, status, id=str(route))
    for feature, route in routes()
    for who, status in zip(WHO, route.statuses, strict=True)
    if status < 300 and route.rule.startswith("/api/") and route.method != "HEAD"
}.values()
# What holds where there is a representation, and where there is none.
CONDITIONS = {
    "current": (True, None),
    "current in a list": (True, None),
    "any": (True, False),
    "other": (False, False),
    "weak": (False, None),
    "malformed": (False, False),
    "none but other": (True, True),
    "none": (False, True),
    "none but current": (False, None),
    "none but weak": (False, None),
    "current, but none": (False, False),
}
HEADERS = {
    "current": {"If-Match": "{}"},
    "current in a list": {"If-Match": '"other",W/"x" , {}'},
    "any": {"If-Match": "*"},
    "other": {"If-Match": '"other"'},
    "weak": {"If-Match": "W/{}"},
    "malformed": {"If-Match": "other"},
    "none but other": {"If-None-Match": '"other", W/"x"'},
    "none": {"If-None-Match": "*"},
    "none but current": {"If-None-Match": '"other", {}'},
    "none but weak": {"If-None-Match": "W/{}"},
    "current, but none": {"If-Match": "{}", "If-None-Match": "*"},
}


@pytest.fixture
def represented(app, anna, ben):
    """Return the path where a caller reads what a request would change."""

    def find(path, method, who):
        with app.test_request_context(path, method=method):
            someone = {NOBODY: None, OTHER: ben}.get(who, anna)
            g.account = someone and Account(someone.id, someone.username, True, True, b"")
            view = app.view_functions[request.endpoint]
            view_class = getattr(view, "view_class", None)
            view = view if view_class is None else getattr(view_class, method.lower())
            return view.declared.represented_at or path

    return find


@pytest.fixture
def etag_of(represented, clients):
    """Return the ETag that a caller reads of what a request would change, None without one."""

    def read(path, method, who):
        response = clients[who].get(represented(path, method, who))
        return response.headers["ETag"] if response.status_code == 200 else None

    return read


@pytest.mark.parametrize("kind", CONDITIONS)
@pytest.mark.parametrize(("feature", "route", "who", "status"), SUCCEEDING)
def test_every_route_honours_preconditions(
    app, clients, world, tables, etag_of, feature, route, who, status, kind
):
    path = path_of(feature, route, world)
    reads = route.method == "GET"
    etag = etag_of(path, route.method, who)
    if reads:
        assert etag is not None
    holds = CONDITIONS[kind][etag is None]
    if holds is None:
        pytest.skip("There is no ETag to send.")
    headers = {name: value.format(etag) for name, value in HEADERS[kind].items()}
    before = tables()
    sent = {"headers": headers, **body_of(app, route)}
    response = clients[who].open(path, method=route.method, buffered=True, **sent)
    if holds:
        assert response.status_code == status, response.text
        return
    failed = 304 if reads and "none" in kind else 412
    assert response.status_code == failed, response.text
    assert tables() == before
    if failed == 304:
        assert response.headers["ETag"] == etag


@pytest.mark.parametrize(
    ("feature", "route", "who", "status"),
    [param for param in SUCCEEDING if param.values[1].method != "GET"],
)
def test_a_write_returns_the_etag_that_get_returns_next(
    app, clients, world, represented, feature, route, who, status
):
    path = path_of(feature, route, world)
    where = represented(path, route.method, who)
    response = clients[who].open(path, method=route.method, **body_of(app, route))
    assert response.status_code == status
    where = response.headers.get("Location", where)
    registered = route.rule == "/api/users/"  # another account, and its token
    token = response.json["access_token"]["access_token"] if registered else None
    headers = {"Authorization": f"Bearer {token}"} if registered else {}
    read = clients[who].get(where, headers=headers)
    has_representation = route.method != "DELETE" and read.status_code == 200
    assert ("ETag" in response.headers) == (has_representation or status == 201)
    if has_representation:
        assert response.headers["ETag"] == read.headers["ETag"]
        if not registered:
            assert response.data == read.data
    if "ETag" in response.headers and "Location" not in response.headers and where != path:
        assert response.headers["Content-Location"] == where
    else:
        assert "Content-Location" not in response.headers


def test_the_document_has_the_etag_of_each_write(app):
    document = contract_of(app).document
    for path, item in document["paths"].items():
        for method, operation in item.items():
            changes = path.startswith("/api/") and method in ("put", "patch")
            if changes and "204" not in operation["responses"]:  # has nothing to be read
                headers = operation["responses"]["200"]["headers"]
                assert headers["ETag"] == {"$ref": "#/components/headers/ETAG"}, f"{method} {path}"
