"""Views: what they may return, their arguments, MethodView classes, and what is refused."""

import io
import json
from collections import namedtuple
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from http import HTTPStatus
from itertools import count
from zoneinfo import ZoneInfo

import flask
import marshmallow as ma
import pytest
import werkzeug
from flask import jsonify, request
from flask.testing import FlaskClient
from flask.views import MethodView
from flask_smorest import abort
from flask_smorest.fields import Upload
from sqlalchemy import DateTime, Integer, Numeric, Text, cast, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from werkzeug.datastructures import Headers

from phresh import create_app
from phresh.database.base import db
from phresh.database.statements import query, row_json
from phresh.database.transactions import fetch
from phresh.web.app import App
from phresh.web.blueprint import Blueprint
from tests.tools.helpers import sql_text

NOON = datetime(2026, 11, 27, 12, 0, 0, 120000, tzinfo=UTC)
names = count(1)


class Base(DeclarativeBase):
    """A table that only these tests have, and no database."""


class Thing(Base):
    __tablename__ = "view_things"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    price: Mapped[Decimal]
    at: Mapped[datetime]


class ThingSchema(ma.Schema):
    id = ma.fields.Integer()
    name = ma.fields.String()
    price = ma.fields.Decimal()
    at = ma.fields.DateTime()


class SecretSchema(ThingSchema):
    name = ma.fields.String(load_only=True)


VALUES = {"id": 1, "name": "é", "price": Decimal("20.50"), "at": NOON}
KINDS = {"id": Integer, "name": Text, "price": Numeric, "at": DateTime(timezone=True)}
COLUMNS = [cast(VALUES[name], kind).label(name) for name, kind in KINDS.items()]
SENT = {"id": 1, "name": "é", "price": 20.5, "at": "2026-11-27T12:00:00.120000Z"}


def thing():
    return Thing(**VALUES)


def row():
    return db.session.execute(select(*COLUMNS)).one()


@query
def thing_json():
    return select(row_json(*COLUMNS))


def things():
    yield thing()
    yield thing()


def api_of(app):
    return app.extensions["flask-smorest"]["apis"][""]["ext_obj"]


@pytest.fixture(autouse=True)
def unchecked_client(monkeypatch):
    """Use Flask's own test client: the views here do more than their document says."""
    monkeypatch.setattr(App, "test_client_class", FlaskClient)


@pytest.fixture
def serve(make_app):
    """Serve a blueprint, as create_app does; gives a client."""
    apps = []

    def start(blp):
        apps.append(make_app())
        api_of(apps[-1]).register_blueprint(blp)
        return apps[-1].test_client()

    yield start
    for app in apps:
        with app.app_context():
            db.engine.dispose()


@pytest.fixture(scope="module")
def returning(settings):
    """Serve a view that returns what a function returns; gives its response."""
    served = {}

    def start(schema, method, status):
        blp = Blueprint("views", __name__, url_prefix="/api/things")
        makers = []

        @blp.route("/", methods=[method])
        @blp.response(status, schema)
        def view():
            return makers[-1]()

        app = create_app({**settings, "TESTING": True})
        api_of(app).register_blueprint(blp)
        return app, makers

    def respond(make, schema=ThingSchema, *, method="GET", status=200, send="", **headers):
        key = (str(schema), method, status)
        if key not in served:
            served[key] = start(schema, method, status)
        app, makers = served[key]
        makers.append(make)
        return app.test_client().open("/api/things/", method=send or method, headers=headers)

    yield respond
    for app, _ in served.values():
        with app.app_context():
            db.engine.dispose()


# What a view may return

