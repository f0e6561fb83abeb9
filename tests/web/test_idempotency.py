"""Idempotency keys: a POST sent again does no more than the first."""

import json
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest
from werkzeug.serving import make_server

from phresh import create_app
from phresh.database.base import db
from tests.tools.processes import wait_until

LIST = "/api/cleanings/"
NEW = {"name": "Once", "price": 20}


def post(client, key=None, url=LIST, **values):
    headers = {} if key is None else {"Idempotency-Key": key}
    return client.post(url, json={"new_cleaning": {**NEW, **values}}, headers=headers)


def rows(sql):
    return sql("SELECT count(*) FROM cleanings")[0][0]


def test_the_same_key_gives_the_same_answer(client, sql):
    first, second = post(client, "k"), post(client, "k")
    assert (second.status_code, second.data) == (201, first.data)
    assert second.headers["Location"] == first.headers["Location"]
    first.headers["X-Request-Id"] = second.headers["X-Request-Id"]
    assert dict(second.headers) == dict(first.headers)
    assert rows(sql) == 1


def test_it_is_the_first_answer_even_when_the_row_changed_since(anna):
    client = anna.client
    first = post(client, "k")
    assert client.delete(first.headers["Location"]).status_code == 204
    assert post(client, "k").data == first.data


def test_without_a_key_each_request_makes_a_row(client, sql):
    assert post(client).data != post(client).data
    assert rows(sql) == 2


def test_other_keys_are_other_requests(client, sql):
    for key in ("a", "b", "A", "a.b"):
        assert post(client, key).status_code == 201
    assert rows(sql) == 4


def test_each_account_has_keys_of_its_own(client, anna, ben, sql):
    made = {post(someone, "k").json["id"] for someone in (client, anna.client, ben.client)}
    assert len(made) == rows(sql) == 3
    assert post(anna.client, "k").json["owner"] == {"username": "anna"}
    assert rows(sql) == 3


def test_the_path_without_its_slash_is_the_same_path(client):
    assert post(client, "k").data == post(client, "k", "/api/cleanings").data


@pytest.mark.parametrize("price", ["20", "20.0", "20.00", "2e1", '"20"'])
def test_the_same_values_in_other_words_are_the_same_body(client, price):
    first = post(client, "k")
    body = f'{{ "new_cleaning" : {{"price": {price}, "name": "Once"}} }}'
    headers = {"Idempotency-Key": "k", "Content-Type": "application/json"}
    assert client.post(LIST, data=body, headers=headers).data == first.data


def test_another_body_is_422(client, sql):
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
    assert rows(sql) == 1


@pytest.mark.parametrize(
    ("one", "other"), [("abc", '"abc"'), ('a"b', r'"a\"b"'), (r"a\b", r'"a\\b"')]
)
def test_a_key_is_the_same_bare_and_quoted(client, one, other):
    assert post(client, one).data == post(client, other).data


@pytest.mark.parametrize("key", ["x", "!", "~", "x" * 255, '"' + "x" * 255 + '"', "a,b"])
def test_any_visible_ascii_is_a_key(client, key):
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
def test_what_is_no_key_is_422(client, sql, key):
    response = post(client, key)
    assert response.status_code == 422
    assert response.json["errors"][0]["parameter"] == "Idempotency-Key"
    assert rows(sql) == 0


def test_a_refused_request_can_be_sent_again(client, sql):
    assert post(client, "k", price=-1).status_code == 422
    assert sql("SELECT * FROM idempotency_keys") == []
    assert post(client, "k").status_code == 201


def test_a_request_that_fails_leaves_no_key(client, sql, monkeypatch):
    """The key is written in the same transaction as the row."""
    with monkeypatch.context() as patched:
        patched.setattr("phresh.web.idempotency._answered_key", lambda **_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            post(client, "k")
    assert sql("SELECT * FROM idempotency_keys") == []
    assert rows(sql) == 0
    assert post(client, "k").status_code == 201


def test_50_at_once_with_one_key_make_one_row(app, sql):
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: post(app.test_client(), "k"), range(50)))
    made = {answer.data for answer in answers if answer.status_code == 201}
    assert len(made) == 1
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert rows(sql) == 1


def test_while_the_first_runs_the_next_is_409(client, app, sql):
    claim = "INSERT INTO idempotency_keys VALUES ('', 'POST', '/api/cleanings', 'k', '')"
    with app.app_context(), db.engine.connect() as first:
        first.exec_driver_sql(claim)
        response = post(client, "k")
        assert response.status_code == 409
        assert "still runs" in response.json["detail"]
        first.rollback()
    assert post(client, "k").status_code == 201
    assert rows(sql) == 1


def test_a_connection_lost_before_the_answer_is_made_good(settings, client, sql):
    """The client goes away while its row is committed, and sends the request again."""
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
    assert wait_until(lambda: rows(sql) == 1)
    made = sql("SELECT id FROM cleanings")[0][0]
    assert post(client, "k").json["id"] == made
    assert rows(sql) == 1


def test_old_keys_are_removed_and_young_ones_kept(run, client, sql):
    post(client, "old")
    post(client, "young")
    sql("UPDATE idempotency_keys SET created_at = now() - interval '24:00:01' WHERE key = 'old'")
    sql("UPDATE idempotency_keys SET created_at = now() - interval '23:59' WHERE key = 'young'")
    assert run("remove-expired")[1].startswith("Removed 1 idempotency keys, ")
    assert sql("SELECT key FROM idempotency_keys") == [("young",)]
    assert run("remove-expired")[1].startswith("Removed 0 idempotency keys, ")
