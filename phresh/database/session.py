"""``db.session``: in a view it shares the request's connection, transaction and deadline.

Elsewhere, in the shell, in commands and in routes of plain Flask, it is Flask-SQLAlchemy's own.
"""

from typing import Any

from flask import Flask
from flask.globals import app_ctx, request_ctx
from flask_sqlalchemy.session import Session
from sqlalchemy import Connection, Engine, event
from sqlalchemy.orm import SessionTransaction
from sqlalchemy.pool import PoolProxiedConnection

from phresh.database.deadlines import earlier_deadline
from phresh.database.transactions import (
    UnitOfWork,
    current_unit,
    finish_reading,
    has_unit,
    is_in_view,
)

END_TIMEOUT = 1  # second for the rollback at the end of a request

COMMIT = (
    "A view can't commit db.session: all that it writes is one transaction, which is committed "
    "when it returns and rolled back when it raises. Use db.session.flush() to send what is "
    "pending, and abort() or any exception to undo it."
)
OTHER = (
    "db.session is in a transaction that was begun outside of this view, which can't commit it: "
    "end it there, by db.session.commit() or db.session.rollback()."
)


def init_app(app: Flask, db: Any) -> None:
    """End the session of each request with the request; call this within an app context."""
    sessions = db.session.registry
    event.listen(db.engine, "handle_error", _explain_error)

    @app.teardown_request
    def end_session(_error: BaseException | None) -> None:
        # The dictionary of all sessions first: to find the one of this request takes longer.
        if not has_unit() and not (sessions.registry and sessions.has()):
            return
        with earlier_deadline(END_TIMEOUT):  # the request's own has ended
            try:
                db.session.remove()
            finally:
                finish_reading()


def scope() -> int:
    """Return the id of what has a session of its own: the request, else the app context.

    A test may keep one app context around several requests.
    """
    context: Any = request_ctx or app_ctx
    return id(context._get_current_object())


class ViewSession(Session):
    """Flask-SQLAlchemy's session, which joins the unit of work of a view."""

    unit: UnitOfWork | None = None  # of the transaction that it has begun last

    def get_bind(self, *arguments: Any, **options: Any) -> Engine | Connection:
        """Return the connection of the view's unit of work; the engine where there is none.

        :raises RuntimeError: when the session is in another transaction
        """
        bind = super().get_bind(*arguments, **options)
        if bind is not self._db.engine:  # another database
            return bind
        unit = current_unit()
        if self.in_transaction() and unit is not self.unit:
            raise RuntimeError(OTHER)
        return bind if unit is None else _bind(unit, bind)

    def commit(self) -> None:
        """Commit, but not in a view.

        :raises RuntimeError: in a view
        """
        if is_in_view():
            raise RuntimeError(COMMIT)
        super().commit()

    def commit_unit(self) -> None:
        """Flush and commit, as the end of the view's unit of work."""
        if self.in_transaction():
            super().commit()

    def rollback(self) -> None:
        """Roll back, in a view also what ``fetch`` has written."""
        super().rollback()
        if (unit := current_unit()) is not None:
            unit.end("ROLLBACK")


@event.listens_for(ViewSession, "after_transaction_create")
def _join(session: ViewSession, transaction: SessionTransaction) -> None:
    """Join the unit of work that runs, with the first use of the session in it."""
    if transaction.parent is None:
        session.unit = unit = current_unit()
        if unit is not None:
            unit.session = session


def _bind(unit: UnitOfWork, engine: Engine) -> Connection:
    """Return a unit of work as SQLAlchemy's connection."""
    if unit.bind is None or unit.bind.invalidated:
        unit.acquire()  # the first connection of a process tells SQLAlchemy about the server
        unit.bind = Connection(engine, connection=_SharedConnection(unit))
    bind: Connection = unit.bind
    return bind


def _explain_error(context: Any) -> None:
    unit = current_unit()
    if unit is not None and unit.bind is not None and unit.bind is context.connection:
        unit.explain(context.original_exception)


class _SharedConnection(PoolProxiedConnection):
    """The connection of a unit of work, as SQLAlchemy takes one from a pool.

    It is the unit of work that commits and closes it.
    """

    def __init__(self, unit: UnitOfWork) -> None:
        self._unit = unit

    @property
    def is_valid(self) -> bool:
        return True

    @property
    def is_detached(self) -> bool:
        return False

    # SQLAlchemy declares attributes; ours are looked up when they are used.
    @property
    def dbapi_connection(self) -> Any:  # type: ignore[override]
        return self._unit.driver()

    @property
    def driver_connection(self) -> Any:  # type: ignore[override]
        return self._unit.driver()

    def cursor(self, *_: Any, **__: Any) -> Any:
        """Return a cursor; never one of the server, which psycopg2 has in its transactions only."""
        return self._unit.driver().cursor()

    def commit(self) -> None:
        if not self._unit.is_ending:
            raise RuntimeError(COMMIT)
        self._unit.end("COMMIT")

    def rollback(self) -> None:
        self._unit.end("ROLLBACK")

    def close(self) -> None:
        """Leave it to the unit of work."""

    def invalidate(self, e: BaseException | None = None, soft: bool = False) -> None:
        """Leave it to the unit of work."""
