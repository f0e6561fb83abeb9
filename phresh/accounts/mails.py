"""The mails about an account. Jobs send them, and make the tokens in their links."""

import secrets
from typing import Any

from flask import current_app

from phresh.accounts import queries
from phresh.accounts.models import CONFIRMATION, RECOVERY
from phresh.accounts.tokens import digest
from phresh.database.transactions import fetch
from phresh.jobs.tasks import Task, task
from phresh.mail import sending

CONFIRMATION_DAYS = 7
RECOVERY_MINUTES = 60


def defer(mail: Task, **values: Any) -> None:
    """Leave a mail to the worker, if this server sends mail."""
    if sending.is_configured():
        mail.defer(**values)


@task
def send_confirmation(email_key: str) -> None:
    """Send the link that confirms an address, unless it is confirmed or no account has it."""
    for user_id, email, username, language, is_confirmed in _account(email_key):
        if not is_confirmed:
            days = CONFIRMATION_DAYS
            url = link(CONFIRMATION, user_id, email_key, seconds=days * 24 * 3600)
            values = {"username": username, "email": email, "link": url, "days": days}
            sending.send("confirmation", language, email, **values)


@task
def send_recovery(email_key: str) -> None:
    """Send the link by which a new password is set, unless no account has the address."""
    for user_id, email, username, language, _ in _account(email_key):
        url = link(RECOVERY, user_id, email_key, seconds=RECOVERY_MINUTES * 60)
        values = {"username": username, "link": url, "minutes": RECOVERY_MINUTES}
        sending.send("recovery", language, email, **values)


def tell_user(user_id: int, news: str, **values: str) -> None:
    """Leave a mail about security to the worker.

    :param news: its folder under ``phresh/mail/templates/``
    :param values: what it says beside the username, and the link to set a new password
    """
    defer(send_notice, user_id=user_id, news=news, **values)


@task
def send_notice(user_id: int, news: str, **values: str) -> None:
    """Send a user a mail that asks for nothing."""
    for email, username, language in fetch(queries.user_to_mail(user_id=user_id)):
        values |= {"username": username, "link": page_url(RECOVERY)}
        sending.send(news, language, email, **values)


@task
def tell_of_email(former: str, email_key: str) -> None:
    """Send the news of another address to the former one.

    :param former: the address
    """
    for _, email, username, language, _ in _account(email_key):
        sending.send("email_changed", language, former, username=username, email=email)


def _account(email_key: str) -> list[tuple[Any, ...]]:
    return fetch(queries.account_to_mail(email_key=email_key))


def link(purpose: str, user_id: int, email_key: str, *, seconds: int) -> str:
    """Return a link with a new token, after a ``#``: a browser sends it to no server."""
    token = secrets.token_urlsafe(32)
    values = {"user_id": user_id, "token_hash": digest(token), "purpose": purpose}
    fetch(queries.new_one_time_token(**values, email_key=email_key, seconds=seconds))
    return f"{page_url(purpose)}#token={token}"


def page_url(purpose: str) -> str:
    """Return the URL of the page for a purpose: that of ``ACCOUNT_URL``, or our own."""
    config = current_app.config
    base = config["ACCOUNT_URL"] or f"{config['PUBLIC_URL']}/account"
    return f"{base}/{purpose}/"
