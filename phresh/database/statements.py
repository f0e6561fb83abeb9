"""Statements, made of SQLAlchemy's expressions once, and run with other values each time."""

import hashlib
from collections.abc import Callable
from functools import lru_cache, wraps
from itertools import chain
from typing import Any, NamedTuple

from sqlalchemy import BindParameter, ColumnElement, Executable, Text, bindparam, cast, func
from sqlalchemy import literal_column as literal
from sqlalchemy.dialects.postgresql.psycopg2 import dialect

# For who calls a query, a value; for the function that makes its statement, a parameter.
Value = Any


class Statement:
    """A statement compiled once, to be sent as it is or prepared.

    :param executable: with the execution option ``plan_by_values`` where the best plan depends on
        the values, so that it is never prepared
    """

    def __init__(self, executable: Any) -> None:
        plain = executable.compile(dialect=dialect(paramstyle="format"))
        self.text, self.names = str(plain), plain.positiontup or []
        self.constants = {key: value for key, value in plain.params.items() if key[0] != "_"}
        self.is_prepared = not executable.get_execution_options().get("plan_by_values")
        if not self.is_prepared:
            return
        numbered = executable.compile(dialect=dialect(paramstyle="numeric_dollar"))
        self.prepared_names = numbered.positiontup or []
        self.name = f"phresh_{hashlib.sha256(str(numbered).encode()).hexdigest()[:16]}"
        self.prepare = f"PREPARE {self.name} AS {numbered}"
        markers = ", ".join(["%s"] * len(self.prepared_names))
        self.execute = f"EXECUTE {self.name} ({markers})" if markers else f"EXECUTE {self.name}"


class Query(NamedTuple):
    """A statement and its values, for :func:`phresh.db.fetch`."""

    statement: Statement
    values: dict[str, Any]

    def to_send(self, *, prepared: bool) -> tuple[str, list[Any]]:
        """Give the text to send, and the values in it in their order."""
        statement, values = self
        if statement.constants:
            values = statement.constants | values
        text, names = statement.text, statement.names
        if prepared:
            text, names = statement.execute, statement.prepared_names
        return text, [values[name] for name in names]


def query(make: Callable[..., Executable]) -> Callable[..., Query]:
    """Have a function that makes a statement make it once, and give it with values each time.

    What is given by keyword is a value: the function gets a parameter of the statement for it.
    What is given by place is a part of what the statement is, and has to be hashable.
    """

    @lru_cache(maxsize=100)
    def statement(names: tuple[str, ...], *parts: Any) -> Statement:
        return Statement(make(*parts, **{name: parameter(name) for name in names}))

    @wraps(make)
    def with_values(*parts: Any, **values: Any) -> Query:
        made = statement(tuple(values), *parts)
        return Query(made, {f"_{name}": value for name, value in values.items()})

    return with_values


def parameter(name: str) -> BindParameter[Any]:
    """Give the parameter of a statement for the value of that name."""
    return bindparam(f"_{name}")  # SQLAlchemy keeps the names of columns for itself


def row_json(*columns: Any) -> ColumnElement[str]:
    """Give the SQL that writes a row as JSON text, one member a column, in this order.

    Every answer is rendered by PostgreSQL, and only there: Python passes the text through.

    :param columns: of a table, or expressions with a label
    """
    return cast(json_object(*columns), Text)


def json_object(*columns: Any) -> ColumnElement[Any]:
    """Give the SQL that makes a JSON object of columns, as in :func:`row_json`."""
    # The names as they are: the type of a parameter could not be determined.
    return func.json_build_object(
        *chain.from_iterable((literal(f"'{column.key}'"), column) for column in columns)
    )
