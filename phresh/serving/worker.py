"""gunicorn's gevent worker with httptools for its parser, and an end that drops no request.

gunicorn's own parser and writer, in Python, take more time than all else that a request takes.
httptools is llhttp, the parser of Node.js, which is strict
(https://github.com/nodejs/llhttp).
"""

import ctypes
import json
import math
import mmap
import re
import select
import socket
import struct
import sys
import time
from collections import deque
from contextlib import suppress
from email.utils import formatdate
from functools import lru_cache, partial
from http import HTTPStatus
from io import BytesIO
from types import SimpleNamespace
from typing import Any, NoReturn
from urllib.parse import unquote_to_bytes

import gevent
import httptools
from gevent.server import StreamServer
from gunicorn import glogging
from gunicorn.workers.ggevent import GeventWorker

HEAD_MAX = 64 * 1024  # bytes of request line and headers
HEADERS_MAX = 100
BODILESS = ("204", "304")  # RFC 9110 6.4.1
ORIGIN = re.compile(rb"[^/?#]+://([^/?#]+)")  # of an absolute target; its host is what counts
READ_TIMEOUT = 15  # seconds for one request to arrive
WRITE_TIMEOUT = 30  # seconds for an answer to be taken
LINGER_TIMEOUT = 1  # seconds to go on reading what will not be used
DRAIN_TIMEOUT = 5  # seconds to take what the kernel has taken
LEAVE_TIMEOUT = 0.001  # seconds to leave a connection to another worker
WORKERS_MAX = 256  # of a master, with those that just end or begin
COUNT_MAX = 2**16 - 1  # of what the board counts

# What the module socket has no name for (Linux's asm-generic/socket.h).
SO_ATTACH_FILTER = 26
SO_DETACH_FILTER = 27
# Drops a packet that asks for a connection: of the flags SYN and ACK in its TCP header
# (RFC 9293 3.1) it has SYN alone. Each step: code, jump if true, jump if false, value
# (https://docs.kernel.org/networking/filter.html).
DROP_SYN = (
    (0x30, 0, 0, 13),  # load the byte with the flags
    (0x54, 0, 0, 0x12),  # SYN and ACK of it
    (0x15, 0, 1, 0x02),  # unless SYN alone, skip one
    (0x06, 0, 0, 0),  # drop
    (0x06, 0, 0, 0xFFFFFFFF),  # keep all of it
)


class Logger(glogging.Logger):
    """Leaves the access log to the app, which knows more."""

    def access(self, *_: Any) -> None:
        """Do nothing."""


class Server(StreamServer):
    """Takes connections, but leaves one for a moment to a worker that has fewer.

    The kernel wakes all workers for each, and the fastest takes it: of 16 that came at once one
    worker took all, and connections that are kept stay where they are.

    :param handler_class: the worker; gunicorn has no other way to give a server something
    """

    max_accept = 1  # at once

    def __init__(
        self, listener: Any, *, handler_class: Any, spawn: Any, ssl_context: Any = None, **_: Any
    ) -> None:
        self._worker: Worker = handler_class
        self._left_to = -1  # a worker that had so many
        self._left_at = 0.0
        tls = {} if ssl_context is None else {"ssl_context": ssl_context}
        super().__init__(listener, partial(self._worker.handle, listener), spawn=spawn, **tls)

    def do_read(self) -> Any:
        """Take a connection; None to leave it, and soon be asked again."""
        fewest = self._worker.fewest_connections()
        if len(self._worker.connections) > fewest:
            now = time.monotonic()
            if self._left_to != fewest:  # else that one has not taken it yet
                self._left_to, self._left_at = fewest, now
            if now - self._left_at < LEAVE_TIMEOUT:
                return None
        self._left_to = -1
        return super().do_read()