ONE = {
    "text": lambda: json.dumps(SENT),
    "text of the database": lambda: fetch(thing_json())[0][0],
    "dict": lambda: VALUES,
    "mapped object": thing,
    "row": row,
    "mapping of a row": lambda: row()._mapping,
    "namedtuple": lambda: namedtuple("Made", VALUES)(**VALUES),
    "jsonify": lambda: jsonify(SENT),
    "flask.Response": lambda: flask.Response(json.dumps(SENT), mimetype="application/json"),
}
MANY = {
    "dicts": lambda: [VALUES, VALUES],
    "mapped objects": lambda: [thing(), thing()],
    "rows": lambda: db.session.execute(select(*COLUMNS).union_all(select(*COLUMNS))).all(),
    "generator": things,
    "result": lambda: db.session.execute(select(*COLUMNS).union_all(select(*COLUMNS))),
    "text": lambda: json.dumps([SENT, SENT]),
    "jsonify": lambda: jsonify([SENT, SENT]),
}
EXTRAS = [
    ((), {}),
    (({"X-Count": "2"},), {"X-Count": ["2"]}),
    (([("X-Count", "2"), ("X-Count", "3")],), {"X-Count": ["2", "3"]}),
    ((Headers({"X-Count": "2"}),), {"X-Count": ["2"]}),
    (({"X-Count": ["2", "3"]},), {"X-Count": ["2", "3"]}),
    ((202,), {}),
    ((HTTPStatus.ACCEPTED,), {}),
    ((202, {"X-Count": "2"}), {"X-Count": ["2"]}),
    ((202, [("X-Count", "2")]), {"X-Count": ["2"]}),
]


@pytest.mark.parametrize("kind", ONE)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_view_may_return_one_thing(returning, kind, method):
    response = returning(ONE[kind], method=method)
    assert response.status_code == 200
    assert response.content_type == "application/json"
    assert response.json == SENT
    assert isinstance(json.loads(response.data)["price"], float)


@pytest.mark.parametrize(
    "at",
    [
        *(NOON.replace(tzinfo=None), NOON, NOON.astimezone(timezone(timedelta(hours=-3)))),
        NOON.astimezone(ZoneInfo("Asia/Kathmandu")),
    ],
)
@pytest.mark.parametrize("schema", [ThingSchema, None], ids=["dumped", "without a schema"])
def test_times_of_python_are_sent_in_utc_with_six_decimals(returning, at, schema):
    sent = returning(lambda: {"at": at}, schema).json
    assert sent == {"at": "2026-11-27T12:00:00.120000Z"}


@pytest.mark.parametrize("kind", MANY)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_view_may_return_many_things(returning, kind, method):
    response = returning(MANY[kind], ThingSchema(many=True), method=method)
    assert response.content_type == "application/json"
    assert response.json == [SENT, SENT]


@pytest.mark.parametrize("kind", ["text", "dict", "mapped object", "row", "jsonify"])
@pytest.mark.parametrize(("extras", "expected"), EXTRAS)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_status_and_headers_may_follow(returning, kind, extras, expected, method):
    value = (lambda: (ONE[kind](), *extras)) if extras else ONE[kind]
    response = returning(value, method=method)
    assert response.status_code == (202 if extras and isinstance(extras[0], int) else 200)
    assert response.json == SENT
    assert response.headers.getlist("X-Count") == expected.get("X-Count", [])
    for name in ("Content-Type", "ETag", "Cache-Control"):
        assert len(response.headers.getlist(name)) <= 1


def test_a_header_of_the_view_replaces_ours(returning):
    given = {"content-type": "application/geo+json", "Cache-Control": "max-age=5"}
    for make in (ONE["text"], ONE["dict"], ONE["jsonify"]):
        response = returning(lambda make=make: (make(), given))
        assert response.headers.getlist("Content-Type") == ["application/geo+json"]
        assert response.headers.getlist("Cache-Control") == ["max-age=5"]


@pytest.mark.parametrize("extras", [(), ({"X-Count": "1"},), (204, {})])
@pytest.mark.parametrize("schema", [None, ThingSchema])
def test_none_is_a_response_without_a_body(returning, extras, schema):
    make = (lambda: (None, *extras)) if extras else lambda: None
    response = returning(make, schema, method="DELETE", status=204)
    assert (response.status_code, response.data) == (204, b"")
    assert "Content-Type" not in response.headers
    response = returning(lambda: (None, 204), schema, method="PUT")
    assert (response.status_code, response.data) == (204, b"")


def test_a_dict_or_a_list_needs_no_schema(returning):
    response = returning(lambda: {"a": [1, Decimal("0.1")]}, None)
    assert json.loads(response.data) == {"a": [1, 0.1]}
    assert returning(lambda: [1, "a"], None).json == [1, "a"]


