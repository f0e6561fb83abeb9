"""Settings: read from the environment and ``.env``, checked, with their defaults."""

import os
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from dotenv import dotenv_values
from marshmallow import (
    INCLUDE,
    Schema,
    ValidationError,
    fields,
    pre_load,
    validate,
    validates_schema,
)

from phresh.settings.database_url import ConfigError as ConfigError
from phresh.settings.database_url import configured_url, parsed_url
from phresh.settings.database_url import shown_url as shown_url
from phresh.settings.database_url import without_secrets as without_secrets
from phresh.settings.mail_url import MailServer as MailServer
from phresh.settings.mail_url import MailURL
from phresh.settings.values import MOUNT as MOUNT
from phresh.settings.values import CommaSeparated, Host, Origin, PublicURL, TrustedHost

ROOT = Path(__file__).resolve().parent.parent

INTEGER_MAX = 2**31 - 1  # of PostgreSQL's integer
POSITIVE = validate.Range(1, INTEGER_MAX)
YEARS_10 = 10 * 366 * 24 * 3600  # seconds
# Seconds: the server takes whole milliseconds, of which 0 would mean no limit.
DURATION = validate.Range(0.001, 24 * 3600)

# Which settings another one makes unused by a false value. Unused ones are not validated: the
# environment may have them for somebody else.
SWITCHES = {
    "RATELIMIT_ENABLED": (
        *("LOGINS_PER_ACCOUNT", "LOGIN_FAILURES_PER_ACCOUNT", "LOGIN_FAILURES_PER_ADDRESS"),
        *("LOGIN_WINDOW", "WRITES_PER_ACCOUNT", "WRITES_PER_ADDRESS", "GUEST_WRITES_PER_ADDRESS"),
        "WRITE_WINDOW",
        *("MAILS_PER_ACCOUNT", "MAILS_PER_ADDRESS", "MAIL_WINDOW"),
        *("REGISTRATIONS_PER_ADDRESS", "REGISTRATION_WINDOW"),
        *("EXPORTS_PER_ACCOUNT", "EXPORT_WINDOW"),
    ),
    "DATABASE_LIMITS": ("STATEMENT_TIMEOUT", "IDLE_TIMEOUT"),
}

SAMPLE_SECRETS = ("supersecret", "changeme")


def _reject_guessable(secret: str) -> None:
    if len(secret.encode()) < 32 or any(sample in secret.lower() for sample in SAMPLE_SECRETS):
        raise ValidationError(
            "Must have 32 bytes or more, and not be a sample. To make one: "
            "python3 -c 'import secrets; print(secrets.token_hex(32))'"
        )


