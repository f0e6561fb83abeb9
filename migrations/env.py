"""How alembic runs the migrations: ``flask db`` calls it inside the app."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import click
from alembic import context
from alembic.script import write_hooks
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
    """Print which migration ran."""
    click.echo(f"{'Applied' if step.is_upgrade else 'Reverted'}: {step.up_revision.doc}")


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


def run():
    """Run the requested command, on the database or as SQL on stdout."""
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
