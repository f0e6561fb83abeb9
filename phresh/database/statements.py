"""Statements that are made from SQLAlchemy's expressions once, and run with other values each time.

A statement under :func:`query` means what SQLAlchemy says it means, or is rejected with a TypeError
when it is first made.
"""

import hashlib
import json
from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, NamedTuple

from sqlalchemy import (
    ARRAY,
    BindParameter,
    ColumnElement,
    DateTime,
    Executable,
    Text,
    TextClause,
    func,
)
from sqlalchemy import literal_column as literal

from phresh.database.compiler import DIALECT, Converter, Dialect, Parameter, array_text

# For the caller of a query, a value; for the function that makes its statement, a parameter.
Value = Any

# Statements of a function that are kept. To make one can take 30 ms, in which its worker does
# nothing else: so there must be few, and no value that a client chooses may decide which.
STATEMENTS_MAX = 100

# Until the transaction ends; what is sent in one message is one where there is no other.
PLAN_BY_VALUES = "SET LOCAL plan_cache_mode = force_custom_plan"

NOT_KNOWN = (
    "{}() tests a value that is passed by keyword, which is not known when the statement is made: "
    "pass what decides the shape of the statement by position."
)


class Statement:
    """A statement compiled once, to be sent as it is or prepared.

    :param executable: what SQLAlchemy compiles; with the execution option ``plan_by_values``
        where the best plan depends on the values, so that it is planned each time. Text with this
        option is never prepared
    :raises TypeError: for what it can't run as SQLAlchemy would
    """

    def __init__(self, executable: Any) -> None:
        plain: Any = executable.compile(dialect=Dialect(paramstyle="format"))
        if plain.post_compile_params or plain.literal_execute_params:
            raise TypeError(
                "A statement under @query can't have expanding or literal_execute parameters: pass "
                "the values by keyword."
            )
        self.text, self.names = str(plain), plain.positiontup or []
        self.is_text = isinstance(executable, TextClause)  # it may do anything
        self.is_dml = plain.is_dml
        self.compared: set[str] = plain.compared
        self.defaults = _python_defaults(plain)
        values = {name for bind, name in plain.bind_names.items() if isinstance(bind, Parameter)}
        self.constants = {
            key: value
            for key, value in plain.params.items()
            if key not in values and key not in self.defaults
        }
        self.processors = _bind_processors(plain)
        self.types = [column.type for column in plain._result_columns or []]
        self.converters: list[Converter | None] | None = None  # known once it has run
        plan_by_values = executable.get_execution_options().get("plan_by_values")
        self.is_prepared = not (plan_by_values and self.is_text)
        if not self.is_prepared:
            return
        numbered: Any = executable.compile(dialect=Dialect(paramstyle="numeric_dollar"))
        self.prepared_names = numbered.positiontup or []
        self.name = f"phresh_{hashlib.sha256(str(numbered).encode()).hexdigest()[:16]}"
        self.prepare = f"PREPARE {self.name} AS {numbered}"
        markers = ", ".join(["%s"] * len(self.prepared_names))
        self.execute = f"EXECUTE {self.name} ({markers})" if markers else f"EXECUTE {self.name}"
        if plan_by_values:
            # Parsed once, and a few values are sent instead of a long text.
            self.execute = f"{PLAN_BY_VALUES}; {self.execute}"

    def convert(self, rows: list[Any], description: Any) -> list[tuple[Any, ...]]:
        """Return rows with their values as SQLAlchemy's types make them.

        :param description: of the columns, as the driver has it
        """
        if self.converters is None:
            found = [
                kind._cached_result_processor(DIALECT, column[1])
                for kind, column in zip(self.types, description, strict=False)
            ]
            self.converters = found if any(found) else []
        if not self.converters:
            return rows
        return [
            tuple(
                value if convert is None else convert(value)
                for value, convert in zip(row, self.converters, strict=True)
            )
            for row in rows
        ]


class _NoContext:
    """Stands for SQLAlchemy's execution context, which there is none of."""

    def __init__(self, column: str) -> None:
        self._column = column

    def __getattr__(self, name: str) -> Any:
        raise TypeError(
            f"The default of {self._column} wants an execution context, which a statement under "
            "@query has none of: pass the value by keyword, or use db.session."
        )


def _python_defaults(compiled: Any) -> dict[str, Callable[[], Any]]:
    """Return what makes the values of columns that have a ``default=`` or ``onupdate=``."""
    found = {}
    for columns, name in (
        (compiled.insert_prefetch, "default"),
        (compiled.update_prefetch, "onupdate"),
    ):
        for column in columns:
            default = getattr(column, name)
            if default is None or not (default.is_scalar or default.is_callable):
                raise TypeError(
                    f"{column} has a {name} that a statement under @query can't compute: use a "
                    "server_default or pass the value by keyword."
                )
            found[column.key] = _value_maker(default)
    return found


def _value_maker(default: Any) -> Callable[[], Any]:
    if default.is_callable:
        context = _NoContext(str(default.column))
        return lambda: default.arg(context)
    return lambda: default.arg


