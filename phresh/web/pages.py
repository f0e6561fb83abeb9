"""Keyset pages: a page begins after the last row of the one before, so each costs the same.

OFFSET would read all rows before the page, and rows that are added or deleted between two requests
would shift it.
"""

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, ClassVar
from urllib.parse import quote, urlencode

import marshmallow as ma
from flask import request
from sqlalchemy import (
    ColumnElement,
    Select,
    Text,
    case,
    cast,
    func,
    literal_column,
    select,
    tuple_,
    union_all,
)

from phresh.database.statements import Query, parameter
from phresh.database.transactions import fetch
from phresh.web.fields import INTEGER_MAX, BoundedString, Digits
from phresh.web.json import time_text
from phresh.web.urls import url_of

LIMIT_MAX = 100  # rows of a page
PAGE_MAX = 256 * 1024  # bytes of a page that has more than one row
FETCH_MAX = 4 * PAGE_MAX  # bytes of rows that the database sends for a page
CURSOR_MAX = 200  # characters

LINK = {
    "Link": {
        "description": "The next page (RFC 8288). The last page has none.",
        "schema": {"type": "string"},
    }
}

# The form of a key's value in a cursor, and what parses it: times in UTC, as in responses.
CURSOR_FORMS: dict[type, tuple[str, Callable[[str], Any]]] = {
    int: (r"[0-9]{1,10}", int),
    Decimal: (r"[0-9]{1,8}\.[0-9]{2}", Decimal),
    # Version 1.0 wrote +00:00, and no decimals if they were zero.
    datetime: (
        r"[0-9-]{10}T[0-9:]{8}(?:\.[0-9]{6}Z|(?:\.[0-9]{6})?\+00:00)",
        datetime.fromisoformat,
    ),
    str: (r"[0-9a-f]{16}", str),  # the id of a session
}
CURSOR_EXAMPLES: dict[type, Any] = {
    str: "3f786850e387550f",
    int: 21,
    Decimal: Decimal("29.99"),
    datetime: datetime(2026, 11, 27, 19, 4, 23, 491700, UTC),
}


FIRST: ColumnElement[Any] = literal_column(str(LIMIT_MAX + 1))  # rows: see Page.first()


@dataclass(frozen=True)
class Order:
    """An order of rows.

    :param keys: names and Python types of the columns; together they are unique
    :param descending: whether all of them go down instead of up
    """

    keys: tuple[tuple[str, type], ...]
    descending: bool = False

    def begins_with(self, key: str) -> bool:
        """Return whether rows are sorted by that column first."""
        return self.keys[0][0] == key

    @property
    def names(self) -> list[str]:
        """The names of the keys."""
        return [key for key, _ in self.keys]

    def columns(self, source: Any) -> list[ColumnElement[Any]]:
        """Return the columns of the keys, of a model or of a subquery's ``c``."""
        return [getattr(source, key) for key in self.names]


NEWEST_FIRST = {"-id": Order((("id", int),), descending=True)}


