"""The kinds of settings that marshmallow has no field for: lists, hosts and origins."""

import re
from ipaddress import ip_address
from typing import Any

from marshmallow import ValidationError, fields, validate


class CommaSeparated(fields.List):
    """A list with a comma between two entries; spaces around them and empty ones do not count."""

    def __init__(self, entry: fields.Field, **options: Any) -> None:
        at_least_one = validate.Length(1, error="Must have an entry, or be left out.")
        super().__init__(entry, validate=at_least_one, **options)

    def _deserialize(self, value: Any, *args: Any, **options: Any) -> list[Any]:
        if isinstance(value, str):
            value = [entry for entry in map(str.strip, value.split(",")) if entry]
        return super()._deserialize(value, *args, **options)


LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)", re.ASCII)
ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://(\*\.)?(\[[^][]*\]|[^][/?#@:*\s]+)(?::([0-9]+))?")
DEFAULT_PORTS = {"http": 80, "https": 443}


def _host_name(text: str) -> str:
    """Return a host name or an IPv4 address as clients send it: in ASCII and lower case.

    :raises ValidationError: for what is neither
    """
    try:
        name = text.encode("idna").decode().lower()
    except UnicodeError:
        name = ""
    labels = name.split(".")
    if not all(map(LABEL.fullmatch, labels)) or (labels[-1].isdecimal() and not is_address(name)):
        raise ValidationError(f"Not a host name: {text[:100]!a}.")
    return name


def is_address(text: str) -> bool:
    """Return whether a text is an IP address, of version 4 or 6."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


class Host(fields.String):
    """The IP address or the host name to listen on."""

    def _deserialize(self, *args: Any, **options: Any) -> str:
        text: str = super()._deserialize(*args, **options)
        return text if is_address(text) else _host_name(text)


class TrustedHost(fields.String):
    """A name that requests may have as their ``Host``, or with a dot before it, its subdomains."""

    def _deserialize(self, *args: Any, **options: Any) -> str:
        text: str = super()._deserialize(*args, **options)
        dot = "." if text.startswith(".") else ""
        return dot + _host_name(text.removeprefix("."))


class Origin(fields.String):
    """An origin as browsers send it (RFC 6454 6.2), or ``*``, or with ``*.`` for one more label."""

    def _deserialize(self, *args: Any, **options: Any) -> str:
        text: str = super()._deserialize(*args, **options)
        if text in ("*", "null"):
            return text
        match = ORIGIN.fullmatch(text.lower())
        if match is None:
            raise ValidationError(
                f"Not an origin like https://phresh.example, with no path and no slash at its end, "
                f"nor https://*.phresh.example: {text[:100]!a}."
            )
        return _origin(text, match)


def _origin(text: str, match: re.Match[str]) -> str:
    """Return the origin in a text that ``ORIGIN`` matches, in its normal form.

    :raises ValidationError: when its host or port is none
    """
    scheme, wildcard, host, digits = match.groups()
    if host.startswith("["):
        if not is_address(host[1:-1]):
            raise ValidationError(f"Not an IPv6 address: {text[:100]!a}.")
        host = f"[{ip_address(host[1:-1])}]"
    else:
        host = _host_name(host)
    if wildcard and (is_address(host) or "." not in host):
        raise ValidationError(
            f"The wildcard must stand before a domain of two labels or more: {text[:100]!a}."
        )
    port = int(digits or 0)
    if digits and not 0 < port < 65536:
        raise ValidationError(f"Not a port: {text[:100]!a}.")
    shown = f":{port}" if port and port != DEFAULT_PORTS.get(scheme) else ""
    return f"{scheme}://{wildcard or ''}{host}{shown}"


# The path of a URL that needs no quoting, and has no segment that a client would resolve.
MOUNT = re.compile(r"(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._~-]+)*/?")


class PublicURL(fields.String):
    """The URL under which clients reach the API; it loads without a slash at its end."""

    def _deserialize(self, *args: Any, **options: Any) -> str:
        text: str = super()._deserialize(*args, **options)
        start = text.find("/", text.find("://") + 3)
        origin, path = (text, "") if start < 0 else (text[:start], text[start:])
        match = ORIGIN.fullmatch(origin.lower())
        if (
            match is None
            or match[1] not in DEFAULT_PORTS
            or match[2] is not None
            or not MOUNT.fullmatch(path)
        ):
            raise ValidationError(
                "Not a URL like https://phresh.example or https://example.com/phresh, with no "
                f"query, and letters, digits, -, ., _ and ~ in its path: {text[:100]!a}."
            )
        return _origin(text, match) + path.rstrip("/")