class Worker(GeventWorker):
    """Serves each connection in a green thread."""

    server_class = Server
    body_max = 64 * 1024  # bytes; the app refuses a body that is longer
    is_ending = False  # before it lets go of the listeners

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Still in the master, before it forks.
        super().__init__(*args, **kwargs)
        self.wsgi_handler = self  # what the server gets of us
        self.connections: set[Connection] = set()
        self.board = _board()
        self.place = next((i for i, count in enumerate(self.board) if not count), 0)
        self.board[self.place] = COUNT_MAX  # until it serves, nothing is left to it

    def run(self) -> None:
        """Serve until the end."""
        self._tell_others()
        super().run()

    def _tell_others(self) -> None:
        if not self.is_ending:
            self.board[self.place] = min(len(self.connections) + 1, COUNT_MAX)

    def leave_board(self) -> None:
        """Have no connection left to this worker any more; its place is free."""
        self.is_ending = True
        self.board[self.place] = 0

    def fewest_connections(self) -> int:
        """Give the number of connections of the worker that has fewest."""
        return min(filter(None, self.board), default=1) - 1

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """Serve a connection until it ends."""
        client.setblocking(True)
        connection = Connection(self, listener, client, addr)
        self.connections.add(connection)
        self._tell_others()
        try:
            connection.serve()
        except OSError:
            pass  # the client went away, or is too slow
        finally:
            self.connections.remove(connection)
            self._tell_others()
            client.close()

    def notify(self) -> None:
        """Tell the master that it lives: once a second. A living one takes connections."""
        super().notify()
        now = time.monotonic()
        for connection in self.connections:
            if connection.until < now:
                with suppress(OSError):  # the client went away
                    connection.client.shutdown(socket.SHUT_RDWR)  # so that what waits for it ends
        if not self.is_ending:
            for listener in self.sockets:
                with suppress(OSError):  # there is no filter
                    listener.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)

    def handle_exit(self, sig: int, frame: Any) -> None:
        """End on SIGTERM, but first take the connections that the kernel has already.

        It resets them when the last worker closes the listener. New ones are kept away meanwhile,
        else there would always be some.
        """
        self.leave_board()
        for listener in self.sockets:
            _keep_away(listener)
        gevent.spawn(self._end_when_drained, sig, frame)

    def _end_when_drained(self, sig: int, frame: Any) -> None:
        until = time.monotonic() + DRAIN_TIMEOUT
        while select.select(self.sockets, [], [], 0)[0] and time.monotonic() < until:
            gevent.sleep(0.01)
        super().handle_exit(sig, frame)


@lru_cache(maxsize=1)
def _board() -> memoryview:
    """Give the memory that the workers of this master share.

    For each worker it has one more than its connections.
    """
    return memoryview(mmap.mmap(-1, 2 * WORKERS_MAX)).cast("H")


def _keep_away(listener: Any) -> None:
    """Have the kernel drop what asks for a connection, so that it is asked again or elsewhere."""
    steps = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in DROP_SYN))
    program = struct.pack("HL", len(DROP_SYN), ctypes.addressof(steps))
    with suppress(OSError):  # not on this system
        listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)


class RefusedError(Exception):
    """A request that the app can't be given; the argument is the status of the answer."""


class EnoughError(Exception):
    """More of a body than the app would read."""


class Request:
    """A request: what the app gets of it, and whether it is the last on its connection."""

    def __init__(self, environ: dict[str, Any]) -> None:
        self.environ = environ
        self.target = b""
        self.headers = 0
        self.body = BytesIO()
        self.is_last = False


