"""Statements that are made from SQLAlchemy's expressions once, and run with other values each time.

A statement under :func:`query` means what SQLAlchemy says it means, or is refused with a sentence
when it is first made.
"""

import hashlib
from collections.abc import Callable, Iterable
from functools import lru_cache, wraps
from itertools import chain
from typing import Any, NamedTuple

from sqlalchemy import (
    ARRAY,
    BindParameter,
    ColumnElement,
    Executable,
    LargeBinary,
    Text,
    all_,
    any_,
    bindparam,
    cast,
    func,
)
from sqlalchemy import literal_column as literal
from sqlalchemy.dialects.postgresql.psycopg2 import PGDialect_psycopg2
from sqlalchemy.sql import operators

# For the caller of a query, a value; for the function that makes its statement, a parameter.
Value = Any


_SQLAlchemyCompiler: Any = PGDialect_psycopg2.statement_compiler


class _Compiler(_SQLAlchemyCompiler):
    """SQLAlchemy's compiler, for statements whose values are known only when they are run."""

    compared: set[str]  # the parameters that stand beside = or <>

    def visit_in_op_binary(self, binary: Any, operator: Any, **options: Any) -> str:
        """Render ``column.in_(values)``, for lists of any length alike."""
        return self._any_of(binary, operator, any_, operators.eq, options)

    def visit_not_in_op_binary(self, binary: Any, operator: Any, **options: Any) -> str:
        """Render ``column.not_in(values)``."""
        return self._any_of(binary, operator, all_, operators.ne, options)

    def _any_of(
        self, binary: Any, operator: Any, quantifier: Any, comparison: Any, options: Any
    ) -> str:
        right = binary.right
        if not isinstance(right, BindParameter) or not _is_parameter(right.key):
            opstring = " IN " if operator is operators.in_op else " NOT IN "
            rendered = self._generate_generic_binary(binary, opstring, **options)
            return rendered if operator is operators.in_op else f"({rendered})"
        if binary.left.type._is_tuple_type:
            raise TypeError(
                f"in_({right.key[1:]}) of several columns is not possible under @query: compare "
                "each column, or join with a subquery."
            )
        values = bindparam(right.key, type_=ARRAY(binary.left.type))
        array = cast(values, ARRAY(binary.left.type))
        return self.process(comparison(binary.left, quantifier(array)), **options)

    def visit_binary(self, binary: Any, *arguments: Any, **options: Any) -> str:
        """Render an expression, and note parameters that would compare with NULL for None."""
        if binary.operator in (operators.eq, operators.ne):
            for side in (binary.left, binary.right):
                if isinstance(side, BindParameter) and _is_parameter(side.key):
                    self.__dict__.setdefault("compared", set()).add(side.key)
        rendered: str = super().visit_binary(binary, *arguments, **options)
        return rendered

    def returning_clause(self, stmt: Any, returning_cols: Any, **options: Any) -> str:
        """Render RETURNING; a subquery in it refers to the row that was written.

        In an INSERT, SQLAlchemy would join the whole table to it.
        """
        table = {stmt.table}
        self.stack.append({"correlate_froms": table, "asfrom_froms": table, "selectable": stmt})
        try:
            rendered: str = super().returning_clause(stmt, returning_cols, **options)
        finally:
            self.stack.pop()
        return rendered


class _Dialect(PGDialect_psycopg2):
    statement_compiler: Any = _Compiler
    supports_statement_cache = True


def _is_parameter(key: str) -> bool:
    return key.startswith("_")


DIALECT: Any = _Dialect()
Converter = Callable[[Any], Any]


class Statement:
    """A statement compiled once, to be sent as it is or prepared.

    :param executable: what SQLAlchemy compiles; with the execution option ``plan_by_values``
        where the best plan depends on the values, so that it is never prepared
    :raises TypeError: for what it can't run as SQLAlchemy would
    """

    def __init__(self, executable: Any) -> None:
        plain: Any = executable.compile(dialect=_Dialect(paramstyle="format"))
        self.text, self.names = str(plain), plain.positiontup or []
        self.is_dml = bool(plain.isinsert or plain.isupdate or plain.isdelete)
        self.compared: set[str] = plain.__dict__.get("compared", set())
        self.defaults = _python_defaults(plain)
        self.constants = {
            key: value
            for key, value in plain.params.items()
            if not _is_parameter(key) and key not in self.defaults
        }
        self.processors = _bind_processors(plain)
        self.types = [column.type for column in plain._result_columns or []]
        self.converters: list[Converter | None] | None = None  # known once it has run
        self.is_prepared = not executable.get_execution_options().get("plan_by_values")
        if not self.is_prepared:
            return
        numbered: Any = executable.compile(dialect=_Dialect(paramstyle="numeric_dollar"))
        self.prepared_names = numbered.positiontup or []
        self.name = f"phresh_{hashlib.sha256(str(numbered).encode()).hexdigest()[:16]}"
        self.prepare = f"PREPARE {self.name} AS {numbered}"
        markers = ", ".join(["%s"] * len(self.prepared_names))
        self.execute = f"EXECUTE {self.name} ({markers})" if markers else f"EXECUTE {self.name}"

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
            found[column.key] = _value_maker(column, default)
    return found


def _value_maker(column: Any, default: Any) -> Callable[[], Any]:
    if default.is_callable:
        context = _NoContext(str(column))
        return lambda: default.arg(context)
    return lambda: default.arg


def _bind_processors(compiled: Any) -> dict[str, Converter]:
    """Return what SQLAlchemy's types make of values before they are sent: enums, JSON, own types.

    Not of binary ones, which psycopg2 sends itself.
    """
    found = {}
    for parameter, name in compiled.bind_names.items():
        if not isinstance(parameter.type, LargeBinary):
            processor = parameter.type._cached_bind_processor(compiled.dialect)
            if processor is not None:
                found[name] = processor
    return found


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
    it. What is passed by position decides the shape of the statement, and must be hashable.

    A value of None that is compared with ``==`` or ``!=`` makes a statement of its own, with
    ``IS NULL``, as in SQLAlchemy.

    :raises TypeError: by the function that it returns, for a statement that it can't make
    """

    @lru_cache(maxsize=100)
    def statement(names: tuple[str, ...], nulls: tuple[str, ...], *parts: Any) -> Statement:
        values = {name: None if name in nulls else parameter(name) for name in names}
        try:
            return Statement(make(*parts, **values))
        except TypeError as error:
            if "Boolean value of this clause" in str(error):
                raise TypeError(
                    f"{make.__name__}() tests a value that is passed by keyword, which is not "
                    "known when the statement is made: pass what decides the shape of the "
                    "statement by position."
                ) from error
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
    return bindparam(f"_{name}")  # SQLAlchemy keeps the names of columns for itself


def row_json(*columns: Any) -> ColumnElement[str]:
    """Return the SQL that renders a row as JSON text, one member per column, in this order.

    PostgreSQL renders the responses of the fast path: Python passes the text through.

    :param columns: of a table, or expressions with a label
    """
    return cast(json_object(*columns), Text)


def json_object(*columns: Any) -> ColumnElement[Any]:
    """Return the SQL that makes a JSON object of columns, as :func:`row_json` takes them."""
    # The names as they are: the type of a parameter could not be determined.
    members: Iterable[Any] = ((literal(f"'{column.key}'"), column) for column in columns)
    return func.json_build_object(*chain.from_iterable(members))
