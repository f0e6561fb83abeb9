"""Idempotency keys: a repeated POST returns the first response and creates nothing."""

import json
import socket
from concurrent.futures import ThreadPoolExecutor

import marshmallow as ma
import pytest
from flask import jsonify, request
from flask.views import MethodView
from werkzeug.serving import make_server

from phresh import create_app
from phresh.accounts.tokens import login_not_required
from phresh.database.base import db
from phresh.web.blueprint import Blueprint
from tests.tools.processes import wait_until
from tests.tools.users import PASSWORD

LIST = "/api/cleanings/"
NEW = {"name": "Once", "price": 20}


def post(client, key=None, url=LIST, **values):
    headers = {} if key is None else {"Idempotency-Key": key}
    return client.post(url, json={"new_cleaning": {**NEW, **values}}, headers=headers)


def count_cleanings(sql):
    return sql("SELECT count(*) FROM cleanings")[0][0]


def test_the_same_key_returns_the_first_response(client, sql):
    first, second = post(client, "k"), post(client, "k")
    assert (second.status_code, second.data) == (201, first.data)
    assert second.headers["Location"] == first.headers["Location"]
    for name in ("X-Request-Id", "RateLimit"):
        first.headers[name] = second.headers[name]
    assert dict(second.headers) == dict(first.headers)
    assert count_cleanings(sql) == 1


def test_the_first_response_is_returned_even_after_its_cleaning_was_deleted(anna):
    client = anna.client
    first = post(client, "k")
    assert client.delete(first.headers["Location"]).status_code == 204
    assert post(client, "k").data == first.data


def test_each_request_without_a_key_creates_a_cleaning(client, sql):
    assert post(client).data != post(client).data
    assert count_cleanings(sql) == 2


def test_each_new_key_creates_a_cleaning(client, sql):
    for key in ("a", "b", "A", "a.b"):
        assert post(client, key).status_code == 201
    assert count_cleanings(sql) == 4


def test_each_account_has_its_own_keys(client, anna, ben, sql):
    created = {post(someone, "k").json["id"] for someone in (client, anna.client, ben.client)}
    assert len(created) == count_cleanings(sql) == 3
    assert post(anna.client, "k").json["owner"] == {"username": "anna"}
    assert count_cleanings(sql) == 3


def test_a_path_without_trailing_slash_shares_its_keys_with_the_path_with_it(client):
    assert post(client, "k").data == post(client, "k", "/api/cleanings").data


@pytest.mark.parametrize("price", ["20", "20.0", "20.00", "2e1", '"20"'])
def test_the_same_values_in_another_notation_are_the_same_body(client, price):
    first = post(client, "k")
    body = f'{{ "new_cleaning" : {{"price": {price}, "name": "Once"}} }}'
    headers = {"Idempotency-Key": "k", "Content-Type": "application/json"}
    assert client.post(LIST, data=body, headers=headers).data == first.data


def test_a_used_key_with_a_different_body_is_422(client, sql):
    post(client, "k")
    response = post(client, "k", name="Twice")
    assert response.status_code == 422
    assert response.json["errors"] == [
        {
            "parameter": "Idempotency-Key",
            "in": "header",
            "detail": "This key was already used with a different body.",
        }
    ]
    assert count_cleanings(sql) == 1


@pytest.mark.parametrize(
    ("one", "other"), [("abc", '"abc"'), ('a"b', r'"a\"b"'), (r"a\b", r'"a\\b"')]
)
def test_a_key_is_the_same_bare_and_quoted(client, one, other):
    assert post(client, one).data == post(client, other).data


@pytest.mark.parametrize("key", ["x", "!", "~", "x" * 255, '"' + "x" * 255 + '"', "a,b"])
def test_a_key_of_visible_ascii_characters_is_accepted(client, key):
    assert post(client, key).status_code == 201


@pytest.mark.parametrize(
    "key",
    [
        "",
        '""',
        "x" * 256,
        '"' + "x" * 256 + '"',
        "a b",
        '"a b"',
        '"',
        '"a',
        '"a"b"',
        r'"a\b"',
        "é",
        "a\tb",
    ],
)
def test_an_invalid_key_is_422(client, sql, key):
    response = post(client, key)
    assert response.status_code == 422
    assert response.json["errors"][0]["parameter"] == "Idempotency-Key"
    assert count_cleanings(sql) == 0


def test_a_rejected_request_can_be_repeated_with_its_key(client, sql):
    assert post(client, "k", price=-1).status_code == 422
    assert sql("SELECT * FROM idempotency_keys") == []
    assert post(client, "k").status_code == 201


