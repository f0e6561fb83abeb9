"""How the credentials of an account are checked."""

from typing import NamedTuple, NoReturn

from flask_smorest import abort

from phresh.accounts import audit, limits, queries
from phresh.accounts.limits import Limit
from phresh.accounts.passwords import passwords
from phresh.accounts.tokens import current_account, note_user
from phresh.database.statements import Query
from phresh.database.transactions import fetch, fetch_autocommit
from phresh.web.addresses import client_network


class Credentials(NamedTuple):
    """What decides who may log in."""

    user_id: int
    email: str
    email_key: str
    username: str
    password_hash: str
    is_active: bool


def verify_credentials(
    query: Query, password: str, account: str, failures: list[Limit]
) -> Credentials | None:
    """Return the credentials that a query finds, if the password is right and they are active.

    It takes as long when the query finds none. What is done next must begin with
    :func:`still_valid`.

    :param account: the one that has one turn at a time
    :param failures: the limits on wrong passwords: respond 429 when one is reached
    """
    with passwords().turn(client_network(), account):
        limits.reject_if_exceeded(failures)
        rows = fetch_autocommit(query)
        found = Credentials(*rows[0]) if rows else None
        if found is not None:
            note_user(found.user_id)
        is_right = passwords().verify(password, found and found.password_hash)
        if found is not None and is_right and found.is_active:
            return found
        limits.record(failures)
        return None


def verify_current(password: str) -> Credentials | None:
    """Return the credentials of the current user if a password is theirs."""
    account = current_account()
    query = queries.credentials_by_id(user_id=account.user_id)
    failures = limits.failed_changes(account.token_hash.hex())
    return verify_credentials(query, password, f"user {account.user_id}", failures)


def require_password_or_recent_login(old_password: str | None) -> None:
    """Respond 403 unless the current user has logged in a short time ago, or knows the password.

    :param old_password: None where none was sent
    """
    if old_password is not None:
        if verify_current(old_password) is None:
            reject_password()
    elif not current_account().is_recent:
        abort(
            403,
            message="Send `old_password`, or log in again: this needs the password or a login of "
            "the last 15 minutes.",
        )


def reject_password() -> NoReturn:
    """Respond 403: the old password is wrong."""
    audit.record_failure("password_failed", user_id=current_account().user_id)
    abort(403, message="The old password is wrong.")


def hashed_password(password: str, account: str) -> str:
    """Return the hash of a password, made in the turn of an account."""
    with passwords().turn(client_network(), account):
        return passwords().hash(password)


def still_valid(found: Credentials) -> bool:
    """Return whether credentials are still those of the account, and lock them.

    Nobody can change them until the transaction ends.
    """
    held = {name: getattr(found, name) for name in ("user_id", "email_key", "password_hash")}
    return bool(fetch(queries.locked_credentials(**held)))
