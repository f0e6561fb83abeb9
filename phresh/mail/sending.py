"""Sending: over SMTP, into a folder, or into memory. Only jobs send; no request waits for it."""

import logging
import os
import smtplib
import ssl
from contextlib import suppress
from datetime import UTC, datetime
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from flask import Flask, current_app

from phresh.config import MailServer
from phresh.mail import messages

PERMANENT = 500  # and more: of responses that will be the same the next time (RFC 5321 4.2.1)
TIMEOUT = 10  # seconds for each step: connecting, and each response of the server

log = logging.getLogger("phresh.mail")


class NoMailError(Exception):
    """``MAIL_URL`` is not set."""


def init_app(app: Flask) -> None:
    """Add the list of what the app has sent, for ``MAIL_URL=memory:``."""
    app.extensions["mail"] = []


def is_configured() -> bool:
    """Return whether this server sends mail."""
    return current_app.config["MAIL_URL"] is not None


def send(name: str, language: str, to: str, **values: Any) -> None:
    """Send a mail.

    :param name: its folder under ``templates/``
    :param language: of the reader
    :param to: the email address
    :raises NoMailError: when this server sends none
    :raises OSError: when the mail server cannot be reached
    :raises smtplib.SMTPException: when it refuses the mail, unless it will never take the recipient
    """
    server: MailServer | None = current_app.config["MAIL_URL"]
    if server is None:
        raise NoMailError("MAIL_URL is not set.")
    sender = current_app.config["MAIL_FROM"]
    message = messages.make(name, language, to=to, sender=sender, **values)
    if server.kind == "memory":
        current_app.extensions["mail"].append(message)
    elif server.folder is not None:
        log.info("mail", extra={"fields": {"file": str(_write(server.folder, name, message))}})
    else:
        _deliver(server, message)


def _write(folder: Path, name: str, message: EmailMessage) -> Path:
    """Write a message into a folder that only this account can read; it may have a link that acts.

    A reader never sees half of it.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}-{name}.eml"
    partial = path.with_suffix(".part")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(message.as_bytes())
    partial.rename(path)
    return path


def _deliver(server: MailServer, message: EmailMessage) -> None:
    context = ssl.create_default_context()
    connection: smtplib.SMTP
    if server.kind == "smtps":
        connection = smtplib.SMTP_SSL(server.host, server.port, timeout=TIMEOUT, context=context)
    else:
        connection = smtplib.SMTP(server.host, server.port, timeout=TIMEOUT)
    try:
        if server.starttls:
            connection.starttls(context=context)
        if server.user is not None:
            connection.login(server.user, server.password or "")
        connection.send_message(message)
    except smtplib.SMTPRecipientsRefused as error:
        codes = [code for code, _ in error.recipients.values()]
        if min(codes) < PERMANENT:
            raise
        # Trying again would not help, and spoil the name of the sender.
        log.warning("The mail server refuses the recipient.", extra={"fields": {"codes": codes}})
    finally:
        # What goes wrong from here on is no reason to send the mail again.
        with suppress(OSError, smtplib.SMTPException):
            connection.quit()
        connection.close()