def test_a_response_of_werkzeug_is_sent(returning):
    response = returning(lambda: werkzeug.Response("<p>", mimetype="text/html"))
    assert (response.data, response.mimetype) == (b"<p>", "text/html")
    assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_fields_that_are_computed_need_no_attribute(returning):
    class Computed(ma.Schema):
        kind = ma.fields.Function(lambda thing: type(thing).__name__)

    class Nested(ma.Schema):
        owner = ma.fields.String(attribute="thing.name")

    assert returning(thing, Computed).json == {"kind": "Thing"}
    assert returning(lambda: namedtuple("Made", ["thing"])(thing()), Nested).json == {"owner": "é"}


# What it may not return


async def coroutine():
    """Return nothing."""


def closed_coroutine():
    """Call a coroutine function. Closed, it does not warn whenever it is collected."""
    made = coroutine()
    made.close()
    return made


class Nothing:
    """An object without the schema's attributes."""


class CountSchema(ma.Schema):
    """Its fields have names that str, list and tuple have too."""

    count = ma.fields.Raw()
    title = ma.fields.Raw()


WRONG = {
    "int": lambda: 5,
    "bytes": lambda: b"{}",
    "float": lambda: 1.5,
    "bool": lambda: True,
    "None": lambda: None,
    "set": lambda: {1},
    "object": Nothing,
    "generator of ints": lambda: iter([1]),
    "coroutine": closed_coroutine,
    "list": lambda: [VALUES],
}
WRONG_MANY = {
    **{name: WRONG[name] for name in ("int", "bytes", "None", "object", "coroutine")},
    "dict": lambda: VALUES,
    "list of str": lambda: ["a"],
    "str among objects": lambda: [thing(), "a"],
    "list of None": lambda: [None],
    "list of ints": lambda: [1],
    "list of lists": lambda: [[VALUES]],
    "list of tuples": lambda: [(1, 2)],
    "list of objects": lambda: [Nothing()],
    "generator of ints": lambda: (n for n in (1, 2)),
    "one row": row,
}
WRONG_TUPLES = [
    (),
    (VALUES,),
    (VALUES, "201"),
    (VALUES, 201, {}, {}),
    (VALUES, {}, 201),
    (VALUES, 201, "X: y"),
    (VALUES, None, {}),
    (VALUES, True),
    (VALUES, 2.0),
    ("a", "b"),
]


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("schema", [ThingSchema, CountSchema, None])
@pytest.mark.parametrize("kind", WRONG)
def test_anything_else_is_refused(returning, kind, schema, method):
    if kind == "list" and schema is None:
        pytest.skip("Without a schema it is JSON")
    with pytest.raises(TypeError, match=r"view\(\) returned .*\. A view returns JSON text; or"):
        returning(WRONG[kind], schema, method=method)


@pytest.mark.parametrize("schema", [ThingSchema(many=True), CountSchema(many=True)])
@pytest.mark.parametrize("kind", WRONG_MANY)
def test_anything_else_than_a_list_is_refused(returning, kind, schema):
    with pytest.raises(TypeError, match=r"view\(\) returned .*\. A view returns JSON text; or"):
        returning(WRONG_MANY[kind], schema)


@pytest.mark.parametrize("value", WRONG_TUPLES, ids=repr)
def test_another_tuple_is_refused(returning, value):
    with pytest.raises(TypeError, match=r"view\(\) returned a tuple of .*\. A view returns"):
        returning(lambda: value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), Decimal("NaN"), Decimal(1) / 3])
def test_what_is_no_json_number_is_refused(returning, value):
    with pytest.raises((TypeError, ValueError), match="JSON"):
        returning(lambda: {"a": value}, None)


# load_only


@pytest.mark.parametrize("kind", ["dict", "mapped object", "row"])
def test_a_load_only_field_is_not_sent(returning, kind):
    assert set(returning(ONE[kind], SecretSchema).json) == {"id", "price", "at"}
    assert set(returning(lambda: [ONE[kind]()], SecretSchema(many=True)).json[0]) == {
        *("id", "price", "at")
    }


