"""One client's connection: HTTP/1.1 in green threads, with httptools for its parser.

gunicorn's own parser and writer, in Python, take more time than the rest of a request. httptools is
llhttp, the parser of Node.js, which is strict (https://github.com/nodejs/llhttp).
"""

import json
import math
import re
import socket
import sys
import time
from collections import deque
from contextlib import suppress
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from io import BytesIO
from types import SimpleNamespace
from typing import Any, NoReturn
from urllib.parse import unquote_to_bytes

import gevent
import httptools

HEAD_MAX = 64 * 1024  # bytes of request line and headers
HEADERS_MAX = 100
BODILESS = ("204", "304")  # RFC 9110 6.4.1
ORIGIN = re.compile(rb"[^/?#]+://([^/?#]+)")  # of an absolute target, whose host replaces Host
READ_TIMEOUT = 15  # seconds for one request to arrive
WRITE_TIMEOUT = 30  # seconds for the client to take a response
LINGER_TIMEOUT = 1  # seconds to go on reading what will not be used


class RejectedError(Exception):
    """A request that the app can't receive; the argument is the status of the response."""


class EnoughError(Exception):
    """More of a body than the app would read."""


class Request:
    """A request: what the app receives, and whether it is the last on its connection."""

    def __init__(self, environ: dict[str, Any]) -> None:
        self.environ = environ
        self.target = b""
        self.headers = 0
        self.body = BytesIO()
        self.is_last = False


