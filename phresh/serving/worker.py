"""gunicorn's gevent worker with our HTTP, an even share of connections, and an end without loss."""

import ctypes
import mmap
import select
import socket
import struct
import time
from contextlib import suppress
from functools import lru_cache, partial
from typing import Any

import gevent
from gevent.server import StreamServer
from gunicorn.workers.ggevent import GeventWorker

from phresh.config import read_settings
from phresh.serving.connection import Connection, Unsent
from phresh.serving.requests import Limits
from phresh.serving.settings import mount_point, refuse_ignored, with_request_hooks

DRAIN_TIMEOUT = 5  # seconds to accept the connections that the kernel has accepted
LEAVE_TIMEOUT = 0.001  # seconds to leave a connection to another worker
WORKERS_MAX = 256  # of a master, with those that are just ending or starting
COUNT_MAX = 2**16 - 1  # the highest number on the board
NOT_SENT_MAX = 128 * 1024  # bytes of a response that the kernel takes before it sends them

# What the module socket has no name for (Linux's asm-generic/socket.h).
SO_ATTACH_FILTER = 26
SO_DETACH_FILTER = 27
# Drops a packet that requests a connection: its TCP header has the flag SYN and not ACK
# (RFC 9293 3.1). Each step: code, jump if true, jump if false, value
# (https://docs.kernel.org/networking/filter.html).
DROP_SYN = (
    (0x30, 0, 0, 13),  # load the byte with the flags
    (0x54, 0, 0, 0x12),  # SYN and ACK of it
    (0x15, 0, 1, 0x02),  # unless SYN alone, skip one
    (0x06, 0, 0, 0),  # drop
    (0x06, 0, 0, 0xFFFFFFFF),  # keep all of it
)


class Server(StreamServer):
    """Accepts connections, but leaves one for a moment to a worker that has fewer.

    The kernel wakes all workers for each connection, and the fastest accepts it: of 16 that came at
    once, one worker accepted all; and connections that are kept alive stay where they are.

    :param handler_class: the worker; gunicorn has no other way to pass a server something
    """

    max_accept = 1  # at once

    def __init__(
        self, listener: Any, *, handler_class: Any, spawn: Any, ssl_context: Any = None, **_: Any
    ) -> None:
        self._worker: Worker = handler_class
        self._left_to = -1  # a worker that had this many
        self._left_at = 0.0
        self._worker.tls = ssl_context  # not gevent's: nothing would bound the time for it
        super().__init__(listener, partial(self._worker.handle, listener), spawn=spawn)

    def do_read(self) -> Any:
        """Return a connection; None to leave it, and to be called again soon."""
        fewest = self._worker.fewest_connections()
        if len(self._worker.connections) > fewest:
            now = time.monotonic()
            if self._left_to != fewest:  # otherwise that worker has not accepted it yet
                self._left_to, self._left_at = fewest, now
            if now - self._left_at < LEAVE_TIMEOUT:
                return None
        self._left_to = -1
        return super().do_read()


