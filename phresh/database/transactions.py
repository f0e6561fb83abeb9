"""Running statements: :func:`fetch`, the one transaction of a writing view, and retries."""

import random
import time
from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import psycopg2
from flask import current_app, has_request_context, request
from psycopg2.extensions import TRANSACTION_STATUS_IDLE
from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import PoolProxiedConnection

from phresh.database.deadlines import time_left
from phresh.database.pool import Pool, PooledConnection
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
    "A view for GET can't write: only POST, PUT, PATCH and DELETE are transactions that are "
    "committed. What must be written all the same, and stays also when the request is rejected, "
    "goes through fetch_autocommit()."
)
NO_QUERY = (
    "fetch() runs what a function under @query returns, not {}. For other statements use "
    "db.session.execute()."
)


class StaleConnectionError(psycopg2.OperationalError):
    """A connection that has served before was lost or reset since; another one may work."""


class UnitOfWork:
    """One connection for one block of work, taken from the pool when its first statement comes.

    :param begin: the command that begins its transaction, which is committed at the end unless
        something is raised; None: each statement is on its own
    :param is_read_only: whether that transaction refuses to write
    """

    def __init__(self, begin: str | None, *, is_read_only: bool = False) -> None:
        self.is_read_only = is_read_only
        self._command = self._begin = f"{begin}; " if begin else ""
        self._pool: Pool = current_app.extensions["pool"]
        self._connection: PooledConnection | None = None
        self._session: Any = None  # db.session, once the view has used it
        self._bind: Connection | None = None

    def run(self, query: Query) -> list[tuple[Any, ...]]:
        """Run a query and return its rows.

        :raises StaleConnectionError: when the connection was lost since it last served
        """
        if self._session is not None:
            self._session.flush()
        connection = self._connection or self._acquire()
        try:
            rows = connection.run(query, self._begin)
        except psycopg2.Error as error:
            self._explain(error, connection)
            raise
        self._begin = ""
        if self._session is not None and query.statement.is_dml:
            self._session.expire_all()
        return rows

    def _acquire(self) -> PooledConnection:
        self._connection = self._pool.acquire(time_left())
        return self._connection

    def _explain(self, error: BaseException | None, connection: PooledConnection) -> None:
        """Raise what an error means where that is more than the error; close a useless connection.

        :raises StaleConnectionError: when another connection may work
        :raises RuntimeError: when a view that only reads has tried to write
        """
        if not isinstance(error, psycopg2.Error):
            return
        if self.is_read_only and error.pgcode == READ_ONLY_TRANSACTION:
            raise RuntimeError(READ_ONLY) from error
        if error.pgcode in RESET or connection.is_lost(error):
            connection.driver.close()
            if connection.has_served:
                raise StaleConnectionError(error.pgcode or str(error).strip()) from error

    def join(self, session: Any, engine: Engine) -> Connection:
        """Return this unit as SQLAlchemy's connection, for ``db.session``."""
        if self._bind is None:
            self._session = session
            self._bind = Connection(engine, connection=_SharedConnection(self))
            event.listen(self._bind, "handle_error", self._handle_error)
        return self._bind

    def _handle_error(self, context: Any) -> None:
        if self._connection is not None:
            self._explain(context.original_exception, self._connection)

    def driver(self) -> Any:
        """Return psycopg2's connection, its transaction begun."""
        connection = self._connection or self._acquire()
        if self._begin:
            try:
                connection.execute(self._begin)
            except psycopg2.Error as error:
                self._explain(error, connection)
                raise
            self._begin = ""
        return connection.driver

    def end(self, command: str) -> None:
        """End the transaction, where one has begun.

        :param command: ``COMMIT`` or ``ROLLBACK``
        """
        connection, self._begin = self._connection, self._command
        if connection is None or not self._command or connection.driver.closed:
            return
        if connection.driver.get_transaction_status() != TRANSACTION_STATUS_IDLE:
            connection.end(command)

    def flush(self) -> None:
        """Send what is pending in ``db.session``, where the view has used it."""
        if self._session is not None:
            self._session.flush()

    def __enter__(self) -> "UnitOfWork":
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        if self._connection is None and self._session is None:
            return
        try:
            if kind is None and self._session is not None:
                self._session.commit_unit()
            self.end("COMMIT" if kind is None else "ROLLBACK")
        finally:
            self._release()

    def _release(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()
        if self._connection is not None:
            self.end("ROLLBACK")  # what is still open: an error came in the way of its end
            connection, self._connection = self._connection, None
            connection.has_served = True
            self._pool.release(None if connection.driver.closed else connection)

    def finish(self) -> None:
        """End the unit of a view that only reads."""
        if _unit.get() is self:
            _unit.set(None)
        self._release()


class _SharedConnection(PoolProxiedConnection):
    """The connection of a unit of work, as SQLAlchemy's session takes one.

    Its session never closes it: the unit of work does.
    """

    def __init__(self, unit: UnitOfWork) -> None:
        self._unit = unit

    @property
    def is_valid(self) -> bool:
        return True

    @property
    def is_detached(self) -> bool:
        return False

    @property
    def dbapi_connection(self) -> Any:  # type: ignore[override]
        return self._unit.driver()

    @property
    def driver_connection(self) -> Any:  # type: ignore[override]
        return self._unit.driver()

    def cursor(self, *arguments: Any, **options: Any) -> Any:
        return self._unit.driver().cursor(*arguments, **options)

    def commit(self) -> None:
        self._unit.end("COMMIT")

    def rollback(self) -> None:
        self._unit.end("ROLLBACK")

    def close(self) -> None:
        """Leave it to the unit of work."""

    def invalidate(self, e: BaseException | None = None, soft: bool = False) -> None:
        """Leave it to the unit of work."""


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
    if not has_request_context():
        return False
    view = current_app.view_functions.get(request.endpoint or "")
    return getattr(getattr(view, "view_class", view), "has_unit_of_work", False)


def flush_session() -> None:
    """Send what the view has left pending in ``db.session``."""
    unit = _unit.get()
    if unit is not None:
        unit.flush()


def fetch(query: Query) -> list[tuple[Any, ...]]:
    """Run a query and return its rows: in the view's transaction, else outside of any.

    :raises RuntimeError: for a statement that writes, in a view that only reads
    :raises TypeError: for what is no query
    """
    unit = _unit.get()
    try:
        if unit is not None:
            return unit.run(query)
        is_write = query.statement.is_dml
    except AttributeError:
        if isinstance(query, Query):
            raise
        raise TypeError(NO_QUERY.format(type(query).__name__)) from None
    if is_write and is_in_view():
        raise RuntimeError(READ_ONLY)
    return fetch_autocommit(query)


def fetch_autocommit(query: Query) -> list[tuple[Any, ...]]:
    """Run a query outside of any transaction and return its rows.

    What it writes stays, also when the request is rejected.
    """
    return _with_retries(_run_alone, query)


def _run_alone(query: Query) -> list[tuple[Any, ...]]:
    with UnitOfWork(None) as unit:
        return unit.run(query)


def transaction(view: Callable[P, R]) -> Callable[P, R]:
    """Run a writing view as one transaction: returning commits, raising rolls back.

    This is the only commit. The view has rendered its response by then, which is sent afterwards.
    """
    if getattr(view, "is_transaction", False):
        return view

    def once(*args: P.args, **kwargs: P.kwargs) -> R:
        before = _unit.get()
        if before is not None:  # of a handler that used db.session before the view
            before.finish()
        with UnitOfWork("BEGIN") as unit:
            token = _unit.set(unit)
            try:
                return view(*args, **kwargs)
            finally:
                _unit.reset(token)

    @wraps(view)
    def committed(*args: P.args, **kwargs: P.kwargs) -> R:
        return _with_retries(once, *args, **kwargs)

    committed.has_unit_of_work = committed.is_transaction = True  # type: ignore[attr-defined]
    return committed


def read_only(view: Callable[P, R]) -> Callable[P, R]:
    """Mark a view that only reads, so that what would write in it is refused."""
    view.has_unit_of_work = True  # type: ignore[attr-defined]
    return view


def _with_retries(work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Do the work again when it failed without a trace and may succeed.

    That is so with a stale connection, as long as the pool has others; and, a few times, with
    what transactions do to each other.
    """
    tries = 0
    while True:
        began = time.monotonic()
        try:
            return work(*args, **kwargs)
        except (psycopg2.Error, DBAPIError) as error:
            cause: Any = error.orig if isinstance(error, DBAPIError) else error
            collided = getattr(cause, "pgcode", None) in TRANSIENT
            tries += collided
            again = isinstance(cause, StaleConnectionError) or (collided and tries < TRIES)
            # Only where it can end in time, if it takes as long.
            if not again or time_left() < time.monotonic() - began:
                raise
        if collided:
            time.sleep(random.uniform(0.01, 0.05) * tries)  # noqa: S311
