"""Rows, cursors and path parameters for the requests that schemathesis generates."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from argon2 import PasswordHasher
from flask import Flask
from sqlalchemy import Connection

from phresh.web.pages import PageSchema, encode_cursor
from tests.tools.features import features
from tests.tools.users import PASSWORD

# A value of a key in a cursor, by the key's type.
VALUES: dict[type, Any] = {
    int: 7,
    Decimal: Decimal("29.99"),
    str: "3f786850e387550f",
    datetime: datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
}


def fill(connection: Connection) -> dict[str, list[dict[str, Any]]]:
    """Fill empty tables; return path parameters for requests, by operation id.

    There are 9,999 users with a profile and a token each, and what the features'
    ``tests/<feature>/routes.py`` make.
    """
    password_hash = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
    for statement in (
        f"""
        INSERT INTO users (username, email, password_hash)
        SELECT 'user-' || n, 'user-' || n || '@phresh.example', '{password_hash}'
        FROM generate_series(1, 9999) n
        """,
        "INSERT INTO profiles (user_id) SELECT id FROM users",
        """
        INSERT INTO tokens (hash, user_id, expires_at)
        SELECT sha256(convert_to('token-' || id, 'UTF8')), id, now() + interval '1 day' FROM users
        """,
    ):
        connection.exec_driver_sql(statement)
    return {
        operation: [dict(row) for row in rows_of(connection, statement)]
        for feature in features().values()
        for operation, statement in feature.fuzz.items()
    }


def rows_of(connection: Connection, statement: str) -> Iterable[Mapping[str, Any]]:
    """Return the rows of the last statement, none if it returns none."""
    result = connection.exec_driver_sql(statement)
    return result.mappings() if result.returns_rows else ()


def cursors(app: Flask) -> dict[str, dict[str, str]]:
    """Return a valid cursor for each order of each list, by operation id and ``sort``.

    The default order is also under ``""``.
    """
    found = {}
    for endpoint, view in app.view_functions.items():
        if schema := next(page_schemas(view), None):
            by_order = {
                name: encode_cursor(name, [VALUES[kind] for _, kind in order.keys])
                for name, order in schema.ORDERS.items()
            }
            by_order[""] = next(iter(by_order.values()))
            found[endpoint.rpartition(".")[2]] = by_order
    return found


def page_schemas(view: Any) -> Iterator[PageSchema]:
    """Yield the schema of the query parameters of a view that returns pages."""
    view_class = getattr(view, "view_class", None)
    view = view if view_class is None else getattr(view_class, "get", None)
    for parameter in getattr(view, "_apidoc", {}).get("arguments", {}).get("parameters", []):
        if isinstance(parameter.get("schema"), PageSchema):
            yield parameter["schema"]
