"""How commands use the database."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
from flask import current_app
from psycopg2.errors import UndefinedTable
from sqlalchemy.exc import DBAPIError, ProgrammingError

from phresh.config import shown_url
from phresh.database import checks
from phresh.database.base import db
from phresh.database.statements import Query
from phresh.database.transactions import fetch


def one(query: Query, noun: str) -> tuple[Any, ...]:
    """Return the only row of a query.

    :raises click.ClickException: when there is none
    """
    found = rows(query)
    if not found:
        raise click.ClickException(f"There is no such {noun}.")
    return found[0]


def rows(query: Query) -> list[tuple[Any, ...]]:
    """Run a query and return its rows."""
    require_database()
    with tables():
        return fetch(query)


@contextmanager
def tables() -> Iterator[None]:
    """Turn an error about missing tables into one that says what to do.

    :raises click.ClickException: when tables are missing
    """
    try:
        yield
    except (ProgrammingError, UndefinedTable) as error:
        if not isinstance(getattr(error, "orig", error), UndefinedTable):
            raise
        raise click.ClickException("The tables are missing: run flask db upgrade.") from None


def require_database(
    find_fault: Callable[[Any], str | None] | None = checks.serving_fault,
) -> None:
    """Require a database that can be reached, and that has no fault.

    :raises click.ClickException: for another one
    """
    url = shown_url(current_app.config, db.engine.url)
    try:
        with db.engine.connect() as connection:
            fault = find_fault and find_fault(connection.connection.driver_connection)
    except DBAPIError as error:
        why = " ".join(str(error.orig).split())
        raise click.ClickException(f"{url}: Can't connect: {why}") from None
    if fault:
        raise click.ClickException(f"{url}: {fault}")
