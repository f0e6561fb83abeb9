"""The database: declarative base, engine, the wait for its answers, and the one commit."""

import select
import time
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import psycopg2
from flask import Flask
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy
from psycopg2 import extensions
from sqlalchemy import URL, ColumnElement, Executable, MetaData, Row, Text, cast, event, func
from sqlalchemy.orm import DeclarativeBase, QueryableAttribute

from phresh import embedded
from phresh.config import ConfigError

P = ParamSpec("P")
R = TypeVar("R")


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
    if server is not None:
        with app.app_context():
            event.listen(db.engine, "do_connect", lambda *_: server.ensure())


def shown(url: URL) -> str:
    """Give a URL without its secrets."""
    return url.difference_update_query(["password", "sslpassword"]).render_as_string()


def wait_at_most(seconds: float) -> None:
    """Give every wait for the database a time limit, in this process, from now on.

    Statement time limits are the server's, and no help when the network is silent. It also lets
    a gevent worker serve other requests meanwhile. psycopg2 refuses COPY once this is set
    (https://www.psycopg.org/docs/advanced.html#support-for-coroutine-libraries).
    """

    def wait(connection: Any) -> None:
        deadline = time.monotonic() + seconds
        # Not select(), which fails on file descriptors over 1023.
        poll = select.poll()
        events = {extensions.POLL_READ: select.POLLIN, extensions.POLL_WRITE: select.POLLOUT}
        while (state := connection.poll()) != extensions.POLL_OK:
            descriptor = connection.fileno()
            poll.register(descriptor, events[state])
            left = deadline - time.monotonic()
            if left <= 0 or not poll.poll(left * 1000):
                raise psycopg2.OperationalError("The database did not answer in time.")
            poll.unregister(descriptor)

    extensions.set_wait_callback(wait)


def transaction(view: Callable[P, R]) -> Callable[P, R]:
    """Run a writing view as one transaction: returning commits, raising rolls back.

    This is the only commit there is. The view has rendered its answer by then, and the answer
    is sent only afterwards.
    """

    @wraps(view)
    def committed(*args: P.args, **kwargs: P.kwargs) -> R:
        with db.session.begin():
            return view(*args, **kwargs)

    return committed


def fetch(statement: Executable) -> Sequence[Row[*tuple[Any, ...]]]:
    """Give the rows of a statement: in the transaction of a writing view, else outside of any."""
    if db.session.registry.has() and db.session().in_transaction():
        return db.session.execute(statement).all()
    with db.engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT")
        return connection.execute(statement).all()


def row_json(*columns: QueryableAttribute[Any]) -> ColumnElement[str]:
    """Give the SQL that writes a row as JSON text, one member a column, in this order.

    Every answer is rendered by PostgreSQL, and only there: Python passes the text through.
    """
    members = [part for column in columns for part in (column.key, column)]
    return cast(func.json_build_object(*members), Text)