class SettingsSchema(Schema):
    """Every setting that Phresh reads, with its default."""

    class Meta:
        unknown = INCLUDE  # Flask's own settings pass

    # Flask's, for code that signs something; Phresh signs nothing.
    SECRET_KEY = fields.String(load_default=None, validate=_reject_guessable)

    DATABASE_URL = fields.String(load_default=None)
    # The same database by the role that owns it, for flask db; by default DATABASE_URL's role.
    MIGRATION_DATABASE_URL = fields.String(load_default=None)
    POSTGRES_SERVER = fields.String(load_default=None)
    POSTGRES_PORT = fields.Integer(load_default=5432, validate=validate.Range(1, 65535))
    POSTGRES_USER = fields.String(load_default="postgres")
    POSTGRES_PASSWORD = fields.String(load_default=None)
    POSTGRES_DB = fields.String(load_default="phresh")

    # Connections of a worker: times the workers, that must stay below the server's max_connections
    # (100 by default).
    POOL_SIZE = fields.Integer(load_default=10, validate=validate.Range(1, 10_000))
    # Seconds, the shorter ones first: to wait for a lock, to run a statement, all that a request
    # may wait for the database; to wait for a connection of the pool, to connect, between the
    # statements of a transaction.
    # The first must exceed PostgreSQL's deadlock_timeout of 1 s: otherwise no deadlock is detected
    # and retried.
    LOCK_TIMEOUT = fields.Float(load_default=1.5, validate=DURATION)
    STATEMENT_TIMEOUT = fields.Float(load_default=3, validate=DURATION)
    DATABASE_TIMEOUT = fields.Float(load_default=5, validate=DURATION)
    POOL_TIMEOUT = fields.Float(load_default=3, validate=DURATION)
    CONNECT_TIMEOUT = fields.Integer(load_default=2, validate=validate.Range(1, 3600))
    IDLE_TIMEOUT = fields.Float(load_default=10, validate=DURATION)
    # Whether to send these limits to the server when connecting, which PgBouncer refuses.
    DATABASE_LIMITS = fields.Boolean(load_default=True)
    # Whether connections keep prepared statements; not through PgBouncer in transaction mode.
    PREPARED_STATEMENTS = fields.Boolean(load_default=True)

    # Searches that a worker runs at once, by default 2 but no more than half of its connections;
    # seconds that each of them may take, and may wait for its turn.
    SEARCHES_AT_ONCE = fields.Integer(load_default=None, validate=validate.Range(1, 10_000))
    SEARCH_TIMEOUT = fields.Float(load_default=1, validate=DURATION)

    # Whether guests may post.
    GUEST_POSTING = fields.Boolean(load_default=True)
    # Seconds for which a token is valid.
    TOKEN_LIFETIME = fields.Integer(
        load_default=7 * 24 * 3600, validate=validate.Range(1, YEARS_10)
    )
    # Seconds without use after which it is no longer valid.
    SESSION_IDLE = fields.Integer(
        load_default=30 * 24 * 3600, validate=validate.Range(120, YEARS_10)
    )
    # Whether an account can write only once its email address is confirmed.
    REQUIRE_CONFIRMED_EMAIL = fields.Boolean(load_default=False)
    # Argon2id: passes, KiB, lanes; then how many passwords a worker hashes at once, and seconds to
    # wait for a turn.
    ARGON2_TIME_COST = fields.Integer(load_default=2, validate=validate.Range(1, 1000))
    ARGON2_MEMORY_COST = fields.Integer(load_default=19456, validate=validate.Range(8, 4 * 1024**2))
    ARGON2_PARALLELISM = fields.Integer(load_default=1, validate=validate.Range(1, 255))
    HASHES_AT_ONCE = fields.Integer(load_default=1, validate=validate.Range(1, 1000))
    HASH_TIMEOUT = fields.Float(load_default=5, validate=DURATION)
    # Limits on logins, on failed ones, on writes and on registrations; the time windows in seconds.
    RATELIMIT_ENABLED = fields.Boolean(load_default=True)
    LOGINS_PER_ACCOUNT = fields.Integer(load_default=60, validate=POSITIVE)
    LOGIN_FAILURES_PER_ACCOUNT = fields.Integer(load_default=10, validate=POSITIVE)
    LOGIN_FAILURES_PER_ADDRESS = fields.Integer(load_default=50, validate=POSITIVE)
    LOGIN_WINDOW = fields.Integer(load_default=15 * 60, validate=validate.Range(1, YEARS_10))
    WRITES_PER_ACCOUNT = fields.Integer(load_default=600, validate=POSITIVE)
    WRITES_PER_ADDRESS = fields.Integer(load_default=2000, validate=POSITIVE)
    GUEST_WRITES_PER_ADDRESS = fields.Integer(load_default=60, validate=POSITIVE)
    WRITE_WINDOW = fields.Integer(load_default=60 * 60, validate=validate.Range(1, YEARS_10))
    REGISTRATIONS_PER_ADDRESS = fields.Integer(load_default=20, validate=POSITIVE)
    REGISTRATION_WINDOW = fields.Integer(load_default=60 * 60, validate=validate.Range(1, YEARS_10))
    # Of all that is stored about an account.
    EXPORTS_PER_ACCOUNT = fields.Integer(load_default=5, validate=POSITIVE)
    EXPORT_WINDOW = fields.Integer(load_default=60 * 60, validate=validate.Range(1, YEARS_10))

    # Whether operators can use /api/admin/ only with a second factor.
    OPERATORS_NEED_TWO_FACTOR = fields.Boolean(load_default=True)
    # Days for which lines of the audit log are kept.
    AUDIT_LOG_DAYS = fields.Integer(load_default=365, validate=validate.Range(30, 36_600))

    HOST = Host(load_default="127.0.0.1")
    PORT = fields.Integer(load_default=8000, validate=validate.Range(1, 65535))
    # The URL under which clients reach the API. Without it, URLs in responses have no host.
    PUBLIC_URL = PublicURL(load_default=None)
    # How mail is sent, by default not at all, and from which address; and the URL of the pages that
    # its links lead to, by default our own.
    MAIL_URL = MailURL(load_default=None)
    MAIL_FROM = fields.Email(load_default="phresh@localhost")
    ACCOUNT_URL = PublicURL(load_default=None)
    # Mails that can be asked for to one address, and from one network, in the time.
    MAILS_PER_ACCOUNT = fields.Integer(load_default=5, validate=POSITIVE)
    MAILS_PER_ADDRESS = fields.Integer(load_default=20, validate=POSITIVE)
    MAIL_WINDOW = fields.Integer(load_default=60 * 60, validate=validate.Range(1, YEARS_10))

    # Worker processes; the second is gunicorn's own, which counts where the first is not set.
    WORKERS = fields.Integer(load_default=None, validate=validate.Range(1, 1000))
    WEB_CONCURRENCY = fields.Integer(load_default=None, validate=validate.Range(1, 1000))
    THREADS = fields.Integer(load_default=1000, validate=validate.Range(1, 1_000_000))
    # Allowed Host names (any by default), and the number of trusted proxies in front.
    TRUSTED_HOSTS = CommaSeparated(TrustedHost(), load_default=None)
    TRUSTED_PROXIES = fields.Integer(load_default=0, validate=validate.Range(0, 1000))
    CORS_ORIGINS = CommaSeparated(Origin(), load_default=lambda: ["*"])
    MAX_CONTENT_LENGTH = fields.Integer(load_default=64 * 1024, validate=POSITIVE)

    @pre_load
    def _leave_out_unused(self, settings: Mapping[str, Any], **_: Any) -> dict[str, Any]:
        unused: set[str] = set()
        for switch, switched in SWITCHES.items():
            if settings.get(switch) in fields.Boolean.falsy:
                unused.update(switched)
        if settings.get("DATABASE_URL") or not settings.get("POSTGRES_SERVER"):
            unused.update(name for name in self.fields if name.startswith("POSTGRES_"))
        return {name: value for name, value in settings.items() if name not in unused}

    @validates_schema(skip_on_field_errors=True)
    def _check_together(self, settings: dict[str, Any], **_: Any) -> None:
        if "*" in settings["CORS_ORIGINS"] and len(settings["CORS_ORIGINS"]) > 1:
            raise ValidationError("Allows every origin by *: leave out the others.", "CORS_ORIGINS")
        if settings["MAIL_URL"] and not (settings["PUBLIC_URL"] or settings["ACCOUNT_URL"]):
            raise ValidationError("Needs PUBLIC_URL, for the links in mails.", "MAIL_URL")
        if settings["REQUIRE_CONFIRMED_EMAIL"] and not settings["MAIL_URL"]:
            raise ValidationError("Needs MAIL_URL, to confirm by.", "REQUIRE_CONFIRMED_EMAIL")
        # The limit closest to the cause must be reached first.
        order = ("LOCK_TIMEOUT", "STATEMENT_TIMEOUT", "DATABASE_TIMEOUT")
        for shorter, longer in pairwise(order if settings["DATABASE_LIMITS"] else order[::2]):
            if settings[shorter] >= settings[longer]:
                raise ValidationError(f"Must be less than {longer}.", shorter)
        if settings["POOL_TIMEOUT"] >= settings["DATABASE_TIMEOUT"]:
            raise ValidationError("Must be less than DATABASE_TIMEOUT.", "POOL_TIMEOUT")
        # Otherwise nothing is left for other requests.
        if (settings["SEARCHES_AT_ONCE"] or 1) > max(1, settings["POOL_SIZE"] - 1):
            raise ValidationError("Must be 1, or less than POOL_SIZE.", "SEARCHES_AT_ONCE")
        if settings["ARGON2_MEMORY_COST"] < 8 * settings["ARGON2_PARALLELISM"]:
            raise ValidationError("Must be 8 times ARGON2_PARALLELISM.", "ARGON2_MEMORY_COST")


