"""SQLAlchemy's compiler for statements under :func:`phresh.database.statements.query`.

Such a statement is compiled once, when its values are not known yet. What SQLAlchemy would render
by the values is rendered here so that any value fits, with the meaning that SQLAlchemy gives it.
"""

import re
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

from sqlalchemy import BindParameter
from sqlalchemy.dialects.postgresql.psycopg2 import PGDialect_psycopg2
from sqlalchemy.sql import operators
from sqlalchemy.types import TypeEngine

Converter = Callable[[Any], Any]

DISTINCT = {
    operators.is_: operators.is_not_distinct_from,
    operators.is_not: operators.is_distinct_from,
}


class _Unknown:
    """Stands for a value in Python's comparisons."""

    def __eq__(self, _: object) -> bool:
        raise TypeError("Boolean value of this clause is not defined")


class Parameter(BindParameter[Any]):
    """A parameter of a statement, for a value that is known only when the statement is run."""

    inherit_cache = True

    def operate(self, op: Any, *other: Any, **options: Any) -> Any:
        """Return an expression; ``if value == 1:`` raises, where SQLAlchemy would say False."""
        made: Any = super().operate(op, *other, **options)
        made._orig = (_Unknown(), _Unknown())
        return made


class _Values(TypeEngine[Any]):
    """The type of the values of ``in_()``, which are sent as one array."""

    def __init__(self, item: TypeEngine[Any], name: str) -> None:
        self.item, self.name = item, name

    def bind_processor(self, dialect: Any) -> Converter:
        """Return what makes PostgreSQL's text of the values."""
        process = self.item._cached_bind_processor(dialect)

        def array(values: Any) -> str:
            if isinstance(values, str | bytes) or not isinstance(values, Iterable):
                kind = type(values).__name__
                raise TypeError(f"in_({self.name}) takes a list of values, not {kind}.")
            return array_text([process(value) if process else value for value in values])

        return array


def array_text(value: Any) -> str:
    """Return PostgreSQL's text of an array or of a value in it.

    As text it takes the type of what it is compared with; psycopg2's ``ARRAY['red']`` is text[].
    """
    if value is None:
        return "NULL"
    if isinstance(value, list | tuple):
        return f"{{{','.join(map(array_text, value))}}}"
    if isinstance(value, bytes | memoryview):
        value = rf"\x{bytes(value).hex()}"
    elif isinstance(value, timedelta):
        value = f"{value.days} days {value.seconds} s {value.microseconds} us"
    escaped = re.sub(r'(["\\])', r"\\\1", value if isinstance(value, str) else str(value))
    return f'"{escaped}"'


_SQLAlchemyCompiler: Any = PGDialect_psycopg2.statement_compiler


class _Compiler(_SQLAlchemyCompiler):
    """SQLAlchemy's compiler, for statements whose values are known only when they are run."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.compared: set[str] = set()  # the parameters that stand beside = or <>
        self.is_dml = False  # whether it writes, also in a CTE
        self.defaults: list[Any] = []
        self.onupdates: list[Any] = []
        super().__init__(*arguments, **options)

    def visit_in_op_binary(self, binary: Any, _: Any, **options: Any) -> str:
        """Render ``column.in_(values)``, for lists of any length alike."""
        return self._in(binary, "{} = ANY ({})", " IN ", options)

    def visit_not_in_op_binary(self, binary: Any, _: Any, **options: Any) -> str:
        """Render ``column.not_in(values)``."""
        return self._in(binary, "({} <> ALL ({}))", " NOT IN ", options)

    def _in(self, binary: Any, form: str, operator: str, options: Any) -> str:
        left, right = binary.left, binary.right
        if not isinstance(right, BindParameter):  # a subquery, or a list of expressions
            rendered: str = self._generate_generic_binary(binary, operator, **options)
            return rendered if operator == " IN " else f"({rendered})"
        if left.type._is_tuple_type or left.type._has_bind_expression:
            raise TypeError(
                f"in_() is not possible with {left} under @query: compare single columns, or join "
                "with a subquery."
            )
        values: Any = right._clone(maintain_key=True)
        values.expanding, values.type = False, _Values(left.type, right._orig_key.lstrip("_"))
        return form.format(self.process(left, **options), self.process(values, **options))

    def visit_insert(self, statement: Any, *arguments: Any, **options: Any) -> str:
        """Render an INSERT, and note that the statement writes."""
        self.is_dml = True
        rendered: str = super().visit_insert(statement, *arguments, **options)
        return rendered

    def visit_update(self, statement: Any, *arguments: Any, **options: Any) -> str:
        """Render an UPDATE."""
        self.is_dml = True
        rendered: str = super().visit_update(statement, *arguments, **options)
        return rendered

    def visit_delete(self, statement: Any, *arguments: Any, **options: Any) -> str:
        """Render a DELETE."""
        self.is_dml = True
        rendered: str = super().visit_delete(statement, *arguments, **options)
        return rendered

    def visit_binary(self, binary: Any, *arguments: Any, **options: Any) -> str:
        """Render an expression, and note parameters that would compare with NULL for None."""
        sides = [side for side in (binary.left, binary.right) if isinstance(side, Parameter)]
        if sides and binary.operator in (operators.eq, operators.ne):
            self.compared |= {side.key for side in sides}
        if sides and binary.operator in DISTINCT:  # IS takes no parameter
            binary = binary._clone()
            binary.operator = DISTINCT[binary.operator]
        rendered: str = super().visit_binary(binary, *arguments, **options)
        return rendered

    def returning_clause(self, stmt: Any, returning_cols: Any, **options: Any) -> str:
        """Render RETURNING; a subquery in it refers to the row that was written.

        In an INSERT, SQLAlchemy would join the whole table to it.
        """
        tables = self.stack[-1]["correlate_froms"] | {stmt.table}
        self.stack.append({"correlate_froms": tables, "asfrom_froms": tables, "selectable": stmt})
        try:
            rendered: str = super().returning_clause(stmt, returning_cols, **options)
        finally:
            self.stack.pop()
        return rendered

    @property
    def insert_prefetch(self) -> list[Any]:
        """The columns whose ``default=`` Python computes."""
        return self.defaults

    @insert_prefetch.setter
    def insert_prefetch(self, _: Any) -> None:
        """Keep them, where SQLAlchemy begins anew for each INSERT and UPDATE in a statement."""

    @property
    def update_prefetch(self) -> list[Any]:
        """The columns whose ``onupdate=`` Python computes."""
        return self.onupdates

    @update_prefetch.setter
    def update_prefetch(self, _: Any) -> None:
        """Keep them too."""


class Dialect(PGDialect_psycopg2):
    """SQLAlchemy's dialect, with our compiler."""

    statement_compiler: Any = _Compiler
    supports_statement_cache = True


DIALECT: Any = Dialect()
