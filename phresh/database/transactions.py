"""The database: declarative base, engine, the wait for its answers, and the one commit."""

import math
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import psycopg2
from flask import Flask, current_app
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy
from gevent.socket import wait_read, wait_write
from psycopg2 import extensions
from sqlalchemy import URL, MetaData, event
from sqlalchemy.orm import DeclarativeBase

from phresh import embedded
from phresh.config import ConfigError
from phresh.pool import Connection, Driver, Pool
from phresh.statements import Query

P = ParamSpec("P")
R = TypeVar("R")

TRANSIENT = ("40001", "40P01")  # serialization failure, deadlock
TRIES = 3
# A connection is of no more use: its primary was demoted, its server ends, it has lost what it had
# prepared, or that fits the tables no more.
RESET = ("25006", "57P01", "57P02", "57P03", "26000", "0A000")


class Base(DeclarativeBase):
    """What every model inherits: each constraint gets a name, by one rule."""

    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
        }
    )


db = SQLAlchemy(model_class=Base, disable_autonaming=True)
migrate = Migrate()


def init_app(app: Flask) -> None:
    """Connect the app to its database; the embedded PostgreSQL when none is configured.

    :raises ConfigError: when none is configured and the embedded PostgreSQL is not installed
    """
    server = None
    if app.config["SQLALCHEMY_DATABASE_URI"] is None:
        if not embedded.is_installed():
            raise ConfigError("No database: set DATABASE_URL or POSTGRES_SERVER.")
        server = embedded.Server(Path(app.instance_path))
        app.config["SQLALCHEMY_DATABASE_URI"] = server.url
    url: URL = app.config["SQLALCHEMY_DATABASE_URI"]
    connecting = {
        "application_name": "phresh",
        "connect_timeout": str(app.config["CONNECT_TIMEOUT"]),
        "connection_factory": Driver,
    }
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {
        "max_overflow": -1,  # our pool bounds them; a wait here would be bounded by nothing
        "hide_parameters": True,  # names, later hashes: nothing of them in a log
        "connect_args": {k: v for k, v in connecting.items() if k not in url.query},
    }
    app.extensions["embedded"] = server
    app.extensions["pool"] = Pool(
        _connect,
        size=app.config["POOL_SIZE"],
        seconds=app.config["POOL_TIMEOUT"],
        prepares=app.config["PREPARED_STATEMENTS"],
    )
    db.init_app(app)
    migrate.init_app(app, db)
    app.before_request(lambda: _begin_deadline(app.config["DATABASE_TIMEOUT"]))
    with app.app_context():
        if server is not None:
            event.listen(db.engine, "do_connect", lambda *_: server.ensure())


def _connect() -> Any:
    """Open a connection as the engine does, but for our pool."""
    made = db.engine.raw_connection()
    driver: Any = made.driver_connection
    made.detach()
    driver.autocommit = True
    with driver.cursor() as cursor:
        cursor.execute("SET TIME ZONE 'UTC'")  # in which times are rendered
    return driver


def shown(url: URL) -> str:
    """Give a URL without its secrets."""
    return url.difference_update_query(["password", "sslpassword"]).render_as_string()


_deadline: ContextVar[float] = ContextVar("deadline", default=math.inf)


def _begin_deadline(seconds: float) -> None:
    _deadline.set(time.monotonic() + seconds)


def _time_left() -> float:
    return _deadline.get() - time.monotonic()


@contextmanager
def paused_deadline() -> Iterator[None]:
    """Not count what a request does inside as waiting for the database."""
    left = _time_left()
    try:
        yield
    finally:
        _deadline.set(time.monotonic() + left)


def bound_requests(app: Flask) -> None:
    """Bound what the requests of this process wait for the database, from now on.

    Each request has one deadline, which connecting and every answer share; it holds when the
    network is silent too. Each connection asks the server for the limits of statements, locks and
    idle transactions. Not for the flask commands: a migration takes its time, and psycopg2
    refuses COPY while there is a wait callback
    (https://www.psycopg.org/docs/advanced.html#support-for-coroutine-libraries).
    """
    limits = {
        "statement_timeout": app.config["STATEMENT_TIMEOUT"],
        "lock_timeout": app.config["LOCK_TIMEOUT"],
        "idle_in_transaction_session_timeout": app.config["IDLE_TIMEOUT"],
    }

    options = [f"-c {name}={seconds * 1000:.0f}" for name, seconds in limits.items()]

    def connect(dialect: Any, _: Any, arguments: Any, parameters: dict[str, Any]) -> Any:
        if app.config["DATABASE_LIMITS"]:
            given = parameters.get("options", "")
            parameters = {**parameters, "options": " ".join([given, *options]).strip()}
        return _connect_to_first(dialect, arguments, parameters, app.config["CONNECT_TIMEOUT"])

    with app.app_context():
        event.listen(db.engine, "do_connect", connect)
    extensions.set_wait_callback(_wait)


