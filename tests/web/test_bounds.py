"""The work of a request is bounded: long input is rejected before anything is done with it."""

import gzip
import json
import re
import unicodedata
from decimal import Decimal
from types import SimpleNamespace
from urllib.parse import urlencode

import marshmallow as ma
import pytest

from phresh import create_app
from phresh.accounts import schemas
from phresh.web import cors, fields, idempotency, openapi
from phresh.web.blueprint import Blueprint
from phresh.web.json import StrictJSONProvider
from phresh.web.problems import ERRORS_MAX

LIST = "/api/cleanings/"
LOGIN = "/api/users/login/token/"
ME = "/api/profiles/me/"
RATE = "/api/users/ben/evaluations/1/"
FORM = "application/x-www-form-urlencoded"
# Marks of two classes, which normalization sorts in a time that is the square of their number.
MARKS = "a" + "\u0316\u0300" * 15_000


def resolved(document, schema):
    if "$ref" in schema:
        kind, name = schema["$ref"].split("/")[-2:]
        return document["components"][kind][name]
    return schema


def texts(document, schema, where):
    """Yield each schema of a text in a schema, and where it is."""
    schema = resolved(document, schema)
    for each in schema.get("anyOf", []):
        yield from texts(document, each, where)
    for name, each in schema.get("properties", {}).items():
        yield from texts(document, each, f"{where}/{name}")
    if "items" in schema:
        yield where, "maxItems" in schema
        yield from texts(document, schema["items"], f"{where}[]")
    kinds = schema.get("type", [])
    if "string" in ([kinds] if isinstance(kinds, str) else kinds):
        yield where, bool({"maxLength", "enum", "const"} & set(schema))


# Their length is checked for all operations: HEADER_MAX in phresh/web/app.py.
HEADERS = {"If-Match", "If-None-Match"}


def inputs(document):
    """Yield where the document has a text or a list in a request, and whether it has a bound."""
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if method == "parameters":
                continue
            where = f"{method} {path}"
            for parameter in [*item.get("parameters", []), *operation.get("parameters", [])]:
                found = resolved(document, parameter)
                if found["name"] not in HEADERS:
                    yield from texts(document, found["schema"], f"{where} {found['name']}")
            for content in operation.get("requestBody", {}).get("content", {}).values():
                yield from texts(document, content["schema"], where)


def test_every_text_and_list_of_a_request_has_a_bound(client):
    found = list(inputs(client.get("/openapi.json").json))
    assert len(found) > 50
    unbounded = [where for where, is_bounded in found if not is_bounded]
    assert unbounded == [], "Use Text, BoundedString or BoundedList of phresh/web/fields.py."


def test_a_text_without_a_bound_is_found(settings):
    class NoteSchema(ma.Schema):
        text = ma.fields.String()
        names = ma.fields.List(ma.fields.String(validate=ma.validate.Length(max=5)))

    blp = Blueprint("notes", __name__)

    @blp.post("/api/notes/")
    @blp.arguments(NoteSchema)
    @blp.response(204)
    def create_note(_):
        return None

    app = create_app(settings)
    app.extensions["flask-smorest"]["apis"][""]["ext_obj"].register_blueprint(blp)
    found = dict(inputs(app.test_client().get("/openapi.json").json))
    where = "post /api/notes/"
    found = {name: is_bounded for name, is_bounded in found.items() if where in name}
    assert found == {f"{where}/text": False, f"{where}/names": False, f"{where}/names[]": True}


@pytest.fixture
def unreachable(monkeypatch):
    """Fail if a long text is normalized, read as an email or matched by a regular expression."""

    def short(call):
        def checked(*args, **kwargs):
            assert max(len(a) for a in args if isinstance(a, str)) <= 600, f"{call} of a long text"
            return call(*args, **kwargs)

        return checked

    expressions = SimpleNamespace(
        **{name: short(getattr(re, name)) for name in ("fullmatch", "search", "sub")}
    )
    names = ("category", "combining", "normalize")
    characters = SimpleNamespace(**{name: short(getattr(unicodedata, name)) for name in names})
    monkeypatch.setattr(fields, "unicodedata", characters)
    monkeypatch.setattr(schemas, "validate_email", short(schemas.validate_email))
    for module in (fields, idempotency, schemas):
        monkeypatch.setattr(module, "re", expressions)


def pointers(response, status=422):
    assert response.status_code == status, response.text[:500]
    return [error.get("pointer") or error["parameter"] for error in response.json["errors"]]


