"""Keyset pages: a page begins after the last row of the one before, so each costs the same.

OFFSET would read all that came before, and rows that come or go meanwhile would shift it.
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

from phresh.api import INTEGER_MAX, Digits, array
from phresh.statements import parameter

LINK = {"Link": {"description": "The next page (RFC 8288)", "schema": {"type": "string"}}}

# How the value of a key is written in a cursor, and read back: times in UTC, as in answers.
WRITTEN: dict[type, tuple[str, Callable[[str], Any]]] = {
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
        """Whether it is by that column first."""
        return self.keys[0][0] == key

    @property
    def names(self) -> list[str]:
        """Give the names of the keys."""
        return [key for key, _ in self.keys]

    def columns(self, source: Any) -> list[ColumnElement[Any]]:
        """Give the columns of the keys, of a model or of a subquery's ``c``."""
        return [getattr(source, key) for key in self.names]


NEWEST_FIRST = {"-id": Order((("id", int),), descending=True)}


@dataclass(frozen=True)
class Page:
    """A page that was asked for: so many rows in that order, from the first or after a place.

    It is a part of what a statement is; the place is not, but among its values.
    """

    name: str
    order: Order
    limit: int
    is_first: bool = True
    after: tuple[Any, ...] = field(default=(), compare=False)

    def at(self, cursor: str) -> "Page":
        """Give the page that begins after a place.

        :raises ValueError: when it is garbled, or a place in another order
        """
        place = read_cursor(cursor, self.name, self.order)
        return Page(self.name, self.order, self.limit, False, place)

    @property
    def wanted(self) -> int:
        """How many rows to fetch: one more than asked for, which tells of a next page."""
        return self.limit + 1

    @property
    def values(self) -> dict[str, Any]:
        """Give the values that a statement of the page is run with."""
        return {f"after_{number}": value for number, value in enumerate(self.after)}

    def of(self, statement: Select[Any], source: Any) -> Select[Any]:
        """Narrow a statement to the rows of the page, and have it give their keys too."""
        columns = zip(self.order.columns(source), self.order.names, strict=True)
        keyed = statement.add_columns(*(column.label(key) for column, key in columns))
        return self.first(self.begun(keyed, source), source, self.wanted)

    def begun(self, statement: Select[Any], source: Any) -> Select[Any]:
        """Narrow a statement to what comes after the place."""
        if self.is_first:
            return statement
        keys = tuple_(*self.order.columns(source))
        place = tuple_(*(parameter(name) for name in self.values))
        return statement.where(keys < place if self.order.descending else keys > place)

    def first(self, statement: Select[Any], source: Any, count: int) -> Select[Any]:
        """Narrow a statement to its first rows in the order."""
        columns = self.order.columns(source)
        by = [column.desc() for column in columns] if self.order.descending else columns
        # The number itself: the planner takes a tenth of the table for one that it can't see.
        return statement.order_by(*by).limit(literal_column(str(count)))

    def merged(self, statements: Sequence[Select[Any]]) -> Select[Any]:
        """Make one page of those of several statements."""
        if len(statements) == 1:
            return statements[0]
        rows = union_all(*(select(each.subquery()) for each in statements)).subquery()
        return self.first(select(rows), rows.c, self.wanted)

    def answer(self, rows: Sequence[tuple[Any, ...]]) -> tuple[str, dict[str, str]]:
        """Give the JSON array of the page's rows, and the link to the next page (RFC 8288)."""
        text = array(row[0] for row in rows[: self.limit])
        if len(rows) <= self.limit:
            return text, {}
        cursor = write_cursor(self.name, rows[self.limit - 1][1:])
        parameters = urlencode({**request.args.to_dict(flat=False), "after": cursor}, doseq=True)
        return text, {"Link": f'<{request.path}?{parameters}>; rel="next"'}


def write_cursor(name: str, values: Sequence[Any]) -> str:
    """Give the opaque text of a place in the order of that name."""
    texts = (value.isoformat() if isinstance(value, datetime) else str(value) for value in values)
    plain = " ".join([name, *texts])
    return base64.urlsafe_b64encode(plain.encode()).decode().rstrip("=")


def read_cursor(cursor: str, name: str, order: Order) -> tuple[Any, ...]:
    """Give the values of a place.

    :raises ValueError: when it is garbled, or a place in another order
    """
    plain = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True).decode()
    forms = [WRITTEN[kind] for _, kind in order.keys]
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
    """The query parameters of a list; loads as its filters, and its ``page``.

    A subclass names its orders, the first being the default, and has a field ``sort`` where
    there are more.
    """

    ORDERS: ClassVar[Mapping[str, Order]]

    limit = Digits(
        load_default=20,
        validate=ma.validate.Range(1, 100),
        metadata={"description": "How many to give at most"},
    )
    after = ma.fields.String(
        metadata={"description": "Where the page begins: as the link to it says, in `Link`"},
    )

    @ma.post_load
    def _make_page(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        name = data.pop("sort", next(iter(self.ORDERS)))
        page = Page(name, self.ORDERS[name], data.pop("limit"))
        if "after" in data:
            try:
                page = page.at(data.pop("after"))
            except ValueError:
                raise ma.ValidationError("Not a place in this order.", "after") from None
        # No lists: what a query string loads as is kept, and must not be changed.
        data = {key: tuple(v) if isinstance(v, list) else v for key, v in data.items()}
        return {**data, "page": page}
