"""Settings: read from the environment and ``.env``, checked, with their defaults."""

import os
import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
from dotenv import dotenv_values
from marshmallow import INCLUDE, Schema, ValidationError, fields, validate, validates_schema
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError
from webargs.fields import DelimitedList

ROOT = Path(__file__).resolve().parent.parent

POSITIVE = validate.Range(min=1)
YEARS_10 = 10 * 366 * 24 * 3600  # seconds
ABOVE_ZERO = validate.Range(min=0, min_inclusive=False)


SAMPLE_SECRETS = ("supersecret", "changeme")


def _reject_guessable(secret: str) -> None:
    if len(secret.encode()) < 32 or any(sample in secret.lower() for sample in SAMPLE_SECRETS):
        raise ValidationError(
            "Must have 32 bytes or more, and not be a sample. To make one: "
            "python3 -c 'import secrets; print(secrets.token_hex(32))'"
        )


class ConfigError(click.ClickException):
    """A setting that cannot be used; the flask command shows it as one line."""


class SettingsSchema(Schema):
    """Every setting that Phresh reads, with its default."""

    class Meta:
        unknown = INCLUDE  # Flask's own settings pass

    # Flask's, for code that signs something; Phresh signs nothing.
    SECRET_KEY = fields.String(load_default=None, validate=_reject_guessable)

    DATABASE_URL = fields.String(load_default=None)
    POSTGRES_SERVER = fields.String(load_default=None)
    POSTGRES_PORT = fields.Integer(load_default=5432, validate=validate.Range(1, 65535))
    POSTGRES_USER = fields.String(load_default="postgres")
    POSTGRES_PASSWORD = fields.String(load_default=None)
    POSTGRES_DB = fields.String(load_default="phresh")

    # Connections of a worker: times the workers, that must stay below the server's max_connections
    # (100 by default).
    POOL_SIZE = fields.Integer(load_default=10, validate=POSITIVE)
    # Seconds, the shorter ones first: to wait for a lock, to run a statement, all that a request
    # may wait for the database; to wait for a connection of the pool, to connect, between the
    # statements of a transaction.
    # The first must exceed PostgreSQL's deadlock_timeout of 1 s: otherwise no deadlock is detected
    # and retried.
    LOCK_TIMEOUT = fields.Float(load_default=1.5, validate=ABOVE_ZERO)
    STATEMENT_TIMEOUT = fields.Float(load_default=3, validate=ABOVE_ZERO)
    DATABASE_TIMEOUT = fields.Float(load_default=5, validate=ABOVE_ZERO)
    POOL_TIMEOUT = fields.Float(load_default=3, validate=ABOVE_ZERO)
    CONNECT_TIMEOUT = fields.Integer(load_default=2, validate=POSITIVE)
    IDLE_TIMEOUT = fields.Float(load_default=10, validate=ABOVE_ZERO)
    # Whether to send these limits to the server when connecting, which PgBouncer refuses.
    DATABASE_LIMITS = fields.Boolean(load_default=True)
    # Whether connections keep prepared statements; not through PgBouncer in transaction mode.
    PREPARED_STATEMENTS = fields.Boolean(load_default=True)

    # Whether guests may post.
    GUEST_POSTING = fields.Boolean(load_default=True)
    # Seconds for which a token is valid.
    TOKEN_LIFETIME = fields.Integer(
        load_default=7 * 24 * 3600, validate=validate.Range(1, YEARS_10)
    )
    # Argon2id: passes, KiB, lanes; then how many passwords a worker hashes at once, and seconds to
    # wait for a turn.
    ARGON2_TIME_COST = fields.Integer(load_default=2, validate=POSITIVE)
    ARGON2_MEMORY_COST = fields.Integer(load_default=19456, validate=validate.Range(min=8))
    ARGON2_PARALLELISM = fields.Integer(load_default=1, validate=POSITIVE)
    HASHES_AT_ONCE = fields.Integer(load_default=1, validate=POSITIVE)
    HASH_TIMEOUT = fields.Float(load_default=5, validate=ABOVE_ZERO)
    # Limits on failed logins and on registrations; the time windows in seconds.
    RATELIMIT_ENABLED = fields.Boolean(load_default=True)
    LOGIN_FAILURES_PER_ACCOUNT = fields.Integer(load_default=10, validate=POSITIVE)
    LOGIN_FAILURES_PER_ADDRESS = fields.Integer(load_default=50, validate=POSITIVE)
    LOGIN_WINDOW = fields.Integer(load_default=15 * 60, validate=validate.Range(1, YEARS_10))
    REGISTRATIONS_PER_ADDRESS = fields.Integer(load_default=20, validate=POSITIVE)
    REGISTRATION_WINDOW = fields.Integer(load_default=60 * 60, validate=validate.Range(1, YEARS_10))

    HOST = fields.String(load_default="127.0.0.1")
    PORT = fields.Integer(load_default=8000, validate=validate.Range(1, 65535))
    WORKERS = fields.Integer(
        load_default=lambda: min(os.cpu_count() or 1, 8), validate=validate.Range(min=1)
    )
    THREADS = fields.Integer(load_default=1000, validate=POSITIVE)
    # Allowed Host names (any by default), and the number of trusted proxies in front.
    TRUSTED_HOSTS = DelimitedList(fields.String(), load_default=None)
    TRUSTED_PROXIES = fields.Integer(load_default=0, validate=validate.Range(min=0))
    CORS_ORIGINS = DelimitedList(fields.String(), load_default=lambda: ["*"])
    MAX_CONTENT_LENGTH = fields.Integer(load_default=64 * 1024, validate=POSITIVE)

    @validates_schema(skip_on_field_errors=True)
    def _check_together(self, settings: dict[str, Any], **_: Any) -> None:
        # The limit closest to the cause must be reached first.
        order = ("LOCK_TIMEOUT", "STATEMENT_TIMEOUT", "DATABASE_TIMEOUT")
        for shorter, longer in pairwise(order):
            if settings[shorter] >= settings[longer]:
                raise ValidationError(f"Must be less than {longer}.", shorter)
        if settings["POOL_TIMEOUT"] >= settings["DATABASE_TIMEOUT"]:
            raise ValidationError("Must be less than DATABASE_TIMEOUT.", "POOL_TIMEOUT")
        if settings["ARGON2_MEMORY_COST"] < 8 * settings["ARGON2_PARALLELISM"]:
            raise ValidationError("Must be 8 times ARGON2_PARALLELISM.", "ARGON2_MEMORY_COST")


