"""Running statements: :func:`fetch`, the one transaction of a writing view, and retries."""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import psycopg2
from flask import current_app, has_request_context, request
from psycopg2.extensions import TRANSACTION_STATUS_IDLE
from sqlalchemy.exc import DBAPIError

from phresh.database.clients import ClientGoneError
from phresh.database.deadlines import has_deadline, time_left
from phresh.database.pool import Pool, PooledConnection, RolledBackError
from phresh.database.statements import Query

P = ParamSpec("P")
R = TypeVar("R")

TRANSIENT = ("40001", "40P01")  # serialization failure, deadlock
TRIES = 3
# A connection is of no more use: its primary was demoted, its server stops, it has lost its
# prepared statements, or they no longer fit the tables.
RESET = ("25006", "57P01", "57P02", "57P03", "26000", "0A000")
READ_ONLY_TRANSACTION = "25006"

READ_ONLY = (
    "Only a view for POST, PUT, PATCH or DELETE can write: it is a transaction that is committed. "
    "A view for GET, and what runs before or after a view, can only read. What must be written all "
    "the same, and stays also when the request is rejected, goes through fetch_autocommit()."
)
NO_QUERY = (
    "fetch() runs what a function under @query returns, not {}. For other statements use "
    "db.session.execute()."
)


class StaleConnectionError(psycopg2.OperationalError):
    """A connection was lost or is of no more use; where it is an old one, a new one may work.

    :param opened_at: when it was opened, in seconds of the monotonic clock
    """

    def __init__(self, message: str, opened_at: float) -> None:
        super().__init__(message)
        self.opened_at = opened_at


