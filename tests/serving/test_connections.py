"""Connections of the worker: order and headers of responses, TLS, Unix sockets, and memory."""

import http.client
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import threading
from contextlib import closing, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.tools.cluster import Phresh
from tests.tools.processes import copy_checkout, wait_until
from tests.tools.raw_http import RawConnection, request

NO_DATABASE = "postgresql://127.0.0.1:1/none"
UNSENT_MAX = 8 * 1024 * 1024
LARGE = 1024 * 1024  # bytes of the response to /large
ROUTES = f"""
import gevent
from phresh.serving import connection, worker

connection.UNSENT_MAX = {UNSENT_MAX}
connection.READ_TIMEOUT = 3
headers = {{
    "date": "Thu, 01 Jan 1970 00:00:00 GMT", "Server": "mine", "Keep-Alive": "timeout=9",
    "Transfer-Encoding": "chunked", "TE": "trailers", "Trailer": "X", "Upgrade": "h2c",
    "Proxy-Authenticate": "Basic", "Connection": "keep-alive, X-Mine", "X-Mine": "kept",
}}
app.add_url_rule("/headers", "headers", lambda: ("body", headers))
app.add_url_rule("/close", "close", lambda: ("body", {{"connection": "X-Mine, Close"}}))
app.add_url_rule("/large", "large", lambda: b"x" * {LARGE})
def stream(size, parts):
    headers = {{"Content-Length": str(size)}}
    return app.response_class(parts, headers=headers, mimetype="text/plain")

def failing():
    yield b"x" * {2 * LARGE}
    raise OSError("The disk has failed.")

pieces = [b"x" * {LARGE // 16}] * 400
app.add_url_rule("/stream", "stream", lambda: stream({25 * LARGE}, iter(pieces)))
app.add_url_rule("/short", "short", lambda: stream({25 * LARGE}, iter(pieces[1:])))
app.add_url_rule("/long", "long", lambda: stream({25 * LARGE}, iter(pieces * 2)))
app.add_url_rule("/broken", "broken", lambda: stream({25 * LARGE}, failing()))
app.add_url_rule("/fail", "fail", lambda: ("", {{"X-Broken": "\u2603"}}))
app.add_url_rule("/slow", "slow", lambda: (gevent.sleep(0.3), "body")[1])
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    checkout = copy_checkout(tmp_path_factory.mktemp("connections") / "checkout")
    with (checkout / "wsgi.py").open("a") as file:
        file.write(ROUTES)
    served = Phresh(checkout, NO_DATABASE, WORKERS="1", TRUSTED_PROXIES="1")
    yield served
    assert served.stop() == 0


def read_all(connection):
    return connection.file.read()


# Requests


@pytest.mark.parametrize("target", ["/healthz", "/readyz", "/docs/", "/api/cleanings/"])
def test_http_1_0_needs_no_host(connect, target):
    response = connect().send(f"GET {target} HTTP/1.0\r\n\r\n".encode()).read_response()
    assert response.status == (200 if target in ("/healthz", "/docs/") else 503)
    assert connect().send(f"GET {target} HTTP/1.1\r\n\r\n".encode()).read_response().status == 400


def test_options_of_haproxy_is_answered(connect):
    assert connect().send(b"OPTIONS / HTTP/1.0\r\n\r\n").read_response().status == 200


# Responses


@pytest.mark.parametrize("target", ["/headers", "/healthz", "/static/docs.js", "/docs/"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_response_has_one_date_and_no_header_of_the_connection_by_the_app(
    connect, target, method
):
    connection = connect().send(request(target, method=method))
    response = connection.read_response(bodiless=method == "HEAD")
    (date,) = response.headers.get_all("Date")
    assert re.fullmatch(r"\w{3}, \d\d \w{3} 20\d\d [\d:]{8} GMT", date)
    assert response.headers.get_all("Connection") == ["keep-alive"]
    for name in ("Server", "Keep-Alive", "Transfer-Encoding", "TE", "Trailer", "Upgrade"):
        assert name not in response.headers
    if target == "/headers":
        assert response.headers["X-Mine"] == "kept"
    assert connection.send(request()).read_response().status == 200


def test_a_304_has_one_date(connect):
    etag = connect().send(request("/static/docs.js")).read_response().headers["ETag"]
    response = connect().send(request("/static/docs.js", f"If-None-Match: {etag}")).read_response()
    assert (response.status, len(response.headers.get_all("Date"))) == (304, 1)


def test_the_app_can_close_the_connection(connect):
    connection = connect().send(request("/close") + request())
    response = connection.read_response()
    assert response.headers.get_all("Connection") == ["close"]
    assert connection.is_closed()


@pytest.mark.parametrize(
    "text",
    [
        request("/fail", method="HEAD"),
        request("/healthz", "Transfer-Encoding: gzip", method="HEAD"),
        request("/healthz", "Content-Length: x", method="HEAD"),
        request("/healthz#a", method="HEAD"),
        request("/healthz", *["A: b"] * 101, method="HEAD"),
        request("/healthz", version="HTTP/2.0", method="HEAD"),
        b"HEAD /healthz HTTP/1.1\r\n\r\n",
    ],
    ids=range(7),
)
def test_head_gets_no_body_from_the_worker_either(connect, text):
    connection = connect().send(text)
    response = connection.read_response(bodiless=True)
    assert response.status >= 400
    assert int(response.headers["Content-Length"]) > 0
    assert connection.is_closed()


BODY = b'{"seen": 1}'
POST = request(
    "/api/cleanings/",
    "Content-Type: application/json",
    f"Content-Length: {len(BODY)}",
    "Expect: 100-continue",
    method="POST",
)


def test_100_continue_does_not_overtake_a_response(connect):
    connection = connect().send(request("/slow") + POST)
    assert connection.read_response().body == b"body"
    assert connection.read_response().status == 100
    assert connection.send(BODY).read_response().status == 422


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (POST + BODY, 422),
        (POST + BODY[:1], 100),
        (request("/healthz", "Expect: 100-continue"), 200),
        (request("/healthz", "Expect: 100-continue", "Content-Length: 0"), 200),
    ],
)
def test_100_continue_is_sent_only_for_a_body_that_is_to_come(connect, text, status):
    connection = connect().send(text)
    if text == POST + BODY[:1]:  # the client waits no longer: it has begun
        connection.send(BODY[1:])
        status = 422
    assert connection.read_response().status == status
    assert connection.send(request()).read_response().status == 200


def test_a_rejection_is_logged_with_the_address(served, connect):
    connect().send(b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n").read_response()

    def line():
        lines = [json.loads(line) for line in served.log.read_text().splitlines()]
        return [line for line in lines if "Rejected with 400" in line["message"]]

    assert wait_until(line)[-1]["remote_addr"] == "127.0.0.1"


# Memory, and one client beside the others


def memory(pid):
    """Return the resident memory of a process, in MiB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1024**2


