"""HTTP/1.1 of the worker, byte for byte: accepted and rejected requests, and the responses."""

import os
import re
import signal
import threading
import time
from importlib.resources import files

import pytest

from tests.tools.cluster import Phresh
from tests.tools.processes import copy_checkout, wait_until
from tests.tools.raw_http import RawConnection, request

PATH = "/api/cleanings/"
LIMIT = 64 * 1024  # of a body and of a head
OVER_LIMIT = LIMIT + 1
BODY = b'{"seen": 1}'  # an unknown field: the error names it, so the body has arrived
TYPE = "Content-Type: application/json"
CHUNKED = "Transfer-Encoding: chunked"
UPGRADE = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk")
LARGE_FILE = max(
    (files("flask_swagger_ui") / "dist").glob("*.js"), key=lambda file: file.stat().st_size
)
ROUTES = """
import gc
app.add_url_rule("/frozen", "frozen", lambda: str(gc.get_freeze_count()))
app.add_url_rule("/none", "none", lambda: ("", 204))
app.add_url_rule("/broken", "broken", lambda: ("", {"X-Broken": "\u2603"}))
wrapped = app.wsgi_app


def plain(environ, start_response):
    if environ["PATH_INFO"] != "/plain":
        return wrapped(environ, start_response)
    start_response("200 OK", [("X-Plain", "Content-Length: 9")])
    return [b"a", b"b"]


app.wsgi_app = plain
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    checkout = copy_checkout(tmp_path_factory.mktemp("worker") / "checkout")
    with (checkout / "wsgi.py").open("a") as file:
        file.write(ROUTES)
    # A trusted proxy, so that a request can have an id by which its response is known.
    settings = {"WORKERS": "1", "TRUSTED_PROXIES": "1"}
    served = Phresh(checkout, "postgresql://127.0.0.1:1/none", **settings)
    yield served
    assert served.stop() == 0


def post(*headers, body=BODY, **options):
    return request(PATH, TYPE, *headers, method="POST", body=body, **options)


def post_with_length(body=BODY, *headers, **options):
    return post(f"Content-Length: {len(body)}", *headers, body=body, **options)


def chunked(*chunks, end=b"0\r\n\r\n"):
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + end


def body_was_read(response):
    return response.status == 422 and b'"/seen"' in response.body


def assert_rejected(connection, status):
    """Check that the worker itself sent an error and closed the connection."""
    response = connection.read_response()
    assert response.status == response.json["status"] == status
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.headers["Connection"] == "close"
    assert "Date" in response.headers
    assert connection.is_closed()


# Pipelining and keep-alive


@pytest.mark.parametrize("count", [2, 20])
def test_pipelined_requests_get_responses_in_order(connect, count):
    names = [str(number) for number in range(count)]
    connection = connect().send(
        b"".join(request("/healthz", f"X-Request-Id: {name}") for name in names)
    )
    assert [connection.read_response().headers["X-Request-Id"] for _ in names] == names


def test_pipelined_bodies_belong_to_their_requests(connect):
    connection = connect().send(
        (post_with_length() + request() + post(CHUNKED, body=chunked(BODY))) * 3
    )
    for _ in range(3):
        assert body_was_read(connection.read_response())
        assert connection.read_response().status == 200
        assert body_was_read(connection.read_response())


@pytest.mark.parametrize(
    "text", [request(), post_with_length(), post(CHUNKED, body=chunked(BODY[:4], BODY[4:]))]
)
def test_a_request_can_arrive_in_any_pieces(connect, text):
    connection = connect().send(*(text[index : index + 1] for index in range(len(text))))
    full = connection.read_response().status
    assert full in (200, 422)
    for index in range(1, len(text)):
        connection.send(text[:index], text[index:])
        assert connection.read_response().status == full


def test_empty_lines_before_a_request_are_ignored(connect):
    assert connect().send(b"\r\n\r\n" + request()).read_response().status == 200


@pytest.mark.parametrize(
    ("version", "headers", "is_kept_alive"),
    [
        ("HTTP/1.1", [], True),
        ("HTTP/1.1", ["Connection: keep-alive"], True),
        ("HTTP/1.1", ["Connection: close"], False),
        ("HTTP/1.1", ["connection: TE, Close"], False),
        ("HTTP/1.0", [], False),
        ("HTTP/1.0", ["Connection: keep-alive"], True),
    ],
)
@pytest.mark.parametrize("target", ["/healthz", "/nothing"])
def test_a_connection_is_kept_alive_as_the_client_requests(
    connect, target, version, headers, is_kept_alive
):
    text = request(target, *headers, version=version)
    connection = connect().send(text)
    assert connection.read_response().headers["Connection"] == (
        "keep-alive" if is_kept_alive else "close"
    )
    if is_kept_alive:
        assert connection.send(text).read_response().headers["Connection"] == "keep-alive"
    else:
        assert connection.is_closed()


def test_requests_after_connection_close_are_ignored(connect):
    connection = connect().send(request("/healthz", "Connection: close") + request())
    assert connection.read_response().status == 200
    assert connection.is_closed()


@pytest.mark.parametrize("text", [request(), post_with_length(), request("/nothing")])
def test_a_client_that_stops_sending_gets_all_responses(connect, text):
    connection = connect().send(text * 2).end_sending()
    assert connection.read_response().status == connection.read_response().status
    assert connection.is_closed()


# Responses


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (request(), 200),
        (request("/nothing"), 404),
        (request(PATH, method="DELETE"), 405),
        (post_with_length(), 422),
        (post_with_length(b""), 400),
        (request(f"/docs/swagger-ui/{LARGE_FILE.name}"), 200),
        (request("/none"), 204),
    ],
)
def test_every_response_has_request_id_date_and_connection_headers(connect, text, status):
    response = connect().send(text).read_response()
    assert response.status == status
    assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} [\d:]{8} GMT", response.headers["Date"])
    assert response.headers["Connection"] == "keep-alive"
    assert len(response.headers["X-Request-Id"]) == 32


@pytest.mark.parametrize(
    "target", ["/healthz", "/nothing", "/docs/", "/plain", f"/docs/swagger-ui/{LARGE_FILE.name}"]
)
def test_head_returns_the_content_length_and_no_body(connect, target):
    connection = connect().send(request(target, method="HEAD") + request(target))
    head, full = connection.read_response(bodiless=True), connection.read_response()
    assert head.status == full.status
    assert int(head.headers["Content-Length"]) == len(full.body) > 0


@pytest.mark.parametrize(
    ("target", "status"), [("/none", 204), (f"/docs/swagger-ui/{LARGE_FILE.name}", 304)]
)
def test_a_response_without_a_body_has_no_content_length(connect, target, status):
    connection = connect().send(request(target, "If-Modified-Since: Fri, 31 Dec 2100 00:00:00 GMT"))
    response = connection.read_response()
    assert (response.status, response.headers["Content-Length"]) == (status, None)
    assert connection.send(request()).read_response().status == 200


def test_content_length_inside_another_header_is_ignored(connect):
    response = connect().send(request("/plain")).read_response()
    assert (response.headers["Content-Length"], response.body) == ("2", b"ab")


def test_a_response_that_cannot_be_sent_becomes_500(connect):
    assert_rejected(connect().send(request("/broken")), 500)


def test_a_slow_reader_receives_large_files_completely(connect, served):
    count = 4  # more than the kernel buffers
    connection = connect(receive_buffer=8192).send(
        request(f"/docs/swagger-ui/{LARGE_FILE.name}") * count
    )
    time.sleep(0.2)
    assert served.send("GET", "/healthz").status == 200
    for _ in range(count):
        assert connection.read_response().body == LARGE_FILE.read_bytes()
    assert connection.send(request()).read_response().status == 200


# Bodies


@pytest.mark.parametrize(
    "body",
    [
        chunked(BODY),
        chunked(*(BODY[index : index + 1] for index in range(len(BODY)))),
        chunked(BODY, end=b"0\r\nX-Trailer: 1\r\n\r\n"),
        b'B;name="value"\r\n' + BODY + b"\r\n0;last\r\n\r\n",
    ],
)
@pytest.mark.parametrize("coding", [CHUNKED, "Transfer-Encoding: Chunked "])
def test_a_chunked_body_is_read(connect, coding, body):
    connection = connect().send(post(coding, body=body) + request())
    assert body_was_read(connection.read_response())
    assert connection.read_response().status == 200


@pytest.mark.parametrize("excess", [0, 1])
@pytest.mark.parametrize("is_chunked", [False, True])
def test_the_body_limit_is_64_kib(connect, excess, is_chunked):
    body = BODY.ljust(LIMIT + excess)
    connection = connect().send(
        post(CHUNKED, body=chunked(body)) if is_chunked else post_with_length(body)
    )
    response = connection.read_response()
    assert response.status == 413 if excess else body_was_read(response)
    assert response.headers["Connection"] == ("close" if excess else "keep-alive")


TOO_LONG = f"Content-Length: {LIMIT + 1}"


@pytest.mark.parametrize("headers", [[TOO_LONG], [TOO_LONG, "Expect: 100-continue"]])
def test_a_too_large_content_length_is_rejected_before_the_body_arrives(connect, headers):
    began = time.monotonic()
    connection = connect().send(post(*headers, body=b""))
    assert connection.read_response().status == 413
    assert connection.is_closed()
    assert time.monotonic() - began < 1


def test_a_too_large_chunked_body_is_rejected_before_it_ends(connect):
    connection = connect().send(post(CHUNKED, body=b"ffffff\r\n".ljust(LIMIT + 100)))
    assert connection.read_response().status == 413
    assert connection.is_closed()


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (post("Content-Length: 3000000", body=b""), 413),
        (post(CHUNKED, body=b"ffffff\r\n"), 413),
        (b"NONSENSE\r\n", 400),
        (request("/healthz", "X: "), 431),
    ],
)
def test_a_client_that_keeps_sending_can_read_the_error(connect, text, status):
    connection = connect().send(text.removesuffix(b"\r\n\r\n") if status == 431 else text)
    connection.send(*[b" " * 100_000] * 30)
    assert connection.read_response().status == status
    assert connection.is_closed()


@pytest.mark.parametrize(
    "text",
    [
        post_with_length()[:-1],
        post(CHUNKED, body=chunked(BODY, end=b"")),
        post(CHUNKED, body=chunked(BODY)[:-2]),
        post_with_length(BODY, *UPGRADE)[:-1],
        post(CHUNKED, *UPGRADE, body=chunked(BODY, end=b"")),
    ],
)
def test_an_incomplete_body_is_400(connect, text):
    connection = connect().send(text).end_sending()
    assert connection.read_response().status == 400
    assert connection.is_closed()


@pytest.mark.parametrize("text", [b"", b"G", request()[:-1]])
def test_an_incomplete_head_gets_no_response(connect, text):
    assert connect().send(text).end_sending().is_closed()


@pytest.mark.parametrize("expected", ["100-continue", "100-Continue "])
def test_expect_100_continue_gets_100(connect, expected):
    connection = connect().send(post_with_length(BODY, f"Expect: {expected}").removesuffix(BODY))
    assert connection.read_response().status == 100
    assert body_was_read(connection.send(BODY).read_response())
    assert connection.send(request()).read_response().status == 200


def test_http_1_0_gets_no_100_continue(connect):
    text = post_with_length(BODY, "Expect: 100-continue", version="HTTP/1.0")
    assert body_was_read(connect().send(text).read_response())


# Malformed requests


def post_head(*lines):
    return b"\r\n".join((b"POST / HTTP/1.1", b"Host: a", *lines, b"", b""))


MALFORMED = {
    "bad method": b"N@NSENSE / HTTP/1.1\r\n\r\n",
    "unknown method and protocol": b"NONSENSE / RTSP/1.0\r\n\r\n",
    "unknown method alone": b"NONSENSE\r\n",
    "no method": b" / HTTP/1.1\r\n\r\n",
    "bad version": b"GET / HTTP/1.x\r\n\r\n",
    "version 1.2": b"GET / HTTP/1.2\r\n\r\n",
    "unknown protocol": b"GET / HTTQ/1.1\r\n\r\n",
    "space in target": b"GET /a b HTTP/1.1\r\n\r\n",
    "relative target": b"GET healthz HTTP/1.1\r\n\r\n",
    "non-ASCII bytes in target": b"GET /\xc3\xa4 HTTP/1.1\r\n\r\n",
    "NUL in target": b"GET /\0 HTTP/1.1\r\n\r\n",
    "header without colon": post_head(b"Nonsense"),
    "header without name": post_head(b": value"),
    "space before colon": post_head(b"Content-Length : 0"),
    "space before header": b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
    "folded header": post_head(b"A: b", b" c"),
    "bare LF": b"GET / HTTP/1.1\nHost: a\n\n",
    "bare LF after a header": post_head(b"A: b\nC: d"),
    "bare CR in header": post_head(b"A: b\rC: d"),
    "NUL in header": post_head(b"A: \0"),
    "non-ASCII bytes in header name": post_head(b"\xc3\xa4: a"),
    "two hosts": post_head(b"Host: b"),
    "two content types": post_head(b"Content-Type: text/plain", b"Content-Type: application/json"),
    "two lengths": post_head(b"Content-Length: 1", b"Content-Length: 1") + b"a",
    "list of lengths": post_head(b"Content-Length: 1, 1") + b"a",
    "length and coding": post_head(b"Content-Length: 1", b"Transfer-Encoding: chunked"),
    "coding and length": post_head(b"Transfer-Encoding: chunked", b"Content-Length: 1"),
    "empty length": post_head(b"Content-Length:"),
    "negative length": post_head(b"Content-Length: -1"),
    "length with a plus sign": post_head(b"Content-Length: +1"),
    "hexadecimal length": post_head(b"Content-Length: 0x1"),
    "huge length": post_head(b"Content-Length: 99999999999999999999"),
    "empty coding": post_head(b"Transfer-Encoding:"),
    "chunked is not the last coding": post_head(b"Transfer-Encoding: chunked, gzip"),
    "bad chunk size": post_head(b"Transfer-Encoding: chunked") + b"g\r\n",
    "negative chunk size": post_head(b"Transfer-Encoding: chunked") + b"-1\r\n",
    "huge chunk size": post_head(b"Transfer-Encoding: chunked") + b"fffffffffffffffff\r\n",
    "chunk longer than its size": post_head(b"Transfer-Encoding: chunked") + b"1\r\nab\r\n",
    "chunk size with bare LF": post_head(b"Transfer-Encoding: chunked") + b"1\na\r\n",
    "chunk extension with bare LF": post_head(b"Transfer-Encoding: chunked") + b"1;a\nb\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(32)),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a response": b"HTTP/1.1 200 OK\r\n\r\n",
}


@pytest.mark.parametrize("text", MALFORMED.values(), ids=MALFORMED)
def test_malformed_http_is_400(connect, text):
    assert_rejected(connect().send(text), 400)


@pytest.mark.parametrize(
    "text", [MALFORMED["bad method"], MALFORMED["two lengths"], MALFORMED["TLS"]]
)
def test_requests_before_malformed_http_get_responses(connect, text):
    connection = connect().send(request() + post_with_length() + text)
    assert connection.read_response().status == 200
    assert body_was_read(connection.read_response())
    assert_rejected(connection, 400)


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (b"NONSENSE / HTTP/1.1\r\n\r\n", 501),
        (b"\r\nNONSENSE / HTTP/1.1\r\n\r\n", 501),
        (b"get / HTTP/1.1\r\n\r\n", 501),
        (b"PLAY / HTTP/1.1\r\n\r\n", 501),
        (request(version="HTTP/2.0"), 505),
        (request(version="HTTP/0.9"), 505),
        (b"GET /\r\n\r\n", 505),
        (post("Transfer-Encoding: gzip, chunked", body=b""), 501),
        (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (post("Transfer-Encoding: gzip", "Transfer-Encoding: chunked", body=b""), 501),
        (post("Transfer-Encoding: gzip, chunked", *UPGRADE, body=b""), 501),
        (request("/healthz", *["A: b"] * 100), 431),
        (request("/healthz", "A: " + "b" * OVER_LIMIT), 431),
        (request("/healthz", "A" * OVER_LIMIT + ": b"), 431),
        (request("/" + "a" * OVER_LIMIT), 431),
        (request()[:-2] + b"A: " + b"b" * OVER_LIMIT, 431),
        (b"GET /" + b"a" * OVER_LIMIT, 431),
        (b"\r\n" * OVER_LIMIT, 431),
        (post(CHUNKED, body=chunked(BODY, end=b"0\r\nA: ") + b"b" * OVER_LIMIT), 431),
        (post(CHUNKED, body=b"1;" + b"a" * OVER_LIMIT), 431),
    ],
    ids=range(20),
)
def test_unsupported_or_too_large_requests_are_rejected(connect, text, status):
    assert_rejected(connect().send(text), status)


@pytest.mark.parametrize(
    "text",
    [
        request("/healthz", *["A: b"] * 99),
        request("/healthz", "A: " + "b" * 60_000),
        request("/healthz?" + "a" * 8192),
        request("/" + "a" * 60_000),
    ],
    ids=["many headers", "long header", "long query", "long path"],
)
def test_a_long_head_is_accepted(connect, text):
    connection = connect().send(text * 3)
    for _ in range(3):
        assert connection.read_response().status == (404 if b"GET /aaa" in text else 200)
    assert connection.send(request()).read_response().status == 200


# Headers and targets


@pytest.mark.parametrize(
    ("name", "is_accepted"),
    [("x-REQUEST-id", True), ("X_Request_Id", False), ("X_Request-Id", False)],
)
def test_a_header_with_an_underscore_is_dropped(connect, name, is_accepted):
    response = connect().send(request("/healthz", f"{name}: mine")).read_response()
    assert (response.headers["X-Request-Id"] == "mine") == is_accepted


def test_whitespace_around_a_header_value_is_stripped(connect):
    connection = connect().send(request("/healthz", "X-Request-Id: \t mine \t "))
    assert connection.read_response().headers["X-Request-Id"] == "mine"


def test_a_trailer_does_not_become_a_header(connect):
    body = chunked(BODY, end=b"0\r\nX-Request-Id: mine\r\n\r\n")
    connection = connect().send(post(CHUNKED, body=body) + request())
    for status in 422, 200:
        response = connection.read_response()
        assert (response.status, len(response.headers["X-Request-Id"])) == (status, 32)


def test_repeated_headers_are_joined_to_a_list(connect):
    target = f"/docs/swagger-ui/{LARGE_FILE.name}"
    etag = connect().send(request(target)).read_response().headers["ETag"]
    headers = ['If-None-Match: "other"', f"If-None-Match: {etag}", 'If-None-Match: "last"']
    assert connect().send(request(target, *headers)).read_response().status == 304


@pytest.mark.parametrize(
    ("target", "status"),
    [
        *(("http://x/healthz", 200), ("HTTP://x:80/healthz?a=b", 200), ("http://x/healthz/", 200)),
        *(("http://x", 200), ("http://x?a=/healthz", 200), ("http://x//a", 404)),
        *(
            ("http://[::1]:80/healthz", 200),
            ("http://a@x/healthz", 200),
        ),
        *(("/healthz?", 200), ("/healthz?%00%ff=%zz", 200), ("/%68ealthz", 200), ("/", 200)),
        *(("/%2F", 200), ("/a%2Fb", 404), ("//a", 404), ("/healthz%2Fa", 404)),
        *(("/%00", 404), ("/healthz%00", 404), ("/%ff%fe", 404), ("/%C3%A4", 404), ("/%", 404)),
        *(("/%zz", 404), ("/%0d%0aA:b", 404), ("/..%2fhealthz", 404)),
        *(("/docs/swagger-ui/%2e%2e/index.html", 404), ("/docs/swagger-ui/%00", 404)),
        ("/docs/swagger-ui/..%2f..%2f__init__.py", 404),
    ],
)
def test_unusual_targets_get_the_expected_status(connect, target, status):
    connection = connect().send(request(target))
    assert connection.read_response().status == status
    assert connection.send(request()).read_response().status == 200


@pytest.mark.parametrize(
    "text",
    [
        request("*", method="OPTIONS"),
        request("localhost:443", method="CONNECT"),
        request("localhost:443", "Content-Length: 3", method="CONNECT", body=b"abc"),
        request("localhost:443", "Content-Length: 99999999", method="CONNECT"),
        request(method="CONNECT"),
        request(method="TRACE"),
        request("http://", version="HTTP/1.1"),
        b"GET /x HTTP/1.1\r\nHost:\r\n\r\n",
        b"GET /x HTTP/1.1\r\nHost: \xff[/:a\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_unsupported_methods_targets_and_hosts_get_4xx(connect, text):
    assert 400 <= connect().send(text).read_response().status < 500


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (request("/healthz", *UPGRADE), 200),
        (post_with_length(BODY, *UPGRADE), 422),
        (post(CHUNKED, *UPGRADE, body=chunked(BODY[:4], BODY[4:])), 422),
        (request("/healthz", "Connection: Upgrade", "Upgrade: websocket"), 200),
    ],
)
def test_an_upgrade_is_ignored_and_the_connection_closed(connect, text, status):
    for index in 0, len(text) - 20, len(text) - 3:
        connection = connect().send(text[:index], text[index:] + request())
        response = connection.read_response()
        assert response.status == status
        assert body_was_read(response) or status == 200
        assert response.headers["Connection"] == "close"
        assert connection.is_closed()


@pytest.mark.parametrize(
    "body", [BODY.ljust(LIMIT), b" " * (LIMIT + 1)], ids=["at the limit", "over the limit"]
)
@pytest.mark.parametrize("is_chunked", [False, True])
def test_an_upgrade_request_has_the_same_body_limit(connect, is_chunked, body):
    text = (
        post(CHUNKED, *UPGRADE, body=chunked(body))
        if is_chunked
        else post_with_length(body, *UPGRADE)
    )
    connection = connect().send(text)
    assert connection.read_response().status == (413 if len(body) > LIMIT else 422)
    assert connection.is_closed()


# Failing clients


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"GET /heal",
        post_with_length()[:-1],
        post(CHUNKED, body=b"5\r\nab"),
        post_with_length(BODY, "Expect: 100-continue").removesuffix(BODY),
        post_with_length(BODY, *UPGRADE)[:-1],
        request(),
        request(f"/docs/swagger-ui/{LARGE_FILE.name}") * 20,
        MALFORMED["bad method"],
        post(TOO_LONG, body=b""),
    ],
    ids=range(10),
)
def test_a_connection_reset_by_the_client_does_no_harm(connect, text):
    for pause in 0, 0.001, 0.02:
        connection = connect().send(text)
        time.sleep(pause)
        connection.reset()


@pytest.mark.slow
@pytest.mark.parametrize("text", [b"", request(), post_with_length()])
def test_an_idle_connection_is_closed(connect, text):
    connection = connect()
    if text:
        connection.send(text).read_response()
    began = time.monotonic()
    assert connection.is_closed()
    assert 4 < time.monotonic() - began < 8


@pytest.mark.slow
def test_a_request_that_is_sent_too_slowly_is_closed(connect):
    bodies = (["Content-Length: 99"], ["Content-Length: 99", *UPGRADE], [CHUNKED])
    begun = [b"GET /", *(post(*headers, body=b"ff\r\n") for headers in bodies)]
    connections = [connect().send(text) for text in begun]
    began = time.monotonic()
    ends = {}
    while len(ends) < len(connections) and time.monotonic() - began < 25:
        time.sleep(1)
        for connection in connections:
            try:
                connection.send(b"1")
            except ConnectionError:
                ends.setdefault(connection, time.monotonic() - began)
    assert len(ends) == len(connections)
    assert all(12 < end < 20 for end in ends.values())


def test_a_flooding_client_does_not_block_other_clients(served, connect):
    flooding_client, request_count, response_count = connect(), 10_000, 0

    def read():
        nonlocal response_count
        while response_count < request_count and (data := flooding_client.socket.recv(1 << 20)):
            response_count += data.count(b"HTTP/1.1 200")

    threads = [
        threading.Thread(target=read),
        threading.Thread(target=flooding_client.send, args=[request() * request_count]),
    ]
    for thread in threads:
        thread.start()
    assert wait_until(lambda: response_count > 0)
    assert served.send("GET", "/healthz").status == 200
    assert response_count < request_count
    for thread in threads:
        thread.join()


def test_objects_loaded_at_startup_are_excluded_from_garbage_collection(connect):
    assert int(connect().send(request("/frozen")).read_response().body) > 50_000


PID_ROUTE = """
import os
app.add_url_rule("/pid", "pid", lambda: str(os.getpid()))
from phresh.serving import worker
"""


class TwoWorkers:
    """A server with two workers, and open connections to them."""

    def __init__(self, checkout, leave_timeout):
        with (checkout / "wsgi.py").open("a") as file:
            file.write(f"{PID_ROUTE}worker.LEAVE_TIMEOUT = {leave_timeout}")
        with (checkout / "gunicorn.conf.py").open("a") as file:
            file.write("keepalive = 60")
        self.served = Phresh(checkout, "postgresql://127.0.0.1:1/none", WORKERS="2")
        self.open_connections = []
        assert wait_until(lambda: self.connect() and len(set(self.pids)) == 2)

    def connect(self):
        """Open a connection; return the id of the worker process that accepted it."""
        connection = RawConnection(self.served.port)
        self.open_connections.append(
            (connection, int(connection.send(request("/pid")).read_response().body))
        )
        return self.open_connections[-1][1]

    @property
    def pids(self):
        return [pid for _, pid in self.open_connections]

    def close_connections(self, pid):
        """Close the connections of a worker, and wait until it has noticed."""
        for connection, owner in self.open_connections:
            if owner == pid:
                assert connection.end_sending().is_closed()
                connection.close()
        self.open_connections = [
            (connection, owner) for connection, owner in self.open_connections if owner != pid
        ]


@pytest.fixture
def start_workers(tmp_path):
    checkout = copy_checkout(tmp_path / "checkout")
    started = []

    def start_workers(**options):
        started.append(TwoWorkers(checkout, **options))
        return started[-1]

    yield start_workers
    for workers in started:
        for connection, _ in workers.open_connections:
            connection.close()
        assert workers.served.stop() == 0


def test_connections_are_spread_evenly_over_the_workers(start_workers):
    workers = start_workers(leave_timeout=60)
    for _ in range(40 + len(workers.open_connections) % 2):
        workers.connect()
    first, second = set(workers.pids)
    half = workers.pids.count(first)
    assert workers.pids.count(second) == half
    workers.close_connections(first)
    assert {workers.connect() for _ in range(half)} == {first}


def test_no_connection_is_left_to_a_killed_worker(start_workers):
    workers = start_workers(leave_timeout=60)
    first, second = set(workers.pids)
    workers.close_connections(first)
    os.kill(first, signal.SIGKILL)
    assert wait_until(lambda: workers.connect() not in (first, second))  # the new one serves
    third = workers.pids[-1]
    # Connections would be left to the killed worker, which has the fewest, if it still counted.
    # The third gets all of them until it has as many as the second got while it started.
    count = workers.pids.count(second) + 40
    assert {workers.connect() for _ in range(count)} == {second, third}


def test_a_stopped_worker_does_not_delay_new_connections(start_workers):
    workers = start_workers(leave_timeout=0.001)
    first, second = set(workers.pids)
    os.kill(first, signal.SIGSTOP)
    try:
        assert {workers.connect() for _ in range(40)} == {second}
    finally:
        os.kill(first, signal.SIGCONT)
