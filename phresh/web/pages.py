"""Keyset pages: a page begins after the last row of the one before, so each costs the same.

OFFSET would read all rows before the page, and rows that are added or deleted between two requests
would shift it.
"""

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar
from urllib.parse import urlencode

import marshmallow as ma
from flask import request
from sqlalchemy import (
    ColumnElement,
    Select,
    literal_column,
    select,
    tuple_,
    union_all,
)

from phresh.database.statements import parameter
from phresh.web.fields import INTEGER_MAX, BoundedString, Digits

LINK = {"Link": {"description": "URL of the next page (RFC 8288)", "schema": {"type": "string"}}}

CURSOR_MAX = 200  # characters

# The form of a key's value in a cursor, and what parses it: times in UTC, as in responses.
CURSOR_FORMS: dict[type, tuple[str, Callable[[str], Any]]] = {
    int: (r"[0-9]{1,10}", int),
    Decimal: (r"[0-9]{1,8}\.[0-9]{2}", Decimal),
    datetime: (r"[0-9-]{10}T[0-9:]{8}(?:\.[0-9]{6})?\+00:00", datetime.fromisoformat),
}


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
    """A requested page: so many rows in that order, from the first or after a cursor.

    It decides the shape of a statement; the cursor does not, but is among the statement's values.
    """

    name: str
    order: Order
    limit: int
    is_first: bool = True
    after: tuple[Any, ...] = field(default=(), compare=False)

    def starting_at(self, cursor: str) -> "Page":
        """Return the page that begins after a cursor.

        :raises ValueError: when the cursor is not valid for this sort order
        """
        values = decode_cursor(cursor, self.name, self.order)
        return Page(self.name, self.order, self.limit, False, values)

    @property
    def fetch_limit(self) -> int:
        """The number of rows to fetch: one more than the limit, which tells of a next page."""
        return self.limit + 1

    @property
    def values(self) -> dict[str, Any]:
        """The values of the cursor, which a statement of the page is run with."""
        return {f"after_{number}": value for number, value in enumerate(self.after)}

    def apply(self, statement: Select[Any], source: Any) -> Select[Any]:
        """Return the statement narrowed to the rows of the page, with their keys added.

        :param source: the model or subquery that has the keys
        """
        columns = zip(self.order.columns(source), self.order.names, strict=True)
        keyed = statement.add_columns(*(column.label(key) for column, key in columns))
        return self.first(self.after_cursor(keyed, source), source, self.fetch_limit)

    def after_cursor(self, statement: Select[Any], source: Any) -> Select[Any]:
        """Return the statement narrowed to what comes after the cursor."""
        if self.is_first:
            return statement
        keys = tuple_(*self.order.columns(source))
        cursor = tuple_(*(parameter(name) for name in self.values))
        return statement.where(keys < cursor if self.order.descending else keys > cursor)

    def first(self, statement: Select[Any], source: Any, count: int) -> Select[Any]:
        """Return the statement narrowed to its first rows in the order."""
        columns = self.order.columns(source)
        by = [column.desc() for column in columns] if self.order.descending else columns
        # The number itself: for a parameter, the planner assumes a tenth of the table.
        return statement.order_by(*by).limit(literal_column(str(count)))

    def merged(self, statements: Sequence[Select[Any]]) -> Select[Any]:
        """Return one page made of the pages of several statements."""
        if len(statements) == 1:
            return statements[0]
        rows = union_all(*(select(each.subquery()) for each in statements)).subquery()
        return self.first(select(rows), rows.c, self.fetch_limit)

    def respond(self, rows: Sequence[tuple[Any, ...]]) -> tuple[str, dict[str, str]]:
        """Return the JSON array of the page's rows, and the link to the next page (RFC 8288).

        :param rows: each is its JSON text, then the values of its keys
        """
        text = f"[{','.join(row[0] for row in rows[: self.limit])}]"
        if len(rows) <= self.limit:
            return text, {}
        cursor = encode_cursor(self.name, rows[self.limit - 1][1:])
        parameters = urlencode({**request.args.to_dict(flat=False), "after": cursor}, doseq=True)
        return text, {"Link": f'<{request.path}?{parameters}>; rel="next"'}


def encode_cursor(name: str, values: Sequence[Any]) -> str:
    """Return the cursor of a row in the order of that name.

    :param values: of the row's keys
    """
    texts = (value.isoformat() if isinstance(value, datetime) else str(value) for value in values)
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
        validate=ma.validate.Range(1, 100),
        metadata={"description": "Number of items at most"},
    )
    after = BoundedString(
        max_length=CURSOR_MAX,
        error="Not a valid cursor for this sort order.",
        metadata={
            "description": "Cursor of the page: take it from the `Link` header of the page before"
        },
    )

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