def read_settings(settings: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the checked settings, with defaults filled in.

    :param settings: what replaces the environment and ``.env``
    :raises ConfigError: when one has a value that cannot be used
    """
    schema = SettingsSchema()
    if settings is None:
        environment = {**_env_file(), **os.environ}
        # In .env.example an empty value means "not set".
        settings = {
            name: value
            for name in schema.fields
            if (value := environment.get(name)) and not value.isspace()
        }
    try:
        loaded: dict[str, Any] = schema.load(settings)
    except ValidationError as error:
        raise ConfigError(
            "; ".join(f"{name}: {_first(why)}" for name, why in error.normalized_messages().items())
        ) from None
    half = max(1, loaded["POOL_SIZE"] // 2)
    loaded["SEARCHES_AT_ONCE"] = loaded["SEARCHES_AT_ONCE"] or min(2, half)
    loaded["SQLALCHEMY_DATABASE_URI"] = configured_url(loaded)
    loaded["MIGRATION_DATABASE_URI"] = None
    if loaded["MIGRATION_DATABASE_URL"]:
        name = "MIGRATION_DATABASE_URL"
        if loaded["SQLALCHEMY_DATABASE_URI"] is None:
            raise ConfigError(f"{name}: Needs DATABASE_URL or POSTGRES_SERVER for serving.")
        loaded["MIGRATION_DATABASE_URI"] = parsed_url(name, loaded[name])
    workers = loaded["WORKERS"] or loaded["WEB_CONCURRENCY"]
    loaded["WORKERS"] = workers or min(os.cpu_count() or 1, 8)
    return loaded


def _env_file() -> dict[str, str | None]:
    try:
        return dotenv_values(ROOT / ".env", encoding="utf-8")
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(f"{ROOT / '.env'}: Can't be read: {why}.") from None


def _first(messages: Any) -> str:
    """Return the first sentence of marshmallow's nested messages."""
    while not isinstance(messages, str):
        messages = next(iter(messages.values() if isinstance(messages, dict) else messages))
    return messages
