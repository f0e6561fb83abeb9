"""The plans that PostgreSQL makes for prepared queries."""

from collections.abc import Iterator
from typing import Any

from flask import Flask

from phresh.database.base import db
from phresh.database.statements import Query


def nodes_of(app: Flask, query: Query) -> list[dict[str, Any]]:
    """Run a query, and return the nodes of its generic plan, which serves all values."""
    execute, values = query.to_send(prepared=True)
    with app.app_context(), db.engine.begin() as connection:
        cursor = connection.connection.cursor()
        cursor.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        cursor.execute(query.statement.prepare)
        cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {execute}", values)
        [[[explained]]] = cursor.fetchall()
        cursor.execute("DEALLOCATE ALL")
    return list(_nodes(explained["Plan"]))


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", ()):
        yield from _nodes(inner)