NEW_USER = {"email": "a@phresh.example", "username": "anna", "password": "four cats on a roof"}
NEW_CLEANING = {"name": "Job", "price": 1}
RATING = {"overall_rating": 5}
BODIES = [
    ("POST", "/api/users/", "new_user", NEW_USER, NEW_USER),
    ("PATCH", "/api/users/me/", "user_update", {"old_password": "x"}, {*NEW_USER, "old_password"}),
    ("POST", LIST, "new_cleaning", NEW_CLEANING, {*NEW_CLEANING, "description", "cleaning_type"}),
    ("PATCH", f"{LIST}1/", "cleaning_update", {}, {*NEW_CLEANING, "description", "cleaning_type"}),
    ("PATCH", ME, "profile_update", {}, {"full_name", "phone_number", "bio", "image"}),
    ("POST", f"{LIST}1/offers/", "new_offer", {}, {"message"}),
    ("POST", RATE, "evaluation_create", RATING, {"headline", "comment", *RATING}),
]
LONG = [MARKS, f"{MARKS}@phresh.example", f"a@{MARKS}.example", "a." * 30_000 + "@x.example"]


@pytest.mark.usefixtures("unreachable")
@pytest.mark.parametrize(("method", "path", "key", "values", "names"), BODIES)
def test_a_long_text_is_rejected_before_it_is_looked_at(anna, method, path, key, values, names):
    for name in names:
        for text in LONG if name == "email" else [MARKS]:
            body = json.dumps({key: {**values, name: text}}, ensure_ascii=False).encode()
            response = anna.client.open(
                path, method=method, data=body, content_type="application/json"
            )
            assert pointers(response) == [f"/{key}/{name}"]


@pytest.mark.usefixtures("unreachable")
@pytest.mark.parametrize(
    "name", ["q", "owner", "after", "limit", "sort", "status", "cleaning_type", "price_min"]
)
def test_a_long_query_parameter_is_rejected_before_it_is_looked_at(client, name):
    value = "a" + "\u0316\u0300" * 600
    assert pointers(client.get(LIST, query_string={name: value})) == [name]


@pytest.mark.usefixtures("unreachable")
@pytest.mark.parametrize("name", ["username", "password", "grant_type"])
def test_a_long_field_of_the_login_is_rejected_before_it_is_looked_at(client, name):
    form = {"username": "a@phresh.example", "password": "x", name: "a" + "\u0316\u0300" * 1_000}
    assert pointers(client.post(LOGIN, data=form), 400) == [name]
    response = client.post(LOGIN, data=form, content_type="multipart/form-data")
    assert pointers(response, 400) == [name]


@pytest.mark.usefixtures("unreachable")
@pytest.mark.parametrize("key", ["k" * 60_000, '"' + "\\\\" * 30_000 + '"'])
def test_a_long_idempotency_key_is_rejected_before_it_is_looked_at(client, key):
    new = {"new_cleaning": {"name": "Job", "price": 1}}
    response = client.post(LIST, json=new, headers={"Idempotency-Key": key})
    assert pointers(response) == ["Idempotency-Key"]


@pytest.mark.parametrize("header", ["Bearer " + "a=b," * 15_000, "Digest " + "a=b," * 15_000])
def test_a_long_authorization_is_not_parsed(client, monkeypatch, header):
    monkeypatch.setattr("werkzeug.datastructures.Authorization.from_header", pytest.fail)
    response = client.get("/api/users/me/", headers={"Authorization": header})
    assert response.status_code == 401


@pytest.mark.parametrize(
    "name",
    [
        *("Accept", "Origin", "Range", "If-Range", "If-Match", "If-None-Match"),
        *("Access-Control-Request-Headers", "Access-Control-Request-Method"),
        *("If-Modified-Since", "If-Unmodified-Since"),
    ],
)
@pytest.mark.parametrize("path", ["/", f"{LIST}1/", "/static/docs.js", "/openapi.json"])
def test_a_header_that_is_too_long_to_be_parsed_is_431(client, monkeypatch, name, path):
    origin = {"Origin": "https://shop.example"}
    with client.get(path, headers={**origin, name: "," * 4_096}) as response:
        assert response.status_code != 431
    monkeypatch.setattr(cors, "set_cors_headers", pytest.fail)
    response = client.get(path, headers={**origin, name: "," * 4_097})
    assert response.status_code == 431
    assert response.json["detail"] == f"{name} is longer than 4096 bytes."


def test_a_preflight_with_many_headers_is_431(client):
    headers = {"Origin": "https://shop.example", "Access-Control-Request-Method": "GET"}
    headers["Access-Control-Request-Headers"] = "," * 60_000
    assert client.options(LIST, headers=headers).status_code == 431


@pytest.mark.parametrize("path", [LIST, f"{LIST}1/", "/healthz", "/docs/"])
def test_a_query_that_is_too_long_is_414(client, path):
    assert client.get(f"{path}?q={'a' * 8_190}").status_code != 414
    response = client.get(f"{path}?q={'a' * 8_191}")
    assert response.status_code == 414
    assert response.json["detail"] == "The query is longer than 8192 bytes."


