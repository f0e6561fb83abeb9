"""URLs in responses: those that clients use, also where a proxy mounts the API under a path."""

import re
from urllib.parse import urljoin, urlsplit

import pytest
from flask import url_for
from flask.testing import FlaskClient

from phresh.database.base import db
from phresh.web.app import App
from phresh.web.blueprint import Blueprint
from tests.tools.contract import body_of
from tests.tools.features import WHO, path_of, routes
from tests.tools.helpers import next_page

LIST = "/api/cleanings/"
NEW = {"json": {"new_cleaning": {"name": "One", "price": 1}}}
PUBLIC = "https://phresh.example:8443/mounted/here"
# What the app is told of its address, and where its URLs then begin.
PLACES = {
    "nothing": ({}, {}, ""),
    "PUBLIC_URL": ({"PUBLIC_URL": "HTTP://Phresh.Example:80/"}, {}, "http://phresh.example"),
    "PUBLIC_URL with a path": ({"PUBLIC_URL": f"{PUBLIC}/"}, {}, PUBLIC),
    "PUBLIC_URL at /api": (
        *({"PUBLIC_URL": "https://phresh.example/api"}, {}, "https://phresh.example/api"),
    ),
    "SCRIPT_NAME": ({}, {"SCRIPT_NAME": "/mounted"}, "/mounted"),
    "SCRIPT_NAME /api": ({}, {"SCRIPT_NAME": "/api"}, "/api"),
    "a trusted proxy": (
        *({"TRUSTED_PROXIES": 1}, {"HTTP_X_FORWARDED_PREFIX": "/mounted/"}, "/mounted"),
    ),
    "two trusted proxies": (
        *({"TRUSTED_PROXIES": 2}, {"HTTP_X_FORWARDED_PREFIX": "/a, /b, /c"}, "/b"),
    ),
    "PUBLIC_URL behind a trusted proxy": (
        {"PUBLIC_URL": PUBLIC, "TRUSTED_PROXIES": 1, "TRUSTED_HOSTS": ["phresh.example"]},
        {"HTTP_X_FORWARDED_PREFIX": "/other", "HTTP_HOST": "phresh.example"},
        PUBLIC,
    ),
    "a proxy that is not trusted": ({}, {"HTTP_X_FORWARDED_PREFIX": "/mounted"}, ""),
}
FORGED = ["//evil.example", "/a//b", "http://evil.example", '/a"><script>', "/a b", "evil", "/../a"]


@pytest.fixture(params=PLACES.values(), ids=PLACES.keys())
def place(request, make_app):
    """A function that sends requests to an app at a place, and where its URLs begin."""
    settings, environ, base = request.param
    client = make_app(**settings).test_client()

    def send(method, path, **options):
        return client.open(path, method=method, environ_overrides=environ, **options)

    return send, base


def test_a_new_resource_and_the_next_page_have_urls_that_clients_can_use(place):
    send, base = place
    made = [send("POST", LIST, **NEW) for _ in range(2)]
    for response in made:
        assert response.headers["Location"] == f"{base}{LIST}{response.json['id']}/"
    page = send("GET", f"{LIST}?limit=1")
    assert re.fullmatch(re.escape(f"{base}{LIST}") + r"\?limit=1&after=[\w-]+", next_page(page))
    following = send("GET", next_page(page).removeprefix(base))
    assert [each["id"] for each in following.json] == [made[0].json["id"]]


def test_the_index_and_the_pages_have_urls_that_clients_can_use(place):
    send, base = place
    index = {"docs": "/docs/", "health": "/healthz", "openapi": "/openapi.json", "redoc": "/redoc/"}
    assert send("GET", "/").json == {name: f"{base}{path}" for name, path in index.items()}
    redirected = send("GET", "/", headers={"Accept": "text/html"})
    assert redirected.headers["Location"] == f"{base}/docs/"
    for path in ("/docs", "/redoc"):
        page = send("GET", path).get_data(as_text=True)
        # On the host that the page is from, whichever that is.
        paths = re.findall(r'(?:href|src|data-(?:document|login|root))="([^"]+)"', page)
        assert len(paths) >= 7
        assert all(each.startswith(f"{urlsplit(base).path}/") for each in paths), paths
        assert f"{urlsplit(base).path}/openapi.json" in paths


def test_the_document_names_the_server(place):
    send, base = place
    document = send("GET", "/openapi.json").json
    assert document["servers"] == [{"url": base or "/"}]


@pytest.mark.parametrize("prefix", FORGED)
def test_a_prefix_that_is_no_plain_path_is_ignored(make_app, prefix):
    client = make_app(TRUSTED_PROXIES=1).test_client()
    response = client.post(LIST, **NEW, headers={"X-Forwarded-Prefix": prefix})
    assert response.headers["Location"].startswith(LIST)


WRITES = [
    pytest.param(feature, route, who, status, id=str(route))
    for feature, route in routes()
    for who, status in zip(WHO, route.statuses, strict=True)
    if route.rule.startswith("/api/") and route.method in ("POST", "PUT", "PATCH") and status < 300
]


@pytest.mark.parametrize(("feature", "route", "who", "status"), WRITES)
def test_every_url_in_a_header_begins_with_public_url(
    app, clients, world, monkeypatch, feature, route, who, status
):
    path = path_of(feature, route, world)
    sent = body_of(app, route)
    url = urlsplit(PUBLIC)
    monkeypatch.setitem(app.config, "PUBLIC_URL", PUBLIC)
    monkeypatch.setattr(app, "public", (url.scheme, url.netloc, f"{url.path}/"))
    response = clients[who].open(path, method=route.method, **sent)
    assert response.status_code == status
    found = [response.headers.get(name) for name in ("Location", "Content-Location")]
    if status == 201:
        assert found[0] is not None
    for each in filter(None, found):
        assert each.startswith(f"{PUBLIC}/api/")
        assert urljoin(PUBLIC, each) == each


@pytest.mark.parametrize("mount", ["/mounted", "/things"])
def test_a_view_may_return_a_path_or_what_url_for_makes(make_app, monkeypatch, mount):
    monkeypatch.setattr(App, "test_client_class", FlaskClient)  # no operation of the document
    blp = Blueprint("things", __name__, url_prefix="/things")
    made = {
        "path": lambda: "/things/1",
        "url_for": lambda: url_for("things.make", kind="1"),
        "external": lambda: url_for("things.make", kind="1", _external=True),
        "elsewhere": lambda: "https://other.example/things/1",
        "other host": lambda: "//other.example/things/1",
    }

    @blp.post("/<kind>")
    @blp.response(201)
    def make(kind):
        return {}, {"location": made[kind]()}

    app = make_app(PUBLIC_URL=f"https://phresh.example{mount}")
    app.extensions["flask-smorest"]["apis"][""]["ext_obj"].register_blueprint(blp)
    client = app.test_client()
    for kind in ("path", "url_for", "external"):
        found = client.post(f"/things/{kind}").headers["Location"]
        assert found == f"https://phresh.example{mount}/things/1"
    for kind in ("elsewhere", "other host"):
        assert client.post(f"/things/{kind}").headers["Location"] == made[kind]()
    with app.app_context():
        db.engine.dispose()
