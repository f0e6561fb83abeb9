"""One client's connection, in green threads: HTTP/1.1 without gunicorn's parser and writer.

Those, in Python, take more time than the rest of a request.
"""

import math
import select
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import gevent
from gevent import monkey

from phresh.serving.requests import RejectedError, Request, RequestParser
from phresh.serving.responses import BODILESS, declared_size, rejection, response_head

RECEIVE_MAX = 16 * 1024  # bytes to receive at once
PIECE_MAX = 1024 * 1024  # bytes of a stream of known length that are in memory at once
COPIED_MAX = 16 * 1024  # bytes of a body that are sent in one piece with the head
UNSENT_MAX = 64 * 1024 * 1024  # bytes of responses that a worker keeps for slow clients
FIRST_TIMEOUT = 5  # seconds for a new connection to send its first byte, or the keep-alive time
READ_TIMEOUT = 15  # seconds for one request to arrive, and for TLS to be negotiated
WRITE_TIMEOUT = 30  # seconds for the client to take a response, or a piece of it
LINGER_TIMEOUT = 1  # seconds to go on reading what will not be used

# That the client has closed its sending side (Linux), or the connection.
GONE = getattr(select, "POLLRDHUP", 0) | select.POLLHUP | select.POLLERR
poll = monkey.get_original("select", "poll")  # gevent's would let others run


class Unsent:
    """What the clients of a worker have yet to take of their responses, bounded in bytes."""

    def __init__(self) -> None:
        self._sizes: dict[Connection, int] = {}  # the one that has waited longest first
        self._total = 0

    def add(self, connection: "Connection", size: int) -> None:
        """Count what a client did not take at once; cut off the slowest others above the bound."""
        self._sizes[connection] = size
        self._total += size
        while self._total > UNSENT_MAX and len(self._sizes) > 1:
            slowest = next(iter(self._sizes))
            self.remove(slowest)
            slowest.cut("The responses that clients do not read have become too many.")

    def remove(self, connection: "Connection") -> None:
        """Count it no more."""
        self._total -= self._sizes.pop(connection, 0)


