"""Deprecated operations and fields: headers on every response, and what the document says."""

from datetime import UTC, date, datetime, timedelta
from email.utils import parsedate_to_datetime

import marshmallow as ma
import pytest
from flask.testing import FlaskClient
from flask.views import MethodView
from flask_smorest import abort
from openapi_spec_validator import validate

from phresh.accounts import limits
from phresh.accounts.tokens import login_not_required, login_required
from phresh.config import ROOT
from phresh.database.base import db
from phresh.web.app import App
from phresh.web.blueprint import Blueprint
from phresh.web.deprecation import NOTICE_DAYS

SINCE, SUNSET = date(2027, 1, 1), date(2027, 7, 31)
LINK = "https://phresh.example/changes#things"
HEADERS = {
    "Deprecation": "@1798761600",
    "Sunset": "Sat, 31 Jul 2027 00:00:00 GMT",
    "Link": f'<{LINK}>; rel="deprecation", <{LINK}>; rel="sunset"',
}
DEPRECATED = {"Deprecation": HEADERS["Deprecation"]}
THINGS = "/api/things/"


class ThingSchema(ma.Schema):
    name = ma.fields.String(required=True, metadata={"example": "Mop"})
    kind = ma.fields.String(metadata={"deprecated": True, "description": "Use `name`."})


class ThingQuerySchema(ma.Schema):
    kind = ma.fields.String(metadata={"deprecated": True})


def make_blueprint(**options):
    blp = Blueprint("things", __name__, url_prefix="/api/things", description="Things")

    @blp.get("/")
    @blp.deprecated(**options)
    @login_not_required
    @blp.arguments(ThingQuerySchema, location="query")
    @blp.response(200, ThingSchema)
    @blp.alt_response(409)
    def get_thing(query):
        """Get a thing"""
        if query.get("kind") == "broken":
            raise RuntimeError
        if query.get("kind") == "taken":
            abort(409)
        return {"name": "Mop"}, {"Link": '<https://phresh.example/>; rel="author"'}

    @blp.post("/")
    @blp.deprecated(**options)
    @login_required
    @blp.arguments(ThingSchema)
    @blp.response(201, ThingSchema)
    def create_thing(thing):
        """Create a thing

        Nobody needs more of them.
        """
        return thing

    @blp.put("/")
    @blp.deprecated(**options)
    @login_not_required
    @blp.response(204)
    def put_thing():
        return None

    @blp.get("/kept/")
    @login_not_required
    @blp.response(200, ThingSchema)
    def get_kept_thing():
        return {"name": "Mop"}

    @blp.route("/classes/")
    class Things(MethodView):
        @blp.deprecated(**options)
        @blp.response(200, ThingSchema)
        def get(self):
            return {"name": "Mop"}

        @blp.response(204)
        def delete(self):
            return None

    return blp


@pytest.fixture
def served(make_app, monkeypatch):
    """Serve the blueprint under options of the decorator; gives the app."""
    monkeypatch.setattr(App, "test_client_class", FlaskClient)
    apps = []

    def start(**options):
        app = make_app(PROPAGATE_EXCEPTIONS=False)
        app.testing = False
        apps.append(app)
        app.extensions["flask-smorest"]["apis"][""]["ext_obj"].register_blueprint(
            make_blueprint(**options)
        )
        return app

    yield start
    for app in apps:
        with app.app_context():
            db.engine.dispose()


def sent(response):
    found = {name: ", ".join(response.headers.getlist(name)) for name in HEADERS}
    return {name: value for name, value in found.items() if value}


def test_every_response_of_a_deprecated_operation_says_so(served, anna):
    client = served(since=SINCE, sunset=SUNSET, link=LINK).test_client()
    token = {"Authorization": anna.client.environ_base["HTTP_AUTHORIZATION"]}
    created = client.post(THINGS, json={"name": "Mop"}, headers=token)
    etag = client.get(THINGS).headers["ETag"]
    for response, status in (
        (created, 201),
        (client.post(THINGS, json={}, headers=token), 422),
        (client.post(THINGS, data="{", headers={**token, "Content-Type": "application/json"}), 400),
        (client.post(THINGS, json={"name": "Mop"}), 401),
        (client.post(THINGS, json={"name": "Mop"}, headers={**token, "If-Match": '"x"'}), 412),
        (client.get(f"{THINGS}?kind=taken"), 409),
        (client.get(f"{THINGS}?kind=broken"), 500),
        (client.get(f"{THINGS}?other=x"), 422),
    ):
        assert response.status_code == status
        assert sent(response) == HEADERS
    for response, status in (
        (client.get(THINGS), 200),
        (client.head(THINGS), 200),
        (client.get(THINGS, headers={"If-None-Match": etag}), 304),
    ):
        assert response.status_code == status
        own = '<https://phresh.example/>; rel="author"'
        assert sent(response) == {**HEADERS, "Link": f"{own}, {HEADERS['Link']}"}


