"""Request ids, security headers, log lines, trusted hosts and trusted proxies."""

import io
import json
import logging
import os
import sys

import pytest
from werkzeug.test import create_environ, run_wsgi_app

from phresh import create_app
from phresh.serving.logs import JSONFormatter, LoopHandler, access
from tests.tools.users import PASSWORD

LIST = "/api/cleanings/"


@pytest.fixture(scope="module")
def behind_proxy(settings):
    return create_app({**settings, "TRUSTED_PROXIES": 1}).test_client()


@pytest.mark.parametrize(
    "request_id", ["a", "8e03978e-40d5-43dd-bc93-6894a57f9324", "A_b.c:1/2+3=", "x" * 128]
)
def test_a_well_formed_request_id_of_a_trusted_proxy_is_kept(behind_proxy, client, request_id):
    sent = {"X-Request-Id": request_id}
    assert behind_proxy.get("/healthz", headers=sent).headers["X-Request-Id"] == request_id
    other = client.get("/healthz", headers=sent).headers["X-Request-Id"]  # trusts no proxy
    assert other != request_id
    assert len(other) == 32


@pytest.mark.parametrize("request_id", ["", "x" * 129, "a b", "a,b", "é", 'a"b', "a\tb"])
def test_a_malformed_request_id_is_replaced(behind_proxy, request_id):
    sent = {"X-Request-Id": request_id}
    first, second = (
        behind_proxy.get("/healthz", headers=sent).headers["X-Request-Id"] for _ in range(2)
    )
    assert len(first) == len(second) == 32
    assert first != second


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
def test_every_response_has_a_request_id_and_security_headers(client, lines, method, path, status):
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


def test_https_responses_have_strict_transport_security(client):
    response = client.get(LIST, base_url="https://phresh.example")
    assert response.headers["Strict-Transport-Security"] == "max-age=31536000"


def test_every_log_line_of_a_request_has_its_request_id(lines):
    app = create_app({"DATABASE_URL": "postgresql://127.0.0.1:1/none", "TRUSTED_PROXIES": 1})
    response = app.test_client().get(LIST, headers={"X-Request-Id": "mine"})
    assert response.json["request_id"] == "mine"
    assert [line["logger"] for line in lines()] == ["phresh", "phresh.access"]
    assert {line["request_id"] for line in lines()} == {"mine"}


def test_an_exception_outside_a_request_is_one_line_without_a_request_id():
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


def test_a_log_line_has_no_character_that_a_terminal_obeys():
    path = "".join(map(chr, (0x9B, 0x7F, 0x85, 0x1B, 0xA0, 0x2028, 0x202E, 0xFEFF, 0x1F9F9)))
    record = logging.makeLogRecord({"msg": path, "fields": {"path": f"/{path}"}})
    text = JSONFormatter().format(record)
    assert text.isascii()
    assert text.isprintable()
    assert json.loads(text)["message"] == path
    assert json.loads(text)["path"] == f"/{path}"


def test_the_access_log_has_the_id_of_the_current_user(client, anna, lines):
    anna.client.get("/api/users/me/")
    client.get("/api/users/me/")
    assert [line.get("user_id") for line in lines()] == [anna.id, None]


def test_the_access_log_has_the_id_of_who_logs_in_or_registers(make_app, anna, lines, sql):
    client = make_app().test_client()
    new = {"email": "carl@phresh.io", "username": "carl", "password": PASSWORD}
    client.post("/api/users/", json={"new_user": new})
    client.post("/api/users/", json={"new_user": new})
    for email in (anna.email, "nobody@phresh.example"):
        for password in (PASSWORD, "wrong"):
            client.post("/api/users/login/token/", data={"username": email, "password": password})
    [(carl,)] = sql("SELECT id FROM users WHERE username = 'carl'")
    found = [(line["status"], line.get("user_id")) for line in lines()]
    assert found == [
        *((201, carl), (409, None), (200, anna.id), (400, anna.id)),
        *((400, None), (400, None)),
    ]


def test_bodies_and_query_strings_are_not_logged(client, lines):
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
    for host in ("evil.example", "phresh.example.evil.example", "10.1.2.3:8000", ""):
        for path in (LIST, "/healthzz", "/docs/", "/openapi.json", "/nothing"):
            response = client.get(path, headers={"Host": host})
            assert response.status_code == 400
            assert response.content_type == "application/problem+json"