class Connection:
    """A client's connection.

    :param worker: gunicorn's worker
    :param client: its socket
    :param addr: its address; empty for a Unix socket
    """

    def __init__(self, worker: Any, listener: Any, client: Any, addr: Any) -> None:
        self.worker = worker
        self.client = client
        self.address = addr[0] if isinstance(addr, tuple) else ""
        self.until = math.inf  # when to stop waiting for the client: a timer each costs more
        self.keepalive = worker.cfg.keepalive
        is_network = listener.family != socket.AF_UNIX
        host, port = listener.getsockname()[:2] if is_network else ("localhost", 80)
        environ = {
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "https" if worker.tls else "http",
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": True,
            "wsgi.run_once": False,
            "wsgi.input_terminated": True,
            "SCRIPT_NAME": worker.mount,
            "SERVER_NAME": host,
            "SERVER_PORT": str(port),
            "REMOTE_ADDR": self.address,
            "REMOTE_PORT": str(addr[1]) if is_network else "",
            "phresh.is_connected": partial(_is_connected, client.fileno()),
        }
        self.parser = RequestParser(environ, worker.limits)

    def serve(self) -> None:
        """Respond to one request after the other."""
        if self.worker.tls:
            self.until = time.monotonic() + READ_TIMEOUT
            self.client.do_handshake()
        idle = max(self.keepalive, FIRST_TIMEOUT)
        try:
            while request := self.next_request(idle):
                self.respond(request)
                if request.is_last:
                    break
                idle = self.keepalive
            else:
                return
        except RejectedError as error:
            self.reject(error.args[0])
        self.linger()

    def next_request(self, idle: float) -> Request | None:
        """Wait for a request and return it; None when no more come.

        :param idle: seconds for it to begin
        :raises RejectedError: when what comes is no valid request
        """
        self.until = time.monotonic() + idle
        has_begun = False
        gevent.sleep(0)  # a client that never lets us wait must not keep all others waiting
        while (request := self.parser.next()) is None:
            if self.parser.expects_continue:  # RFC 9110 10.1.1
                self.client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            if has_begun:
                gevent.sleep(0)
            data = self.client.recv(RECEIVE_MAX)
            if not data:
                if self.parser.is_in_body:
                    raise RejectedError(400)  # the body will never be complete
                return None
            if not has_begun:
                has_begun, self.until = True, time.monotonic() + READ_TIMEOUT
            self.parser.receive(data)
        self.until = math.inf
        return request

    def respond(self, request: Request) -> None:
        """Call the app and send its response."""
        worker = self.worker
        worker.nr += 1
        if worker.nr >= worker.max_requests:
            worker.retire()
        request.body.seek(0)
        is_head = request.environ["REQUEST_METHOD"] == "HEAD"
        started: list[Any] = []
        written: list[bytes] = []

        def start_response(status: str, headers: Any, _: Any = None) -> Any:
            started[:] = status, headers
            return written.append

        parts: Any = None
        try:
            try:
                parts = worker.wsgi(request.environ, start_response)
                size = None if type(parts) is list else declared_size(started)
                rest = iter(parts)
                body = b"".join([*written, *_first(rest, math.inf if size is None else PIECE_MAX)])
                missing = 0 if size is None else size - len(body)
                status, headers = started
                is_last = request.is_last or not worker.alive or not self.keepalive
                head, request.is_last = response_head(status, headers, len(body), is_last=is_last)
            except Exception:
                worker.log.exception("The app failed.")
                head, body = rejection(500)
                request.is_last, status, missing = True, "500", 0
            if is_head or status[:3] in BODILESS:
                body, missing = b"", 0
            self.send(head, body)
            if missing:
                self.send_rest(rest, missing)
        finally:
            if hasattr(parts, "close"):
                parts.close()

    def reject(self, status: int) -> None:
        """Respond instead of the app."""
        head, body = rejection(status)
        fields = {"status": status, "remote_addr": self.address}
        self.worker.log.info(
            "Rejected with %s: not a request that the app can receive",
            status,
            extra={"fields": fields},
        )
        self.send(head, b"" if self.parser.is_head else body)

    def send(self, head: bytes, body: bytes) -> None:
        """Send both.

        A large body is not copied: while the client takes it, there is one of it.
        """
        self.until = time.monotonic() + WRITE_TIMEOUT
        first = head + body[:COPIED_MAX]
        rest = memoryview(body)[COPIED_MAX:]
        sent = self.client.send(first)  # usually all; sendall() would take twice as long for it
        if sent == len(first) and not rest:
            return
        self.worker.unsent.add(self, len(first) - sent + len(rest))
        try:
            self.client.sendall(memoryview(first)[sent:])
            self.client.sendall(rest)
        finally:
            self.worker.unsent.remove(self)

    def send_rest(self, parts: Iterator[bytes], missing: int) -> None:
        """Send the rest of a stream, piece by piece.

        :param missing: the bytes that it has to have
        :raises ConnectionAbortedError: when it has others; so that the client does not take what
            it has got for the whole body, the connection ends
        """
        while missing > 0:
            try:
                piece = b"".join(_first(parts, PIECE_MAX))
            except Exception:
                self.worker.log.exception("The app failed in the middle of a response.")
                break
            if not piece or len(piece) > missing:
                self.worker.log.error("A response is not as long as its Content-Length.")
                break
            self.send(b"", piece)
            missing -= len(piece)
        if missing:
            raise ConnectionAbortedError

    def linger(self) -> None:
        """Read what still comes, as a reset would drop the response (RFC 9112 9.6)."""
        self.until = time.monotonic() + LINGER_TIMEOUT
        self.close_tls()
        self.client.shutdown(socket.SHUT_WR)
        while self.client.recv(65536):
            gevent.sleep(0)

    def close_tls(self) -> None:
        """Send TLS's close_notify (RFC 8446 6.1), without waiting for that of the client."""
        if self.worker.tls:
            with suppress(OSError, ValueError):  # it has gone, or has negotiated nothing
                self.client.settimeout(0)
                self.client.unwrap()
            self.client.settimeout(None)

    def cut(self, reason: str = "") -> None:
        """End all waits for the client, and so the connection.

        :param reason: what to log
        """
        if reason:
            fields = {"remote_addr": self.address}
            self.worker.log.warning("Closed a connection: %s", reason, extra={"fields": fields})
        with suppress(OSError):  # the client has gone
            self.close_tls()
            self.client.shutdown(socket.SHUT_RDWR)


def _first(parts: Iterator[bytes], most: float) -> Iterator[bytes]:
    """Yield the next parts of a body, until there are so many bytes or more."""
    size = 0
    while size < most and (part := next(parts, None)) is not None:
        size += len(part)
        yield part


def _is_connected(descriptor: int) -> bool:
    """Return whether a client may still read a response.

    One that has closed its sending side counts as gone; more requests that it has sent do not.
    """
    poller = poll()
    poller.register(descriptor, GONE)
    return not poller.poll(0)
