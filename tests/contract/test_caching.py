"""Every response says who may store it: what is sensitive nobody, what is private its client."""

import pytest

from tests.tools.contract import body_of, contract_of
from tests.tools.features import NOBODY, WHO, path_of, routes

SENSITIVE = {"email", "phone_number", "access_token", "address", "secret", "recovery_codes"}
CASES = [
    pytest.param(feature, route, who, status, id=f"{route}-{who}-{status}")
    for feature, route in routes()
    for who, status in zip(WHO, route.statuses, strict=True)
    if route.rule.startswith("/api/") and route.method != "HEAD"
]


def property_names(document, schema):
    """Yield the name of every property in a schema of the document."""
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    for name, inner in schema.get("properties", {}).items():
        yield name
        yield from property_names(document, inner)
    for inner in [schema.get("items", {}), *schema.get("anyOf", []), *schema.get("allOf", [])]:
        yield from property_names(document, inner) if inner else ()


def is_sensitive(app, operation, response):
    document = contract_of(app).document
    content = operation["responses"][str(response.status_code)].get("content", {})
    names = (name for each in content.values() for name in property_names(document, each["schema"]))
    return bool(SENSITIVE & set(names))


@pytest.mark.parametrize(("feature", "route", "who", "status"), CASES)
def test_every_response_says_who_may_store_it(app, clients, world, feature, route, who, status):
    path = path_of(feature, route, world)
    operation = contract_of(app).operation(route.rule, route.method)
    sent = body_of(app, route)
    response = clients[who].open(path, method=route.method, **sent)
    assert response.status_code == status
    [found] = response.headers.getlist("Cache-Control")
    if status >= 400:
        assert found == "no-store"
        return
    reads_token = operation["security"] != []
    [varies] = response.headers.getlist("Vary")
    assert varies == ("Origin, Authorization" if reads_token else "Origin")
    if not reads_token and is_sensitive(app, operation, response):
        assert found == "no-store"  # RFC 6749 5.1
    elif not reads_token or who == NOBODY:
        assert found == "no-cache"
    elif is_sensitive(app, operation, response):
        assert found == "private, no-store"
    else:
        assert found == "private, no-cache"
    if route.method == "GET":
        known = {"If-None-Match": response.headers["ETag"]}
        same = clients[who].get(path, headers=known)
        assert same.status_code == 304
        kept = ("ETag", "Cache-Control", "Vary", "Link")
        assert {name: same.headers.get(name) for name in kept} == {
            name: response.headers.get(name) for name in kept
        }


@pytest.mark.parametrize("path", ["/api/unknown/", "/unknown"])
def test_a_cache_must_not_store_that_a_path_is_missing(client, path):
    response = client.get(path)
    assert (response.status_code, response.headers["Cache-Control"]) == (404, "no-store")


def test_a_profile_is_public_for_guests_only(anna, ben, client):
    path = "/api/profiles/anna/"
    guest, other, own = (each.get(path) for each in (client, ben.client, anna.client))
    assert guest.headers["Cache-Control"] == "no-cache"
    for response in (other, own):
        assert response.headers["Cache-Control"] == "private, no-store"
    assert guest.headers["ETag"] != own.headers["ETag"]
