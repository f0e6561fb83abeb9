"""Connecting: which database, with which options, and the pool that requests share."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flask import Flask
from sqlalchemy import URL, event

from phresh.config import ConfigError
from phresh.database import checks, deadlines, embedded, session
from phresh.database.base import db, migrate
from phresh.database.deadlines import DriverConnection, has_deadline
from phresh.database.hosts import Hosts
from phresh.database.pool import Pool

# So that the system notices a host that fell silent, long before its own default of two hours: the
# seconds of idleness until it asks, and between the times that it asks; milliseconds without an
# acknowledgement of what was sent (https://www.postgresql.org/docs/current/libpq-connect.html).
KEEPALIVES = {
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
}


def init_app(app: Flask) -> None:
    """Connect the app to its database: the embedded PostgreSQL when none is configured.

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
        "connection_factory": DriverConnection,
        **KEEPALIVES,
    }
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {
        "max_overflow": -1,  # our pool bounds them; no deadline would bound a wait here
        "hide_parameters": True,  # no names and no hashes in a log
        "connect_args": {k: v for k, v in connecting.items() if k not in url.query},
    }
    app.extensions["embedded"] = server
    connect = checks.checked(_connect)
    # The second is for conditional writes (reading_committed), and opens when the first one comes.
    pools = {
        name: Pool(
            connect,
            size=size,
            seconds=app.config["POOL_TIMEOUT"],
            prepares=app.config["PREPARED_STATEMENTS"],
        )
        for name, size in (("pool", app.config["POOL_SIZE"]), ("pool for reading", 1))
    }
    app.extensions.update(pools)
    db.init_app(app)
    migrate.init_app(app, db)
    deadlines.init_app(app)
    with app.app_context():
        if server is not None:
            event.listen(db.engine, "do_connect", lambda *_: server.ensure())
        event.listen(db.engine, "do_connect", _limited_connect(app.config))
        for pool in pools.values():
            event.listen(db.engine, "engine_disposed", lambda _, pool=pool: pool.dispose())
        session.init_app(app, db)


def _connect() -> Any:
    """Open a connection as the engine does, but for our pool."""
    made = db.engine.raw_connection()
    driver: Any = made.driver_connection
    made.detach()
    try:
        driver.autocommit = True
        with driver.cursor() as cursor:
            cursor.execute("SET TIME ZONE 'UTC'")  # in which times are rendered
    except BaseException:
        driver.close()
        raise
    return driver


def _limited_connect(config: Mapping[str, Any]) -> Any:
    """Return what connects for a request: to the first host in time, with the server's limits.

    Not for commands: a migration takes its time. It must not refer to the app, which owns the
    engine: the two would never be freed.
    """
    limits = {
        "statement_timeout": config["STATEMENT_TIMEOUT"],
        "lock_timeout": config["LOCK_TIMEOUT"],
        "idle_in_transaction_session_timeout": config["IDLE_TIMEOUT"],
    }
    sends_limits, hosts = config["DATABASE_LIMITS"], Hosts()
    options = [f"-c {name}={limit * 1000:.0f}" for name, limit in limits.items()]

    def connect(dialect: Any, _: Any, arguments: Any, parameters: dict[str, Any]) -> Any:
        if not has_deadline():
            return None  # SQLAlchemy connects
        if sends_limits:
            given = parameters.get("options", "")
            parameters = {**parameters, "options": " ".join([given, *options]).strip()}
        return hosts.connect(lambda chosen: dialect.connect(*arguments, **chosen), parameters)

    return connect
