"""Fixtures: the app on a database of its own, real commits, empty tables after each test."""

from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
from flask import Flask
from flask_migrate import upgrade
from sqlalchemy import Engine, Executable, text

from phresh import create_app
from phresh.cleanings.models import Cleaning
from phresh.config import read_settings
from phresh.db import Session, db
from phresh.statements import Query, query


@query
def sql_text(statement: str) -> Executable:
    """The SQL as it stands, for a view that a test makes."""
    return text(statement).execution_options(plan_by_values=True)


CREATE = "CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C.UTF-8'"


@pytest.fixture(scope="session")
def make_database() -> Iterator[Any]:
    """Make empty databases on the server that the app would use; drop them at the end."""
    configured = create_app()
    made: set[str] = set()
    with configured.app_context():
        server = db.engine.execution_options(isolation_level="AUTOCOMMIT")

        def make(suffix: str) -> str:
            name = f"{server.url.database}_{suffix}"
            with server.connect() as connection:
                connection.execute(text(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
                connection.execute(text(CREATE.format(name)))
            made.add(name)
            return server.url.set(database=name).render_as_string(hide_password=False)

        yield make
        with server.connect() as connection:
            for name in made:
                connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        server.dispose()


@pytest.fixture(scope="session")
def database_url(make_database) -> str:
    """The URL of the test database, made by the migrations."""
    url: str = make_database("test")
    with create_app({"DATABASE_URL": url}).app_context():
        upgrade()
        db.engine.dispose()
    return url


@pytest.fixture(scope="session")
def settings(database_url) -> dict[str, Any]:
    """The settings of an app on the test database, prepared statements as the environment says."""
    prepared = read_settings()["PREPARED_STATEMENTS"]
    return {"DATABASE_URL": database_url, "PREPARED_STATEMENTS": prepared}


@pytest.fixture(scope="session")
def app(settings) -> Iterator[Flask]:
    app = create_app({**settings, "TESTING": True})
    yield app
    with app.app_context():
        db.engine.dispose()


@pytest.fixture(autouse=True)
def _push_request_context() -> None:
    """Take the place of pytest-flask's fixture of that name.

    It keeps one context open around a test, which all its requests then share: the session and
    ``g`` would leak from one into the next (pytest-flask issue 69).
    """


@pytest.fixture(autouse=True)
def clean_tables(request) -> Iterator[None]:
    """Empty every table after a test that had the app, children first."""
    yield
    if "app" not in request.fixturenames:
        return
    with request.getfixturevalue("app").app_context(), db.engine.begin() as connection:
        for table in reversed(db.metadata.sorted_tables):
            connection.execute(table.delete())


@pytest.fixture
def sql(app) -> Iterator[Any]:
    """Run SQL on the test database, past every schema."""
    with app.app_context():
        engine = db.engine
        yield lambda statement, **values: _run(engine, statement, values)


def _run(engine: Engine, statement: str, values: dict[str, Any]) -> Any:
    with engine.begin() as connection:
        result = connection.execute(text(statement), values)
        return result.all() if result.returns_rows else None


@pytest.fixture
def make_cleaning(app) -> Any:
    """Put cleanings into the table; gives the id."""
    number = count(1)

    def make(**values: Any) -> int:
        new = {"name": f"Job {next(number)}", "price": "20.00", **values}
        with app.app_context(), db.engine.begin() as connection:
            insert = Cleaning.__table__.insert().values(**new)
            return connection.execute(insert).inserted_primary_key[0]

    return make


@pytest.fixture
def statements(monkeypatch) -> list[str]:
    """The SQL statements that were sent, without BEGIN and the like."""
    seen: list[str] = []
    run = Session.run

    def noted(session: Session, query: Query) -> Any:
        seen.append(query.statement.text)
        return run(session, query)

    monkeypatch.setattr(Session, "run", noted)
    return seen
