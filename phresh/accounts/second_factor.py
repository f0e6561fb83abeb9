"""The second factor: codes of an authenticator app (TOTP, RFC 6238), and recovery codes."""

import hmac
import re
import secrets
import time
from typing import NamedTuple

import pyotp
from flask_smorest import abort

from phresh.accounts import audit, limits, queries
from phresh.accounts.models import RECOVERY_CODES
from phresh.accounts.tokens import digest
from phresh.database.statements import Query
from phresh.database.transactions import fetch, fetch_autocommit

STEP = 30  # seconds for which an app shows a code
ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
WRONG = "The code is wrong, or was used before."


class Proof(NamedTuple):
    """A code that was right when it was checked.

    :param query: uses it up; no row if another request has
    """

    query: Query
    is_recovery_code: bool


def prove(user_id: int, otp: str | None) -> Proof | None:
    """Return the proof that a login has the second factor; None for an account without one.

    Respond 400 without a code, or for a wrong one. It runs before the view's transaction, so that
    what is counted and logged of a wrong code stays and needs no second connection.
    """
    found = fetch_autocommit(queries.two_factor(user_id=user_id))
    if not found or not found[0][1]:
        return None
    if otp is None:
        message = "Send the code of your second factor, or a recovery code, in the field `otp`."
        abort(400, message=message, error="mfa_required")
    limits.count(limits.codes(user_id))
    code = re.sub("[ -]", "", otp).lower()
    secret = found[0][0]
    step = matching_step(secret, code)
    if step is not None:
        return Proof(queries.used_step(user_id=user_id, secret=secret, step=step), False)
    code_hash = hash_of(user_id, code)
    if not fetch_autocommit(queries.has_recovery_code(code_hash=code_hash)):
        audit.record_failure("code_failed", user_id=user_id)
        abort(400, message=WRONG, error="invalid_grant")
    return Proof(queries.used_recovery_code(code_hash=code_hash), True)


def matching_step(secret: str, code: str) -> int | None:
    """Return the time step whose code it is: the current one or a neighbour, as clocks differ."""
    totp, now = pyotp.TOTP(secret, interval=STEP), int(time.time()) // STEP
    for step in (now, now - 1, now + 1):
        if hmac.compare_digest(totp.generate_otp(step).encode(), code.encode()):
            return step
    return None


def renew_recovery_codes(user_id: int) -> list[str]:
    """Replace the recovery codes of an account, and return them; only their hashes are stored."""
    codes = ["".join(secrets.choice(ALPHABET) for _ in range(24)) for _ in range(RECOVERY_CODES)]
    fetch(queries.deleted_recovery_codes(user_id=user_id))
    hashes = [hash_of(user_id, code) for code in codes]
    fetch(queries.new_recovery_codes(user_id=user_id, hashes=hashes))
    return ["-".join(re.findall("....", code)) for code in codes]


def hash_of(user_id: int, code: str) -> bytes:
    """Return the hash of a recovery code, which has 120 random bits."""
    return digest(f"recovery code of user {user_id}: {code}")


def remove(user_id: int) -> bool:
    """Remove the second factor of an account, and return whether it had one."""
    fetch(queries.deleted_recovery_codes(user_id=user_id))
    return bool(fetch(queries.deleted_two_factor(user_id=user_id)))
