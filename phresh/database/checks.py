"""Whether Phresh can work with a database: its version, its text, and the privileges of the role.

Checked at the start where the database can be reached then, else on the first connection of each
process. Each check returns one sentence, or None where nothing is wrong.
"""

import json
import os
import select
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import psycopg2
from sqlalchemy import URL

from phresh.database.base import db

OLDEST = 15
EXTENSION = "pg_trgm"
EXTENSION_OPERATORS = "gin_trgm_ops"

CREATE = (
    "Phresh needs one made by: "
    "CREATE DATABASE ... TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C.UTF-8'."
)

SERVER = """
    SELECT current_setting('server_version'), current_setting('server_version_num')::int / 10000,
        current_setting('server_encoding'), current_setting('client_encoding')
"""
# Of several scripts; and of ASCII, where Turkish differs.
LOWER, UPPER = "abcdefghijklmnopqrstuvwxyzäőωж", "ABCDEFGHIJKLMNOPQRSTUVWXYZÄŐΩЖ"
MAPS_CASE = "SELECT lower(%(upper)s) = %(lower)s AND upper(%(lower)s) = %(upper)s"

# Of the tables that are there: a migration that has not run yet is no fault of the role.
MISSING_PRIVILEGES = """
    SELECT current_user, name, string_agg(privilege, ', ' ORDER BY number)
    FROM unnest(%(tables)s) name, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE'])
        WITH ORDINALITY privileges (privilege, number)
    WHERE NOT has_table_privilege(to_regclass(quote_ident(name)), privilege)
    GROUP BY name ORDER BY name LIMIT 1
"""
# Of those that columns have as their default; an identity column needs no privilege.
MISSING_SEQUENCE = """
    SELECT current_user, sequence FROM unnest(%(tables)s) name,
        LATERAL (SELECT pg_get_serial_sequence(quote_ident(name), 'id') AS sequence
            WHERE to_regclass(quote_ident(name)) IS NOT NULL) sequences
    WHERE NOT has_sequence_privilege(sequence, 'USAGE') ORDER BY name LIMIT 1
"""
# A schema that the role must not use counts as not there: its tables are not found.
CLOSED_SCHEMA = """
    SELECT current_user, nspname FROM pg_namespace
    WHERE NOT has_schema_privilege(oid, 'USAGE')
        AND EXISTS (SELECT FROM pg_class WHERE relnamespace = pg_namespace.oid
            AND relname = ANY (%(tables)s) AND to_regclass(quote_ident(relname)) IS NULL)
        AND nspname IN (SELECT replace(trim(' "' FROM entry), '$user', current_user)
            FROM string_to_table(current_setting('search_path'), ',') entry)
"""
MIGRATING = """
    SELECT current_user, current_database(), current_schema(),
        coalesce(has_schema_privilege(current_schema(), 'CREATE'), false),
        has_database_privilege(current_database(), 'CREATE'),
        EXISTS (SELECT FROM pg_available_extensions WHERE name = %(extension)s),
        (SELECT nspname FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace
            WHERE extname = %(extension)s),
        (SELECT bool_or(pg_opclass_is_visible(oid)) FROM pg_opclass WHERE opcname = %(operators)s),
        (SELECT min(relname) FROM pg_class
            WHERE oid = ANY (SELECT to_regclass(quote_ident(name)) FROM unnest(%(tables)s) name)
                AND NOT pg_has_role(relowner, 'USAGE'))
"""

# Of the background jobs, whose tables are no models.
SERIAL_TABLES = ("procrastinate_jobs", "procrastinate_events", "procrastinate_periodic_defers")


class UnsuitableError(psycopg2.OperationalError):
    """A database that Phresh cannot work with, met when a request connects."""


def server_fault(driver: Any) -> str | None:
    """Return why Phresh cannot work with the server, the database or its settings.

    :param driver: a connection of psycopg2
    """
    [(version, number, encoding, client_encoding)] = _rows(driver, SERVER)
    if number < OLDEST:
        return f"The server is PostgreSQL {version}. Phresh needs {OLDEST} or newer."
    if encoding != "UTF8":
        return f"The encoding of the database is {encoding}. {CREATE}"
    if client_encoding != "UTF8":
        return (
            f"client_encoding is {client_encoding}, which the role, the database or "
            "PGCLIENTENCODING sets. It must be UTF8."
        )
    if _rows(driver, MAPS_CASE, lower=LOWER, upper=UPPER) != [(True,)]:
        return (
            "The locale of the database does not map all letters between upper and lower case, "
            f"or maps those of ASCII in its own way. {CREATE}"
        )
    return None