@pytest.mark.parametrize("kind", ["application/json", FORM, "multipart/form-data"])
def test_the_parameters_of_a_content_type_are_parsed_only_if_few(client, monkeypatch, kind):
    def few(value):
        assert len(value or "") <= 300
        return parse(value)

    from werkzeug.sansio import request as sansio

    parse = sansio.parse_options_header
    monkeypatch.setattr(sansio, "parse_options_header", few)
    long = f"{kind}; boundary=b{';a=b' * 15_000}"
    assert client.post(LOGIN, data=b"-", content_type=long).status_code in (400, 415)
    new = json.dumps({"new_cleaning": {"name": "Job", "price": 1}})
    status = 201 if kind == "application/json" else 415
    assert client.post(LIST, data=new, content_type=long).status_code == status


@pytest.mark.parametrize(("length", "error"), [(70, "invalid_grant"), (71, "invalid_request")])
def test_a_boundary_has_at_most_70_characters(client, length, error):
    """RFC 2046 5.1.1."""
    boundary = "9" * length
    part = '--{}\r\nContent-Disposition: form-data; name="{}"\r\n\r\n{}\r\n'
    body = part.format(boundary, "username", "a@phresh.example")
    body += part.format(boundary, "password", "x") + f"--{boundary}--\r\n"
    kind = f"multipart/form-data; boundary={boundary}"
    response = client.post(LOGIN, data=body, content_type=kind)
    assert (response.status_code, response.json["error"]) == (400, error)
    if length > 70:
        assert response.json["detail"] == "The boundary is longer than 70 characters."


def test_a_form_has_at_most_20_parts_and_16_kib(client):
    form = {"username": "a@phresh.example", "password": "x"}
    more = {f"field-{number}": "" for number in range(18)}
    kind = "multipart/form-data"
    assert client.post(LOGIN, data={**form, **more}, content_type=kind).status_code == 400
    more["one more"] = ""
    assert client.post(LOGIN, data={**form, **more}, content_type=kind).status_code == 413
    assert client.post(LOGIN, data={**form, **more}).status_code == 400
    body = urlencode(form) + "&x="
    for size, status in ((16 * 1024, 400), (16 * 1024 + 1, 413)):
        response = client.post(LOGIN, data=body.ljust(size, "a"), content_type=FORM)
        assert response.status_code == status


def many(count):
    return {f"field-{number}": 1 for number in range(count)}


@pytest.mark.parametrize("key", ["new_cleaning", "other"])
def test_a_body_with_many_unknown_members_has_20_errors(client, key):
    for body in (many(3_000), {key: many(3_000)}, {**many(3_000), key: {}}):
        found = pointers(client.post(LIST, json=body))
        assert len(found) == (2 if body.keys() == {"other"} else ERRORS_MAX)


def test_a_query_with_many_unknown_parameters_has_20_errors(client, anna, make_cleaning):
    query = urlencode(many(500))
    one = f"{LIST}{make_cleaning(owner_id=anna.id)}/"
    for path in (LIST, one, "/api/feed/cleanings/"):
        found = client.get(f"{path}?{query}")
        assert pointers(found) == [f"field-{number}" for number in range(ERRORS_MAX)]
        assert len(found.data) < 5_000


def test_no_error_is_made_of_more_than_20_unknown_members(client, monkeypatch):
    """To make them, and not to return them, would take the time all the same."""
    made = []
    monkeypatch.setattr(
        "marshmallow.error_store.ErrorStore.store_error", lambda *a, **_: made.append(a)
    )
    client.post(LIST, json={"new_cleaning": many(3_000)})
    client.post(LIST, json=many(3_000))
    client.get(LIST, query_string=many(300))
    assert len(made) <= 60


def test_at_most_20_errors_are_returned_wherever_they_are(client):
    types = [("cleaning_type", "x")] * 20
    errors = client.get(LIST, query_string=[*types, ("limit", "x"), ("y", "")]).json["errors"]
    assert len(errors) == ERRORS_MAX
    assert pointers(client.get(LIST, query_string=types * 2)) == ["cleaning_type"]


def test_an_error_repeats_no_more_than_the_start_of_a_long_name(client):
    name = "~" * 30_000
    [_, pointer] = pointers(client.post(LIST, json={name: 1}))
    assert pointer == "/" + "~0" * 100 + "..."
    [parameter] = pointers(client.get(LIST, query_string={"k" * 5_000: 1}))
    assert parameter == "k" * 100 + "..."


