"""The database connections that requests share."""

import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import psycopg2
from sqlalchemy.dialects.postgresql.psycopg2 import dialect

from phresh.database.clients import ClientGoneError, has_client_gone, next_look
from phresh.database.deadlines import DriverConnection, earlier_deadline
from phresh.database.statements import Query

DIALECT: Any = dialect(dbapi=psycopg2)
RECYCLE = 1800  # seconds after which a connection is replaced
IDLE_RECYCLE = 60  # seconds without use after which it is: networks forget idle connections
# Seconds without use after which the server has to respond first, and how long that may take. Under
# load no connection waits for so long.
CHECK_AFTER = 2
CHECK_TIMEOUT = 1
PREPARED_MAX = 200  # statements per connection: each takes memory of the server


class RolledBackError(psycopg2.InternalError):
    """PostgreSQL has rolled back what was to be committed."""


class PooledConnection:
    """A connection of the pool, with the statements that it has prepared.

    :param driver: psycopg2's connection in autocommit, so that nothing is sent but what is here
    :param prepares: whether it prepares statements, or sends each as it is
    """

    def __init__(self, driver: DriverConnection, *, prepares: bool) -> None:
        self.driver = driver
        self.prepares = prepares
        self.opened_at = self.acquired_at = self.released_at = time.monotonic()
        self.prepared: dict[str, None] = {}  # names, the oldest first

    def run(self, query: Query, begin: str = "") -> list[tuple[Any, ...]]:
        """Run a query and return its rows.

        :param begin: what to send before it, in the same message
        """
        statement = query.statement
        prepares = self.prepares and statement.is_prepared
        with self.driver.cursor() as cursor:
            if prepares and statement.name not in self.prepared:
                # A limit for one message holds here too; a transaction begins with the query.
                limit = begin if begin.startswith("SET LOCAL") else ""
                self._prepare(cursor, statement.name, limit + statement.prepare)
            text, values = query.to_send(prepared=prepares)
            cursor.execute(begin + text, values)
            if not cursor.description:
                return []
            rows = cursor.fetchall()
            if statement.converters == []:
                return rows
            return statement.convert(rows, cursor.description)

    def _prepare(self, cursor: Any, name: str, text: str) -> None:
        if len(self.prepared) == PREPARED_MAX:
            oldest = next(iter(self.prepared))
            cursor.execute(f"DEALLOCATE {oldest}")
            del self.prepared[oldest]
        cursor.execute(text)
        self.prepared[name] = None

    def execute(self, command: str) -> str:
        """Run a command that has no rows and return the server's status message."""
        with self.driver.cursor() as cursor:
            cursor.execute(command)
            return cursor.statusmessage or ""

    def end(self, command: str) -> None:
        """End the transaction; close the connection where that fails, and the server rolls back.

        :param command: ``COMMIT`` or ``ROLLBACK``
        :raises psycopg2.Error: when a COMMIT fails, or PostgreSQL makes it a rollback
        """
        try:
            if self.execute(command) != command:
                # PostgreSQL's response to a COMMIT after an error that the view has swallowed.
                raise RolledBackError("The transaction was rolled back.")
        except psycopg2.Error:
            self.driver.close()
            if command == "COMMIT":
                raise  # after a ROLLBACK, the error that led to it is raised already

    def responds(self) -> bool:
        """Return whether the server responds on it, within a short time."""
        try:
            with earlier_deadline(CHECK_TIMEOUT):
                self.execute("SELECT 1")
        except psycopg2.Error:
            return False
        return True

    def is_lost(self, error: psycopg2.Error) -> bool:
        """Return whether the error says that the connection is gone; psycopg2 may not know yet."""
        return DIALECT.is_disconnect(error, self.driver, None)