@dataclass(frozen=True)
class Page:
    """A requested page: so many rows in that order at most, from the first or after a cursor.

    The order, and whether there is a cursor, decide the shape of a statement. The cursor and the
    limit do not: they are among the statement's values.

    A page ends early, before the row with which it would exceed ``PAGE_MAX`` bytes.
    """

    name: str
    order: Order
    limit: int = field(compare=False)
    is_first: bool = True
    after: tuple[Any, ...] = field(default=(), compare=False)

    def starting_at(self, cursor: str) -> "Page":
        """Return the page that begins after a cursor.

        :raises ValueError: when the cursor is not valid for this sort order
        """
        values = decode_cursor(cursor, self.name, self.order)
        return Page(self.name, self.order, self.limit, False, values)

    @property
    def values(self) -> dict[str, Any]:
        """The values with which a statement of the page is run, by name."""
        count = self.limit + 1  # one more, which tells of a next page
        cursor = {f"after_{number}": value for number, value in enumerate(self.after)}
        return {"fetch_limit": count, "row_max": FETCH_MAX // count, **cursor}

    def apply(self, statement: Select[Any], source: Any) -> Select[Any]:
        """Return the statement of a page: of the rows that a statement selects as JSON text.

        :param source: the model or subquery that has the keys
        """
        return self.cut(self.part(statement, source))

    def part(self, statement: Select[Any], source: Any) -> Select[Any]:
        """Return the first rows after the cursor, with their keys: a page, or one of its parts."""
        columns = zip(self.order.columns(source), self.order.names, strict=True)
        keyed = statement.add_columns(*(column.label(key) for column, key in columns))
        return self.first(self.after_cursor(keyed, source), source)

    def after_cursor(self, statement: Select[Any], source: Any) -> Select[Any]:
        """Return the statement narrowed to what comes after the cursor."""
        if self.is_first:
            return statement
        keys = tuple_(*self.order.columns(source))
        cursor = tuple_(*(parameter(f"after_{number}") for number in range(len(self.order.keys))))
        return statement.where(keys < cursor if self.order.descending else keys > cursor)

    def first(self, statement: Select[Any], source: Any, count: Any = FIRST) -> Select[Any]:
        """Return the statement narrowed to its first rows in the order.

        :param count: a number by default, because for a parameter of a prepared statement the
            planner assumes a tenth of the table
        """
        columns = self.order.columns(source)
        by = [column.desc() for column in columns] if self.order.descending else columns
        return statement.order_by(*by).limit(count)

    def merged(self, statements: Sequence[Select[Any]]) -> Select[Any]:
        """Return one page made of several statements' parts of it."""
        if len(statements) == 1:
            return statements[0]
        rows = union_all(*(select(each.subquery()) for each in statements)).subquery()
        return self.first(select(rows), rows.c)

    def cut(self, statement: Select[Any]) -> Select[Any]:
        """Return the statement narrowed to the limit of the page, and to ``FETCH_MAX`` bytes.

        Of a row that is too long it selects the number of bytes instead (:meth:`respond`).

        :param statement: with its own limit, from :meth:`part`, :meth:`first` or :meth:`merged`.
            Because of that limit, PostgreSQL renders a row once, and no row that is not needed.
        """
        rows = statement.subquery()
        text = rows.c[0]
        size = func.octet_length(text)
        shown = case((size <= parameter("row_max"), text), else_=cast(size, Text))
        cut = select(shown.label("json"), *self.order.columns(rows.c))
        return self.first(cut, rows.c, parameter("fetch_limit"))

    def respond(
        self, query: Query, run: Callable[[Query], list[tuple[Any, ...]]] = fetch
    ) -> tuple[str, dict[str, str]]:
        """Return the JSON array of the page's rows, and the link to the next page (RFC 8288).

        :param query: of the statement that :meth:`apply` has made
        :param run: runs it and returns its rows
        """
        rows = run(query)
        texts = [row[0] for row in rows[: self.limit]]
        text = f"[{','.join(texts)}]"
        # In UTF-8 a character has 4 bytes at most.
        if len(text) > PAGE_MAX // 4 or any(map(str.isdigit, texts)):
            count = _count_fitting(texts)
            if any(map(str.isdigit, texts[:count])):
                # Now it is known how many rows fit. Those, and one more, of whatever length.
                enough = {"_fetch_limit": count + 1, "_row_max": INTEGER_MAX}
                rows = run(query._replace(values=query.values | enough))
                texts = [row[0] for row in rows[:count]]
                count = _count_fitting(texts)  # they may have changed
            text = f"[{','.join(texts[:count])}]"
        else:
            count = len(texts)
        if len(rows) <= count:
            return text, {}
        cursor = encode_cursor(self.name, rows[count - 1][1:])
        parameters = urlencode({**request.args.to_dict(flat=False), "after": cursor}, doseq=True)
        return text, {"Link": f'<{url_of(quote(request.path))}?{parameters}>; rel="next"'}


def _count_fitting(texts: Sequence[str]) -> int:
    """Return how many of the rows fit on a page, at least one.

    :param texts: of each row its JSON, or the number of bytes that it has
    """
    total = 2  # the brackets
    for count, text in enumerate(texts):
        total += int(text) if text.isdigit() else len(text.encode())
        if total > PAGE_MAX and count:
            return count
        total += 1  # the comma
    return len(texts)


def encode_cursor(name: str, values: Sequence[Any]) -> str:
    """Return the cursor of a row in the order of that name.

    :param values: of the row's keys
    """
    texts = (time_text(value) if isinstance(value, datetime) else str(value) for value in values)
    plain = " ".join([name, *texts])
    return base64.urlsafe_b64encode(plain.encode()).decode().rstrip("=")


def decode_cursor(cursor: str, name: str, order: Order) -> tuple[Any, ...]:
    """Return the values of a cursor's keys.

    :raises ValueError: when it is not valid for this sort order
    """
    plain = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True).decode()
    forms = [CURSOR_FORMS[kind] for _, kind in order.keys]
    pattern = " ".join([re.escape(name), *(f"({form})" for form, _ in forms)])
    match = re.fullmatch(pattern, plain)
    if match is None:
        raise ValueError(plain)
    texts = zip(forms, match.groups(), strict=True)
    values = tuple(read(text) for (_, read), text in texts)
    if any(isinstance(value, int) and value > INTEGER_MAX for value in values):
        raise ValueError(plain)
    return values


class PageSchema(ma.Schema):
    """The query parameters of a list; loads as the filters, and a ``page``.

    A subclass names its orders, the first being the default, and has a field ``sort`` where
    there are more.
    """

    ORDERS: ClassVar[Mapping[str, Order]]

    limit = Digits(
        load_default=20,
        validate=ma.validate.Range(1, LIMIT_MAX),
        metadata={
            "description": "The number of items at most. A page of more than one item ends early, "
            "before it would exceed 256 KiB.",
            "example": 20,
        },
    )
    after = BoundedString(
        max_length=CURSOR_MAX,
        error="Not a valid cursor for this sort order.",
        metadata={
            "description": "The cursor of the page: take it from the header `Link` of the page "
            "before. It is valid for one sort order."
        },
    )

    def on_bind_field(self, field_name: str, field_obj: Any) -> None:
        """Set an example of the cursor that is valid for the default sort order."""
        if field_name == "after":
            name, order = next(iter(self.ORDERS.items()))
            example = encode_cursor(name, [CURSOR_EXAMPLES[kind] for _, kind in order.keys])
            field_obj.metadata = {**field_obj.metadata, "example": example}

    @ma.post_load
    def _make_page(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        name = data.pop("sort", next(iter(self.ORDERS)))
        page = Page(name, self.ORDERS[name], data.pop("limit"))
        if "after" in data:
            try:
                page = page.starting_at(data.pop("after"))
            except ValueError:
                raise ma.ValidationError(
                    "Not a valid cursor for this sort order.", "after"
                ) from None
        # No lists: what a query string loads as is cached, and must not be changed.
        data = {key: tuple(v) if isinstance(v, list) else v for key, v in data.items()}
        return {**data, "page": page}