@pytest.mark.parametrize("extras", [(), (202,), ({},)])
def test_text_is_refused_where_a_field_is_load_only(returning, extras):
    text = "{}"
    with pytest.raises(TypeError, match="name of SecretSchema is load_only"):
        returning(lambda: (text, *extras) if extras else text, SecretSchema)


# Conditional requests


@pytest.mark.parametrize("kind", ["text", "dict", "mapped object", "row", "jsonify"])
def test_a_get_has_an_entity_tag(returning, kind):
    response = returning(ONE[kind])
    tag = response.headers["ETag"]
    assert tag.startswith('"')
    assert response.headers["Cache-Control"] == "no-cache"
    same_again = returning(ONE[kind], **{"If-None-Match": tag})
    assert (same_again.status_code, same_again.data) == (304, b"")
    assert same_again.headers["ETag"] == tag
    assert returning(ONE[kind], **{"If-None-Match": '"other"'}).status_code == 200
    assert returning(lambda: {**VALUES, "id": 2}).headers["ETag"] != tag


@pytest.mark.parametrize("kind", ["text", "dict", "mapped object", "row", "jsonify"])
def test_a_head_is_a_get_without_a_body(returning, kind):
    full, head = returning(ONE[kind]), returning(ONE[kind], send="HEAD")
    assert (head.status_code, head.data) == (200, b"")
    for name in ("ETag", "Content-Type", "Content-Length"):
        assert head.headers[name] == full.headers[name]


@pytest.mark.parametrize("kind", ["text", "dict", "jsonify"])
def test_only_a_200_of_a_get_has_one(returning, kind):
    assert "ETag" not in returning(ONE[kind], method="POST").headers
    everything = {"If-None-Match": "*"}
    response = returning(lambda: (ONE[kind](), 404), **everything)
    assert (response.status_code, "ETag" in response.headers) == (404, False)


def test_a_stream_is_sent_as_it_is(returning):
    response = returning(lambda: flask.Response(iter(["a", "b"]), mimetype="text/plain"))
    assert (response.data, "ETag" in response.headers) == (b"ab", False)


# Refused at import


def test_a_view_without_a_response_is_refused():
    blp = Blueprint("bare", __name__)
    with pytest.raises(TypeError, match=r"bare\(\) has no @blp\.response\(status, Schema\)"):

        @blp.get("/bare/")
        def bare():
            """Return nothing."""

    with pytest.raises(TypeError, match=r"post\(\) has no @blp\.response"):

        @blp.route("/bare/")
        class Bare(MethodView):
            def post(self):
                """Return nothing."""


def test_a_coroutine_function_is_refused(make_app):
    blp = Blueprint("waiting", __name__)
    with pytest.raises(TypeError, match=r"waiting\(\) is a coroutine function \(async def\)"):

        @blp.get("/waiting/")
        @blp.response(200, ThingSchema)
        async def waiting():
            """Return nothing."""

    with pytest.raises(TypeError, match=r"get\(\) is a coroutine function"):

        @blp.route("/waiting/")
        class Waiting(MethodView):
            @blp.response(200, ThingSchema)
            async def get(self):
                """Return nothing."""

    with pytest.raises(TypeError, match=r"coroutine\(\) is a coroutine function"):
        make_app().add_url_rule("/waiting/", view_func=coroutine)


def test_paginate_is_refused():
    with pytest.raises(TypeError, match=r"blp\.paginate is not available: .*page\.respond"):
        Blueprint("paged", __name__).paginate()


# Arguments


class WordSchema(ma.Schema):
    word = ma.fields.String(required=True)
    number = ma.fields.Integer()


@pytest.fixture
def taking(serve):
    """Serve a view that returns the arguments that it received."""

    def start(schema, *, method="GET", **options):
        blp = Blueprint(f"taking{next(names)}", __name__, url_prefix="/api/words")

        @blp.route("/<int:number>/", methods=[method])
        @blp.arguments(schema, **options)
        @blp.response(200)
        def view(*args, **kwargs):
            return {"args": list(args), "kwargs": kwargs}

        return serve(blp)

    return start


URL = "/api/words/5/"


def test_arguments_come_by_position(taking):
    sent = taking(WordSchema, location="query").get(f"{URL}?word=a").json
    assert sent == {"args": [{"word": "a"}], "kwargs": {"number": 5}}