class Connection:
    """A client's connection; the parser calls it with what it has found (``on_...``)."""

    def __init__(self, worker: Any, listener: Any, client: Any, addr: Any) -> None:
        self.worker = worker
        self.client = client
        self.until = math.inf  # when to stop waiting for the client: a timer each costs more
        self.parser = httptools.HttpRequestParser(self)
        self.arrived: deque[Request] = deque()
        self.rejection: RejectedError | None = None  # of what came after those
        self.arriving = Request({})
        self.has_head = False
        self.head_size = 0  # bytes that came since the last head was complete
        self.keepalive = worker.cfg.keepalive
        self.body_max = worker.body_max
        host, port = listener.getsockname()[:2]
        self.environ = {
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "https" if worker.cfg.is_ssl else "http",
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": True,
            "wsgi.run_once": False,
            "wsgi.input_terminated": True,
            "SCRIPT_NAME": "",
            "SERVER_NAME": host,
            "SERVER_PORT": str(port),
            "REMOTE_ADDR": addr[0],
            "REMOTE_PORT": str(addr[1]),
        }

    def serve(self) -> None:
        """Respond to one request after the other."""
        try:
            while request := self.next_request():
                self.respond(request)
                if request.is_last:
                    break
            else:
                return
        except RejectedError as rejection:
            self.reject(rejection.args[0])
        self.linger()

    # Requests

    def next_request(self) -> Request | None:
        """Wait for a request and return it; None when no more come.

        :raises RejectedError: when what comes is no valid request
        """
        self.until = time.monotonic() + self.keepalive
        has_begun = False
        gevent.sleep(0)  # a client that never lets us wait must not keep all others waiting
        while not self.arrived:
            if self.rejection is not None:
                raise self.rejection
            data = self.client.recv(65536)
            if not data:
                if self.has_head:
                    raise RejectedError(400)  # the body will never be complete
                return None
            if not has_begun:
                has_begun, self.until = True, time.monotonic() + READ_TIMEOUT
            self.parse(data)
        self.until = math.inf
        return self.arrived.popleft()

    def parse(self, data: bytes) -> None:
        """Pass what came to the parser."""
        self.head_size += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self.decline_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserCallbackError as error:
            if isinstance(error.__context__, RejectedError):
                self.rejection = error.__context__
            elif not isinstance(error.__context__, EnoughError):
                raise
        except httptools.HttpParserError:
            self.rejection = RejectedError(400)
        if self.head_size > HEAD_MAX:
            self.rejection = self.rejection or RejectedError(431)

    def decline_upgrade(self, data: bytes) -> None:
        """Ignore an upgrade (RFC 9110 7.8), and read the request to its end in HTTP/1.1."""
        request = self.arrived.pop()
        self.has_head = True
        if "HTTP_TRANSFER_ENCODING" in request.environ:
            framing = "Transfer-Encoding: chunked"
        else:
            framing = f"Content-Length: {request.environ.get('CONTENT_LENGTH', 0)}"
        rest = SimpleNamespace(on_body=self.on_body, on_message_complete=self.on_message_complete)
        self.parser = httptools.HttpRequestParser(rest)
        self.parse(f"POST / HTTP/1.1\r\nConnection: close\r\n{framing}\r\n\r\n".encode() + data)

    def on_message_begin(self) -> None:
        """Begin a request."""
        self.arriving = Request(self.environ.copy())

    def on_url(self, part: bytes) -> None:
        """Receive a part of the request target."""
        self.arriving.target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        """Receive a header or a trailer."""
        request = self.arriving
        request.headers += 1
        if request.headers > HEADERS_MAX:
            raise RejectedError(431)
        key = _environ_key(name)
        if key is None or self.has_head:
            return
        text = value.rstrip().decode("latin-1")  # RFC 9112 5.1
        if key in request.environ:
            if key in ("HTTP_HOST", "CONTENT_TYPE"):  # RFC 9112 3.2
                raise RejectedError(400)
            text = f"{request.environ[key]},{text}"
        request.environ[key] = text

    def on_headers_complete(self) -> None:
        """Receive the rest of the head."""
        self.head_size = 0
        self.has_head = True
        request = self.arriving
        environ = request.environ
        environ["REQUEST_METHOD"] = self.parser.get_method().decode()
        environ["SERVER_PROTOCOL"] = f"HTTP/{self.parser.get_http_version()}"
        environ["wsgi.input"] = request.body
        _set_target(environ, request.target)
        if environ["SERVER_PROTOCOL"] not in ("HTTP/1.1", "HTTP/1.0"):
            raise RejectedError(505)
        if "HTTP_TRANSFER_ENCODING" in environ:
            if environ["SERVER_PROTOCOL"] == "HTTP/1.0":  # RFC 9112 6.1
                raise RejectedError(400)
            if environ["HTTP_TRANSFER_ENCODING"].lower() != "chunked":
                raise RejectedError(501)
        if int(environ.get("CONTENT_LENGTH", 0)) > self.body_max:
            self.take_no_more()
        if "HTTP_EXPECT" in environ and environ["SERVER_PROTOCOL"] != "HTTP/1.0":
            self.expect(environ["HTTP_EXPECT"])

    def expect(self, what: str) -> None:
        """Send 100 Continue to a client that waits for it (RFC 9110 10.1.1)."""
        if what.lower() == "100-continue":
            with suppress(OSError):  # the next read shows that the client has gone
                self.client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, part: bytes) -> None:
        """Receive a part of the body."""
        body = self.arriving.body
        body.write(part)
        self.head_size = 0
        if body.tell() > self.body_max:
            self.take_no_more()

    def on_message_complete(self) -> None:
        """Queue the request for a response."""
        self.has_head = False
        self.arriving.is_last = not self.parser.should_keep_alive()
        self.arrived.append(self.arriving)

    def take_no_more(self) -> NoReturn:
        """Queue the request without the rest of its body: the app rejects it."""
        self.on_message_complete()
        self.arriving.is_last = True
        raise EnoughError

    # Responses

    def respond(self, request: Request) -> None:
        """Call the app and send its response."""
        request.body.seek(0)
        request.is_last = request.is_last or not self.worker.alive
        started: list[Any] = []
        written: list[bytes] = []

        def start_response(status: str, headers: Any, _: Any = None) -> Any:
            started[:] = status, headers
            return written.append

        try:
            parts = self.worker.wsgi(request.environ, start_response)
            try:
                body = b"".join([*written, *parts])
            finally:
                if hasattr(parts, "close"):
                    parts.close()
            status, headers = started
            head = self.head(status, headers, len(body), is_last=request.is_last)
        except Exception:
            self.worker.log.exception("The app failed.")
            raise RejectedError(500) from None
        if request.environ["REQUEST_METHOD"] == "HEAD" or status[:3] in BODILESS:
            body = b""
        self.send(head + body)

    def head(self, status: str, headers: Any, size: int, *, is_last: bool) -> bytes:
        """Return the head of a response.

        :param size: of its body, in bytes
        """
        lines = [f"\r\n{name}: {value}" for name, value in headers]
        fields = "".join(lines)
        if fields.count("\n") != len(lines) or fields.count("\r") != len(lines):
            raise ValueError("a header with a line break")
        if status[:3] not in BODILESS and "\ncontent-length:" not in fields.lower():
            fields += f"\r\nContent-Length: {size}"
        connection = "close" if is_last else "keep-alive"
        start = f"HTTP/1.1 {status}\r\nDate: {_date(int(time.time()))}\r\nConnection: {connection}"
        return f"{start}{fields}\r\n\r\n".encode("latin-1")

    def reject(self, status: int) -> None:
        """Respond instead of the app, with a problem document (RFC 9457)."""
        title = HTTPStatus(status).phrase
        problem = {"type": "about:blank", "title": title, "status": status, "detail": title}
        body = json.dumps(problem).encode()
        headers = [("Content-Type", "application/problem+json")]
        self.send(self.head(f"{status} {title}", headers, len(body), is_last=True) + body)
        self.worker.log.info("Rejected with %s: not a request that the app can receive", status)

    def send(self, data: bytes) -> None:
        """Send all of it."""
        self.until = time.monotonic() + WRITE_TIMEOUT
        sent = self.client.send(data)  # usually all; sendall() would take twice as long for it
        if sent < len(data):
            self.client.sendall(memoryview(data)[sent:])

    def linger(self) -> None:
        """Read what still comes, as a reset would drop the response (RFC 9112 9.6)."""
        self.until = time.monotonic() + LINGER_TIMEOUT
        self.client.shutdown(socket.SHUT_WR)
        while self.client.recv(65536):
            gevent.sleep(0)


@lru_cache(maxsize=256)
def _environ_key(name: bytes) -> str | None:
    """Return a header's key in WSGI's environ; None for ``A_B``, which would pass for ``A-B``."""
    if b"_" in name:
        return None
    key = name.decode("latin-1").upper().replace("-", "_")
    return key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"


def _set_target(environ: dict[str, Any], target: bytes) -> None:
    """Set the request target (RFC 9112 3.2)."""
    if not target.startswith((b"/", b"*")) and (origin := ORIGIN.match(target)):
        environ["HTTP_HOST"] = origin[1].decode("latin-1")
        target = target[origin.end() :]
    path, _, query = target.partition(b"?")
    environ["PATH_INFO"] = (unquote_to_bytes(path) if b"%" in path else path).decode("latin-1")
    environ["QUERY_STRING"] = query.decode("latin-1")
    environ["RAW_URI"] = target.decode("latin-1")


@lru_cache(maxsize=1)
def _date(seconds: int) -> str:
    return formatdate(seconds, usegmt=True)
