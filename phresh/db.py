"""The database: declarative base, engine, the wait for its answers, and the one commit."""

import math
import random
import select
import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import psycopg2
from flask import Flask, current_app
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy
from psycopg2 import extensions
from sqlalchemy import URL, ColumnElement, Executable, MetaData, Row, Text, cast, event, func
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, QueryableAttribute

from phresh import embedded
from phresh.config import ConfigError

P = ParamSpec("P")
R = TypeVar("R")

TRANSIENT = ("40001", "40P01")  # serialization failure, deadlock
TRIES = 3


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
    }
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {
        "pool_size": app.config["POOL_SIZE"],
        "max_overflow": app.config["POOL_OVERFLOW"],
        "pool_timeout": app.config["POOL_TIMEOUT"],
        "pool_pre_ping": True,
        "pool_recycle": 1800,
        "hide_parameters": True,  # names, later hashes: nothing of them in a log
        "connect_args": {k: v for k, v in connecting.items() if k not in url.query},
    }
    app.extensions["embedded"] = server
    db.init_app(app)
    migrate.init_app(app, db)
    app.before_request(lambda: _begin_deadline(app.config["DATABASE_TIMEOUT"]))
    with app.app_context():
        event.listen(db.engine, "handle_error", _drop_demoted)
        if server is not None:
            event.listen(db.engine, "do_connect", lambda *_: server.ensure())


def shown(url: URL) -> str:
    """Give a URL without its secrets."""
    return url.difference_update_query(["password", "sslpassword"]).render_as_string()


_deadline: ContextVar[float] = ContextVar("deadline", default=math.inf)


def _begin_deadline(seconds: float) -> None:
    _deadline.set(time.monotonic() + seconds)


def _time_left() -> float:
    return _deadline.get() - time.monotonic()


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


def _wait(connection: Any) -> None:
    """Wait until psycopg2's connection is done, but not past the deadline of the request.

    gevent makes the poll a place where the worker serves other requests. To raise has psycopg2
    close the connection, and the pool replace it.
    """
    poll = select.poll()  # not select(), which fails on file descriptors over 1023
    events = {extensions.POLL_READ: select.POLLIN, extensions.POLL_WRITE: select.POLLOUT}
    while (state := connection.poll()) != extensions.POLL_OK:
        descriptor = connection.fileno()
        poll.register(descriptor, events[state])
        left = min(_time_left(), 3600)
        if left <= 0 or not poll.poll(left * 1000):
            raise psycopg2.OperationalError("The database did not answer in time.")
        poll.unregister(descriptor)


def _drop_demoted(context: ExceptionContext) -> None:
    """Have the pool drop a connection to a primary that was demoted: it can write no more."""
    if getattr(context.original_exception, "pgcode", None) == "25006":  # read only transaction
        context.is_disconnect = True


def transaction(view: Callable[P, R]) -> Callable[P, R]:
    """Run a writing view as one transaction: returning commits, raising rolls back.

    This is the only commit there is. The view has rendered its answer by then, and the answer
    is sent only afterwards. What two transactions did to each other is tried again, all of it.
    """

    @wraps(view)
    def committed(*args: P.args, **kwargs: P.kwargs) -> R:
        tries = 0
        while True:
            tries += 1
            try:
                with db.session.begin():
                    return view(*args, **kwargs)
            except DBAPIError as error:
                again = getattr(error.orig, "pgcode", None) in TRANSIENT and tries < TRIES
                # A connection may have to be waited for once more.
                if not again or _time_left() < current_app.config["POOL_TIMEOUT"]:
                    raise
            time.sleep(random.uniform(0.01, 0.05) * tries)  # noqa: S311

    return committed


def fetch(statement: Executable) -> Sequence[Row[*tuple[Any, ...]]]:
    """Give the rows of a statement: in the transaction of a writing view, else outside of any."""
    if db.session.registry.has() and db.session().in_transaction():
        return db.session.execute(statement).all()
    with db.engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
        # Not SQLAlchemy's isolation level AUTOCOMMIT: to set that back asks the server, and when
        # the connection was lost meanwhile the pool never gets it back.
        driver.autocommit = True
        try:
            return connection.execute(statement).all()
        finally:
            if not driver.closed:
                driver.autocommit = False


def row_json(*columns: QueryableAttribute[Any]) -> ColumnElement[str]:
    """Give the SQL that writes a row as JSON text, one member a column, in this order.

    Every answer is rendered by PostgreSQL, and only there: Python passes the text through.
    """
    members = [part for column in columns for part in (column.key, column)]
    return cast(func.json_build_object(*members), Text)
