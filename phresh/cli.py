"""The commands beside those of Flask and its extensions."""

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import click
from flask import Flask, current_app
from flask_migrate import upgrade
from psycopg2.errors import UndefinedTable
from psycopg2.extensions import make_dsn
from sqlalchemy.exc import DBAPIError, ProgrammingError

from phresh import embedded
from phresh.config import ROOT
from phresh.db import db, shown
from phresh.demo import add_samples
from phresh.idempotency import remove_old_keys


def init_app(app: Flask) -> None:
    """Add the commands to the app."""
    for command in (serve, test, demo, psql, remove_keys):
        app.cli.add_command(command)


@click.command()
def serve() -> NoReturn:
    """Apply the migrations, then serve with gunicorn."""
    host, port = current_app.config["HOST"], current_app.config["PORT"]
    server: embedded.Server | None = current_app.extensions["embedded"]
    if server is not None:
        server.claim("serve")
    _refuse_taken_port(host, port)
    _refuse_bad_database()
    upgrade()
    db.engine.dispose()
    if server is not None:
        click.echo(f"Data      {server.folder}")
        if server.moved:
            click.echo(f"          since the account {server.user} can't reach {ROOT}")
    name = "localhost" if host in ("127.0.0.1", "0.0.0.0") else host  # noqa: S104
    address = f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"
    click.echo(f"API       {address}/api/cleanings/")
    click.echo(f"Docs      {address}/docs")
    sys.stdout.flush()
    os.chdir(ROOT)
    _exec(sys.executable, "-m", "gunicorn", "--config", "gunicorn.conf.py", "wsgi:app")


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def test(arguments: tuple[str, ...]) -> NoReturn:
    """Run pytest with these arguments, like: flask test -k price"""
    os.chdir(ROOT)
    _exec(sys.executable, "-m", "pytest", *arguments)


@click.command()
@click.option("--count", type=click.IntRange(min=1), help="How many, instead of a handful.")
def demo(count: int | None) -> None:
    """Fill the database with sample cleanings."""
    _refuse_bad_database()
    with _tables():
        click.echo(f"Added {add_samples(count)} cleanings.")


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def psql(arguments: tuple[str, ...]) -> NoReturn:
    """Open psql on the database, with these arguments, like: flask psql -c '\\d'"""
    _refuse_bad_database()
    _, parameters = db.engine.dialect.create_connect_args(db.engine.url)
    if "password" in parameters:  # not where every user of the machine reads it
        os.environ["PGPASSWORD"] = parameters.pop("password")
    server: embedded.Server | None = current_app.extensions["embedded"]
    program = "psql" if server is None else str(server.programs / "bin" / "psql")
    _exec(program, make_dsn(**parameters), *arguments)


@click.command("remove-old-keys")
def remove_keys() -> None:
    """Remove the idempotency keys that are older than a day."""
    _refuse_bad_database()
    with _tables():
        click.echo(f"Removed {remove_old_keys()} keys.")


def _exec(program: str, *arguments: str) -> NoReturn:
    """Become that program; the locks on the embedded PostgreSQL stay with it."""
    try:
        os.execvp(program, [program, *arguments])  # noqa: S606
    except FileNotFoundError:
        raise click.ClickException(f"{program} is not installed.") from None


@contextmanager
def _tables() -> Iterator[None]:
    try:
        yield
    except (ProgrammingError, UndefinedTable) as error:
        if not isinstance(getattr(error, "orig", error), UndefinedTable):
            raise
        raise click.ClickException("The tables are missing: run flask db upgrade.") from None


def _refuse_taken_port(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            why = error.strerror
            raise click.ClickException(f"Can't listen on {host}, port {port}: {why}.") from None


def _refuse_bad_database() -> None:
    try:
        db.engine.connect().close()
    except DBAPIError as error:
        why = " ".join(str(error.orig).split())
        raise click.ClickException(f"Can't connect to {shown(db.engine.url)}: {why}") from None