def _connect_to_first(
    dialect: Any, arguments: Any, parameters: dict[str, Any], seconds: float
) -> Any:
    """Connect to the first host that can be, each tried for so long.

    That is libpq's ``connect_timeout``, which it leaves to us under a wait callback: a host that
    is silent would have all the time that the others need.
    """
    hosts = parameters.get("host", "").split(",")
    ports = str(parameters.get("port", "")).split(",")
    for number, host in enumerate(hosts, 1):
        port = ports[number - 1] if len(ports) > 1 else ports[0]
        before = _deadline.set(min(_deadline.get(), time.monotonic() + seconds))
        try:
            return dialect.connect(*arguments, **{**parameters, "host": host, "port": port})
        except psycopg2.OperationalError:
            if number == len(hosts):
                raise
        finally:
            _deadline.reset(before)
    return None


def _wait(connection: Driver) -> None:
    """Wait until psycopg2's connection is done, but not past the deadline of the request.

    Meanwhile the worker serves other requests. To raise has psycopg2 close the connection, and the
    pool replace it.
    """
    while (state := connection.poll()) != extensions.POLL_OK:
        if (left := _time_left()) <= 0:
            raise psycopg2.OperationalError("The database did not answer in time.")
        if state == extensions.POLL_READ and connection.status != extensions.STATUS_SETUP:
            connection.waker.wait(_deadline.get())
        else:
            wait = wait_read if state == extensions.POLL_READ else wait_write
            with suppress(TimeoutError):
                wait(connection.fileno(), min(left, 3600))


class StaleError(psycopg2.OperationalError):
    """A connection that has served before was lost or reset meanwhile; another one may do."""


class Session:
    """One connection for one request, taken from the pool when its first query comes.

    :param is_transaction: whether its queries are one transaction, which is committed at the end
        unless something is raised; else each is on its own
    """

    def __init__(self, *, is_transaction: bool) -> None:
        self._begin = "BEGIN; " if is_transaction else ""
        self._is_transaction = is_transaction
        self._pool: Pool = current_app.extensions["pool"]
        self._connection: Connection | None = None

    def run(self, query: Query) -> list[tuple[Any, ...]]:
        """Give the rows of a query."""
        connection = self._connection
        if connection is None:
            connection = self._connection = self._pool.take(_time_left())
        try:
            rows = connection.run(query, self._begin)
        except psycopg2.Error as error:
            if error.pgcode in RESET or connection.is_lost(error):
                connection.driver.close()
                if connection.has_served:
                    raise StaleError(error.pgcode or str(error).strip()) from error
            raise
        self._begin = ""
        return rows

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        connection = self._connection
        if connection is None:
            return
        try:
            if self._is_transaction and not connection.driver.closed:
                connection.end("COMMIT" if kind is None else "ROLLBACK")
        finally:
            connection.has_served = True
            self._pool.give_back(None if connection.driver.closed else connection)


_session: ContextVar[Session | None] = ContextVar("session", default=None)


def fetch(query: Query) -> list[tuple[Any, ...]]:
    """Give the rows of a query: in the transaction of a writing view, else outside of any."""
    session = _session.get()
    return session.run(query) if session is not None else fetch_apart(query)


def fetch_apart(query: Query) -> list[tuple[Any, ...]]:
    """Give the rows of a query that is in no transaction: it stays where the request is refused."""
    return _with_retries(_alone, query)


def _alone(query: Query) -> list[tuple[Any, ...]]:
    with Session(is_transaction=False) as session:
        return session.run(query)


def transaction(view: Callable[P, R]) -> Callable[P, R]:
    """Run a writing view as one transaction: returning commits, raising rolls back.

    This is the only commit there is. The view has rendered its answer by then, and the answer
    is sent only afterwards.
    """

    def once(*args: P.args, **kwargs: P.kwargs) -> R:
        with Session(is_transaction=True) as session:
            before = _session.set(session)
            try:
                return view(*args, **kwargs)
            finally:
                _session.reset(before)

    @wraps(view)
    def committed(*args: P.args, **kwargs: P.kwargs) -> R:
        return _with_retries(once, *args, **kwargs)

    return committed


def _with_retries(work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Do it again when it failed without a trace and may not fail again.

    So it is with a connection gone stale, as long as the pool has others; and, a few times, with
    what transactions do to each other.
    """
    tries = 0
    while True:
        began = time.monotonic()
        try:
            return work(*args, **kwargs)
        except psycopg2.Error as error:
            collided = error.pgcode in TRANSIENT
            tries += collided
            again = isinstance(error, StaleError) or (collided and tries < TRIES)
            # Only where it can end in time, if it takes as long.
            if not again or _time_left() < time.monotonic() - began:
                raise
        if collided:
            time.sleep(random.uniform(0.01, 0.05) * tries)  # noqa: S311
