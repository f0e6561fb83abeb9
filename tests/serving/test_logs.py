"""Request ids, security headers, log lines, and who may be believed."""

import io
import json
import logging
import sys

import pytest
from werkzeug.test import create_environ, run_wsgi_app

from phresh import create_app
from phresh.serving.logs import JSONFormatter, LoopHandler

LIST = "/api/cleanings/"


@pytest.mark.parametrize(
    "given", ["a", "8e03978e-40d5-43dd-bc93-6894a57f9324", "A_b.c:1/2+3=", "x" * 128]
)
def test_a_well_formed_request_id_is_taken(client, given):
    assert client.get(LIST, headers={"X-Request-Id": given}).headers["X-Request-Id"] == given


@pytest.mark.parametrize("given", ["", "x" * 129, "a b", "a,b", "é", 'a"b', "a\tb"])
def test_any_other_request_id_is_made_anew(client, given):
    response = client.get(LIST, headers={"X-Request-Id": given})
    assert len(response.headers["X-Request-Id"]) == 32
    assert response.headers["X-Request-Id"] != client.get(LIST).headers["X-Request-Id"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        *(
            ("GET", LIST, 200),
            ("GET", "/nothing", 404),
            ("DELETE", LIST, 405),
            ("GET", "/docs", 200),
        ),
        *(("POST", LIST, 415), ("GET", "/healthz", 200), ("GET", "/openapi.json", 200)),
    ],
)
def test_every_answer_has_its_id_and_its_security_headers(client, lines, method, path, status):
    response = client.open(path, method=method)
    assert response.status_code == status
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Referrer-Policy"] == "no-referrer"
    assert "frame-ancestors 'none'" in response.headers["Content-Security-Policy"]
    assert "Strict-Transport-Security" not in response.headers
    (line,) = [line for line in lines() if line["logger"] == "phresh.access"]
    assert line["request_id"] == response.headers["X-Request-Id"]
    assert (line["method"], line["path"], line["status"]) == (method, path, status)
    assert line["duration_ms"] >= 0


def test_behind_tls_browsers_are_told_to_stay_there(client):
    response = client.get(LIST, base_url="https://phresh.example")
    assert response.headers["Strict-Transport-Security"] == "max-age=31536000"


def test_every_line_of_a_request_has_its_id(lines):
    app = create_app({"DATABASE_URL": "postgresql://127.0.0.1:1/none"})
    response = app.test_client().get(LIST, headers={"X-Request-Id": "mine"})
    assert response.json["request_id"] == "mine"
    assert [line["logger"] for line in lines()] == ["phresh", "phresh.access"]
    assert {line["request_id"] for line in lines()} == {"mine"}


def test_an_exception_is_in_its_line_and_a_line_outside_of_requests_has_no_id():
    try:
        raise RuntimeError("why")
    except RuntimeError:
        record = logging.LogRecord("x", logging.ERROR, "", 0, "a\n%s", ("b",), sys.exc_info())
    text = JSONFormatter().format(record)
    assert "\n" not in text
    line = json.loads(text)
    assert line["message"] == "a\nb"
    assert "RuntimeError: why" in line["exception"]
    assert "request_id" not in line


def test_the_line_of_who_is_logged_in_says_who(client, anna, lines):
    anna.client.get("/api/users/me/")
    client.get("/api/users/me/")
    assert [line.get("user_id") for line in lines()] == [anna.id, None]


def test_what_is_sent_is_in_no_line(client, lines):
    secret = "not for the log"
    client.post(LIST, json={"new_cleaning": {"name": secret, "price": -1}})
    client.post(LIST, json={"new_cleaning": {"name": secret, "price": 1}})
    client.get(LIST, query_string={"q": secret})
    assert len(lines()) == 3
    assert secret not in json.dumps(lines())


def test_only_trusted_hosts_are_served(settings):
    settings = {**settings, "TRUSTED_HOSTS": "phresh.example,.shop.example"}
    client = create_app(settings).test_client()
    for host in ("phresh.example", "phresh.example:8000", "a.shop.example", "127.0.0.1:8000"):
        assert client.get("/healthz", headers={"Host": host}).status_code == 200
    for host in ("evil.example", "phresh.example.evil.example", ""):
        response = client.get("/healthz", headers={"Host": host})
        assert response.status_code == 400
        assert response.content_type == "application/problem+json"


def test_a_request_without_a_host_is_400(app):
    environ = create_environ("/healthz")
    assert run_wsgi_app(app, dict(environ))[1] == "200 OK"
    del environ["HTTP_HOST"]
    assert run_wsgi_app(app, environ)[1] == "400 BAD REQUEST"


@pytest.mark.parametrize(
    ("proxies", "addr", "secure"),
    [(0, "127.0.0.1", False), (1, "2.2.2.2", True), (2, "1.1.1.1", True)],
)
def test_only_trusted_proxies_are_believed(settings, lines, proxies, addr, secure):
    client = create_app({**settings, "TRUSTED_PROXIES": proxies}).test_client()
    forwarded = {"X-Forwarded-For": "1.1.1.1, 2.2.2.2", "X-Forwarded-Proto": "https, https"}
    response = client.get("/healthz", headers=forwarded)
    assert lines()[-1]["remote_addr"] == addr
    assert ("Strict-Transport-Security" in response.headers) == secure


@pytest.fixture
def loop():
    """A handler that writes to a stream, and what it left to the event loop."""
    handler, left = LoopHandler(), []
    handler.setStream(io.StringIO())
    handler.defer(left.append)
    return handler, left


def test_the_lines_of_a_turn_are_written_at_once(loop):
    handler, left = loop
    for text in ("one", "two"):
        handler.handle(logging.makeLogRecord({"msg": text}))
    assert handler.stream.getvalue() == ""
    assert len(left) == 1
    left.pop()()
    assert handler.stream.getvalue() == "one\ntwo\n"
    handler.handle(logging.makeLogRecord({"msg": "three"}))
    left.pop()()
    assert handler.stream.getvalue() == "one\ntwo\nthree\n"


def test_what_is_left_is_written_at_the_end(loop):
    handler, _ = loop
    handler.handle(logging.makeLogRecord({"msg": "one"}))
    handler.flush()  # logging.shutdown() calls it
    assert handler.stream.getvalue() == "one\n"


def test_a_line_that_cannot_be_made_costs_no_other(loop, capsys):
    handler, left = loop
    handler.handle(logging.makeLogRecord({"msg": "%d", "args": ("x",)}))
    handler.handle(logging.makeLogRecord({"msg": "one"}))
    left.pop()()
    assert handler.stream.getvalue() == "one\n"
    assert "Logging error" in capsys.readouterr().err


def test_without_a_loop_each_line_is_written():
    handler = LoopHandler()
    handler.setStream(io.StringIO())
    handler.handle(logging.makeLogRecord({"msg": "one"}))
    assert handler.stream.getvalue() == "one\n"
