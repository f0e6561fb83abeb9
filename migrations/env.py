"""How alembic runs the migrations: ``flask db`` calls it inside the app."""

import click
from alembic import context
from alembic.util import CommandError
from sqlalchemy import event, text
from sqlalchemy.exc import OperationalError

from phresh.config import without_secrets
from phresh.database.base import db

# A migration that can't have its lock at once gives up, instead of making every request wait
# behind it. Run it again.
LOCK_TIMEOUT = "2s"


def limit_locks(connection):
    """Bound the wait for locks in a transaction; what builds an index concurrently is in none."""
    connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))


def announce(step, **_):
    """Say which migration ran."""
    click.echo(f"{'Applied' if step.is_upgrade else 'Reverted'}: {step.up_revision.doc}")


def leave_out_empty(_context, _revision, directives):
    """Write no revision where nothing changed."""
    if (
        getattr(context.config.cmd_opts, "autogenerate", False)
        and directives[0].upgrade_ops.is_empty()
    ):
        directives.clear()
        click.echo("Models and migrations agree: nothing to write.")


def run():
    """Run what was asked for, on the database or as SQL on stdout."""
    options = {
        "target_metadata": db.metadata,
        "transaction_per_migration": True,  # so that one can build an index concurrently
        "on_version_apply": announce,
    }
    if context.is_offline_mode():
        context.configure(url=db.engine.url, literal_binds=True, **options)
        with context.begin_transaction():
            context.run_migrations()
        return
    try:
        with db.engine.connect() as connection:
            event.listen(connection, "begin", limit_locks)
            context.configure(
                connection=connection, process_revision_directives=leave_out_empty, **options
            )
            with context.begin_transaction():
                context.run_migrations()
    except OperationalError as error:  # as when the database is away, or others hold a lock
        why = " ".join(f"{error.orig} {error.statement or ''}".split())
        raise CommandError(f"{without_secrets(db.engine.url)}: {why}") from error


run()