def _bind_processors(compiled: Any) -> dict[str, Converter]:
    """Return what SQLAlchemy's types make of values before they are sent: enums, JSON, own types.

    :raises TypeError: for a value that is used with two types, which would be sent differently
    """
    found: dict[str, Converter] = {}
    kinds: dict[str, Any] = {}
    for parameter, name in compiled.bind_names.items():
        if parameter.type._isnull:
            continue
        process, key = _bind_processor(parameter.type), parameter.type._static_cache_key
        if name in kinds and kinds[name] != key and (process or name in found):
            raise TypeError(
                f"The value {parameter.key.lstrip('_')} is used with two types, which send it "
                "differently: pass it by two keywords."
            )
        kinds[name] = key
        if process is not None:
            found[name] = process
    return found


def _bind_processor(kind: Any) -> Converter | None:
    process: Converter | None = kind._cached_bind_processor(DIALECT)
    if not isinstance(kind._unwrapped_dialect_impl(DIALECT), ARRAY):
        return process
    return lambda value: None if value is None else array_text(process(value) if process else value)


class Query(NamedTuple):
    """A statement and its values, for :func:`phresh.database.transactions.fetch`."""

    statement: Statement
    values: dict[str, Any]

    def to_send(self, *, prepared: bool) -> tuple[str, list[Any]]:
        """Return the text to send, and the values for its markers in their order."""
        statement, values = self
        if statement.constants:
            values = statement.constants | values
        if statement.defaults:
            values = {name: make() for name, make in statement.defaults.items()} | values
        if statement.processors:
            values = {**values}
            for name, process in statement.processors.items():
                values[name] = process(values[name])
        text, names = statement.text, statement.names
        if prepared:
            text, names = statement.execute, statement.prepared_names
        return text, [values[name] for name in names]


def query(make: Callable[..., Executable]) -> Callable[..., Query]:
    """Turn a function that makes a statement into one that makes it once and adds values each time.

    What is passed by keyword is a value: the function receives a parameter of the statement for
    it. What is passed by position decides the shape of the statement, and must be hashable. At most
    ``STATEMENTS_MAX`` shapes are kept: none may depend on what a client can choose at will.

    A value of None that is compared with ``==`` or ``!=`` makes a statement of its own, with
    ``IS NULL``, as in SQLAlchemy.

    :raises TypeError: by the function that it returns, for a statement that it can't make
    """

    @lru_cache(maxsize=STATEMENTS_MAX)
    def statement(names: tuple[str, ...], nulls: tuple[str, ...], *parts: Any) -> Statement:
        values = {name: None if name in nulls else parameter(name) for name in names}
        try:
            return Statement(make(*parts, **values))
        except TypeError as error:
            if "Boolean value of this clause" in str(error):
                raise TypeError(NOT_KNOWN.format(make.__name__)) from error
            raise

    @wraps(make)
    def with_values(*parts: Any, **values: Any) -> Query:
        names = tuple(values)
        made = statement(names, (), *parts)
        if made.compared and None in values.values():
            nulls = tuple(name for name in names if values[name] is None)
            compared = tuple(name for name in nulls if f"_{name}" in made.compared)
            if compared:
                made = statement(names, compared, *parts)
        return Query(made, {f"_{name}": value for name, value in values.items()})

    return with_values


def parameter(name: str) -> BindParameter[Any]:
    """Return the parameter of a statement for the value of that name."""
    return Parameter(f"_{name}")  # SQLAlchemy keeps the names of columns for itself


# A time as JSON (RFC 3339): "2026-11-27T19:04:23.491700Z"; and what makes it UTC, without the name
# of a time zone, which would be looked up each time.
TIME_FORMAT: Any = literal("""'\\"YYYY-MM-DD"T"HH24:MI:SS.US"Z"\\"'""")
UTC: Any = literal("INTERVAL '0'")
NULL: Any = literal("'null'")


class JSONText(Text):
    """The type of a text that is JSON: as a member of another object it is no string."""


def row_json(*columns: Any) -> ColumnElement[str]:
    """Return the SQL that renders a row as JSON text, one member per column, in this order.

    PostgreSQL renders the responses of the fast path: Python passes the text through. A column that
    is made by this function itself becomes an object inside the object. Times are in UTC with six
    decimals.

    :param columns: of a table, or expressions with a label
    """
    # format() takes less time than json_build_object(): by as much as to_char() takes more than a
    # time in PostgreSQL's own form, with as many decimals as it happens to have.
    names = (json.dumps(str(column.key)).replace("%", "%%") for column in columns)
    form = ", ".join(f"{name} : %s" for name in names).replace("'", "''")
    # A constant, since the type of a parameter could not be determined.
    return func.format(literal(f"'{{{form}}}'"), *map(_member, columns), type_=JSONText())


def _member(column: Any) -> ColumnElement[Any]:
    """Return the SQL of a value as JSON."""
    if isinstance(column.type, JSONText):
        value = column
    elif column.type._type_affinity is DateTime:
        # One without a time zone is in UTC.
        in_utc = func.timezone(UTC, column) if column.type.timezone else column
        value = func.to_char(in_utc, TIME_FORMAT)
    else:
        value = func.to_json(column)
    return func.coalesce(value, NULL)
