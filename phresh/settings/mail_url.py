"""The setting that says how mail is sent."""

from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from marshmallow import ValidationError, fields

PORTS = {"smtp": 25, "smtps": 465}
NOT_A_URL = (
    "Not a URL like smtp://user:password@host:587?starttls=true, smtps://host, file:/a/folder or "
    "memory:"
)


class MailServer(NamedTuple):
    """How mail is sent.

    :param kind: ``smtp``, ``smtps`` (with TLS from the start), ``file`` or ``memory``
    :param folder: of ``file``
    """

    kind: str
    host: str = ""
    port: int = 0
    user: str | None = None
    password: str | None = None
    starttls: bool = False
    folder: Path | None = None


class MailURL(fields.String):
    """The URL of a mail server, or of a folder that gets the mail as files."""

    def _deserialize(self, *args: Any, **options: Any) -> MailServer:  # type: ignore[override]
        return parsed(super()._deserialize(*args, **options))


def parsed(text: str) -> MailServer:
    """Return what a URL says.

    :raises ValidationError: when it cannot be used; the message has no part of it, since it may
        have a password
    """
    try:
        url = urlsplit(text)
        host, port = url.hostname or "", url.port
        options = dict(parse_qsl(url.query, strict_parsing=bool(url.query)))
    except ValueError:
        raise ValidationError(f"{NOT_A_URL}.") from None
    if url.scheme == "memory" and text.strip() == "memory:":
        return MailServer("memory")
    if url.scheme == "file" and not url.netloc and url.path.startswith("/") and not url.query:
        return MailServer("file", folder=Path(unquote(url.path)))
    if url.scheme not in PORTS or not host or url.path not in ("", "/") or url.fragment:
        raise ValidationError(f"{NOT_A_URL}.")
    starttls = options.pop("starttls", "false")
    if options or starttls not in ("true", "false"):
        raise ValidationError("The only option is starttls=true or starttls=false.")
    if starttls == "true" and url.scheme == "smtps":
        raise ValidationError("smtps:// has TLS from the start: leave out starttls.")
    user = unquote(url.username) if url.username else None
    password = unquote(url.password) if url.password else None
    if (user is None) != (password is None):
        raise ValidationError("Needs both a user and a password, or neither.")
    is_encrypted = url.scheme == "smtps" or starttls == "true"
    if user is not None and not is_encrypted and host not in ("localhost", "127.0.0.1", "::1"):
        raise ValidationError(
            "Would send the password in clear text: use smtps:// or add ?starttls=true."
        )
    return MailServer(
        *(url.scheme, host, port or PORTS[url.scheme], user, password), starttls == "true"
    )