def test_pipelined_requests_of_clients_that_read_nothing_take_no_memory(served, connect):
    """Each sends 64 KiB: a large response, which it does not read, and thousands of requests."""
    (pid,) = served.workers()
    before = memory(pid)
    text = request("/docs/swagger-ui/swagger-ui.css")
    text += b"GET / HTTP/1.1\r\nHost:\r\n\r\n" * ((65536 - len(text)) // 25)
    clients = [connect(receive_buffer=4096).send(text) for _ in range(50)]
    response = clients[0].read_response()
    assert response.status == 200
    assert served.send("GET", "/healthz").status == 200
    assert memory(pid) - before < 60


def test_responses_that_are_not_read_are_bounded_and_the_slowest_reader_is_cut(served, connect):
    (pid,) = served.workers()
    served.send("GET", "/large")
    before, count = memory(pid), 40
    slow = [connect(receive_buffer=4096).send(request("/large")) for _ in range(count)]
    served.send("GET", "/large")
    assert wait_until(lambda: served.log.read_text().count("Closed a connection") >= count // 2)
    assert memory(pid) - before < (UNSENT_MAX + 8 * LARGE) / 1024**2
    assert len(read_all(slow[0])) < LARGE  # the first was cut
    assert len(slow[-1].read_response().body) == LARGE  # the last has its turn
    assert served.send("GET", "/large").status == 200


def test_a_stream_of_known_length_takes_the_memory_of_a_piece(served, connect):
    (pid,) = served.workers()
    connect().send(request("/stream")).read_response()
    before = memory(pid)
    connection = connect(receive_buffer=4096).send(request("/stream"))
    response = connection.read_response()
    assert response.body == b"x" * (25 * LARGE)
    assert memory(pid) - before < 8
    assert connection.send(request()).read_response().status == 200


@pytest.mark.parametrize("target", ["/short", "/broken"])
def test_a_stream_that_ends_too_early_breaks_the_connection(connect, target):
    sent = read_all(connect().send(request(target)))
    head, _, body = sent.partition(b"\r\n\r\n")
    assert f"Content-Length: {25 * LARGE}".encode() in head
    assert 0 < len(body) < 25 * LARGE


def test_no_more_of_a_stream_is_sent_than_its_length(connect):
    connection = connect().send(request("/long") + request())
    assert len(connection.read_response().body) == 25 * LARGE
    assert connection.read_response().status == 200


def test_head_gets_nothing_of_a_stream(connect):
    connection = connect().send(request("/stream", method="HEAD"))
    assert connection.read_response(bodiless=True).headers["Content-Length"] == str(25 * LARGE)
    assert connection.send(request()).read_response().status == 200


FLOOD = b"1;" + b"a" * 15000 + b"\r\nx\r\n"


def test_a_client_that_sends_faster_than_it_is_read_does_not_block_others(served):
    """It sends bodies of which no end is seen, of a size that is allowed."""
    head = request("/api/cleanings/", "Transfer-Encoding: chunked", method="POST")
    chunks = b"1\r\nx\r\n" * 60_000 + b"0\r\n\r\n"
    end = threading.Event()

    def flood():
        while not end.is_set():
            client = RawConnection(served.port)
            try:
                for _ in range(20):
                    client.send(head + chunks)
                    client.read_response()
            except OSError:
                pass
            finally:
                client.close()

    threads = [threading.Thread(target=flood) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        assert [served.send("GET", "/healthz").status for _ in range(10)] == [200] * 10
    finally:
        end.set()
        for thread in threads:
            thread.join()


def test_endless_framing_is_rejected(connect):
    head = request("/api/cleanings/", "Transfer-Encoding: chunked", method="POST")
    connection = connect().send(head + FLOOD * 10)
    assert connection.read_response().status == 431
    assert connection.is_closed()


# Unix sockets

FORM = (
    "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 31\r\n\r\n"
    "username=a@b.example&password=c"
)


def test_a_unix_socket_is_served(tmp_path):
    checkout = copy_checkout(tmp_path / "checkout")
    path = tmp_path / "socket"
    with (checkout / "gunicorn.conf.py").open("a") as file:
        file.write(f"bind = [bind, 'unix:{path}']\n")
    served = Phresh(checkout, NO_DATABASE, WORKERS="1")
    try:
        for _ in range(2):
            for line, status in (
                ("GET /healthz HTTP/1.1\r\nHost: a", 200),
                ("GET /healthz HTTP/1.0", 200),
                # Which counts attempts by the client's address.
                (f"POST /api/users/login/token/ HTTP/1.1\r\nHost: a\r\n{FORM}", 503),
            ):
                with socket.socket(socket.AF_UNIX) as client:
                    client.settimeout(20)
                    client.connect(str(path))
                    client.sendall(line.encode() if FORM in line else f"{line}\r\n\r\n".encode())
                    assert client.recv(65536).startswith(f"HTTP/1.1 {status}".encode())
        (worker,) = served.workers()
        served.reload()
        assert wait_until(lambda: served.workers() - {worker})
    finally:
        assert served.stop() == 0
    assert "Traceback" not in served.log.read_text()


# TLS


def tls_context():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


class PhreshWithTLS(Phresh):
    """The app behind TLS."""

    def send(self, method, path, **_):
        """Send one request and return the response; status 0 where none came."""
        client = http.client.HTTPSConnection("127.0.0.1", self.port, context=tls_context())
        with closing(client):
            try:
                client.request(method, path)
                return client.getresponse()
            except OSError:
                return SimpleNamespace(status=0)


@pytest.fixture(scope="module")
def with_tls(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    checkout = copy_checkout(folder / "checkout")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    curve = "-newkey ec -pkeyopt ec_paramgen_curve:P-256"
    command = f"openssl req -x509 {curve} -nodes -days 2 -subj /CN=localhost".split()
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    with (checkout / "wsgi.py").open("a") as file:
        file.write(ROUTES)
    with (checkout / "gunicorn.conf.py").open("a") as file:
        file.write(f"certfile, keyfile, keepalive = '{certificate}', '{key}', 1\n")
    served = PhreshWithTLS(checkout, NO_DATABASE, WORKERS="1")
    yield served
    assert served.stop() == 0
    assert "Traceback" not in served.log.read_text()


@pytest.fixture
def connect_with_tls(with_tls):
    connections = []

    def connect():
        client = socket.create_connection(("127.0.0.1", with_tls.port), timeout=20)
        # An end without close_notify raises SSLEOFError.
        client = tls_context().wrap_socket(client, suppress_ragged_eofs=False)
        connections.append(client)
        return client

    yield connect
    for client in connections:
        client.close()


def read_to_the_end(client):
    received = b""
    while data := client.recv(65536):
        received += data
    return received


def test_tls_is_closed_with_close_notify(connect_with_tls):
    client = connect_with_tls()
    client.sendall(request("/large") + request("/healthz", "Connection: close"))
    received = read_to_the_end(client)
    assert received.count(b"HTTP/1.1 200 OK") == 2
    assert len(received) > LARGE
    client = connect_with_tls()
    client.sendall(b"NONSENSE\r\n")
    assert read_to_the_end(client).startswith(b"HTTP/1.1 400")
    client = connect_with_tls()
    client.sendall(request())
    assert read_to_the_end(client).startswith(b"HTTP/1.1 200")  # idle for too long


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"])
def test_a_connection_without_a_tls_handshake_is_closed(with_tls, sent):
    with socket.create_connection(("127.0.0.1", with_tls.port), timeout=20) as client:
        client.sendall(sent)
        with suppress(ConnectionResetError):  # instead of reading what is no handshake
            while client.recv(65536):
                pass  # an alert
    assert with_tls.send("GET", "/healthz").status == 200