def test_as_kwargs_passes_them_by_name(taking):
    client = taking(WordSchema, location="query", as_kwargs=True)
    assert client.get(f"{URL}?word=a").json == {"args": [], "kwargs": {"word": "a", "number": 5}}
    assert client.get(f"{URL}?word=a&x=1").status_code == 422
    assert client.get(URL).status_code == 422


def test_arg_name_passes_them_by_that_name(taking):
    client = taking(WordSchema, location="query", arg_name="words")
    sent = client.get(f"{URL}?word=a").json
    assert sent == {"args": [], "kwargs": {"words": {"word": "a"}, "number": 5}}


@pytest.mark.parametrize("location", ["query", "json"])
def test_unknown_says_what_becomes_of_other_fields(taking, location):
    method = "GET" if location == "query" else "POST"
    sent = {"query_string" if location == "query" else "json": {"word": "a", "x": "1"}}

    def send(**options):
        return taking(WordSchema, location=location, method=method, **options).open(
            URL, method=method, **sent
        )

    assert send().status_code == 422
    assert send(unknown=ma.EXCLUDE).json["args"] == [{"word": "a"}]
    assert send(unknown=ma.INCLUDE).json["args"] == [{"word": "a", "x": "1"}]


def test_an_error_status_of_its_own(taking):
    client = taking(WordSchema, method="POST", error_status_code=400)
    assert client.post(URL, json={}).status_code == 400


def test_what_describes_arguments_is_in_the_document(taking):
    options = {"description": "A word", "example": {"word": "a"}, "required": False}
    client = taking(WordSchema, method="POST", content_type="application/x+json", **options)
    operation = client.get("/openapi.json").json["paths"]["/api/words/{number}/"]["post"]
    body = operation["requestBody"]
    assert (body["description"], body["required"]) == ("A word", False)
    assert body["content"]["application/x+json"]["example"] == {"word": "a"}
    assert client.post(URL, json={"word": "b"}).json["args"] == [{"word": "b"}]


def test_a_validator_may_abort(taking):
    class Aborting(WordSchema):
        @ma.validates("word")
        def _check(self, word, data_key):
            abort(409, message="Taken.")

    response = taking(Aborting, method="POST").post(URL, json={"word": "a"})
    assert (response.status_code, response.json["detail"]) == (409, "Taken.")


def test_files_and_forms_are_arguments(serve, monkeypatch):
    # A number of which Werkzeug makes a boundary of 72 characters; 70 are allowed.
    monkeypatch.setattr("werkzeug.test.random", lambda: 1.2345678901234567e-05)
    blp = Blueprint("files", __name__, url_prefix="/api/files")

    class FileSchema(ma.Schema):
        upload = Upload()

    @blp.post("/")
    @blp.arguments(WordSchema, location="form")
    @blp.arguments(FileSchema, location="files")
    @blp.response(201)
    def upload(form, files):
        return {**form, "size": len(files["upload"].read())}

    data = {"word": "a", "upload": (io.BytesIO(b"12345"), "a.txt")}
    response = serve(blp).post("/api/files/", data=data)
    assert response.json == {"word": "a", "size": 5}


# MethodView classes


@pytest.fixture
def table(sql):
    sql("CREATE TABLE view_rows (name text)")
    yield lambda: [name for (name,) in sql("SELECT name FROM view_rows")]
    sql("DROP TABLE view_rows")


def insert(name):
    fetch(sql_text(f"INSERT INTO view_rows VALUES ('{name}')"))


def add(name):
    db.session.execute(db.text("INSERT INTO view_rows VALUES (:name)"), {"name": name})


def writing_class(blp, write):
    class Rows(MethodView):
        @blp.response(200)
        def get(self):
            return {"rows": len(fetch(sql_text("SELECT name FROM view_rows")))}

        def _write(self):
            write(request.method.lower())
            if "abort" in request.headers:
                abort(409)
            return {}

        @blp.response(201)
        def post(self):
            return self._write()

        @blp.response(200)
        def put(self):
            return self._write()

        @blp.response(200)
        def patch(self):
            return self._write()

        @blp.response(200)
        def delete(self):
            return self._write()

    return Rows