class Connection:
    """A client's connection; the parser calls it with what it has found (``on_...``)."""

    def __init__(self, worker: Worker, listener: Any, client: Any, addr: Any) -> None:
        self.worker = worker
        self.client = client
        self.until = math.inf  # when to give up waiting for the client: a timer each costs more
        self.parser = httptools.HttpRequestParser(self)
        self.arrived: deque[Request] = deque()
        self.refusal: RefusedError | None = None  # of what came after those
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
        """Answer one request after the other."""
        try:
            while request := self.next_request():
                self.answer(request)
                if request.is_last:
                    break
            else:
                return
        except RefusedError as refusal:
            self.refuse(refusal.args[0])
        self.linger()

    # What arrives

    def next_request(self) -> Request | None:
        """Wait for a request; give None when none comes any more.

        :raises RefusedError: when what comes is not one
        """
        self.until = time.monotonic() + self.keepalive
        has_begun = False
        gevent.sleep(0)  # else a client that never lets us wait keeps all others waiting
        while not self.arrived:
            if self.refusal is not None:
                raise self.refusal
            data = self.client.recv(65536)
            if not data:
                if self.has_head:
                    raise RefusedError(400)  # the body will never be complete
                return None
            if not has_begun:
                has_begun, self.until = True, time.monotonic() + READ_TIMEOUT
            self.parse(data)
        self.until = math.inf
        return self.arrived.popleft()

    def parse(self, data: bytes) -> None:
        """Have the parser see what came."""
        self.head_size += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self.decline_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserCallbackError as error:
            if isinstance(error.__context__, RefusedError):
                self.refusal = error.__context__
            elif not isinstance(error.__context__, EnoughError):
                raise
        except httptools.HttpParserError:
            self.refusal = RefusedError(400)
        if self.head_size > HEAD_MAX:
            self.refusal = self.refusal or RefusedError(431)

    def decline_upgrade(self, data: bytes) -> None:
        """Go on in HTTP/1.1 (RFC 9110 7.8) to the end of the request; its parser would not."""
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
        """Take a part of what is asked for."""
        self.arriving.target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, or a trailer."""
        request = self.arriving
        request.headers += 1
        if request.headers > HEADERS_MAX:
            raise RefusedError(431)
        key = _environ_key(name)
        if key is None or self.has_head:
            return
        text = value.rstrip().decode("latin-1")  # RFC 9112 5.1
        if key in request.environ:
            if key in ("HTTP_HOST", "CONTENT_TYPE"):  # RFC 9112 3.2
                raise RefusedError(400)
            text = f"{request.environ[key]},{text}"
        request.environ[key] = text

    def on_headers_complete(self) -> None:
        """Take what else the head says."""
        self.head_size = 0
        self.has_head = True
        request = self.arriving
        environ = request.environ
        environ["REQUEST_METHOD"] = self.parser.get_method().decode()
        environ["SERVER_PROTOCOL"] = f"HTTP/{self.parser.get_http_version()}"
        environ["wsgi.input"] = request.body
        _set_target(environ, request.target)
        if environ["SERVER_PROTOCOL"] not in ("HTTP/1.1", "HTTP/1.0"):
            raise RefusedError(505)
        if "HTTP_TRANSFER_ENCODING" in environ:
            if environ["SERVER_PROTOCOL"] == "HTTP/1.0":  # RFC 9112 6.1
                raise RefusedError(400)
            if environ["HTTP_TRANSFER_ENCODING"].lower() != "chunked":
                raise RefusedError(501)
        if int(environ.get("CONTENT_LENGTH", 0)) > self.body_max:
            self.take_no_more()
        if "HTTP_EXPECT" in environ and environ["SERVER_PROTOCOL"] != "HTTP/1.0":
            self.expect(environ["HTTP_EXPECT"])

    def expect(self, what: str) -> None:
        """Tell a client that waits for it to send the body (RFC 9110 10.1.1)."""
        if what.lower() == "100-continue":
            with suppress(OSError):  # the next read tells that the client went away
                self.client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, part: bytes) -> None:
        """Take a part of the body."""
        body = self.arriving.body
        body.write(part)
        self.head_size = 0
        if body.tell() > self.body_max:
            self.take_no_more()

    def on_message_complete(self) -> None:
        """Have the request answered."""
        self.has_head = False
        self.arriving.is_last = not self.parser.should_keep_alive()
        self.arrived.append(self.arriving)

    def take_no_more(self) -> NoReturn:
        """Have the request answered without the rest of its body: the app refuses it."""
        self.on_message_complete()
        self.arriving.is_last = True
        raise EnoughError

    # What is answered

    def answer(self, request: Request) -> None:
        """Have the app answer, and send that."""
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
            raise RefusedError(500) from None
        if request.environ["REQUEST_METHOD"] == "HEAD" or status[:3] in BODILESS:
            body = b""
        self.send(head + body)

    def head(self, status: str, headers: Any, size: int, *, is_last: bool) -> bytes:
        """Give the head of an answer.

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

    def refuse(self, status: int) -> None:
        """Answer in the place of the app, with problem details (RFC 9457)."""
        title = HTTPStatus(status).phrase
        problem = {"type": "about:blank", "title": title, "status": status, "detail": title}
        body = json.dumps(problem).encode()
        headers = [("Content-Type", "application/problem+json")]
        self.send(self.head(f"{status} {title}", headers, len(body), is_last=True) + body)
        self.worker.log.info("Refused with %s: no request for the app", status)

    def send(self, data: bytes) -> None:
        """Send all of it."""
        self.until = time.monotonic() + WRITE_TIMEOUT
        sent = self.client.send(data)  # mostly all, in which sendall() would take twice as long
        if sent < len(data):
            self.client.sendall(memoryview(data)[sent:])

    def linger(self) -> None:
        """Read what still comes, for the kernel forgets an answer when it has to reset.

        RFC 9112 9.6.
        """
        self.until = time.monotonic() + LINGER_TIMEOUT
        self.client.shutdown(socket.SHUT_WR)
        while self.client.recv(65536):
            gevent.sleep(0)


@lru_cache(maxsize=256)
def _environ_key(name: bytes) -> str | None:
    """Give the key of a header in WSGI's environ; none to ``A_B``, which would pass for ``A-B``."""
    if b"_" in name:
        return None
    key = name.decode("latin-1").upper().replace("-", "_")
    return key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"


def _set_target(environ: dict[str, Any], target: bytes) -> None:
    """Set what is asked for (RFC 9112 3.2)."""
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