def serving_fault(driver: Any) -> str | None:
    """Return why Phresh cannot serve with a database and a role.

    :param driver: a connection of psycopg2
    """
    fault = server_fault(driver)
    if fault is not None:
        return fault
    tables = _tables()
    for role, schema in _rows(driver, CLOSED_SCHEMA, tables=tables):
        return f"The role {role} needs the privilege USAGE on the schema {schema}."
    for role, table, privileges in _rows(driver, MISSING_PRIVILEGES, tables=tables):
        return f"The role {role} needs the privilege {privileges} on the table {table}."
    for role, sequence in _rows(driver, MISSING_SEQUENCE, tables=[*SERIAL_TABLES]):
        return f"The role {role} needs the privilege USAGE on the sequence {sequence}."
    return None


def migrating_fault(driver: Any) -> str | None:
    """Return why a role cannot apply or revert migrations.

    :param driver: a connection of psycopg2
    """
    return next(_migrating_faults(driver), None)


def _migrating_faults(driver: Any) -> Iterator[str]:
    names = {"extension": EXTENSION, "operators": EXTENSION_OPERATORS, "tables": _tables()}
    [(role, database, schema, may_create, may_extend, is_available, home, is_visible, foreign)] = (
        _rows(driver, MIGRATING, **names)
    )
    if schema is None:
        yield f"No schema in the search_path of the role {role} exists."
    if not may_create:
        yield f"The role {role} needs the privilege CREATE on the schema {schema}."
    if home is None and not is_available:
        yield f"The server has no extension {EXTENSION}: install PostgreSQL's contrib modules."
    if home is None and not may_extend:
        yield (
            f"The role {role} needs the privilege CREATE on the database {database}, "
            f"for the extension {EXTENSION}. Or have a superuser create the extension."
        )
    if home is not None and not is_visible:
        yield (
            f"The extension {EXTENSION} is in the schema {home}: add it to the search_path of "
            f"the role {role}."
        )
    if foreign is not None:
        yield f"The role {role} must own the table {foreign}, or be a member of its owner."


def checked(connect: Callable[[], Any]) -> Callable[[], Any]:
    """Return what connects, and checks the database once: on the first connection that it opens.

    :raises UnsuitableError: from what is returned, until the database is suitable
    """
    is_checked = False

    def connect_checked() -> Any:
        nonlocal is_checked
        driver = connect()
        if is_checked:
            return driver
        try:
            fault = serving_fault(driver)
            if fault is not None:
                raise UnsuitableError(fault)
        except BaseException:
            driver.close()
            raise
        is_checked = True
        return driver

    return connect_checked


def fault_at_start(url: URL, seconds: float) -> tuple[bool, str | None]:
    """Check a database before workers serve it.

    In a child process, so that no connection is left in this one, and no silent network or name
    server holds it for longer than that.

    :param seconds: how long to wait for the result
    :return: whether the database could be reached, and what is wrong
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            os.write(writer, json.dumps(_connected_fault(url)).encode())
        os._exit(0)
    os.close(writer)
    try:
        is_ready, _, _ = select.select([reader], [], [], seconds)
        result = os.read(reader, select.PIPE_BUF) if is_ready else b""
    finally:
        os.close(reader)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    if not result:
        return False, f"No response within {seconds:g} seconds."
    is_reached, fault = json.loads(result)
    return is_reached, fault


def _connected_fault(url: URL) -> tuple[bool, str | None]:
    _, parameters = url.get_dialect()().create_connect_args(url)
    try:
        driver = psycopg2.connect(**{"application_name": "phresh", **parameters})
        driver.autocommit = True
        return True, serving_fault(driver)
    except psycopg2.Error as error:
        return False, " ".join(str(error).split())[:1000]


def _tables() -> list[str]:
    ours = [str(table.name) for table in db.metadata.sorted_tables]
    return [*ours, "procrastinate_workers", *SERIAL_TABLES]


def _rows(driver: Any, statement: str, **values: Any) -> list[tuple[Any, ...]]:
    with driver.cursor() as cursor:
        cursor.execute(statement, values or None)
        rows: list[tuple[Any, ...]] = cursor.fetchall()
        return rows
