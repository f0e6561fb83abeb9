"""The commands beside those of Flask and its extensions."""

import importlib.util
import os
import socket
import sys
from pathlib import Path
from typing import NoReturn

import click
from flask import Flask, current_app
from flask_migrate import upgrade
from psycopg2.extensions import make_dsn

from phresh.cli import operators
from phresh.cli.database import require_database, tables
from phresh.cli.demo import EVALUATIONS, JOBS, OFFERS, PEOPLE, add_many, add_samples
from phresh.cli.jobs import jobs, worker
from phresh.cli.mail import mail
from phresh.config import ROOT
from phresh.database import checks, embedded
from phresh.database.base import db
from phresh.jobs import supervisor
from phresh.operations.housekeeping import delete_expired

EVERY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104 - of the machine: HOST does not say which one


def init_app(app: Flask) -> None:
    """Add the commands to the app."""
    for command in (
        *(serve, worker, jobs, mail, test, demo, psql, remove_expired),
        *(operators.change_cleaning, operators.delete_cleaning),
        *(operators.disable_account, operators.delete_account, operators.recover_account),
        *(operators.remove_two_factor, operators.make_operator),
    ):
        app.cli.add_command(command)


@click.command()
def serve() -> NoReturn:
    """Apply the migrations, then serve with gunicorn, with a worker for jobs beside it."""
    host, port = current_app.config["HOST"], current_app.config["PORT"]
    server: embedded.Server | None = current_app.extensions["embedded"]
    if server is not None:
        server.claim("serve")
    _require_free_port(host, port)
    require_database(checks.server_fault)
    upgrade()
    require_database()
    db.engine.dispose()
    if server is not None:
        click.echo(f"Data      {server.folder}")
        if server.moved:
            click.echo(f"          because the account {server.user} can't reach {ROOT}")
    address = local_url(host, port)
    if current_app.config["PUBLIC_URL"] is None and host not in EVERY_ADDRESS:
        os.environ["PUBLIC_URL"] = address
        if server is not None and current_app.config["MAIL_URL"] is None:
            mail = Path(current_app.instance_path, "mail")
            os.environ["MAIL_URL"] = mail.as_uri()
            click.echo(f"Mail      {mail}")
    click.echo(f"API       {address}/api/cleanings/")
    click.echo(f"Docs      {address}/docs")
    sys.stdout.flush()
    os.chdir(ROOT)
    supervisor.start()
    _exec(sys.executable, "-m", "gunicorn", "--config", "gunicorn.conf.py", "wsgi:app")


def local_url(host: str, port: int) -> str:
    """Return the URL that reaches the API from this machine.

    :param host: the setting ``HOST``
    """
    name = "localhost" if host in ("127.0.0.1", *EVERY_ADDRESS) else host
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def test(arguments: tuple[str, ...]) -> NoReturn:
    """Run pytest with these arguments, like: flask test -k price"""
    if importlib.util.find_spec("pytest") is None:
        raise click.ClickException("The test tools are not installed: run make install.")
    os.chdir(ROOT)
    _exec(sys.executable, "-m", "pytest", *arguments)


@click.command()
@click.option(
    "--count", type=click.IntRange(min=1), help="Number of cleanings, instead of a few samples."
)
def demo(count: int | None) -> None:
    """Add a sample marketplace to the database."""
    require_database()
    with tables():
        if count is not None:
            add_many(count)
            click.echo(f"Added {count} cleanings, with users, offers and evaluations.")
            return
        password = add_samples()
    click.echo(
        f"Added {len(JOBS)} cleanings, {len(OFFERS)} offers, {len(EVALUATIONS)} evaluations."
    )
    if password is not None:
        click.echo(
            f"Log in as {', '.join(f'{name}@phresh.example' for name in PEOPLE)}; "
            f"password: {password}"
        )


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def psql(arguments: tuple[str, ...]) -> NoReturn:
    """Open psql on the database, with these arguments, like: flask psql -c '\\d'"""
    require_database(None)
    _, parameters = db.engine.dialect.create_connect_args(db.engine.url)
    if "password" in parameters:  # an argument could be read by every user of the machine
        os.environ["PGPASSWORD"] = parameters.pop("password")
    server: embedded.Server | None = current_app.extensions["embedded"]
    program = "psql" if server is None else str(server.programs / "bin" / "psql")
    _exec(program, make_dsn(**parameters), *arguments)


@click.command("remove-expired")
def remove_expired() -> None:
    """Delete expired idempotency keys, tokens, counters of rate limits and reserved usernames."""
    require_database()
    with tables():
        counts = delete_expired()
    click.echo(f"Deleted {', '.join(f'{count} {name}' for name, count in counts.items())}.")


def _exec(program: str, *arguments: str) -> NoReturn:
    """Replace this process by a program, which keeps the locks on the embedded PostgreSQL."""
    try:
        os.execvp(program, [program, *arguments])  # noqa: S606
    except FileNotFoundError:
        raise click.ClickException(f"{program} is not installed.") from None


def _require_free_port(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise click.ClickException(
                f"HOST, PORT: Can't listen on {host}, port {port}: {error.strerror}."
            ) from None
