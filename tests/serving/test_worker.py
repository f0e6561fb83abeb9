"""The worker's HTTP, byte for byte: what a client may send, what it must not, and what it gets."""

import json
import os
import re
import signal
import socket
import struct
import threading
import time
from http.client import parse_headers
from importlib.resources import files
from typing import Any, NamedTuple

import pytest

from tests.tools.cluster import Phresh
from tests.tools.processes import copy_checkout, wait_until

PATH = "/api/cleanings/"
LIMIT = 64 * 1024  # of a body, and of a head
FAR = 3 * LIMIT  # a head is measured by what came at once
BODY = b'{"seen": 1}'  # is refused by name, so what is refused has arrived
TYPE = "Content-Type: application/json"
CHUNKED = "Transfer-Encoding: chunked"
UPGRADE = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk")
LARGE = max((files("flask_swagger_ui") / "dist").glob("*.js"), key=lambda file: file.stat().st_size)
ROUTES = """
import gc
app.add_url_rule("/frozen", "frozen", lambda: str(gc.get_freeze_count()))
app.add_url_rule("/none", "none", lambda: ("", 204))
app.add_url_rule("/broken", "broken", lambda: ("", {"X-Broken": "\u2603"}))
rest = app.wsgi_app


def plain(environ, start_response):
    if environ["PATH_INFO"] != "/plain":
        return rest(environ, start_response)
    start_response("200 OK", [("X-Plain", "Content-Length: 9")])
    return [b"a", b"b"]


app.wsgi_app = plain
"""


class Answer(NamedTuple):
    status: int
    headers: Any
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


