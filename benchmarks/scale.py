"""Compare the cost of a page of the list and of the feed in a small and in a large table.

Run it with ``make bench-scale``. It fills two databases on the server that the app would use,
measures each kind of page in both, alternately, and drops them (``--keep`` leaves them for the next
run). A figure is the shortest time to run the statement and fetch its rows, as the views do. The
ratio is to the first page of the small table, measured in the same rounds.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click
from flask import Flask
from flask_migrate import upgrade
from sqlalchemy import func, select, text, union_all

from phresh import create_app
from phresh.cleanings import queries
from phresh.cleanings.models import CHANGED, ORDERS, Cleaning
from phresh.cli.demo import add_many
from phresh.database.base import db
from phresh.database.statements import Query
from phresh.database.transactions import fetch
from phresh.feed.queries import event_page
from phresh.feed.schemas import FeedSchema
from phresh.web.pages import Page

ROUNDS = 200
RUNS_UNTIL_PLANNED = 6  # runs of a prepared statement; then PostgreSQL may use a generic plan
# Without these indexes, the table is filled faster.
INDEXES = text("""
    SELECT indexname, indexdef FROM pg_indexes
    WHERE tablename = 'cleanings' AND indexname LIKE 'ix_%'
""")
TWO_TYPES = ["dust_up", "full_clean"]
# A word of many rows, none of them near the first page: the worst case of q.
ADD_OLD_WORD = "UPDATE cleanings SET description = 'An attic.' WHERE id <= :count"

EVENTS = union_all(
    select(Cleaning.id, Cleaning.created_at.label("event_timestamp")),
    select(Cleaning.id, Cleaning.updated_at.label("event_timestamp")).where(CHANGED),
)

# Name, sort order, depth (as a part of the table), filters, and optionally the limit.
CASES: list[tuple[Any, ...]] = [
    ("first page", "-id", 0, {}),
    ("first page of 100", "-id", 0, {}, 100),
    ("half-way", "-id", 0.5, {}),
    ("sort=id, first page", "id", 0, {}),
    ("sort=id, half-way", "id", 0.5, {}),
    ("sort=price, first page", "price", 0, {}),
    ("sort=price, half-way", "price", 0.5, {}),
    ("sort=-price, first page", "-price", 0, {}),
    ("sort=-price, half-way", "-price", 0.5, {}),
    ("one type", "-id", 0, {"cleaning_type": TWO_TYPES[:1]}),
    ("one type, half-way", "-id", 0.5, {"cleaning_type": TWO_TYPES[:1]}),
    ("one type, sort=price, half-way", "price", 0.5, {"cleaning_type": TWO_TYPES[:1]}),
    ("two types, half-way", "-id", 0.5, {"cleaning_type": TWO_TYPES}),
    ("two types, sort=price, half-way", "price", 0.5, {"cleaning_type": TWO_TYPES}),
    ("price 40 to 60", "-id", 0, {"price_min": 40, "price_max": 60}),
    ("price 40 to 60, half-way", "-id", 0.5, {"price_min": 40, "price_max": 60}),
    ("price 40 to 60, sort=price, half-way", "price", 0.5, {"price_min": 40, "price_max": 60}),
    ("price from 99.90, one row of 1,000", "-id", 0, {"price_min": 99.9}),
    ("q of a common word", "-id", 0, {"q": "rose"}),
    ("q of a common word, half-way", "-id", 0.5, {"q": "rose"}),
    ("q of a common word, sort=price", "price", 0, {"q": "rose"}),
    ("q found in one row of 200", "-id", 0, {"q": "471"}),
    ("q found in one row of 2,500", "-id", 0, {"q": "4711"}),
    ("q found in one row of 50,000", "-id", 0, {"q": "chandelier"}),
    ("q found in one row of 50,000, sort=price", "price", 0, {"q": "chandelier"}),
    ("q found in the oldest row of 100 only", "-id", 0, {"q": "attic"}),
    ("q found nowhere", "-id", 0, {"q": "zeppelin"}),
    ("q of three letters found nowhere", "-id", 0, {"q": "xqz"}),
    ("q of two common words", "-id", 0, {"q": "rose piano"}),
    ("q of two letters found nowhere", "-id", 0, {"q": "zq"}),
    ("q of two syllables of Hangul found nowhere", "-id", 0, {"q": "청소"}),
    ("q of two common letters", "-id", 0, {"q": "ro"}),
    ("q of one common letter", "-id", 0, {"q": "h"}),
    (
        "one type, price and q",
        "price",
        0,
        {"cleaning_type": TWO_TYPES[:1], "price_min": 40, "q": "rose"},
    ),
    ("status of 95 rows in 100", "-id", 0, {"status": "open"}),
    ("status of 95 rows in 100, half-way", "-id", 0.5, {"status": "open"}),
    ("status of 95 rows in 100, sort=price", "price", 0, {"status": "open"}),
    ("status of one row in 40", "-id", 0, {"status": "taken"}),
    ("status of one row in 40, half-way", "-id", 0.5, {"status": "taken"}),
    ("status of one row in 40, sort=price", "price", 0, {"status": "taken"}),
    ("feed, first page", "-time", 0, {}),
    ("feed, first page of 100", "-time", 0, {}, 100),
    ("feed, half-way", "-time", 0.5, {}),
    ("feed, at its end", "-time", 1, {}),
]


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", type=int, default=10_000, help="number of rows (%(default)s)")
    parser.add_argument(
        "--large", type=int, default=10_000_000, help="number of rows (%(default)s)"
    )
    parser.add_argument("--keep", action="store_true", help="keep the databases")
    parser.add_argument("--plans", action="store_true", help="print the large table's plans too")
    options = parser.parse_args()
    with (
        filled(options.small, keep=options.keep) as small,
        filled(options.large, keep=options.keep) as large,
    ):
        click.echo(f"| page | {options.small:,} rows, ms | {options.large:,} rows, ms | ratio |")
        click.echo("|---|---|---|---|")
        first_page = measured(small, *CASES[0][1:])
        for name, *case in CASES:
            pages = measured(small, *case), measured(large, *case)
            first, in_small, in_large = fastest(first_page, *pages)
            click.echo(f"| {name} | {in_small:.2f} | {in_large:.2f} | {in_large / first:.1f} |")
            if options.plans:
                click.echo(plan(large, *case))


@contextmanager
def filled(rows: int, *, keep: bool) -> Iterator[Flask]:
    """Yield the app on a database with that many sample cleanings."""
    with create_app().app_context():
        server = db.engine.execution_options(isolation_level="AUTOCOMMIT")
        name = f"{server.url.database}_scale_{rows}"
        with server.connect() as connection:
            find = text("SELECT FROM pg_database WHERE datname = :name")
            exists = connection.execute(find, {"name": name}).rowcount
            if not exists:
                locale = "TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C.UTF-8'"
                connection.execute(text(f"CREATE DATABASE {name} {locale}"))
        url = server.url.set(database=name).render_as_string(hide_password=False)
        app = create_app({"DATABASE_URL": url})
        with app.app_context():
            if not exists:
                upgrade()
                fill(rows)
            with db.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
                connection.execute(text("VACUUM ANALYZE cleanings"))
            db.engine.dispose()  # a connection that did such work is slower
        yield app
        with app.app_context():
            db.engine.dispose()
        if not keep:
            with server.connect() as connection:
                connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        server.dispose()


def fill(rows: int) -> None:
    """Add that many cleanings, with users, offers and evaluations."""
    with db.engine.begin() as connection:
        indexes = connection.execute(INDEXES).all()
        for name, _ in indexes:
            connection.exec_driver_sql(f"DROP INDEX {name}")
    add_many(rows)
    with db.engine.begin() as connection:
        connection.execute(text(ADD_OLD_WORD), {"count": rows // 100})
        for _, definition in indexes:
            connection.exec_driver_sql(definition)


def page_query(order: str, depth: float, filters: dict[str, Any], limit: int = 20) -> Query:
    """Return the query of a page, as the view makes it."""
    is_feed = order in FeedSchema.ORDERS
    keys = (FeedSchema.ORDERS if is_feed else ORDERS)[order]
    after: tuple[Any, ...] = ()
    if depth:
        rows = (EVENTS if is_feed else select(Cleaning)).subquery().c
        columns = keys.columns(rows)
        by = [column.desc() for column in columns] if keys.descending else columns
        with db.engine.connect() as connection:
            count = connection.scalar(select(func.count()).select_from(rows.id.table))
            offset = min(int(count * depth), count - limit - 1)
            after = tuple(
                connection.execute(select(*columns).order_by(*by).offset(offset).limit(1)).one()
            )
    page = Page(order, keys, limit, is_first=not after, after=after)
    return event_page(page) if is_feed else queries.cleaning_page(page, **filters)


def measured(app: Flask, *case: Any) -> Callable[[], float]:
    """Return a function that fetches the page and returns the milliseconds that it took."""
    with app.app_context():
        query = page_query(*case)
        for _ in range(RUNS_UNTIL_PLANNED):
            fetch(query)

    def run() -> float:
        with app.app_context():
            started_at = time.perf_counter()
            fetch(query)
            return (time.perf_counter() - started_at) * 1000

    return run


def fastest(*runs: Callable[[], float]) -> list[float]:
    """Run each alternately and return its shortest time: other load only makes it longer."""
    rounds = [[run() for run in runs] for _ in range(ROUNDS)]
    return [min(times) for times in zip(*rounds, strict=True)]


def plan(app: Flask, *case: Any) -> str:
    """Return the plan of a page, indented."""
    with app.app_context(), db.engine.connect() as connection:
        query = page_query(*case)
        cursor = connection.connection.cursor()
        if query.statement.is_prepared:
            cursor.execute(f"DEALLOCATE ALL; {query.statement.prepare}")
        sql, values = query.to_send(prepared=query.statement.is_prepared)
        for _ in range(RUNS_UNTIL_PLANNED):
            cursor.execute(sql, values)
        cursor.execute(f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) {sql}", values)
        return "\n".join(f"    {line}" for (line,) in cursor.fetchall())


if __name__ == "__main__":
    main()