class UnitOfWork:
    """One connection for one block of work, taken from the pool when its first statement comes.

    :param begin: the command that begins its transaction, which is committed at the end unless
        something is raised; None: each statement is on its own
    :param is_read_only: whether that transaction refuses to write
    :param pool: the name of the pool, among the app's extensions
    """

    def __init__(
        self, begin: str | None, *, is_read_only: bool = False, pool: str = "pool"
    ) -> None:
        self.is_read_only = is_read_only
        self.is_ending = False  # being committed
        self.session: Any = None  # db.session, once the view has used it
        self.bind: Any = None  # the same unit as SQLAlchemy's connection, for db.session
        self._command = self._begin = f"{begin}; " if begin else ""
        self._pool: Pool = current_app.extensions[pool]
        self._connection: PooledConnection | None = None

    def run(self, query: Query) -> list[tuple[Any, ...]]:
        """Run a query and return its rows.

        :raises StaleConnectionError: when the connection was lost
        """
        session = self.session
        if session is not None:
            session.flush()
            if session.in_nested_transaction():
                session.connection()  # sends its SAVEPOINT, which SQLAlchemy has put off
        connection = self.acquire()
        try:
            rows = connection.run(query, self._begin)
        except psycopg2.Error as error:
            self.explain(error)
            raise
        self._begin = ""
        if session is not None and (query.statement.is_dml or query.statement.is_text):
            session.expire_all()
        return rows

    def run_alone(self, query: Query, before: str = "") -> list[tuple[Any, ...]]:
        """Run a query outside of the transaction of a view that only reads, and keep its effects.

        On the same connection: a second one might not be free until this one is returned.

        :param before: what to send before it, in the same message
        """
        self.end("COMMIT")
        command, self._command, self._begin = self._command, before, before
        try:
            return self.run(query)
        finally:
            self._command = self._begin = command

    def acquire(self) -> PooledConnection:
        """Return the connection; another one for a closed one with which nothing is lost."""
        connection = self._connection
        if connection is not None:
            if not connection.driver.closed or not (self._begin or self.is_read_only):
                return connection
            self._release()
        self._begin = self._command
        self._connection = self._pool.acquire(time_left())
        return self._connection

    def explain(self, error: BaseException | None) -> None:
        """Raise what an error means where that is more than the error; close a useless connection.

        :raises StaleConnectionError: when the connection was closed
        :raises RuntimeError: when a view that only reads has tried to write
        """
        connection = self._connection
        if connection is None or not isinstance(error, psycopg2.Error):
            return
        if isinstance(error, RolledBackError | ClientGoneError):
            return  # nothing is to be tried again
        if self.is_read_only and self._command and error.pgcode == READ_ONLY_TRANSACTION:
            raise RuntimeError(READ_ONLY) from error
        if error.pgcode in RESET or connection.is_lost(error):
            connection.driver.close()
            message = error.pgcode or str(error).strip()
            raise StaleConnectionError(message, connection.opened_at) from error

    def driver(self) -> Any:
        """Return psycopg2's connection, its transaction begun."""
        connection = self.acquire()
        if self._begin:
            connection = _with_retries(self._begun)
        return connection.driver

    def _begun(self) -> PooledConnection:
        connection = self.acquire()
        try:
            connection.execute(self._begin)
        except psycopg2.Error as error:
            self.explain(error)
            raise
        self._begin = ""
        return connection

    def end(self, command: str) -> None:
        """End the transaction, where one has begun.

        :param command: ``COMMIT`` or ``ROLLBACK``
        :raises psycopg2.Error: when a COMMIT fails, or the connection was lost before
        """
        connection, self._begin = self._connection, self._command
        if connection is None or not self._command:
            return
        if connection.driver.closed:
            if command == "COMMIT" and not self.is_read_only:
                raise psycopg2.InterfaceError("The connection was lost before COMMIT.")
        elif connection.driver.get_transaction_status() != TRANSACTION_STATUS_IDLE:
            connection.end(command)

    def __enter__(self) -> "UnitOfWork":
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        if self._connection is None and self.session is None:
            return
        try:
            if kind is None:
                self.is_ending = True
                if self.session is not None:
                    self.session.commit_unit()
                self.end("COMMIT")
        finally:
            self.finish()

    def finish(self) -> None:
        """Roll back what is not committed, and return the connection to the pool."""
        session, self.session = self.session, None
        try:
            if session is not None and session.in_transaction():
                session.rollback()
        finally:
            self.end("ROLLBACK")
            self._release()

    def _release(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            if connection.driver.closed:
                self._pool.release_lost(connection)
            else:
                self._pool.release(connection)


_unit: ContextVar[UnitOfWork | None] = ContextVar("unit", default=None)


def current_unit() -> UnitOfWork | None:
    """Return the unit of work of the view that runs; None outside of views.

    For a view that only reads it is made here, since most such views need none: a transaction that
    refuses to write, which ends with the request.
    """
    unit = _unit.get()
    if unit is None and is_in_view():
        unit = UnitOfWork("BEGIN READ ONLY", is_read_only=True)
        _unit.set(unit)
    return unit


def is_in_view() -> bool:
    """Return whether the request that runs is for a view whose transactions are made here."""
    if not has_deadline() or not has_request_context():  # a test client may keep the context
        return False
    view = current_app.view_functions.get(request.endpoint or "")
    return getattr(getattr(view, "view_class", view), "has_unit_of_work", False)


def flush_session() -> None:
    """Send what the view has left pending in ``db.session``.

    :raises RuntimeError: when that is something, in a view that only reads
    """
    unit = _unit.get()
    if unit is not None and unit.session is not None:
        unit.session.flush()


def has_unit() -> bool:
    """Return whether there is a unit of work, also of a view that only reads."""
    return _unit.get() is not None


def finish_reading() -> None:
    """End the unit of a view that only reads, or of what has read before a view that writes."""
    unit = _unit.get()
    if unit is not None:
        try:
            unit.finish()
        finally:
            _unit.set(None)


@contextmanager
def reading_committed() -> Iterator[None]:
    """Let what is done inside read what is committed, and not what the view has written.

    It uses a connection that is there for nothing else: requests that hold one of the pool, and
    wait for a second one, could wait for each other.
    """
    unit = UnitOfWork("BEGIN READ ONLY", is_read_only=True, pool="pool for reading")
    token = _unit.set(unit)
    try:
        yield
    finally:
        finish_reading()
        _unit.reset(token)


def fetch(query: Query) -> list[tuple[Any, ...]]:
    """Run a query and return its rows: in the view's transaction, else outside of any.

    :raises RuntimeError: for a statement that writes, in a view that only reads
    :raises TypeError: for what is no query
    """
    unit = _unit.get()
    try:
        if unit is not None and not unit.is_read_only:
            return unit.run(query)
        statement = query.statement
    except AttributeError:
        if isinstance(query, Query):
            raise
        raise TypeError(NO_QUERY.format(type(query).__name__)) from None
    if unit is None and (statement.is_dml or statement.is_text):
        unit = current_unit()  # text may do anything
    if unit is None:
        return fetch_autocommit(query)
    if statement.is_dml:
        raise RuntimeError(READ_ONLY)
    return _with_retries(unit.run, query)


def fetch_autocommit(query: Query) -> list[tuple[Any, ...]]:
    """Run a query outside of any transaction and return its rows.

    What it writes stays, also when the request is rejected.
    """
    unit = _unit.get()
    if unit is not None and unit.is_read_only:
        return _with_retries(unit.run_alone, query)
    return _with_retries(_run_alone, query)


def fetch_within(seconds: float, query: Query) -> list[tuple[Any, ...]]:
    """Run a query that only reads, outside of any transaction, for so long at most.

    :param seconds: instead of ``STATEMENT_TIMEOUT``
    :raises psycopg2.errors.QueryCanceled: when it takes longer
    """
    unit = _unit.get()
    # PostgreSQL runs what comes in one message as one transaction, if nothing in it says otherwise
    # (https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-MULTI-STATEMENT).
    limit = f"SET LOCAL statement_timeout = {max(1, round(seconds * 1000))}"
    if unit is not None and unit.is_read_only:
        return _with_retries(unit.run_alone, query, f"{limit}; ")
    return _with_retries(_run_alone, query, limit)


def _run_alone(query: Query, begin: str | None = None) -> list[tuple[Any, ...]]:
    with UnitOfWork(begin) as unit:
        return unit.run(query)


def transaction(view: Callable[P, R]) -> Callable[P, R]:
    """Run a writing view as one transaction: returning commits, raising rolls back.

    This is the only commit. The view has rendered its response by then, which is sent afterwards.
    """
    if getattr(view, "is_transaction", False):
        return view
    once = _in_unit(view, "BEGIN")

    @wraps(view)
    def committed(*args: P.args, **kwargs: P.kwargs) -> R:
        before = _unit.get()
        if before is not None:
            if not before.is_read_only:  # a view that calls another
                return view(*args, **kwargs)
            flush_session()  # raises for what a handler before the view would write
            finish_reading()
        return _with_retries(once, *args, **kwargs)

    committed.has_unit_of_work = committed.is_transaction = True  # type: ignore[attr-defined]
    return committed


def _in_unit(work: Callable[P, R], begin: str) -> Callable[P, R]:
    """Return the work as one transaction, which is tried once.

    :param begin: the command that begins it
    """

    def once(*args: P.args, **kwargs: P.kwargs) -> R:
        unit = UnitOfWork(begin)
        token = _unit.set(unit)
        try:
            with unit:
                return work(*args, **kwargs)
        finally:
            _unit.reset(token)

    return once


def snapshot(work: Callable[P, R]) -> Callable[P, R]:
    """Let the statements of a function that only reads see one state of the database.

    The function may run more than once: another connection, in place of one that was lost, sees
    another state.
    """
    once = _in_unit(work, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")

    @wraps(work)
    def tried(*args: P.args, **kwargs: P.kwargs) -> R:
        return _with_retries(once, *args, **kwargs)

    return tried


def read_only(view: Callable[P, R]) -> Callable[P, R]:
    """Mark a view that only reads, so that a statement that writes in it is rejected."""
    view.has_unit_of_work = True  # type: ignore[attr-defined]
    return view


def _with_retries(work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Do the work again, a few times, when it failed without a trace and may succeed.

    That is so with what transactions do to each other, and with connections that were opened before
    the work began. One that was opened for it would not be replaced by a better one: a server that
    only reads rejects the work on each.
    """
    first = time.monotonic()
    for tries in range(1, TRIES + 1):
        began = time.monotonic()
        try:
            return work(*args, **kwargs)
        except (psycopg2.Error, DBAPIError) as error:
            cause: Any = error.orig if isinstance(error, DBAPIError) else error
            collided = getattr(cause, "pgcode", None) in TRANSIENT
            is_old = isinstance(cause, StaleConnectionError) and cause.opened_at < first
            # Only where it can end in time, if it takes as long.
            in_time = time_left() >= time.monotonic() - began
            if not (collided or is_old) or tries == TRIES or not in_time:
                raise
        if collided:
            time.sleep(random.uniform(0.01, 0.05) * tries)  # noqa: S311
    raise AssertionError("unreachable")