class Wire:
    """A connection as it is."""

    def __init__(self, port, receive=None):
        self.socket = socket.socket()
        self.socket.settimeout(25)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if receive is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
        self.socket.connect(("127.0.0.1", port))
        self.file = self.socket.makefile("rb", buffering=4096)

    def send(self, *parts):
        """Send each part on its own."""
        for number, part in enumerate(parts):
            if number:
                time.sleep(0.001)
            self.socket.sendall(part)
        return self

    def answer(self, *, bodiless=False):
        version, status = self.file.readline().split()[:2]
        assert version == b"HTTP/1.1"
        headers = parse_headers(self.file)
        size = 0 if bodiless else int(headers.get("Content-Length", 0))
        return Answer(int(status), headers, self.file.read(size))

    def is_closed(self):
        """Whether nothing more comes; waits for it."""
        return self.file.read() == b""

    def end(self):
        """Say that nothing more is sent."""
        self.socket.shutdown(socket.SHUT_WR)
        return self

    def vanish(self):
        """Close it by a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self):
        self.file.close()
        self.socket.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    checkout = copy_checkout(tmp_path_factory.mktemp("worker") / "checkout")
    with (checkout / "wsgi.py").open("a") as file:
        file.write(ROUTES)
    served = Phresh(checkout, "postgresql://127.0.0.1:1/none", WORKERS="1")
    yield served
    assert served.stop() == 0


@pytest.fixture
def connect(served):
    """Connect; after the test all is well, whatever was sent."""
    wires = []
    logged = served.log.stat().st_size

    def connect(**options):
        wires.append(Wire(served.port, **options))
        return wires[-1]

    yield connect
    for wire in wires:
        wire.close()
    assert served.send("GET", "/healthz").status == 200
    assert "failed with" not in served.log.read_text()[logged:], "as gevent tells of an error"


def request(target="/healthz", *headers, method="GET", version="HTTP/1.1", body=b""):
    lines = [f"{method} {target} {version}", "Host: localhost", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def post(*headers, body=BODY, **options):
    return request(PATH, TYPE, *headers, method="POST", body=body, **options)


def sized(body=BODY, *headers, **options):
    return post(f"Content-Length: {len(body)}", *headers, body=body, **options)


def chunked(*chunks, end=b"0\r\n\r\n"):
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + end


def has_arrived(answer):
    return answer.status == 422 and b'"/seen"' in answer.body


def assert_refused(wire, status):
    """The worker itself gave the last answer on the connection."""
    answer = wire.answer()
    assert answer.status == answer.json["status"] == status
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["Connection"] == "close"
    assert "Date" in answer.headers
    assert wire.is_closed()


# One after the other


@pytest.mark.parametrize("count", [2, 20])
def test_what_comes_in_one_packet_is_answered_in_its_order(connect, count):
    names = [str(number) for number in range(count)]
    wire = connect().send(b"".join(request("/healthz", f"X-Request-Id: {name}") for name in names))
    assert [wire.answer().headers["X-Request-Id"] for _ in names] == names


def test_bodies_in_one_packet_belong_to_their_requests(connect):
    wire = connect().send((sized() + request() + post(CHUNKED, body=chunked(BODY))) * 3)
    for _ in range(3):
        assert has_arrived(wire.answer())
        assert wire.answer().status == 200
        assert has_arrived(wire.answer())


@pytest.mark.parametrize(
    "text", [request(), sized(), post(CHUNKED, body=chunked(BODY[:4], BODY[4:]))]
)
def test_a_request_may_come_in_any_pieces(connect, text):
    wire = connect().send(*(text[place : place + 1] for place in range(len(text))))
    whole = wire.answer().status
    assert whole in (200, 422)
    for place in range(1, len(text)):
        wire.send(text[:place], text[place:])
        assert wire.answer().status == whole


def test_empty_lines_before_a_request_are_passed_over(connect):
    assert connect().send(b"\r\n\r\n" + request()).answer().status == 200


@pytest.mark.parametrize(
    ("version", "headers", "is_kept"),
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
def test_a_connection_is_kept_as_the_client_asks(connect, target, version, headers, is_kept):
    text = request(target, *headers, version=version)
    wire = connect().send(text)
    assert wire.answer().headers["Connection"] == ("keep-alive" if is_kept else "close")
    if is_kept:
        assert wire.send(text).answer().headers["Connection"] == "keep-alive"
    else:
        assert wire.is_closed()


def test_what_follows_the_last_request_is_not_answered(connect):
    wire = connect().send(request("/healthz", "Connection: close") + request())
    assert wire.answer().status == 200
    assert wire.is_closed()


@pytest.mark.parametrize("text", [request(), sized(), request("/nothing")])
def test_a_client_that_sends_no_more_gets_its_answers(connect, text):
    wire = connect().send(text * 2).end()
    assert wire.answer().status == wire.answer().status
    assert wire.is_closed()


# What is answered


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (request(), 200),
        (request("/nothing"), 404),
        (request(PATH, method="DELETE"), 405),
        (sized(), 422),
        (sized(b""), 400),
        (request(f"/docs/swagger-ui/{LARGE.name}"), 200),
        (request("/none"), 204),
    ],
)
def test_every_answer_has_its_id_a_date_and_what_becomes_of_the_connection(connect, text, status):
    answer = connect().send(text).answer()
    assert answer.status == status
    assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} [\d:]{8} GMT", answer.headers["Date"])
    assert answer.headers["Connection"] == "keep-alive"
    assert len(answer.headers["X-Request-Id"]) == 32


@pytest.mark.parametrize(
    "target", ["/healthz", "/nothing", "/docs/", "/plain", f"/docs/swagger-ui/{LARGE.name}"]
)
def test_head_tells_the_length_and_has_no_body(connect, target):
    wire = connect().send(request(target, method="HEAD") + request(target))
    head, whole = wire.answer(bodiless=True), wire.answer()
    assert head.status == whole.status
    assert int(head.headers["Content-Length"]) == len(whole.body) > 0


@pytest.mark.parametrize(
    ("target", "status"), [("/none", 204), (f"/docs/swagger-ui/{LARGE.name}", 304)]
)
def test_an_answer_without_a_body_has_no_length(connect, target, status):
    wire = connect().send(request(target, "If-Modified-Since: Fri, 31 Dec 2100 00:00:00 GMT"))
    answer = wire.answer()
    assert (answer.status, answer.headers["Content-Length"]) == (status, None)
    assert wire.send(request()).answer().status == 200


def test_a_header_that_names_a_length_is_not_one(connect):
    answer = connect().send(request("/plain")).answer()
    assert (answer.headers["Content-Length"], answer.body) == ("2", b"ab")


def test_an_answer_that_can_not_be_sent_is_500(connect):
    assert_refused(connect().send(request("/broken")), 500)


def test_large_files_arrive_whole_at_a_slow_reader(connect, served):
    count = 4  # else the kernel takes it all at once
    wire = connect(receive=8192).send(request(f"/docs/swagger-ui/{LARGE.name}") * count)
    time.sleep(0.2)
    assert served.send("GET", "/healthz").status == 200
    for _ in range(count):
        assert wire.answer().body == LARGE.read_bytes()
    assert wire.send(request()).answer().status == 200


# Bodies


@pytest.mark.parametrize(
    "body",
    [
        chunked(BODY),
        chunked(*(BODY[place : place + 1] for place in range(len(BODY)))),
        chunked(BODY, end=b"0\r\nX-Trailer: 1\r\n\r\n"),
        b'B;name="value"\r\n' + BODY + b"\r\n0;last\r\n\r\n",
    ],
)
@pytest.mark.parametrize("coding", [CHUNKED, "Transfer-Encoding: Chunked "])
def test_a_body_in_chunks_is_read(connect, coding, body):
    wire = connect().send(post(coding, body=body) + request())
    assert has_arrived(wire.answer())
    assert wire.answer().status == 200


@pytest.mark.parametrize("excess", [0, 1])
@pytest.mark.parametrize("in_chunks", [False, True])
def test_a_body_may_have_64_kib(connect, excess, in_chunks):
    body = BODY.ljust(LIMIT + excess)
    wire = connect().send(post(CHUNKED, body=chunked(body)) if in_chunks else sized(body))
    answer = wire.answer()
    assert answer.status == 413 if excess else has_arrived(answer)
    assert answer.headers["Connection"] == ("close" if excess else "keep-alive")


TOO_LONG = f"Content-Length: {LIMIT + 1}"


@pytest.mark.parametrize("headers", [[TOO_LONG], [TOO_LONG, "Expect: 100-continue"]])
def test_a_body_that_will_be_too_large_is_not_waited_for(connect, headers):
    began = time.monotonic()
    wire = connect().send(post(*headers, body=b""))
    assert wire.answer().status == 413
    assert wire.is_closed()
    assert time.monotonic() - began < 1


def test_chunks_that_are_too_many_are_not_waited_for(connect):
    wire = connect().send(post(CHUNKED, body=b"ffffff\r\n".ljust(LIMIT + 100)))
    assert wire.answer().status == 413
    assert wire.is_closed()


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (post("Content-Length: 3000000", body=b""), 413),
        (post(CHUNKED, body=b"ffffff\r\n"), 413),
        (b"NONSENSE\r\n", 400),
        (request("/healthz", "X: "), 431),
    ],
)
def test_a_client_that_goes_on_sending_can_read_the_answer(connect, text, status):
    wire = connect().send(text.removesuffix(b"\r\n\r\n") if status == 431 else text)
    wire.send(*[b" " * 100_000] * 30)
    assert wire.answer().status == status
    assert wire.is_closed()


@pytest.mark.parametrize(
    "text",
    [
        sized()[:-1],
        post(CHUNKED, body=chunked(BODY, end=b"")),
        post(CHUNKED, body=chunked(BODY)[:-2]),
        sized(BODY, *UPGRADE)[:-1],
        post(CHUNKED, *UPGRADE, body=chunked(BODY, end=b"")),
    ],
)
def test_a_body_that_breaks_off_is_400(connect, text):
    wire = connect().send(text).end()
    assert wire.answer().status == 400
    assert wire.is_closed()


@pytest.mark.parametrize("text", [b"", b"G", request()[:-1]])
def test_a_head_that_breaks_off_has_no_answer(connect, text):
    assert connect().send(text).end().is_closed()


@pytest.mark.parametrize("expected", ["100-continue", "100-Continue "])
def test_who_asks_for_it_is_told_to_continue(connect, expected):
    wire = connect().send(sized(BODY, f"Expect: {expected}").removesuffix(BODY))
    assert wire.answer().status == 100
    assert has_arrived(wire.send(BODY).answer())
    assert wire.send(request()).answer().status == 200


def test_http_1_0_knows_no_continue(connect):
    text = sized(BODY, "Expect: 100-continue", version="HTTP/1.0")
    assert has_arrived(connect().send(text).answer())


# What is no request


def headed(*lines):
    return b"\r\n".join((b"POST / HTTP/1.1", b"Host: a", *lines, b"", b""))


BROKEN = {
    "bad method": b"NONSENSE / HTTP/1.1\r\n\r\n",
    "method in lower case": b"get / HTTP/1.1\r\n\r\n",
    "no method": b" / HTTP/1.1\r\n\r\n",
    "bad version": b"GET / HTTP/1.x\r\n\r\n",
    "version 1.2": b"GET / HTTP/1.2\r\n\r\n",
    "version of its own": b"GET / HTTQ/1.1\r\n\r\n",
    "space in target": b"GET /a b HTTP/1.1\r\n\r\n",
    "relative target": b"GET healthz HTTP/1.1\r\n\r\n",
    "bytes in target": b"GET /\xc3\xa4 HTTP/1.1\r\n\r\n",
    "NUL in target": b"GET /\0 HTTP/1.1\r\n\r\n",
    "header without colon": headed(b"Nonsense"),
    "header without name": headed(b": value"),
    "space before colon": headed(b"Content-Length : 0"),
    "space before header": b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
    "folded header": headed(b"A: b", b" c"),
    "bare LF": b"GET / HTTP/1.1\nHost: a\n\n",
    "bare LF after a header": headed(b"A: b\nC: d"),
    "bare CR in header": headed(b"A: b\rC: d"),
    "NUL in header": headed(b"A: \0"),
    "bytes in header name": headed(b"\xc3\xa4: a"),
    "two hosts": headed(b"Host: b"),
    "two types": headed(b"Content-Type: text/plain", b"Content-Type: application/json"),
    "two lengths": headed(b"Content-Length: 1", b"Content-Length: 1") + b"a",
    "list of lengths": headed(b"Content-Length: 1, 1") + b"a",
    "length and coding": headed(b"Content-Length: 1", b"Transfer-Encoding: chunked"),
    "coding and length": headed(b"Transfer-Encoding: chunked", b"Content-Length: 1"),
    "no length": headed(b"Content-Length:"),
    "negative length": headed(b"Content-Length: -1"),
    "positive length": headed(b"Content-Length: +1"),
    "length in words": headed(b"Content-Length: 0x1"),
    "huge length": headed(b"Content-Length: 99999999999999999999"),
    "no coding": headed(b"Transfer-Encoding:"),
    "coding that is not the last": headed(b"Transfer-Encoding: chunked, gzip"),
    "bad chunk size": headed(b"Transfer-Encoding: chunked") + b"g\r\n",
    "negative chunk size": headed(b"Transfer-Encoding: chunked") + b"-1\r\n",
    "huge chunk size": headed(b"Transfer-Encoding: chunked") + b"fffffffffffffffff\r\n",
    "chunk without end": headed(b"Transfer-Encoding: chunked") + b"1\r\nab\r\n",
    "chunk size with bare LF": headed(b"Transfer-Encoding: chunked") + b"1\na\r\n",
    "chunk extension with bare LF": headed(b"Transfer-Encoding: chunked") + b"1;a\nb\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(32)),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "an answer": b"HTTP/1.1 200 OK\r\n\r\n",
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_broken_http_is_400(connect, text):
    assert_refused(connect().send(text), 400)


@pytest.mark.parametrize("text", [BROKEN["bad method"], BROKEN["two lengths"], BROKEN["TLS"]])
def test_what_came_before_broken_http_is_answered(connect, text):
    wire = connect().send(request() + sized() + text)
    assert wire.answer().status == 200
    assert has_arrived(wire.answer())
    assert_refused(wire, 400)


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (request(version="HTTP/2.0"), 505),
        (request(version="HTTP/0.9"), 505),
        (b"GET /\r\n\r\n", 505),
        (post("Transfer-Encoding: gzip, chunked", body=b""), 501),
        (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (post("Transfer-Encoding: gzip", "Transfer-Encoding: chunked", body=b""), 501),
        (post("Transfer-Encoding: gzip, chunked", *UPGRADE, body=b""), 501),
        (request("/healthz", *["A: b"] * 100), 431),
        (request("/healthz", "A: " + "b" * FAR), 431),
        (request("/healthz", "A" * FAR + ": b"), 431),
        (request("/" + "a" * FAR), 431),
        (request()[:-2] + b"A: " + b"b" * FAR, 431),
        (b"GET /" + b"a" * FAR, 431),
        (b"\r\n" * FAR, 431),
        (post(CHUNKED, body=chunked(BODY, end=b"0\r\nA: ") + b"b" * FAR), 431),
        (post(CHUNKED, body=b"1;" + b"a" * FAR), 431),
    ],
    ids=range(16),
)
def test_what_is_not_taken_is_refused(connect, text, status):
    assert_refused(connect().send(text), status)


@pytest.mark.parametrize(
    "text",
    [
        request("/healthz", *["A: b"] * 99),
        request("/healthz", "A: " + "b" * 60_000),
        request("/healthz?" + "a" * 60_000),
    ],
    ids=["many", "long", "far"],
)
def test_a_head_may_be_long(connect, text):
    wire = connect().send(text * 3)
    for _ in range(3):
        assert wire.answer().status == 200
    assert wire.send(request()).answer().status == 200


# What the app gets


@pytest.mark.parametrize(
    ("name", "is_taken"),
    [("x-REQUEST-id", True), ("X_Request_Id", False), ("X_Request-Id", False)],
)
def test_a_header_with_an_underscore_is_dropped(connect, name, is_taken):
    answer = connect().send(request("/healthz", f"{name}: mine")).answer()
    assert (answer.headers["X-Request-Id"] == "mine") == is_taken


def test_white_space_around_a_value_is_none_of_it(connect):
    wire = connect().send(request("/healthz", "X-Request-Id: \t mine \t "))
    assert wire.answer().headers["X-Request-Id"] == "mine"


def test_a_trailer_is_no_header(connect):
    body = chunked(BODY, end=b"0\r\nX-Request-Id: mine\r\n\r\n")
    wire = connect().send(post(CHUNKED, body=body) + request())
    for status in 422, 200:
        answer = wire.answer()
        assert (answer.status, len(answer.headers["X-Request-Id"])) == (status, 32)


def test_a_header_that_comes_twice_is_a_list(connect):
    target = f"/docs/swagger-ui/{LARGE.name}"
    tag = connect().send(request(target)).answer().headers["ETag"]
    headers = ['If-None-Match: "other"', f"If-None-Match: {tag}", 'If-None-Match: "last"']
    assert connect().send(request(target, *headers)).answer().status == 304


@pytest.mark.parametrize(
    ("target", "status"),
    [
        *(("http://x/healthz", 200), ("HTTP://x:80/healthz?a=b", 200), ("http://x/healthz/", 200)),
        *(("http://x", 404), ("http://x?a=/healthz", 404), ("http://x//a", 404)),
        *(
            ("http://[x/healthz", 200),
            ("http://[::1]:80/healthz", 200),
            ("http://a@x/healthz", 200),
        ),
        *(("/healthz?", 200), ("/healthz?%00%ff=%zz", 200), ("/%68ealthz", 200), ("/", 404)),
        *(("/%2F", 404), ("/a%2Fb", 404), ("//a", 404), ("/healthz%2Fa", 404)),
        *(("/%00", 404), ("/healthz%00", 404), ("/%ff%fe", 404), ("/%C3%A4", 404), ("/%", 404)),
        *(("/%zz", 404), ("/%0d%0aA:b", 404), ("/healthz#a", 404), ("/..%2fhealthz", 404)),
        *(("/docs/swagger-ui/%2e%2e/index.html", 404), ("/docs/swagger-ui/%00", 404)),
        *(("/docs/swagger-ui/..%2f..%2f__init__.py", 404), ("*", 404)),
    ],
)
def test_a_target_is_taken_as_it_stands(connect, target, status):
    wire = connect().send(request(target))
    assert wire.answer().status == status
    assert wire.send(request()).answer().status == 200


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
        b"GET / HTTP/1.1\r\nHost:\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: \xff[/:a\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_what_is_asked_of_no_server_like_this_is_the_clients_fault(connect, text):
    assert 400 <= connect().send(text).answer().status < 500


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (request("/healthz", *UPGRADE), 200),
        (sized(BODY, *UPGRADE), 422),
        (post(CHUNKED, *UPGRADE, body=chunked(BODY[:4], BODY[4:])), 422),
        (request("/healthz", "Connection: Upgrade", "Upgrade: websocket"), 200),
    ],
)
def test_an_upgrade_is_declined(connect, text, status):
    for place in 0, len(text) - 20, len(text) - 3:
        wire = connect().send(text[:place], text[place:] + request())
        answer = wire.answer()
        assert answer.status == status
        assert has_arrived(answer) or status == 200
        assert answer.headers["Connection"] == "close"
        assert wire.is_closed()


@pytest.mark.parametrize("body", [BODY.ljust(LIMIT), b" " * (LIMIT + 1)], ids=["most", "more"])
@pytest.mark.parametrize("in_chunks", [False, True])
def test_an_upgrade_has_the_limit_of_any_body(connect, in_chunks, body):
    text = post(CHUNKED, *UPGRADE, body=chunked(body)) if in_chunks else sized(body, *UPGRADE)
    wire = connect().send(text)
    assert wire.answer().status == (413 if len(body) > LIMIT else 422)
    assert wire.is_closed()


# Clients that fail


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"GET /heal",
        sized()[:-1],
        post(CHUNKED, body=b"5\r\nab"),
        sized(BODY, "Expect: 100-continue").removesuffix(BODY),
        sized(BODY, *UPGRADE)[:-1],
        request(),
        request(f"/docs/swagger-ui/{LARGE.name}") * 20,
        BROKEN["bad method"],
        post(TOO_LONG, body=b""),
    ],
    ids=range(10),
)
def test_a_client_that_vanishes_does_no_harm(connect, text):
    for pause in 0, 0.001, 0.02:
        wire = connect().send(text)
        time.sleep(pause)
        wire.vanish()


@pytest.mark.slow
@pytest.mark.parametrize("text", [b"", request(), sized()])
def test_an_idle_connection_is_closed(connect, text):
    wire = connect()
    if text:
        wire.send(text).answer()
    began = time.monotonic()
    assert wire.is_closed()
    assert 4 < time.monotonic() - began < 8


@pytest.mark.slow
def test_a_request_that_drips_is_given_up(connect):
    bodies = (["Content-Length: 99"], ["Content-Length: 99", *UPGRADE], [CHUNKED])
    begun = [b"GET /", *(post(*headers, body=b"ff\r\n") for headers in bodies)]
    wires = [connect().send(text) for text in begun]
    began = time.monotonic()
    ends = {}
    while len(ends) < len(wires) and time.monotonic() - began < 25:
        time.sleep(1)
        for wire in wires:
            try:
                wire.send(b"1")
            except ConnectionError:
                ends.setdefault(wire, time.monotonic() - began)
    assert len(ends) == len(wires)
    assert all(12 < end < 20 for end in ends.values())


def test_a_client_that_floods_keeps_no_other_waiting(served, connect):
    flood, requests, answered = connect(), 10_000, 0

    def read():
        nonlocal answered
        while answered < requests and (data := flood.socket.recv(1 << 20)):
            answered += data.count(b"HTTP/1.1 200")

    threads = [
        threading.Thread(target=read),
        threading.Thread(target=flood.send, args=[request() * requests]),
    ]
    for thread in threads:
        thread.start()
    assert wait_until(lambda: answered > 0)
    assert served.send("GET", "/healthz").status == 200
    assert answered < requests
    for thread in threads:
        thread.join()


def test_no_collection_looks_through_what_is_loaded(connect):
    assert int(connect().send(request("/frozen")).answer().body) > 50_000


SHOWN_PID = """
import os
app.add_url_rule("/pid", "pid", lambda: str(os.getpid()))
from phresh.serving import worker
"""


class Two:
    """Two workers, and connections to them that are kept."""

    def __init__(self, checkout, leave_timeout):
        with (checkout / "wsgi.py").open("a") as file:
            file.write(f"{SHOWN_PID}worker.LEAVE_TIMEOUT = {leave_timeout}")
        with (checkout / "gunicorn.conf.py").open("a") as file:
            file.write("keepalive = 60")
        self.served = Phresh(checkout, "postgresql://127.0.0.1:1/none", WORKERS="2")
        self.kept = []
        assert wait_until(lambda: self.connect() and len(set(self.pids)) == 2)

    def connect(self):
        """Connect, and give the process that has the connection."""
        wire = Wire(self.served.port)
        self.kept.append((wire, int(wire.send(request("/pid")).answer().body)))
        return self.kept[-1][1]

    @property
    def pids(self):
        return [pid for _, pid in self.kept]

    def leave(self, pid):
        """Close its connections, and know that it knows."""
        for wire, its in self.kept:
            if its == pid:
                assert wire.end().is_closed()
                wire.close()
        self.kept = [(wire, its) for wire, its in self.kept if its != pid]


@pytest.fixture
def serve_two(tmp_path):
    checkout = copy_checkout(tmp_path / "checkout")
    started = []

    def serve_two(**options):
        started.append(Two(checkout, **options))
        return started[-1]

    yield serve_two
    for two in started:
        for wire, _ in two.kept:
            wire.close()
        assert two.served.stop() == 0


def test_connections_are_spread_over_the_workers(serve_two):
    two = serve_two(leave_timeout=60)
    for _ in range(40 + len(two.kept) % 2):
        two.connect()
    first, second = set(two.pids)
    half = two.pids.count(first)
    assert two.pids.count(second) == half
    two.leave(first)
    assert {two.connect() for _ in range(half)} == {first}


def test_nothing_is_left_to_a_worker_that_was_killed(serve_two):
    two = serve_two(leave_timeout=60)
    first, second = set(two.pids)
    two.leave(first)
    os.kill(first, signal.SIGKILL)
    assert wait_until(lambda: two.connect() not in (first, second))  # it serves, and has fewest
    third = two.pids[-1]
    # These would be left to who has none, and that is gone.
    assert {two.connect() for _ in range(40)} == {second, third}


def test_a_worker_that_takes_none_is_not_waited_for(serve_two):
    two = serve_two(leave_timeout=0.001)
    first, second = set(two.pids)
    os.kill(first, signal.SIGSTOP)
    try:
        assert {two.connect() for _ in range(40)} == {second}
    finally:
        os.kill(first, signal.SIGCONT)