@pytest.mark.parametrize(
    "query",
    [
        *("%61fter={0}&after={0}", "after={0}&%61fter={0}", "after={0}&after={0}"),
        *("%61fter={0}&%61fter={0}", "limit=1&after={0}&aft%65r={0}"),
    ],
)
def test_a_parameter_is_given_more_than_once_however_its_name_is_encoded(client, query):
    response = client.get(f"{LIST}?{query.format('LWlkIDU')}")
    assert pointers(response) == ["after"]
    assert response.json["errors"][0]["detail"] == "Given more than once."
    assert client.get(f"{LIST}?%61fter=LWlkIDU").status_code == 200


@pytest.mark.parametrize("number", ["1e999999999", "-1E+1001", "1e-999999999", "0." + "1" * 60_000])
def test_a_number_of_many_digits_is_no_number_for_any_field(client, number):
    """Whatever makes an integer of it would write down all its digits."""

    class NumbersSchema(ma.Schema):
        integer = ma.fields.Integer(strict=True)
        decimal = ma.fields.Decimal()
        number = ma.fields.Float()
        flag = ma.fields.Boolean()
        text = ma.fields.String()

    values = dict.fromkeys(NumbersSchema().fields, 0)
    body = json.dumps(values).replace("0", number)
    loaded = StrictJSONProvider(client.application).loads(body)
    assert set(NumbersSchema().validate(loaded)) == set(NumbersSchema().fields)
    response = client.post(
        LIST,
        data='{"new_cleaning": {"name": "x", "price": ' + number + "}}",
        content_type="application/json",
    )
    assert pointers(response) == ["/new_cleaning/price"]


@pytest.mark.parametrize("number", ["0.1", "1e2", "99999999.99", "1." + "0" * 2_000, "1e-1000"])
def test_a_fraction_is_read_as_it_is(app, number):
    assert StrictJSONProvider(app).loads(number) == Decimal(number)


def test_the_document_is_made_once_for_all_apps_with_the_same_settings(make_app, monkeypatch):
    first = make_app().test_client().get("/openapi.json")
    app = make_app()
    api = app.extensions["flask-smorest"]["apis"][""]["ext_obj"]
    monkeypatch.setattr(type(api), "_make_spec", pytest.fail)
    monkeypatch.setattr(app.json, "dumps", pytest.fail)
    client = app.test_client()
    assert client.get("/openapi.json").data == first.data
    assert client.get("/openapi.json").data == first.data


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        *((None, None), ("identity", None), ("br", None), ("gzip;q=0", None), ("", None)),
        *(("gzip", "gzip"), ("GZIP", "gzip"), ("br, gzip, deflate, zstd", "gzip"), ("*", "gzip")),
        *(("gzip;q=0.5", "gzip"), ("gzip;q=0.5, identity", None), ("*;q=0", None)),
    ],
)
def test_the_document_is_compressed_for_clients_that_accept_it(client, accepted, coding):
    plain = client.get("/openapi.json")
    headers = {} if accepted is None else {"Accept-Encoding": accepted}
    response = client.get("/openapi.json", headers=headers)
    assert response.headers.get("Content-Encoding") == coding
    assert "Accept-Encoding" in response.headers["Vary"]
    assert response.content_length == len(response.data)
    tag = response.headers["ETag"]
    if coding is None:
        assert (response.data, tag) == (plain.data, plain.headers["ETag"])
    else:
        assert gzip.decompress(response.data) == plain.data
        assert len(response.data) < len(plain.data) / 8
        assert tag != plain.headers["ETag"]  # another representation (RFC 9110 8.8.3.3)
    again = client.get("/openapi.json", headers={**headers, "If-None-Match": tag})
    assert (again.status_code, again.data, again.headers["ETag"]) == (304, b"", tag)
    assert again.headers["Vary"] == response.headers["Vary"]


def test_the_document_is_compressed_once(client, monkeypatch):
    first = client.get("/openapi.json", headers={"Accept-Encoding": "gzip"})
    monkeypatch.setattr(openapi, "compress", pytest.fail)
    assert client.get("/openapi.json", headers={"Accept-Encoding": "gzip"}).data == first.data


def test_the_document_has_an_entity_tag(client):
    response = client.get("/openapi.json")
    tag = response.headers["ETag"]
    assert response.headers["Cache-Control"] == "no-cache"
    for method in ("GET", "HEAD"):
        again = client.open("/openapi.json", method=method, headers={"If-None-Match": tag})
        assert (again.status_code, again.data, again.headers["ETag"]) == (304, b"", tag)
    head = client.head("/openapi.json")
    assert (head.status_code, head.data, head.headers["ETag"]) == (200, b"", tag)
    assert head.headers["Content-Type"] == "application/json"
