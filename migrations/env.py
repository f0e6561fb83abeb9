"""How alembic runs the migrations: ``flask db`` calls it inside the app."""

import subprocess
import sys
import time
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path

import click
from alembic import context
from alembic.script import write_hooks
from alembic.util import CommandError, to_tuple
from flask import current_app
from sqlalchemy import NullPool, create_engine, event, text
from sqlalchemy.exc import DBAPIError

from phresh.config import shown_url, without_secrets
from phresh.database import checks
from phresh.database.base import db

# A migration that can't have its lock at once gives up, instead of making every request wait
# behind it. Run it again.
LOCK_TIMEOUT = "2s"

# The advisory lock of whoever changes the database, and how often the others look, in seconds.
LOCK = int.from_bytes(b"phresh")
POLL = 0.5
# Its transaction does nothing else, for as long as the migrations take: without time limits.
TRY_LOCK = """
    SELECT pg_try_advisory_xact_lock(:key) FROM (
        SELECT count(set_config(name, '0', true)) FROM pg_settings
        WHERE name IN ('idle_in_transaction_session_timeout', 'transaction_timeout')
    ) without_limits
"""
HOLDER = """
    SELECT pid FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database
    WHERE datname = current_database() AND locktype = 'advisory' AND granted
        AND classid::bigint << 32 | objid::bigint = :key
"""


def limit_locks(connection):
    """Bound the wait for locks in a transaction; what builds an index concurrently is in none."""
    if connection.connection.driver_connection.autocommit:
        return
    connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
    connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))


def announce(step, **_):
    """Print which migration ran, but not into the SQL on stdout."""
    done = "Applied" if step.is_upgrade else "Reverted"
    click.echo(f"{done}: {step.up_revision.doc}", err=context.is_offline_mode())


def leave_out_empty(_context, _revision, directives):
    """Write no revision where nothing changed."""
    if (
        getattr(context.config.cmd_opts, "autogenerate", False)
        and directives[0].upgrade_ops.is_empty()
    ):
        directives.clear()
        click.echo("Models and migrations agree: nothing to write.")


@write_hooks.register("format")
def format_revision(path, _options):
    """Format a new revision as ``make fix`` does, so that it passes ``make check``."""
    if find_spec("ruff") is None:  # only what serving needs is installed
        name = Path(path).name
        click.echo(f"{name} is not formatted: ruff is not installed. Run make install, make fix.")
        return
    ruff = [sys.executable, "-m", "ruff"]
    # What ruff cannot fix, it prints; the revision is there all the same.
    subprocess.run([*ruff, "check", "--fix", "--quiet", "--no-cache", path], check=False)
    subprocess.run([*ruff, "format", "--quiet", "--no-cache", path], check=False)


# Not in alembic.ini, whose sections can't be read where the path of the checkout has a "%".
context.script.hooks = [{"_hook_name": "format", "type": "format"}]


def target():
    """Return the revisions that upgrade, downgrade and stamp lead to; None for other commands."""
    try:
        return set(to_tuple(context.get_revision_argument(), default=()))
    except KeyError:
        return None


@contextmanager
def alone(engine):
    """Wait until no other process changes this database, and keep the others waiting.

    Polled, since the index that the other builds concurrently would wait for the snapshot of a
    statement that waits. Held by a transaction, not by a session: PgBouncer would lend that to
    others. Between its statements, the transaction has no snapshot.
    """
    with engine.connect().execution_options(isolation_level="READ COMMITTED") as connection:
        is_told = False
        while not connection.scalar(text(TRY_LOCK), {"key": LOCK}):
            if not is_told:
                process = connection.scalar(text(HOLDER), {"key": LOCK})
                click.echo(
                    "Another process changes this database: waiting for its end. "
                    f"(The server process {process} holds the advisory lock.)",
                    err=True,
                )
                is_told = True
            connection.rollback()
            time.sleep(POLL)
        yield


def connecting():
    """Return the engine, as the role that owns the tables where it is not the one that serves.

    Also return its URL for messages.
    """
    url = current_app.config["MIGRATION_DATABASE_URI"]
    if url is None:
        return db.engine, shown_url(current_app.config, db.engine.url)
    engine = create_engine(url, hide_parameters=True, poolclass=NullPool)
    return engine, f"MIGRATION_DATABASE_URL: {without_secrets(url)}"


def fault_of(connection, destination):
    """Return why Phresh cannot work with the database, or the role not change it; None if it can.

    A role with fewer privileges may run what changes nothing.
    """
    driver = connection.connection.driver_connection
    fault = checks.server_fault(driver)
    changes = destination not in (None, set(context.get_context().get_current_heads()))
    if fault is None and changes:
        fault = checks.migrating_fault(driver)
    connection.rollback()
    return fault


def is_ours(name, kind, _parents):
    """Return whether to compare what the database has: its other tables are someone else's."""
    return kind != "table" or name in db.metadata.tables


def run():
    """Run the requested command, on the database or as SQL on stdout."""
    options = {
        "target_metadata": db.metadata,
        "transaction_per_migration": True,  # so that one can build an index concurrently
        "on_version_apply": announce,
        "include_name": is_ours,
    }
    engine, shown = connecting()
    if context.is_offline_mode():
        # A paramstyle without "%": psycopg2's would double each one in the script.
        paramstyle = {"paramstyle": "named"}
        context.configure(url=engine.url, dialect_opts=paramstyle, literal_binds=True, **options)
        with context.begin_transaction():
            context.run_migrations()
        return
    destination = target()
    wait = nullcontext() if destination is None else alone(engine)
    try:
        with wait, engine.connect() as connection:
            context.configure(
                connection=connection, process_revision_directives=leave_out_empty, **options
            )
            if fault := fault_of(connection, destination):
                raise CommandError(f"{shown}: {fault}")
            event.listen(connection, "begin", limit_locks)
            with context.begin_transaction():
                context.run_migrations()
    except DBAPIError as error:  # as when the database is away, or others hold a lock
        why = " ".join(f"{error.orig} {error.statement or ''}".split())[:500]
        raise CommandError(f"{shown}: {why}") from error


run()