def test_a_failed_request_stores_no_key_and_no_cleaning(client, sql, monkeypatch):
    """The key is written in the same transaction as the row."""
    with monkeypatch.context() as patched:
        patched.setattr("phresh.web.idempotency._answered_key", lambda **_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            post(client, "k")
    assert sql("SELECT * FROM idempotency_keys") == []
    assert count_cleanings(sql) == 0
    assert post(client, "k").status_code == 201


def test_50_concurrent_requests_with_one_key_create_one_cleaning(app, sql):
    with ThreadPoolExecutor(50) as pool:
        responses = list(pool.map(lambda _: post(app.test_client(), "k"), range(50)))
    created = {response.data for response in responses if response.status_code == 201}
    assert len(created) == 1
    assert {response.status_code for response in responses} <= {201, 409}
    assert count_cleanings(sql) == 1


def test_a_second_request_is_409_while_the_first_runs(client, app, sql):
    claim = (
        "INSERT INTO idempotency_keys VALUES ('guest 127.0.0.1', 'POST', '/api/cleanings', 'k', '')"
    )
    with app.app_context(), db.engine.connect() as first:
        first.exec_driver_sql(claim)
        response = post(client, "k")
        assert response.status_code == 409
        assert "is still running" in response.json["detail"]
        first.rollback()
    assert post(client, "k").status_code == 201
    assert count_cleanings(sql) == 1


def test_a_request_repeated_after_a_lost_connection_returns_the_first_response(
    settings, client, sql
):
    """The client disconnects while its request is committed, and sends the request again."""
    app = create_app(settings)
    server = make_server("127.0.0.1", 0, app)
    body = json.dumps({"new_cleaning": NEW}).encode()
    head = f"POST {LIST} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    head += f"Idempotency-Key: k\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port)) as lost:
        lost.sendall(head.encode() + body)
        lost.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    server.handle_request()
    server.server_close()
    with app.app_context():
        db.engine.dispose()
    assert wait_until(lambda: count_cleanings(sql) == 1)
    created_id = sql("SELECT id FROM cleanings")[0][0]
    assert post(client, "k").json["id"] == created_id
    assert count_cleanings(sql) == 1


def test_remove_expired_deletes_only_keys_older_than_24_hours(run, client, sql):
    post(client, "old")
    post(client, "young")
    sql("UPDATE idempotency_keys SET created_at = now() - interval '24:00:01' WHERE key = 'old'")
    sql("UPDATE idempotency_keys SET created_at = now() - interval '23:59' WHERE key = 'young'")
    assert run("remove-expired")[1].startswith("Deleted 1 idempotency keys, ")
    assert sql("SELECT key FROM idempotency_keys") == [("young",)]
    assert run("remove-expired")[1].startswith("Deleted 0 idempotency keys, ")


def from_address(address):
    return {"environ_overrides": {"REMOTE_ADDR": address}}


def test_each_guest_has_keys_of_their_own(client, sql):
    """Otherwise whoever takes the key "1" first has everyone else's POST with it rejected."""
    new = {"json": {"new_cleaning": NEW}, "headers": {"Idempotency-Key": "1"}}
    other = {"json": {"new_cleaning": {**NEW, "name": "Other"}}, "headers": new["headers"]}
    first = client.post(LIST, **new, **from_address("192.0.2.1"))
    assert client.post(LIST, **other, **from_address("192.0.2.2")).status_code == 201
    assert client.post(LIST, **other, **from_address("192.0.2.1")).status_code == 422
    again = client.post(LIST, **new, **from_address("192.0.2.1:1234"))  # as some proxies write it
    assert again.data == first.data
    assert count_cleanings(sql) == 2
    assert client.post(LIST, **new, **from_address("2001:db8::1")).status_code == 201
    assert client.post(LIST, **new, **from_address("2001:db8::2")).status_code == 201
    assert count_cleanings(sql) == 3