def _await_turn(turn: "queue.SimpleQueue[PooledConnection | None]", seconds: float) -> Any:
    """Return what comes into the queue.

    :raises queue.Empty: when nothing comes in time
    :raises ClientGoneError: when the client of the request has gone
    """
    until = time.monotonic() + seconds
    while True:
        now = time.monotonic()
        try:
            return turn.get(timeout=max(min(until, next_look(now)) - now, 0))
        except queue.Empty:
            if time.monotonic() >= until:
                raise
            if has_client_gone():
                raise ClientGoneError("The client has gone.") from None


class Pool:
    """The connections of a process, bounded in number; the longest waiting caller gets the next.

    SQLAlchemy's pool gives a connection to whoever comes when it is returned. Under load that left
    some requests waiting for most of a second while most took a hundredth of one.

    :param connect: opens a connection of psycopg2 in autocommit
    :param size: the number of connections at most
    :param seconds: how long to wait for one that is free
    :param prepares: whether they prepare statements
    """

    def __init__(
        self, connect: Callable[[], Any], *, size: int, seconds: float, prepares: bool
    ) -> None:
        self._connect = connect
        self._seconds = seconds
        self._prepares = prepares
        # By the name of its module, as below: gevent replaces both when a worker of it starts.
        self._lock = threading.Lock()
        self._unopened = size
        self._idle: list[PooledConnection] = []
        self._waiting: deque[queue.SimpleQueue[PooledConnection | None]] = deque()

    def acquire(self, seconds: float) -> PooledConnection:
        """Return a connection; of those that are idle, the one that was used last.

        :param seconds: how long to wait, if that is less than the pool's own limit
        :raises psycopg2.OperationalError: when none is free in time, or none can be opened
        """
        connection = self._next(seconds)
        if connection is not None:
            now = connection.acquired_at = time.monotonic()
            idle = now - connection.released_at
            if idle < IDLE_RECYCLE and now - connection.opened_at < RECYCLE:
                if idle < CHECK_AFTER or connection.responds():
                    return connection
                self._drop_idle(now)
            connection.driver.close()
        try:
            return PooledConnection(self._connect(), prepares=self._prepares)
        except BaseException:
            self.release(None)
            raise

    def _next(self, seconds: float) -> PooledConnection | None:
        """Return the next connection that is free; None for the right to open one."""
        with self._lock:
            if self._idle:
                return self._idle.pop()
            if self._unopened:
                self._unopened -= 1
                return None
            turn: queue.SimpleQueue[PooledConnection | None] = queue.SimpleQueue()
            self._waiting.append(turn)
        try:
            return _await_turn(turn, max(min(seconds, self._seconds), 0))
        except BaseException as error:
            with self._lock:
                came = turn not in self._waiting
                if not came:
                    self._waiting.remove(turn)
            if came:  # at the last moment
                self.release(turn.get())
            if isinstance(error, queue.Empty):
                raise psycopg2.OperationalError("No connection was free in time.") from None
            raise

    def release(self, connection: PooledConnection | None) -> None:
        """Return a connection to the pool; None for one that was lost."""
        if connection is not None:
            connection.released_at = time.monotonic()
        with self._lock:
            if self._waiting:
                self._waiting.popleft().put(connection)
            elif connection is None:
                self._unopened += 1
            else:
                self._idle.append(connection)

    def release_lost(self, connection: PooledConnection) -> None:
        """Return the right to open another connection instead of one that is closed.

        What has closed it may have ended the idle ones too. They are closed, but for those that
        have served since this one was acquired.
        """
        self._drop_idle(connection.acquired_at)
        self.release(None)

    def dispose(self) -> None:
        """Close the connections that are idle; those in use return to the pool as usual."""
        self._drop_idle(math.inf)

    def _drop_idle(self, since: float) -> None:
        """Close the idle connections that have not served since a time."""
        with self._lock:
            dropped = [idle for idle in self._idle if idle.released_at < since]
            self._idle = [idle for idle in self._idle if idle.released_at >= since]
            self._unopened += len(dropped)
        for connection in dropped:
            connection.driver.close()