@pytest.mark.parametrize("host", ["10.1.2.3:8000", "[::1]:8000", "[fd00::1]", "pod-1", ""])
@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/healthz/"])
def test_health_checks_may_use_any_host(settings, path, host):
    client = create_app({**settings, "TRUSTED_HOSTS": "phresh.example"}).test_client()
    assert client.get(path, headers={"Host": host}).status_code == 200
    assert client.head(path, headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("hosts", ["", "phresh.example"])
def test_http_1_1_needs_a_host_and_http_1_0_does_not(settings, hosts):
    app = create_app({**settings, "TRUSTED_HOSTS": hosts} if hosts else settings)
    for path, without in (("/healthz", "200 OK"), (LIST, "400 BAD REQUEST" if hosts else "200 OK")):
        environ = create_environ(path, base_url="http://phresh.example")
        assert run_wsgi_app(app, dict(environ))[1] == "200 OK"
        del environ["HTTP_HOST"]
        assert run_wsgi_app(app, dict(environ))[1] == "400 BAD REQUEST"
        environ["SERVER_NAME"] = "127.0.0.2"
        assert run_wsgi_app(app, {**environ, "SERVER_PROTOCOL": "HTTP/1.0"})[1] == without


@pytest.mark.parametrize(
    ("proxies", "address", "secure"),
    [(0, "127.0.0.1", False), (1, "2.2.2.2", True), (2, "1.1.1.1", True)],
)
def test_forwarded_headers_are_used_only_from_trusted_proxies(
    settings, lines, proxies, address, secure
):
    client = create_app({**settings, "TRUSTED_PROXIES": proxies}).test_client()
    forwarded = {"X-Forwarded-For": "1.1.1.1, 2.2.2.2", "X-Forwarded-Proto": "https, https"}
    response = client.get("/healthz", headers=forwarded)
    assert lines()[-1]["remote_addr"] == address
    assert ("Strict-Transport-Security" in response.headers) == secure


@pytest.fixture
def loop_handler():
    """A handler that writes to a stream, and the calls that it has deferred to the event loop."""
    handler, deferred = LoopHandler(), []
    handler.setStream(io.StringIO())
    handler.defer(deferred.append)
    return handler, deferred


def test_log_lines_of_one_loop_iteration_are_written_together(loop_handler):
    handler, deferred = loop_handler
    for text in ("one", "two"):
        handler.handle(logging.makeLogRecord({"msg": text}))
    assert handler.stream.getvalue() == ""
    assert len(deferred) == 1
    deferred.pop()()
    assert handler.stream.getvalue() == "one\ntwo\n"
    handler.handle(logging.makeLogRecord({"msg": "three"}))
    deferred.pop()()
    assert handler.stream.getvalue() == "one\ntwo\nthree\n"


def test_filters_and_formatters_of_logging_apply_to_the_access_log(loop_handler, client, caplog):
    caplog.set_level(logging.INFO)
    handler, deferred = loop_handler
    style = "%(created)f %(msecs)f %(process)d %(levelname)s %(filename)s %(message)s"
    handler.setFormatter(logging.Formatter(style))
    handler.addFilter(lambda record: record.fields["path"] != "/readyz")
    access.addHandler(handler)
    try:
        client.get("/healthz")
        client.get("/readyz")
    finally:
        access.removeHandler(handler)
    deferred.pop()()
    [line] = handler.stream.getvalue().splitlines()
    created, milliseconds, process, *rest = line.split()
    assert float(created) % 1 * 1000 == pytest.approx(float(milliseconds), abs=0.01)
    assert int(process) == os.getpid()
    assert rest == ["INFO", "logs.py", "request"]


def test_buffered_log_lines_are_written_at_shutdown(loop_handler):
    handler, _ = loop_handler
    handler.handle(logging.makeLogRecord({"msg": "one"}))
    handler.flush()  # logging.shutdown() calls it
    assert handler.stream.getvalue() == "one\n"


def test_a_log_line_that_cannot_be_formatted_does_not_lose_others(loop_handler, capsys):
    handler, deferred = loop_handler
    handler.handle(logging.makeLogRecord({"msg": "%d", "args": ("x",)}))
    handler.handle(logging.makeLogRecord({"msg": "one"}))
    deferred.pop()()
    assert handler.stream.getvalue() == "one\n"
    assert "Logging error" in capsys.readouterr().err


def test_without_a_loop_each_log_line_is_written_immediately():
    handler = LoopHandler()
    handler.setStream(io.StringIO())
    handler.handle(logging.makeLogRecord({"msg": "one"}))
    assert handler.stream.getvalue() == "one\n"
