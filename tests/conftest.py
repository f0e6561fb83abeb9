"""Fixtures: the app on a database of its own, real commits, empty tables after each test."""

import hashlib
import io
import json
import logging
import os
import secrets
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from flask_migrate import upgrade
from psycopg2.errors import InsufficientPrivilege
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import ProgrammingError
from werkzeug.test import stream_encode_multipart

from phresh import create_app
from phresh.config import read_settings
from phresh.database.base import db
from phresh.database.statements import Query
from phresh.database.transactions import UnitOfWork, fetch, transaction
from phresh.serving.logs import JSONFormatter
from phresh.web.app import App
from tests.tools.contract import ContractClient
from tests.tools.users import CHEAP, PASSWORD, Someone

PASSWORD_HASH = CHEAP.hash(PASSWORD)
# Of the apps of most tests: they soon have hashed a password, and keep the mail that they send.
SETTINGS = {
    "ARGON2_TIME_COST": 1,
    "ARGON2_MEMORY_COST": 8,
    "MAIL_URL": "memory:",
    "ACCOUNT_URL": "https://phresh.example/account",
}

CREATE = "CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C.UTF-8'"

# Each response of any app is held to its OpenAPI document.
App.test_client_class = ContractClient


@pytest.fixture(scope="session")
def make_database() -> Iterator[Any]:
    """Make empty databases on the server that the app would use; drop them at the end.

    Their names end with the process id, so that several runs at once, and the processes of
    pytest-xdist, do not share one.
    """
    configured = create_app()
    made: set[str] = set()
    with configured.app_context():
        server = db.engine.execution_options(isolation_level="AUTOCOMMIT")
    if configured.extensions["embedded"] is not None:
        _drop_abandoned(server)

    def make(suffix: str) -> str:
        name = f"{server.url.database}_{suffix}_{os.getpid()}"
        with server.connect() as connection:
            connection.execute(text(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
            connection.execute(text(CREATE.format(name)))
            # No test kills this server, so none waits for its disk.
            connection.execute(text(f"ALTER DATABASE {name} SET synchronous_commit = off"))
        made.add(name)
        return server.url.set(database=name).render_as_string(hide_password=False)

    yield make
    with server.connect() as connection:
        for name in made:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    server.dispose()


def _drop_abandoned(server: Engine) -> None:
    """Drop the databases of test runs that were killed, on a server that only this machine uses."""
    like = text("SELECT datname FROM pg_database WHERE datname ~ :pattern")
    pattern = f"^{server.url.database}_[a-z]+_[0-9]+$"
    with server.connect() as connection:
        for name in connection.scalars(like, {"pattern": pattern}).all():
            if not Path(f"/proc/{name.rpartition('_')[2]}").exists():
                connection.execute(text(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))


@pytest.fixture(scope="session")
def database_url(make_database) -> str:
    """The URL of the test database, made by the migrations."""
    url: str = make_database("test")
    with create_app({"DATABASE_URL": url}).app_context():
        upgrade()
        db.engine.dispose()
    return url


@pytest.fixture(scope="session")
def owner_engine(database_url) -> Iterator[Engine]:
    """An engine on the test database by the role that owns the tables, in autocommit."""
    # Without BEGIN and COMMIT each statement is one message instead of three.
    engine = create_engine(database_url, isolation_level="AUTOCOMMIT")
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def serving_url(owner_engine) -> Iterator[str]:
    """The URL of the test database by a role that reads and writes rows and can do nothing else.

    On a server where we may not make a role: by our own.
    """
    name, password = f"phresh_test_{os.getpid()}", secrets.token_hex(16)
    with owner_engine.connect() as connection:
        try:
            connection.execute(text(f"DROP ROLE IF EXISTS {name}"))
            connection.execute(text(f"CREATE ROLE {name} LOGIN PASSWORD '{password}'"))
        except ProgrammingError as error:
            if not isinstance(error.orig, InsufficientPrivilege):
                raise
            yield owner_engine.url.render_as_string(hide_password=False)
            return
        rights = "GRANT SELECT, INSERT, UPDATE, DELETE ON"
        connection.execute(text(f"{rights} ALL TABLES IN SCHEMA public TO {name}"))
        sequences = f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {name}"
        connection.execute(text(sequences))
        # Those of tables that a test makes.
        connection.execute(text(f"ALTER DEFAULT PRIVILEGES {rights} TABLES TO {name}"))
        usage = f"ALTER DEFAULT PRIVILEGES GRANT USAGE ON SEQUENCES TO {name}"
        connection.execute(text(usage))
    url = owner_engine.url.set(username=name, password=password)
    yield url.render_as_string(hide_password=False)
    with owner_engine.connect() as connection:
        connection.execute(text(f"DROP OWNED BY {name}"))
        connection.execute(text(f"DROP ROLE {name}"))


@pytest.fixture(scope="session")
def settings(serving_url) -> dict[str, Any]:
    """The settings of an app on the test database; those for PgBouncer as in the environment."""
    configured = read_settings()
    names = ("PREPARED_STATEMENTS", "DATABASE_LIMITS")
    return {"DATABASE_URL": serving_url, **{name: configured[name] for name in names}}


@pytest.fixture(scope="session")
def app(settings) -> Iterator[Flask]:
    """The app of most tests."""
    app = create_app({**settings, **SETTINGS, "TESTING": True})
    yield app
    with app.app_context():
        db.engine.dispose()


@pytest.fixture
def client(app) -> FlaskClient:
    """A client that does not keep the context of its last request, as pytest-flask's does."""
    return app.test_client()


@pytest.fixture(scope="session", autouse=True)
def _keep_boundaries_short() -> Iterator[None]:
    """Have the forms of test clients keep to RFC 2046 5.1.1.

    Werkzeug makes boundaries of times and random numbers, of which a few are longer than 70
    characters and get 400.
    """
    encode = partial(stream_encode_multipart, boundary="boundary")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("werkzeug.test.stream_encode_multipart", encode)
        yield


@pytest.fixture(autouse=True)
def _push_request_context() -> None:
    """Take the place of pytest-flask's fixture of that name.

    It keeps one context open around a test, which all its requests then share: the session and
    ``g`` would leak from one into the next (pytest-flask issue 69).
    """


@pytest.fixture(autouse=True)
def _close_connections(request) -> Iterator[None]:
    """Close the idle connections of the apps that a test made: many apps would use them all up."""
    yield
    shared = request.getfixturevalue("app") if "app" in request.fixturenames else None
    for app in list(db._app_engines):
        if app is not shared:
            app.extensions["pool"].dispose()
            app.extensions["pool for reading"].dispose()


# To truncate takes longer than to look.
FORGET = """
    DO $$ BEGIN
        IF EXISTS (SELECT FROM audit_log) THEN TRUNCATE audit_log; END IF;
    END $$
"""


@pytest.fixture(autouse=True)
def clean_tables(request) -> Iterator[None]:
    """Empty every table after a test that had the app, children first."""
    yield
    if "app" not in request.fixturenames:
        return
    names = [table.name for table in reversed(db.metadata.sorted_tables)]
    names.sort(key="released_usernames".__eq__)  # last: a trigger puts the names of users there
    names.remove("audit_log")  # whose lines cannot be deleted
    names += ["procrastinate_jobs", "procrastinate_workers"]
    # One message, which PostgreSQL runs as one transaction.
    delete = "; ".join(f"DELETE FROM {name}" for name in names)
    with request.getfixturevalue("app").app_context():
        engine = db.engine.execution_options(isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql(delete)
    with request.getfixturevalue("owner_engine").connect() as connection:
        connection.exec_driver_sql(FORGET)


@pytest.fixture
def sql(app, owner_engine) -> Any:
    """Run SQL on the test database, past every schema, as the role that owns the tables."""
    return lambda statement, **values: _run(owner_engine, statement, values)


def _run(engine: Engine, statement: str, values: dict[str, Any]) -> Any:
    with engine.connect() as connection:
        result = connection.execute(text(statement), values)
        return result.all() if result.returns_rows else None


@pytest.fixture
def run(app) -> Any:
    """Run a flask command; gives its exit code and what it printed."""

    def invoke(*arguments: str) -> tuple[int, str]:
        with app.app_context():
            result = app.test_cli_runner().invoke(args=arguments)
        return result.exit_code, result.output

    return invoke


@pytest.fixture
def write(app) -> Any:
    """Run a query of ours that writes, in a transaction as a view does; gives its rows."""

    def run_query(query: Query) -> Any:
        with app.app_context():
            return transaction(fetch)(query)

    return run_query


@pytest.fixture
def make_cleaning(sql) -> Any:
    """Put cleanings into the table; gives the id."""
    number = count(1)

    def make(**values: Any) -> int:
        new = {"name": f"Job {next(number)}", "price": "20.00", **values}
        names = ", ".join(new)
        marks = ", ".join(f":{name}" for name in new)
        return sql(f"INSERT INTO cleanings ({names}) VALUES ({marks}) RETURNING id", **new)[0][0]

    return make


@pytest.fixture
def make_user(app, sql) -> Any:
    """Put users into the table, each with a token; they can log in with PASSWORD."""
    number = count(1)

    def make(username: str | None = None, **values: Any) -> Someone:
        username = username or f"user-{next(number)}"
        email = values.pop("email", f"{username}@phresh.example")
        new = {"username": username, "email": email, "password_hash": PASSWORD_HASH, **values}
        names = ", ".join(new)
        marks = ", ".join(f":{name}" for name in new)
        token = secrets.token_urlsafe(32)
        insert = f"""
            WITH made AS (INSERT INTO users ({names}) VALUES ({marks}) RETURNING id),
            profile AS (INSERT INTO profiles (user_id) SELECT id FROM made),
            token AS (
                INSERT INTO tokens (hash, user_id, expires_at)
                SELECT :hash, id, now() + interval '7 days' FROM made
            )
            SELECT id FROM made
        """
        [(user_id,)] = sql(insert, hash=hashlib.sha256(token.encode()).digest(), **new)
        return Someone(user_id, username, email, token, app)

    return make


@pytest.fixture
def anna(make_user) -> Someone:
    """A user."""
    return make_user("anna")


@pytest.fixture
def ben(make_user) -> Someone:
    """Another user."""
    return make_user("ben")


@pytest.fixture
def statements(monkeypatch) -> list[str]:
    """The SQL statements that were sent, without BEGIN and the like."""
    seen: list[str] = []
    run = UnitOfWork.run

    def noted(unit: UnitOfWork, query: Query) -> Any:
        seen.append(query.statement.text)
        return run(unit, query)

    monkeypatch.setattr(UnitOfWork, "run", noted)
    return seen


@pytest.fixture
def make_app(app, settings) -> Any:
    """Make apps on the test database, with these settings."""
    return lambda **values: create_app({**settings, **SETTINGS, "TESTING": True, **values})


@pytest.fixture(scope="module")
def chromium(tmp_path_factory) -> Iterator[Any]:
    """A browser."""
    from tests.tools import browser

    with browser.chromium(tmp_path_factory.mktemp("chromium")) as chrome:
        yield chrome


@pytest.fixture
def lines(caplog) -> Iterator[Any]:
    """The log lines so far, as they are written where the API is served."""
    caplog.set_level(logging.INFO)
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JSONFormatter())
    logging.getLogger().addHandler(handler)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    logging.getLogger().removeHandler(handler)