def test_a_response_made_before_the_view_says_so_too(served, monkeypatch):
    client = served(since=SINCE).test_client()
    monkeypatch.setattr(limits, "count", lambda _: abort(429))
    response = client.put(THINGS)
    assert (response.status_code, sent(response)) == (429, DEPRECATED)


def test_methods_of_a_class_are_deprecated_one_by_one(served):
    client = served(since=SINCE).test_client()
    assert sent(client.get(f"{THINGS}classes/")) == DEPRECATED
    assert sent(client.delete(f"{THINGS}classes/")) == {}


def test_the_view_of_another_operation_is_not_wrapped(served):
    app = served(since=SINCE)
    assert sent(app.test_client().get(f"{THINGS}kept/")) == {}
    names = {
        name: view.__code__.co_name
        for name, view in app.view_functions.items()
        if name.startswith("things.")
    }
    assert names["things.get_thing"] == "announcing"
    assert names["things.get_kept_thing"] != "announcing"


def test_the_dates_are_midnight_in_utc(served):
    headers = served(since=SINCE, sunset=SUNSET).test_client().get(THINGS).headers
    seconds = int(headers["Deprecation"].removeprefix("@"))
    assert datetime.fromtimestamp(seconds, UTC) == datetime(2027, 1, 1, tzinfo=UTC)
    assert parsedate_to_datetime(headers["Sunset"]) == datetime(2027, 7, 31, tzinfo=UTC)


def test_the_document_says_what_is_deprecated(served):
    document = served(since=SINCE, sunset=SUNSET, link=LINK).test_client().get("/openapi.json").json
    validate(document)
    things = document["paths"][THINGS]
    for method, operation in things.items():
        if method == "parameters":
            continue
        assert operation["deprecated"] is True
        assert operation["x-deprecated-since"] == "2027-01-01"
        assert operation["x-sunset"] == "2027-07-31"
        assert operation["externalDocs"]["url"] == LINK
        assert {"422", "500"} <= set(operation["responses"])
        for status, response in operation["responses"].items():
            assert set(HEADERS) <= set(response["headers"]), status
    words = "Deprecated since 2027-01-01. It stops working on 2027-07-31."
    assert things["get"]["description"] == words
    assert things["post"]["description"] == f"Nobody needs more of them.\n\n{words}"
    kept = document["paths"][f"{THINGS}kept/"]["get"]
    assert "deprecated" not in kept
    assert not set(HEADERS) & set(kept["responses"]["200"].get("headers", {}))
    shared = document["components"]["responses"].values()
    assert not any("Deprecation" in response.get("headers", {}) for response in shared)


def test_the_document_says_no_more_than_is_known(served):
    operation = served(since=SINCE).test_client().get("/openapi.json").json["paths"][THINGS]["get"]
    assert operation["deprecated"] is True
    assert not {"x-sunset", "externalDocs"} & set(operation)
    assert set(HEADERS) & set(operation["responses"]["200"]["headers"]) == {"Deprecation"}
    assert operation["description"] == "Deprecated since 2027-01-01."


def test_a_field_or_parameter_is_deprecated_by_its_metadata(served):
    document = served(since=SINCE).test_client().get("/openapi.json").json
    kind = document["components"]["schemas"]["Thing"]["properties"]["kind"]
    assert (kind["deprecated"], kind["description"]) == (True, "Use `name`.")
    parameters = document["paths"][THINGS]["get"]["parameters"]
    [parameter] = (each for each in parameters if each.get("name") == "kind")
    assert parameter["deprecated"] is True


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"since": "2027-01-01"}, TypeError),
        ({"since": None}, TypeError),
        ({"since": datetime(2027, 1, 1, tzinfo=UTC)}, TypeError),
        ({"since": SINCE, "sunset": "2027-07-31"}, TypeError),
        ({"since": SINCE, "sunset": SINCE - timedelta(1)}, ValueError),
        ({"since": SINCE, "sunset": SINCE + timedelta(NOTICE_DAYS - 1)}, ValueError),
        ({"since": SINCE, "link": "/changes"}, ValueError),
        ({"since": SINCE, "link": "https://phresh.example/>; rel=x"}, ValueError),
        ({"since": SINCE, "link": "https://phresh.example/\r\nX: y"}, ValueError),
    ],
)
def test_wrong_values_are_rejected_when_the_decorator_is_made(options, error):
    with pytest.raises(error, match=r"since|sunset|link"):
        Blueprint.deprecated(**options)


def test_the_shortest_notice_is_accepted_and_is_what_the_page_promises():
    Blueprint.deprecated(since=SINCE, sunset=SINCE + timedelta(NOTICE_DAYS))
    assert f"{NOTICE_DAYS} days" in (ROOT / "docs" / "api.md").read_text()


def test_the_decorator_below_response_is_rejected():
    with pytest.raises(TypeError, match="above @blp"):

        @Blueprint.deprecated(since=SINCE)
        def view():
            pass
