"""The connections that requests share."""

import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import cached_property
from typing import Any

import gevent
import psycopg2
from psycopg2 import extensions
from sqlalchemy.dialects.postgresql.psycopg2 import dialect

from phresh.statements import Query

DIALECT: Any = dialect(dbapi=psycopg2)
RECYCLE = 1800  # seconds: a network may forget a connection that is older
PREPARED_MAX = 200  # statements a connection, each of which takes memory of the server


class Waker:
    """Wakes the green thread that waits for a connection.

    Its watcher goes on watching, and its timer running, from one wait to the next: to make both for
    each wait took a twentieth of the time of a request.

    :param descriptor: of the connection's socket
    """

    def __init__(self, descriptor: int) -> None:
        self._hub = gevent.get_hub()
        self._watcher = self._hub.loop.io(descriptor, 1)  # 1: to read
        self._timer: Any = None
        self._due = math.inf  # when the timer wakes
        self._waiting: Any = None

    def wait(self, until: float) -> None:
        """Wait until there is something to read, or so long, or for less: the caller has to look.

        :param until: by the monotonic clock, in seconds
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
        else:  # what the server says unasked is for who asks next, and until then would come again
            self._watcher.stop()

    def _end_time(self) -> None:
        self._stop_timer()
        if self._waiting is not None:  # perhaps for longer, and will say so
            self._waiting.switch()

    def _stop_timer(self) -> None:
        self._due = math.inf
        if self._timer is not None:
            self._timer.close()
            self._timer = None

    def close(self) -> None:
        """Watch no more."""
        self._watcher.close()
        self._stop_timer()


class Driver(extensions.connection):
    """psycopg2's connection, and what wakes who waits for it."""

    @cached_property
    def waker(self) -> Waker:
        """Make one, once connected: before, the socket may change."""
        return Waker(self.fileno())

    def close(self) -> None:
        """Close it, or what is left of it."""
        if "waker" in self.__dict__:
            self.waker.close()
            del self.waker
        super().close()


class Connection:
    """A connection of the pool, with what it has prepared.

    :param driver: in autocommit, so that nothing is sent but what is said here
    :param prepares: whether it prepares statements, or sends each as it is
    """

    def __init__(self, driver: Driver, *, prepares: bool) -> None:
        self.driver = driver
        self.prepares = prepares
        self.opened_at = time.monotonic()
        self.has_served = False  # a request before this one
        self.prepared: dict[str, None] = {}  # names, the oldest first

    def run(self, query: Query, begin: str = "") -> list[tuple[Any, ...]]:
        """Give the rows of a query.

        :param begin: what to send before it, in one message
        """
        statement = query.statement
        prepares = self.prepares and statement.is_prepared
        with self.driver.cursor() as cursor:
            if prepares and statement.name not in self.prepared:
                self._prepare(cursor, statement.name, statement.prepare)
            text, values = query.to_send(prepared=prepares)
            cursor.execute(begin + text, values)
            return cursor.fetchall() if cursor.description else []

    def _prepare(self, cursor: Any, name: str, text: str) -> None:
        if len(self.prepared) == PREPARED_MAX:
            oldest = next(iter(self.prepared))
            cursor.execute(f"DEALLOCATE {oldest}")
            del self.prepared[oldest]
        cursor.execute(text)
        self.prepared[name] = None

    def end(self, command: str) -> None:
        """End the transaction; close the connection where that fails, which the server takes so.

        :param command: ``COMMIT``, which raises what comes in its way, or ``ROLLBACK``
        """
        try:
            with self.driver.cursor() as cursor:
                cursor.execute(command)
                if cursor.statusmessage != command:
                    # PostgreSQL's answer to a COMMIT after an error that somebody swallowed.
                    raise psycopg2.InternalError("The transaction was rolled back.")
        except psycopg2.Error:
            self.driver.close()
            if command == "COMMIT":
                raise  # else what was raised before is

    def is_lost(self, error: psycopg2.Error) -> bool:
        """Whether the error says that the connection is gone, which psycopg2 may not know yet."""
        return DIALECT.is_disconnect(error, self.driver, None)


class Pool:
    """The connections of a process: so many at most, and who waits longest gets the next.

    SQLAlchemy's pool gives one to whoever asks when it comes back. Under load that left some
    requests waiting for most of a second, when most were answered in a hundredth of one.

    :param connect: opens a connection of psycopg2 in autocommit
    :param seconds: how long to wait for one that is free
    :param prepares: whether they prepare statements
    """

    def __init__(
        self, connect: Callable[[], Any], *, size: int, seconds: float, prepares: bool
    ) -> None:
        self._connect = connect
        self._seconds = seconds
        self._prepares = prepares
        # By the name of its module, as below: gevent replaces both when the worker begins.
        self._lock = threading.Lock()
        self._unopened = size
        self._idle: list[Connection] = []
        self._waiting: deque[queue.SimpleQueue[Connection | None]] = deque()

    def take(self, seconds: float) -> Connection:
        """Give a connection; of those that are idle, the one that was used last.

        :param seconds: how long to wait, if that is less
        :raises psycopg2.OperationalError: when none is free in time, or can be opened
        """
        connection = self._next(seconds)
        if connection is not None:
            if time.monotonic() - connection.opened_at < RECYCLE:
                return connection
            connection.driver.close()
        try:
            return Connection(self._connect(), prepares=self._prepares)
        except BaseException:
            self.give_back(None)
            raise

    def _next(self, seconds: float) -> Connection | None:
        """Give the next one that is free, or None in the place of one that is not open."""
        with self._lock:
            if self._idle:
                return self._idle.pop()
            if self._unopened:
                self._unopened -= 1
                return None
            turn: queue.SimpleQueue[Connection | None] = queue.SimpleQueue()
            self._waiting.append(turn)
        try:
            return turn.get(timeout=max(min(seconds, self._seconds), 0))
        except BaseException as error:
            with self._lock:
                came = turn not in self._waiting
                if not came:
                    self._waiting.remove(turn)
            if came:  # at the last moment
                self.give_back(turn.get())
            if isinstance(error, queue.Empty):
                raise psycopg2.OperationalError("No connection was free in time.") from None
            raise

    def give_back(self, connection: Connection | None) -> None:
        """Take one back; None in the place of one that was lost."""
        with self._lock:
            if self._waiting:
                self._waiting.popleft().put(connection)
            elif connection is None:
                self._unopened += 1
            else:
                self._idle.append(connection)