@pytest.mark.parametrize("write", [insert, add])
@pytest.mark.parametrize("register", ["route", "add_url_rule"])
def test_the_writing_methods_of_a_class_are_transactions(serve, table, write, register):
    blp = Blueprint("rows", __name__, url_prefix="/api/rows")
    view_class = writing_class(blp, write)
    if register == "route":
        assert blp.route("/")(view_class) is view_class
    else:
        blp.add_url_rule("/", view_func=view_class)
    client = serve(blp)
    for method in ("post", "put", "patch", "delete"):
        response = client.open("/api/rows/", method=method, headers={"abort": "1"})
        assert (response.status_code, table()) == (409, [])
    for number, method in enumerate(("post", "put", "patch", "delete"), 1):
        assert client.open("/api/rows/", method=method).status_code in (200, 201)
        assert client.get("/api/rows/").json == {"rows": number}
    assert table() == ["post", "put", "patch", "delete"]
    paths = client.get("/openapi.json").json["paths"]["/api/rows/"]
    assert set(paths) == {"get", "post", "put", "patch", "delete"}


def test_a_get_of_a_class_only_reads(serve, table):
    blp = Blueprint("rows", __name__, url_prefix="/api/rows")

    @blp.route("/")
    class Rows(MethodView):
        @blp.response(200)
        def get(self):
            (insert if "fetch" in request.headers else add)("x")
            return {}

    client = serve(blp)
    for headers in ({}, {"fetch": "1"}):
        with pytest.raises(RuntimeError, match="Only a view for POST"):
            client.get("/api/rows/", headers=headers)
    assert table() == []


def test_undeclared_query_parameters_of_a_class_are_rejected(serve):
    blp = Blueprint("rows", __name__, url_prefix="/api/rows")

    @blp.route("/")
    class Rows(MethodView):
        @blp.arguments(WordSchema(partial=True), location="query")
        @blp.response(200)
        def get(self, words):
            return words

        @blp.response(201)
        def post(self):
            return {}

    client = serve(blp)
    assert client.get("/api/rows/?word=a").json == {"word": "a"}
    assert client.head("/api/rows/?word=a").status_code == 200
    assert client.get("/api/rows/?x=a").status_code == 422
    response = client.post("/api/rows/?word=a")
    assert response.status_code == 422
    assert response.json["errors"][0]["parameter"] == "word"


def test_decorators_on_a_class_hold_for_each_method(serve):
    blp = Blueprint("rows", __name__, url_prefix="/api/rows")

    @blp.route("/")
    @blp.arguments(WordSchema, location="query")
    @blp.alt_response(404)
    @blp.response(200, WordSchema)
    class Rows(MethodView):
        def get(self, words):
            return words

        def post(self, words):
            return words

    client = serve(blp)
    for method in ("get", "post"):
        assert client.open("/api/rows/?word=a", method=method).json == {"word": "a"}
        assert client.open("/api/rows/", method=method).status_code == 422
        operation = client.get("/openapi.json").json["paths"]["/api/rows/"][method]
        assert {"200", "404", "422"} <= set(operation["responses"])


def test_a_subclass_of_a_registered_class_is_registered_too(serve, table):
    blp = Blueprint("rows", __name__, url_prefix="/api/rows")
    base = blp.route("/base/")(writing_class(blp, insert))

    @blp.route("/sub/")
    class Sub(base):
        @blp.response(200)
        def get(self):
            return {"sub": len(fetch(sql_text("SELECT name FROM view_rows")))}

        @blp.response(201)
        def post(self):
            insert("first")
            super().post()
            if "late" in request.headers:
                abort(409)
            return {}

    client = serve(blp)
    assert client.post("/api/rows/sub/", headers={"abort": "1"}).status_code == 409
    assert client.post("/api/rows/sub/", headers={"late": "1"}).status_code == 409
    assert client.put("/api/rows/sub/", headers={"abort": "1"}).status_code == 409
    assert table() == []
    assert client.post("/api/rows/sub/").status_code == 201
    assert client.put("/api/rows/sub/").status_code == 200
    assert client.post("/api/rows/base/").status_code == 201
    assert table() == ["first", "post", "put", "post"]
    assert client.get("/api/rows/sub/").json == {"sub": 4}
    assert client.get("/api/rows/base/").json == {"rows": 4}


