"""How the credentials of an account are checked."""

from typing import NamedTuple

from phresh.accounts import limits, queries
from phresh.accounts.passwords import passwords
from phresh.accounts.tokens import digest
from phresh.database.statements import Query
from phresh.database.transactions import fetch, fetch_autocommit


class Credentials(NamedTuple):
    """What decides who may log in."""

    user_id: int
    email: str
    username: str
    password_hash: str
    is_active: bool


def verify_credentials(query: Query, password: str, name: str) -> Credentials | None:
    """Return the credentials that a query finds, if the password is right and they are active.

    It takes as long when the query finds none. Respond 429 after too many wrong passwords. What
    is done next must begin with :func:`still_valid`.

    :param name: for counting wrong passwords when the query finds no credentials
    """
    with passwords().turn():
        found = [Credentials(*row) for row in fetch_autocommit(query)]
        user = f"user {found[0].user_id}" if found else digest(name).hex()
        failures = limits.failed_logins(user)
        limits.reject_if_exceeded(failures)
        password_hash = found[0].password_hash if found else None
        is_right = passwords().verify(password, password_hash)
        if is_right and found[0].is_active:
            return found[0]
        limits.record(failures)
        return None


def still_valid(found: Credentials) -> bool:
    """Return whether credentials are still those of the account, and lock them.

    Nobody can change them until the transaction ends.
    """
    held = {"user_id": found.user_id, "password_hash": found.password_hash}
    return bool(fetch(queries.locked_credentials(**held)))