def test_offers_and_evaluations_take_keys(anna, ben, make_cleaning, sql):
    job = f"{LIST}{make_cleaning(owner_id=anna.id)}/"
    headers = {"Idempotency-Key": "k"}
    offer = {"json": {"new_offer": {"message": "On Friday"}}, "headers": headers}
    first, again = (ben.client.post(f"{job}offers/", **offer) for _ in range(2))
    assert (again.status_code, again.data) == (201, first.data)
    assert dict(again.headers) == {
        **first.headers,
        **{name: again.headers[name] for name in ("X-Request-Id", "RateLimit")},
    }
    other = {"json": {"new_offer": {"message": "On Monday"}}, "headers": headers}
    assert ben.client.post(f"{job}offers/", **other).status_code == 422
    assert ben.client.post(f"{job}offers/", headers=headers).status_code == 422
    assert anna.client.put(f"{job}offers/ben/").status_code == 200
    path = f"/api/users/ben/evaluations/{job.split('/')[-2]}/"
    rating = {"json": {"evaluation_create": {"overall_rating": 5}}, "headers": headers}
    first, again = (anna.client.post(path, **rating) for _ in range(2))
    assert (again.status_code, again.data) == (201, first.data)
    assert sql("SELECT count(*) FROM evaluations") == [(1,)]


def test_a_response_with_a_secret_is_not_stored(client, sql):
    """The key is ignored: a repeated registration is rejected, a repeated login harmless."""
    new = {"email": "carl@phresh.example", "username": "carl", "password": PASSWORD}
    headers = {"Idempotency-Key": "k"}
    assert client.post("/api/users/", json={"new_user": new}, headers=headers).status_code == 201
    assert client.post("/api/users/", json={"new_user": new}, headers=headers).status_code == 409
    form = {"username": new["email"], "password": PASSWORD}
    tokens = {
        client.post("/api/users/login/token/", data=form, headers=headers).json["access_token"]
        for _ in range(2)
    }
    assert len(tokens) == 2
    assert sql("SELECT * FROM idempotency_keys") == []


def test_a_repeated_request_with_preconditions_returns_the_first_response(anna, client):
    etag = client.get(LIST).headers["ETag"]
    sent = {
        "json": {"new_cleaning": NEW},
        "headers": {"Idempotency-Key": "k", "If-Match": etag},
    }
    first = client.post(LIST, **sent)
    assert first.status_code == 201
    assert client.get(LIST).headers["ETag"] != etag
    assert client.post(LIST, **sent).data == first.data
    sent["headers"]["Idempotency-Key"] = "other"
    assert client.post(LIST, **sent).status_code == 412


@pytest.fixture
def things(make_app):
    """Serve a POST that creates things from what its view reads in some way; count them."""
    made = []

    class ThingSchema(ma.Schema):
        name = ma.fields.String()
        day = ma.fields.Date()

    blp = Blueprint("things", __name__, url_prefix="/api/things")

    def create(thing):
        made.append(thing)
        return {"name": f"{len(made)}"}

    @blp.post("/positional/")
    @login_not_required
    @blp.arguments(ThingSchema)
    @blp.response(201, ThingSchema)
    def create_positional(thing):
        return create(thing)

    @blp.post("/keywords/<key>/")
    @login_not_required
    @blp.arguments(ThingSchema, as_kwargs=True)
    @blp.response(201, ThingSchema)
    def create_keywords(key, **thing):
        return create(thing)

    @blp.route("/class/")
    class Things(MethodView):
        @login_not_required
        @blp.arguments(ThingSchema, arg_name="thing")
        @blp.response(201, ThingSchema)
        def post(self, thing):
            return create(thing)

    @blp.post("/unread/")
    @login_not_required
    @blp.response(201, ThingSchema)
    def create_unread():
        return jsonify(create(request.json)), 201

    @blp.post("/accepted/")
    @login_not_required
    @blp.response(201, ThingSchema)
    @blp.alt_response(202)
    def create_later():
        return create({}), 202

    app = make_app()
    app.extensions["flask-smorest"]["apis"][""]["ext_obj"].register_blueprint(blp)
    return app.test_client(), made


@pytest.mark.parametrize("kind", ["positional", "keywords/a", "class", "unread"])
def test_a_new_resource_takes_keys_however_its_view_reads_the_body(things, kind):
    client, made = things
    path, headers = f"/api/things/{kind}/", {"Idempotency-Key": "k"}
    body = {"name": "x", "day": "2026-01-01"}
    first = client.post(path, json=body, headers=headers)
    assert first.status_code == 201
    assert client.post(path, json=body, headers=headers).data == first.data
    assert client.post(path, json={**body, "name": "y"}, headers=headers).status_code == 422
    assert client.post(path, json={**body, "day": "2026-01-02"}, headers=headers).status_code == 422
    assert len(made) == 1
    assert client.post(path, json=body).data != first.data


def test_a_response_that_cannot_be_stored_is_an_error(things):
    client, _ = things
    with pytest.raises(TypeError, match=r"must be JSON with the status of @blp\.response: 201"):
        client.post("/api/things/accepted/", headers={"Idempotency-Key": "k"})