class Worker(GeventWorker):
    """Serves each connection in a green thread."""

    server_class = Server
    is_ending = False  # until it closes the listeners
    tls: Any = None  # the SSL context, if there is one
    limits: Limits
    wsgi: Any
    alive: bool

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Still in the master, before it forks.
        super().__init__(*args, **kwargs)
        self.wsgi_handler = self  # what the server receives of us
        self.connections: set[Connection] = set()
        self.board = _board()
        self.place = next((i for i, count in enumerate(self.board) if not count), 0)
        self.board[self.place] = COUNT_MAX  # until it serves, no connection is left to it
        self.unsent = Unsent()
        self.mount = mount_point()

    @staticmethod
    def check_config(cfg: Any, _log: Any) -> None:
        """Refuse to start with a setting of gunicorn that this worker would ignore.

        :raises RuntimeError: which gunicorn shows as one line
        """
        refuse_ignored(cfg)
        mount_point()

    def load_wsgi(self) -> None:
        """Load the app, and read from its settings how long a body may be."""
        super().load_wsgi()
        # WSGI middleware around the app has no settings: take those of the environment.
        settings = getattr(self.wsgi, "config", None) or read_settings()
        cfg = self.cfg
        self.limits = Limits(
            line=cfg.limit_request_line,
            fields=cfg.limit_request_fields,
            field=cfg.limit_request_field_size,
            body=settings["MAX_CONTENT_LENGTH"],
        )
        self.wsgi = with_request_hooks(self, self.wsgi)

    def run(self) -> None:
        """Serve until the end."""
        self._tell_others()
        for listener in filter(_is_network, self.sockets):
            with suppress(OSError, AttributeError):  # not on this system
                option = socket.TCP_NOTSENT_LOWAT  # which its connections inherit
                listener.setsockopt(socket.IPPROTO_TCP, option, NOT_SENT_MAX)
        super().run()

    def _tell_others(self) -> None:
        if not self.is_ending:
            self.board[self.place] = min(len(self.connections) + 1, COUNT_MAX)

    def leave_board(self) -> None:
        """Free the place on the board: no connection is left to this worker any more."""
        self.is_ending = True
        self.board[self.place] = 0

    def fewest_connections(self) -> int:
        """Return the number of connections of the worker that has fewest."""
        return min(filter(None, self.board), default=1) - 1

    def retire(self) -> None:
        """End after ``max_requests``; connections that the kernel has accepted are for others."""
        if self.alive:
            self.log.info("Restarting the worker after %s requests.", self.nr)
            self.leave_board()
            self.alive = False

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """Serve a connection until it ends."""
        client.setblocking(True)
        if self.tls:
            client = self.tls.wrap_socket(
                client,
                server_side=True,
                do_handshake_on_connect=False,
                suppress_ragged_eofs=self.cfg.suppress_ragged_eofs,
            )
        connection = Connection(self, listener, client, addr)
        self.connections.add(connection)
        self._tell_others()
        try:
            connection.serve()
        except OSError:
            pass  # the client has gone, or is too slow
        finally:
            self.connections.remove(connection)
            self._tell_others()
            connection.close_tls()
            client.close()

    def notify(self) -> None:
        """Notify the master, once a second, and end connections that are past their time."""
        super().notify()
        now = time.monotonic()
        for connection in self.connections:
            if connection.until < now:
                connection.cut()
        if not self.is_ending:
            for listener in filter(_is_network, self.sockets):
                with suppress(OSError):  # there is no filter
                    listener.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)

    def handle_exit(self, sig: int, frame: Any) -> None:
        """End on SIGTERM, but first accept the connections that the kernel has accepted.

        It would reset them when the last worker closes the listener. New ones are kept away until
        then; otherwise there would always be some.
        """
        if self.is_ending:  # a second signal, perhaps after the listeners were closed
            return
        self.leave_board()
        for listener in filter(_is_network, self.sockets):
            _keep_away(listener)
        gevent.spawn(self._end_when_drained, sig, frame)

    def _end_when_drained(self, sig: int, frame: Any) -> None:
        until = time.monotonic() + DRAIN_TIMEOUT
        while select.select(self.sockets, [], [], 0)[0] and time.monotonic() < until:
            gevent.sleep(0.01)
        super().handle_exit(sig, frame)


@lru_cache(maxsize=1)
def _board() -> memoryview:
    """Return the memory that the workers of this master share.

    For each worker it has the number of its connections plus one.
    """
    return memoryview(mmap.mmap(-1, 2 * WORKERS_MAX)).cast("H")


def _is_network(listener: Any) -> bool:
    return bool(listener.family != socket.AF_UNIX)


def _keep_away(listener: Any) -> None:
    """Drop requests for a connection in the kernel: clients repeat them, here or elsewhere."""
    steps = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in DROP_SYN))
    program = struct.pack("HL", len(DROP_SYN), ctypes.addressof(steps))
    with suppress(OSError):  # not on this system
        listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
