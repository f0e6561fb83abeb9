"""The endpoint ``/api/users/me/two-factor/``."""

from typing import NoReturn

import pyotp
from flask_smorest import abort

from phresh.accounts import audit, limits, mails, queries, second_factor
from phresh.accounts.services import require_password_or_recent_login
from phresh.accounts.tokens import current_account, login_required, require_recent_login
from phresh.database.transactions import fetch, fetch_autocommit
from phresh.two_factor.schemas import (
    NewRecoveryCodesSchema,
    PasswordSchema,
    TwoFactorSchema,
    TwoFactorSecretSchema,
)
from phresh.web.arguments import envelope
from phresh.web.blueprint import Blueprint
from phresh.web.responses import SECRETS

blp = Blueprint("two-factor", __name__, url_prefix="/api/users/me/two-factor")


@blp.post("/", tags=["users"])
@login_required
@blp.arguments(envelope("two_factor", PasswordSchema, required=False), example={})
@blp.response(200, TwoFactorSecretSchema, holds=SECRETS)
@blp.alt_response(403)
@blp.alt_response(409)
def begin_two_factor(confirmation: dict[str, str]) -> dict[str, str]:
    """Begin to use a second factor

    The response has a secret for an authenticator app (TOTP, RFC 6238). `PUT` with a code of the
    app switches it on. It needs the password or a login of the last 15 minutes.
    """
    require_password_or_recent_login(confirmation.get("old_password"))
    account, secret = current_account(), pyotp.random_base32()
    if not fetch(queries.new_two_factor(user_id=account.user_id, secret=secret)):
        abort(409, message="There is a second factor. To use another app, delete it first.")
    uri = pyotp.TOTP(secret, interval=second_factor.STEP).provisioning_uri(
        name=account.username, issuer_name="Phresh"
    )
    return {"secret": secret, "uri": uri}


@blp.put("/", tags=["users"])
@login_required
@blp.arguments(envelope("two_factor", TwoFactorSchema))
@blp.response(200, NewRecoveryCodesSchema, holds=SECRETS)
@blp.alt_response(403)
@blp.alt_response(409)
def confirm_two_factor(confirmation: dict[str, str]) -> dict[str, list[str]]:
    """Switch the second factor on

    With a code of the app. From then on a login needs a code, and all your other logins end. The
    response has recovery codes, which take the place of a code once each. Again, with the next
    code, it returns new recovery codes. It needs a login of the last 15 minutes.
    """
    require_recent_login()
    user_id = current_account().user_id
    found = fetch_autocommit(queries.two_factor(user_id=user_id))
    if not found:
        abort(409, message="Begin with POST, which returns the secret.")
    limits.count(limits.codes(user_id))
    [(secret, was_on)] = found
    step = second_factor.matching_step(secret, confirmation["code"])
    if step is None:
        audit.record_failure("code_failed", user_id=user_id)
        _reject_code()
    if not fetch(queries.used_step(user_id=user_id, secret=secret, step=step)):
        _reject_code()
    if not was_on:
        fetch(queries.deleted_tokens(user_id=user_id, but=current_account().token_hash))
        audit.record("two_factor_enabled", user_id=user_id)
        mails.tell_user(user_id, "two_factor_enabled")
    return {"recovery_codes": second_factor.renew_recovery_codes(user_id)}


def _reject_code() -> NoReturn:
    abort(422, messages={"json": {"two_factor": {"code": [second_factor.WRONG]}}})


@blp.delete("/", tags=["users"])
@login_required
@blp.response(204)
@blp.alt_response(403)
@blp.alt_response(404)
def delete_two_factor() -> None:
    """Switch the second factor off

    It needs a login of the last 15 minutes.
    """
    require_recent_login()
    user_id = current_account().user_id
    if not second_factor.remove(user_id):
        abort(404, message="There is no second factor.")
    audit.record("two_factor_disabled", user_id=user_id)
    mails.tell_user(user_id, "two_factor_disabled")