def test_a_class_may_have_two_rules_and_some_of_its_methods(serve, table):
    blp = Blueprint("rows", __name__, url_prefix="/api/rows")
    view_class = writing_class(blp, insert)
    blp.route("/")(view_class)
    blp.route("/only/", methods=["GET", "POST"])(view_class)
    client = serve(blp)
    assert client.post("/api/rows/only/", headers={"abort": "1"}).status_code == 409
    assert client.post("/api/rows/only/").status_code == 201
    assert client.put("/api/rows/only/").status_code == 405
    assert client.put("/api/rows/").status_code == 200
    assert table() == ["post", "put"]


# blp.etag


def test_etag_of_flask_smorest_works(serve):
    blp = Blueprint("tagged", __name__, url_prefix="/api/tagged")
    state = dict(VALUES)

    @blp.route("/")
    class Tagged(MethodView):
        @blp.etag
        @blp.response(200, ThingSchema)
        def get(self):
            return state

        @blp.etag
        @blp.arguments(ThingSchema)
        @blp.response(200, ThingSchema)
        def put(self, values):
            blp.check_etag(state, ThingSchema)
            state.update(values)
            return state

        @blp.etag
        @blp.response(204)
        def delete(self):
            blp.check_etag(state, ThingSchema)

    client = serve(blp)
    first = client.get("/api/tagged/").headers["ETag"]
    same = client.get("/api/tagged/", headers={"If-None-Match": first})
    assert (same.status_code, same.data) == (304, b"")
    assert (same.headers["ETag"], same.headers["Cache-Control"]) == (first, "no-cache")
    assert client.put("/api/tagged/", json={"id": 2}).status_code == 428
    stale = {"If-Match": '"stale"'}
    assert client.put("/api/tagged/", json={"id": 2}, headers=stale).status_code == 412
    response = client.put("/api/tagged/", json={"id": 2}, headers={"If-Match": first})
    assert (response.status_code, state["id"]) == (200, 2)
    second = response.headers["ETag"]
    assert client.get("/api/tagged/").headers["ETag"] == second != first
    assert client.get("/api/tagged/", headers={"If-None-Match": first}).status_code == 200
    assert client.delete("/api/tagged/", headers={"If-Match": first}).status_code == 412
    assert client.delete("/api/tagged/", headers={"If-Match": second}).status_code == 204
    documented = client.get("/openapi.json").json["paths"]["/api/tagged/"]["get"]["parameters"]
    names = [each["$ref"].rpartition("/")[2] for each in documented]
    assert names == ["IF_NONE_MATCH", "IF_MATCH"]


# Plain Flask


def test_plain_routes_work_as_in_flask(make_app, table):
    app = make_app()

    @app.route("/plain/", methods=["GET", "POST"])
    def plain():
        db.session.execute(db.text("INSERT INTO view_rows VALUES ('x')"))
        if request.method == "POST":
            db.session.commit()
        return {"a": 1}, 202

    client = app.test_client()
    assert (client.get("/plain/").json, table()) == ({"a": 1}, [])
    assert (client.post("/plain/").status_code, table()) == (202, ["x"])
    with app.app_context():
        db.engine.dispose()


def test_the_session_of_flask_is_empty_and_refuses_writes(make_app):
    app = make_app()
    written = {
        "item": lambda: flask.session.__setitem__("a", 1),
        "update": lambda: flask.session.update(a=1),
        "setdefault": lambda: flask.session.setdefault("a", 1),
        "pop": lambda: flask.session.pop("a", None),
        "clear": lambda: flask.session.clear(),
        "flash": lambda: flask.flash("a"),
    }

    @app.get("/session/<name>")
    def session(name):
        written[name]()

    @app.get("/session/")
    def read():
        return {
            "get": flask.session.get("a"),
            "all": dict(flask.session),
            "in": "a" in flask.session,
        }

    client = app.test_client()
    assert client.get("/session/").json == {"get": None, "all": {}, "in": False}
    for name in written:
        with pytest.raises(RuntimeError, match=r"flask\.session is not available: .*by token"):
            client.get(f"/session/{name}")
