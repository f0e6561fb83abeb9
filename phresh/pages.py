"""Keyset pages: a page begins after the last row of the one before, so each costs the same.

OFFSET would read all that came before, and rows that come or go meanwhile would shift it.
"""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, ClassVar

import marshmallow as ma
from flask import request, url_for
from sqlalchemy import ColumnElement, Row, Select, select, tuple_, union_all

from phresh.api import Digits, array

LINK = {"Link": {"description": "The next page (RFC 8288)", "schema": {"type": "string"}}}

# How the value of a key is written in a cursor, and read back.
WRITTEN = {int: r"[0-9]{1,10}", Decimal: r"[0-9]{1,8}\.[0-9]{2}"}


@dataclass(frozen=True)
class Order:
    """An order of rows.

    :param keys: the columns, with their Python types; together they are unique
    :param descending: whether all of them go down instead of up
    """

    keys: Mapping[str, type]
    descending: bool = False

    def columns(self, source: Any) -> list[ColumnElement[Any]]:
        """Give the columns of the keys, of a model or of a subquery's ``c``."""
        return [getattr(source, key) for key in self.keys]


@dataclass(frozen=True)
class Page:
    """A page that was asked for: so many rows in that order, after a place in it."""

    name: str
    order: Order
    limit: int
    after: tuple[Any, ...] | None

    @property
    def wanted(self) -> int:
        """How many rows to fetch: one more than asked for, which tells of a next page."""
        return self.limit + 1

    def of(self, statement: Select[Any], source: Any) -> Select[Any]:
        """Narrow a statement to the rows of the page, and have it give their keys too."""
        keyed = statement.add_columns(*self.order.columns(source))
        return self.first(self.begun(keyed, source), source, self.wanted)

    def begun(self, statement: Select[Any], source: Any) -> Select[Any]:
        """Narrow a statement to what comes after the place."""
        if self.after is None:
            return statement
        keys = tuple_(*self.order.columns(source))
        return statement.where(keys < self.after if self.order.descending else keys > self.after)

    def first(self, statement: Select[Any], source: Any, count: int) -> Select[Any]:
        """Narrow a statement to its first rows in the order."""
        columns = self.order.columns(source)
        by = [column.desc() for column in columns] if self.order.descending else columns
        return statement.order_by(*by).limit(count)

    def merged(self, statements: Sequence[Select[Any]]) -> Select[Any]:
        """Make one page of those of several statements."""
        if len(statements) == 1:
            return statements[0]
        rows = union_all(*(select(each.subquery()) for each in statements)).subquery()
        return self.first(select(rows), rows.c, self.wanted)

    def answer(self, rows: Sequence[Row[*tuple[Any, ...]]]) -> tuple[str, dict[str, str]]:
        """Give the JSON array of the page's rows, and the link to the next page (RFC 8288)."""
        text = array(row[0] for row in rows[: self.limit])
        if len(rows) <= self.limit:
            return text, {}
        cursor = write_cursor(self.name, rows[self.limit - 1][1:])
        parameters: dict[str, Any] = {**request.args.to_dict(flat=False), "after": cursor}
        url = url_for(request.endpoint or "", **(request.view_args or {}), **parameters)
        return text, {"Link": f'<{url}>; rel="next"'}


def write_cursor(name: str, values: Sequence[Any]) -> str:
    """Give the opaque text of a place in the order of that name."""
    plain = " ".join([name, *map(str, values)])
    return base64.urlsafe_b64encode(plain.encode()).decode().rstrip("=")


def read_cursor(cursor: str, name: str, order: Order) -> tuple[Any, ...]:
    """Give the values of a place.

    :raises ValueError: when it is garbled, or a place in another order
    """
    plain = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True).decode()
    pattern = " ".join([re.escape(name), *(f"({WRITTEN[kind]})" for kind in order.keys.values())])
    match = re.fullmatch(pattern, plain)
    if match is None:
        raise ValueError(plain)
    return tuple(kind(text) for kind, text in zip(order.keys.values(), match.groups(), strict=True))


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
        order, limit, after = self.ORDERS[name], data.pop("limit"), data.pop("after", None)
        try:
            place = None if after is None else read_cursor(after, name, order)
        except ValueError:
            raise ma.ValidationError("Not a place in this order.", "after") from None
        return {**data, "page": Page(name, order, limit, place)}
