"""How long a request may wait for the database, and how it waits.

psycopg2 waits inside libpq unless it has a wait callback
(https://www.psycopg.org/docs/advanced.html#support-for-coroutine-libraries). Ours waits until the
deadline of the request and no longer, also when the network is silent, and lets other requests
run in the time: gevent's green threads or the threads of the operating system, whichever serve.
"""

import math
import os
import select
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache, cached_property
from typing import Any

import gevent
import psycopg2
from flask import Flask, Response, request
from gevent import monkey
from gevent.socket import wait_read, wait_write
from gevent.threadpool import ThreadPool
from psycopg2 import extensions

from phresh.database.clients import ClientGoneError, has_client_gone, next_look, watch_client

TOO_LATE = "The database did not respond in time."
# Before these, the socket of a connection may change: libpq tries the next address, or without TLS.
READY = (extensions.STATUS_READY, extensions.STATUS_BEGIN)
LONGEST_POLL = 3600  # seconds of one wait: the system's calls take no infinity
CANCEL_TIMEOUT = 1  # seconds to cancel the statement of a client that has gone

_deadline: ContextVar[float] = ContextVar("deadline", default=math.inf)


def init_app(app: Flask) -> None:
    """Set a deadline of ``DATABASE_TIMEOUT`` seconds for each request of the app."""
    seconds: float = app.config["DATABASE_TIMEOUT"]

    @app.before_request
    def begin_deadline() -> None:
        _deadline.set(time.monotonic() + seconds)
        watch_client(request.environ)
        install_wait_callback()

    @app.after_request
    def end_deadline(response: Response) -> Response:
        _deadline.set(math.inf)
        return response

    @app.teardown_request
    def end_deadline_of_failed(_error: BaseException | None) -> None:
        _deadline.set(math.inf)


def has_deadline() -> bool:
    """Return whether a request is running that has a deadline; commands have none."""
    return _deadline.get() != math.inf


def time_left() -> float:
    """Return the seconds until the deadline of the request; infinity outside of requests."""
    return _deadline.get() - time.monotonic()


@contextmanager
def paused_deadline() -> Iterator[None]:
    """Exclude what a request does inside from its time for the database."""
    left = time_left()
    try:
        yield
    finally:
        _deadline.set(time.monotonic() + left)


@contextmanager
def earlier_deadline(seconds: float) -> Iterator[None]:
    """Bring the deadline forward for what is done inside.

    :param seconds: from now; a deadline that comes sooner stays
    """
    before = _deadline.set(min(_deadline.get(), time.monotonic() + seconds))
    try:
        yield
    finally:
        _deadline.reset(before)


def install_wait_callback() -> None:
    """Make psycopg2 wait in this process as :func:`_wait_in_loop` or :func:`_wait_in_thread` do.

    The first request does it: by then gevent has replaced the sockets of a process that it runs.
    """
    if extensions.get_wait_callback() is None:
        in_loop = monkey.is_module_patched("socket")
        extensions.set_wait_callback(_wait_in_loop if in_loop else _wait_in_thread)


@contextmanager
def without_wait_callback() -> Iterator[None]:
    """Remove the wait callback for what is done inside: psycopg2 refuses COPY while it has one."""
    callback = extensions.get_wait_callback()
    extensions.set_wait_callback(None)
    try:
        yield
    finally:
        extensions.set_wait_callback(callback)


