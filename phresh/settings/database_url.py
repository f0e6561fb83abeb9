"""The URL of the database: made from the settings, and checked as far as libpq can without it."""

import re
from collections.abc import Mapping
from typing import Any

import click
import psycopg2
from psycopg2.extensions import parse_dsn
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from phresh.settings.values import is_address


class ConfigError(click.ClickException):
    """A setting that cannot be used; the flask command shows it as one line."""


NAMES = ("DATABASE_URL", "POSTGRES_SERVER")  # where it comes from, the one that wins first
SECRET_PARAMETERS = (
    *("password", "sslpassword", "scram_client_key", "scram_server_key", "oauth_client_secret"),
)


def without_secrets(url: URL) -> str:
    """Return a database URL without its passwords."""
    return url.difference_update_query(SECRET_PARAMETERS).render_as_string()


def shown_url(settings: Mapping[str, Any], url: URL) -> str:
    """Return a database URL as messages show it: after the setting it comes from, and no secrets.

    :param url: of the database; without a setting, of the embedded PostgreSQL
    """
    name = next((name for name in NAMES if settings[name]), None)
    return f"{name}: {without_secrets(url)}" if name else without_secrets(url)


def configured_url(settings: Mapping[str, Any]) -> URL | None:
    """Return the URL of the configured database, None if there is none.

    A scheme without a driver means psycopg2.

    :raises ConfigError: for a URL that cannot work
    """
    if settings["DATABASE_URL"]:
        return parsed_url("DATABASE_URL", settings["DATABASE_URL"])
    if not settings["POSTGRES_SERVER"]:
        return None
    url = URL.create(
        "postgresql+psycopg2",
        settings["POSTGRES_USER"],
        settings["POSTGRES_PASSWORD"],
        settings["POSTGRES_SERVER"],
        settings["POSTGRES_PORT"],
        settings["POSTGRES_DB"],
    )
    _check_parameters("POSTGRES_SERVER", url)
    return url


def parsed_url(name: str, text: str) -> URL:
    """Return a database URL that a setting has as its text.

    :raises ConfigError: for one that cannot work; never with its text, which may have a password
    """
    text = re.sub(r"^postgres(ql)?://", "postgresql+psycopg2://", text.strip())
    try:
        url = make_url(_hosts_as_parameters(text))
        is_ours = url.drivername == "postgresql+psycopg2"
        if is_ours:
            url.get_dialect()().create_connect_args(url)  # refuses bad hosts and ports
    except (ArgumentError, ValueError):
        is_ours = False
    if not is_ours:
        raise ConfigError(
            f"{name}: Not a PostgreSQL URL like postgresql://user:password@host:5432/name."
        )
    _check_parameters(name, url)
    return url


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


# What libpq checks only once it connects over TCP: whole numbers.
INTEGER_PARAMETERS = (
    *("connect_timeout", "tcp_user_timeout", "keepalives"),
    *("keepalives_idle", "keepalives_interval", "keepalives_count"),
)
# What libpq accepts and Phresh cannot work with: it writes, in UTF-8.
NEEDED_VALUES = {
    "client_encoding": ("utf8", "utf-8"),
    "target_session_attrs": ("any", "read-write", "primary"),
    "replication": ("false", "off", "no", "0"),
}
NOWHERE = "/nowhere"  # no socket is there


def _check_parameters(name: str, url: URL) -> None:
    """Check a database URL by libpq's own rules, without a network.

    libpq checks most of them before it connects: here to a socket that does not exist.

    :param name: the setting
    :raises ConfigError: for an unknown parameter, or a value that cannot work
    """
    _, parameters = url.get_dialect()().create_connect_args(url)
    for parameter, value in parameters.items():
        why = _fault(parameter, value)
        if why is not None:
            raise ConfigError(f"{name}: {why}")
    hosts = str(parameters.get("host", "")).count(",") + 1
    if str(parameters.get("hostaddr", "," * (hosts - 1))).count(",") + 1 != hosts:
        raise ConfigError(f"{name}: The parameter hostaddr needs an address for each host.")
    if parameters.get("gssencmode", "require") == "require":
        parameters["gssencmode"] = "disable"  # a socket has no other
    # Empty, since libpq would take PGHOSTADDR of the environment.
    parameters.update(host=",".join([NOWHERE] * hosts), hostaddr="")
    try:
        psycopg2.connect(**parameters).close()
    except psycopg2.Error as error:
        why = " ".join(str(error).split())
        if NOWHERE in why:
            return
        # Without values: one of them may be the rest of a password that has a "?".
        why = re.sub(r':? "[^"]*"', "", why)
        raise ConfigError(f"{name}: libpq does not accept its parameters: {why}.") from None


def _fault(parameter: str, value: Any) -> str | None:
    """Return what is wrong with a parameter that libpq does not know, or checks late."""
    try:
        parse_dsn(f"{parameter}=''")
    except psycopg2.ProgrammingError:
        shown = parameter if re.fullmatch("[A-Za-z_]{1,40}", parameter) else "of this name"
        return f"There is no parameter {shown}."
    if isinstance(value, tuple):
        return f"The parameter {parameter} must not be repeated."
    value = str(value)
    allowed = NEEDED_VALUES.get(parameter)
    if allowed is not None and value.lower() not in allowed:
        return f"The parameter {parameter} must be {' or '.join(allowed)}."
    if parameter in INTEGER_PARAMETERS and not re.fullmatch(r"\s*[+-]?[0-9]{1,9}\s*", value):
        return f"The parameter {parameter} must be a whole number."
    entries = value.split(",")
    if parameter == "hostaddr" and not all(map(is_address, entries)):
        return "The parameter hostaddr must be IP addresses."
    if parameter == "host" and not all(map(_is_host, entries)):
        return "The host must be a name, an address, or the folder of a socket."
    return None


def _is_host(text: str) -> bool:
    return text.startswith("/") or is_address(text) or not re.search(r"[\s/?@:]", text)