def read_settings(settings: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the checked settings, with defaults filled in.

    :param settings: what replaces the environment and ``.env``
    :raises ConfigError: when one has a value that cannot be used
    """
    schema = SettingsSchema()
    if settings is None:
        environment = {**dotenv_values(ROOT / ".env"), **os.environ}
        # In .env.example an empty value means "not set".
        settings = {name: environment[name] for name in schema.fields if environment.get(name)}
    try:
        loaded: dict[str, Any] = schema.load(settings)
    except ValidationError as error:
        raise ConfigError(
            "; ".join(f"{name}: {_first(why)}" for name, why in error.normalized_messages().items())
        ) from None
    loaded["SQLALCHEMY_DATABASE_URI"] = _database_url(loaded)
    return loaded


def without_secrets(url: URL) -> str:
    """Return a database URL without its passwords."""
    return url.difference_update_query(["password", "sslpassword"]).render_as_string()


def _first(messages: Any) -> str:
    """Return the first sentence of marshmallow's nested messages."""
    while not isinstance(messages, str):
        messages = next(iter(messages.values() if isinstance(messages, dict) else messages))
    return messages


def _database_url(settings: Mapping[str, Any]) -> URL | None:
    """Return the URL of the configured database, None if there is none.

    A scheme without a driver means psycopg2.
    """
    text = settings["DATABASE_URL"]
    if not text and not settings["POSTGRES_SERVER"]:
        return None
    if not text:
        return URL.create(
            "postgresql+psycopg2",
            settings["POSTGRES_USER"],
            settings["POSTGRES_PASSWORD"],
            settings["POSTGRES_SERVER"],
            settings["POSTGRES_PORT"],
            settings["POSTGRES_DB"],
        )
    text = re.sub(r"^postgres(ql)?://", "postgresql+psycopg2://", text)
    try:
        url = make_url(_hosts_as_parameters(text))
        if url.drivername == "postgresql+psycopg2":
            url.get_dialect()().create_connect_args(url)  # refuses bad hosts and ports
            return url
    except (ArgumentError, ValueError):
        pass
    # Never the value itself: it may hold a password.
    raise ConfigError(
        "DATABASE_URL: Not a PostgreSQL URL like postgresql://user:password@host:5432/name."
    )


def _hosts_as_parameters(text: str) -> str:
    """Move several hosts from where libpq writes them to where SQLAlchemy reads them.

    ``//u@h1:5432,h2:5432/name`` becomes ``//u@/name?host=h1:5432&host=h2:5432``
    (https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-MULTIPLE-HOSTS).
    """
    several = re.fullmatch(r"(\w[\w+]*://(?:[^/?]*@)?+)([^/?@]*,[^/?@]*)([^?]*)\??(.*)", text)
    if several is None:
        return text
    start, hosts, name, parameters = several.groups()
    return f"{start}{name}?" + "&".join(
        [*(f"host={host}" for host in hosts.split(",")), *filter(None, [parameters])]
    )