class Waker:
    """Wakes the green thread that waits for a connection.

    Its watcher and its timer stay from one wait to the next: making both for each wait took 5% of
    the processor time of a request.

    :param descriptor: the file descriptor of the connection's socket
    """

    def __init__(self, descriptor: int) -> None:
        self._hub = gevent.get_hub()
        # A copy, which only close() closes: libpq closes its socket when the connection is lost,
        # and libev aborts the process when a descriptor that it watches is not open.
        self._descriptor: int | None = os.dup(descriptor)
        self._watcher = self._hub.loop.io(self._descriptor, 1)  # 1: readable
        self._timer: Any = None
        self._due = math.inf  # when the timer wakes
        self._waiting: Any = None

    def wait(self, until: float) -> None:
        """Wait until the socket is readable or the time has come, or less: the caller checks.

        :param until: seconds of the monotonic clock
        """
        if not self._watcher.active:
            self._watcher.start(self._wake)
        if until < self._due:
            self._stop_timer()
            self._timer = self._hub.loop.timer(max(until - time.monotonic(), 0))
            self._timer.start(self._end_time)
            self._due = until
        self._waiting = gevent.getcurrent()
        try:
            self._hub.switch()
        finally:
            self._waiting = None

    def _wake(self) -> None:
        if self._waiting is not None:
            self._waiting.switch()
        else:  # the server sent something unasked: the next wait reads it; until then, don't spin
            self._watcher.stop()

    def _end_time(self) -> None:
        self._stop_timer()
        if self._waiting is not None:  # perhaps it waits for longer: it checks, and waits again
            self._waiting.switch()

    def _stop_timer(self) -> None:
        self._due = math.inf
        if self._timer is not None:
            self._timer.close()
            self._timer = None

    def close(self) -> None:
        """Stop watching."""
        self._watcher.close()
        self._stop_timer()
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class DriverConnection(extensions.connection):
    """psycopg2's connection, with the waker of the green thread that waits for it."""

    @cached_property
    def waker(self) -> Waker:
        """The waker, made at the first wait once connected."""
        return Waker(self.fileno())

    def close_waker(self) -> None:
        """Close the waker, where there is one."""
        if "waker" in self.__dict__:
            self.waker.close()
            del self.waker

    def close(self) -> None:
        """Close it, or what is left of it."""
        self.close_waker()
        super().close()

    __del__ = close_waker  # of one that psycopg2 or SQLAlchemy drops without closing it


def _wait_in_loop(connection: DriverConnection) -> None:
    """Wait in a green thread until psycopg2's connection is done, at most until the deadline.

    When this raises, psycopg2 closes the connection, and the pool replaces it.

    :raises psycopg2.OperationalError: at the deadline
    :raises ClientGoneError: when the client has gone, and the statement cannot be cancelled
    """
    look, is_cancelled = math.inf, False  # when to see whether the client is there
    try:
        while (state := connection.poll()) != extensions.POLL_OK:
            now, until = time.monotonic(), _deadline.get()
            if until <= now:
                raise psycopg2.OperationalError(TOO_LATE)
            if look <= now and not is_cancelled and has_client_gone():
                _cancel_statement(connection)
                is_cancelled = True
                continue
            look = math.inf if is_cancelled else next_look(now)
            if state == extensions.POLL_READ and connection.status in READY:
                connection.waker.wait(min(until, look))
            else:
                wait = wait_read if state == extensions.POLL_READ else wait_write
                with suppress(TimeoutError):
                    wait(connection.fileno(), min(until - now, look - now, LONGEST_POLL))
    except BaseException:
        connection.close_waker()  # psycopg2 does not call close() when connecting fails
        raise


@cache
def _cancelling() -> ThreadPool:
    """Return the threads that cancel statements: libpq blocks in it, and has no time limit."""
    return ThreadPool(2)


def _cancel_statement(connection: DriverConnection) -> None:
    """Cancel the statement that runs, whose error ends the wait: the connection stays of use.

    :raises ClientGoneError: when that is not possible in time
    """
    until = time.monotonic() + CANCEL_TIMEOUT
    is_cancelled = False
    with suppress(psycopg2.Error), gevent.Timeout(CANCEL_TIMEOUT, False):
        _cancelling().spawn(connection.cancel).get()
        is_cancelled = True
    if not is_cancelled:
        raise ClientGoneError("The client has gone.")
    _deadline.set(min(_deadline.get(), until))


def _wait_in_thread(connection: DriverConnection) -> None:
    """Do the same in a thread of the operating system, which is blocked until then."""
    while (state := connection.poll()) != extensions.POLL_OK:
        if (left := time_left()) <= 0:
            raise psycopg2.OperationalError(TOO_LATE)
        # Not select(), which takes no descriptor above 1023.
        poller = select.poll()
        readable = state == extensions.POLL_READ
        poller.register(connection.fileno(), select.POLLIN if readable else select.POLLOUT)
        poller.poll(min(left, LONGEST_POLL) * 1000)
