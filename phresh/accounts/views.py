"""The endpoints under ``/api/users/``."""

from datetime import UTC, datetime
from typing import Any, NoReturn

from flask import current_app, g, request
from flask_smorest import abort
from psycopg2.errors import UniqueViolation

from phresh.accounts import audit, limits, mails, queries
from phresh.accounts.models import (
    CONFIRMATION,
    RECOVERY,
    UNIQUE_EMAIL,
    UNIQUE_USERNAME,
    email_key,
)
from phresh.accounts.oauth import OAuthProblemSchema, with_oauth_errors
from phresh.accounts.passwords import passwords
from phresh.accounts.schemas import (
    GUESSABLE,
    IS_A_NAME,
    ConfirmationSchema,
    LoginSchema,
    RecoveryRequestSchema,
    RecoverySchema,
    RegisteredUserSchema,
    TokenSchema,
    UserCreateSchema,
    UserSchema,
    UserUpdateSchema,
    is_a_name,
)
from phresh.accounts.second_factor import WRONG, prove
from phresh.accounts.services import (
    Credentials,
    hashed_password,
    reject_password,
    require_password_or_recent_login,
    still_valid,
    verify_credentials,
    verify_current,
)
from phresh.accounts.tokens import (
    Account,
    current_account,
    digest,
    login_not_required,
    login_required,
    new_token,
    note_user,
    reject_token,
)
from phresh.database.statements import Query
from phresh.database.transactions import fetch, fetch_autocommit
from phresh.jobs.tasks import Task
from phresh.mail import sending
from phresh.web.arguments import envelope
from phresh.web.blueprint import Blueprint
from phresh.web.conditional import etag_of
from phresh.web.languages import client_language
from phresh.web.openapi import LOCATION
from phresh.web.problems import PROBLEM_JSON
from phresh.web.responses import CONTACT_DATA, SECRETS

blp = Blueprint("users", __name__, url_prefix="/api/users", description="Accounts and tokens")

ME = f"{blp.url_prefix}/me/"
WRONG_LOGIN = "Wrong email or password."
INVALID_LINK = "The link is no longer valid. Ask for another one."
NO_STORE = {"Cache-Control": "no-store"}  # RFC 6749 5.1
TAKEN = {
    UNIQUE_EMAIL: "An account with this email already exists.",
    UNIQUE_USERNAME: "An account with this username already exists.",
}


@blp.post("/")
@login_not_required
@blp.arguments(envelope("new_user", UserCreateSchema))
@blp.response(201, RegisteredUserSchema, headers=LOCATION, holds=SECRETS)
@blp.alt_response(409)
def create_user(user: dict[str, str]) -> tuple[str, dict[str, str]]:
    """Register

    The response has an access token, so that you need not log in. A mail with a link to confirm the
    address follows, if the server sends mail.
    """
    limits.count(limits.registrations())
    key = email_key(user["email"])
    account = digest(key).hex()
    user["password_hash"] = hashed_password(user.pop("password"), account)
    new = queries.new_user(**user, email_key=key, language=client_language())
    [(text, user_id)] = _unless_taken(new)
    note_user(user_id)
    audit.record("registered", user_id=user_id)
    mails.defer(mails.send_confirmation, email_key=key)
    limits.remember(account)
    registered = {**current_app.json.loads(text), "access_token": new_token(user_id)}
    headers = {"Location": ME, "ETag": etag_of(text), **NO_STORE}
    return current_app.json.dumps(registered), headers


@blp.post("/login/token/")
@login_not_required
@with_oauth_errors
@blp.arguments(LoginSchema, location="form")
@blp.response(200, TokenSchema, holds=SECRETS)
@blp.alt_response(400, schema=OAuthProblemSchema, content_type=PROBLEM_JSON)
def create_token(form: dict[str, str]) -> tuple[str, dict[str, str]]:
    """Log in

    Send the email in the field `username`, and the password: the password flow of OAuth 2. Errors
    have the members of OAuth 2 too: a wrong email or password is 400 with `invalid_grant`. If the
    account has a second factor, 400 with `mfa_required` asks for its code: send all again with
    `otp`.
    """
    key, password = email_key(form["username"]), form["password"]
    account = digest(key).hex()  # for a limit, known and unknown emails are alike
    limits.count(limits.logins(account))
    query = queries.credentials_by_email(email_key=key)
    found = verify_credentials(query, password, account, limits.failed_logins(account))
    if found is None:
        audit.record_failure("login_failed", user_id=g.get("user_id"))
        abort(400, message=WRONG_LOGIN, error="invalid_grant")
    proof = prove(found.user_id, form.get("otp"))
    password_hash = None
    if passwords().is_outdated(found.password_hash):
        password_hash = hashed_password(password, account)
    if not still_valid(found):
        abort(400, message=WRONG_LOGIN, error="invalid_grant")
    if proof is not None:
        if not fetch(proof.query):
            abort(400, message=WRONG, error="invalid_grant")
        if proof.is_recovery_code:
            audit.record("recovery_code_used", user_id=found.user_id)
    audit.record("logged_in", user_id=found.user_id)
    if limits.remember(account):
        at = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
        mails.tell_user(found.user_id, "new_login", address=request.remote_addr or "", at=at)
    if password_hash is not None:
        fetch(queries.rehashed_password(user_id=found.user_id, password_hash=password_hash))
    return current_app.json.dumps(new_token(found.user_id)), NO_STORE


@blp.post("/confirmation/")
@login_not_required
@blp.arguments(
    envelope("confirmation", ConfirmationSchema),
    example={"confirmation": {"email": "anna@phresh.example"}},
)
@blp.response(204)
@blp.alt_response(503)
def confirm_email(confirmation: dict[str, str]) -> None:
    """Confirm an email address

    With the `token` of the link in the mail. With an `email`, another mail is sent, if an account
    has the address and has not confirmed it: the response is the same for every address.
    """
    if "email" in confirmation:
        _send_to(confirmation["email"], mails.send_confirmation)
        return
    user_id = _use_token(confirmation["token"], CONFIRMATION, "confirmation")
    fetch(queries.confirmed_user(user_id=user_id))
    audit.record("email_confirmed", user_id=user_id)
    fetch(queries.deleted_one_time_tokens(user_id=user_id, purpose=CONFIRMATION))


@blp.post("/recovery/")
@login_not_required
@blp.arguments(envelope("recovery", RecoveryRequestSchema))
@blp.response(204)
@blp.alt_response(503)
def request_recovery(recovery: dict[str, str]) -> None:
    """Get a mail to set a new password

    If an account has the address: the response is the same for every address. The link in the mail
    works once, for an hour.
    """
    _send_to(recovery["email"], mails.send_recovery)


@blp.put("/recovery/")
@login_not_required
@blp.arguments(envelope("recovery", RecoverySchema))
@blp.response(204)
def recover_account(recovery: dict[str, str]) -> None:
    """Set a new password by the link in the mail

    Ends all your logins, and confirms the email address. A mail tells you.
    """
    token, password = recovery["token"], recovery["password"]
    values = {"token_hash": digest(token), "purpose": RECOVERY}
    found = fetch_autocommit(queries.user_of_one_time_token(**values))
    if not found:
        _reject_link("recovery")
    [(user_id, username, email)] = found
    note_user(user_id)
    if is_a_name(password, username, email):
        abort(422, messages={"json": {"recovery": {"password": [IS_A_NAME]}}})
    password_hash = hashed_password(password, f"user {user_id}")
    _use_token(token, RECOVERY, "recovery")
    fetch(queries.recovered_user(user_id=user_id, password_hash=password_hash))
    fetch(queries.deleted_tokens(user_id=user_id))
    fetch(queries.deleted_one_time_tokens(user_id=user_id, purpose=RECOVERY))
    audit.record("password_recovered", user_id=user_id)
    mails.tell_user(user_id, "password_changed")


def _send_to(email: str, mail: Task) -> None:
    """Leave a mail to the worker, which finds out whether an account has the address."""
    if not sending.is_configured():
        abort(503, message="This server sends no mail.")
    key = email_key(email)
    limits.count(limits.mails(digest(key).hex()))
    mail.defer(email_key=key)


def _use_token(token: str, purpose: str, member: str) -> int:
    """Use up a one-time token, and return the user, who is locked."""
    token_hash = digest(token)
    found = fetch(queries.locked_user_of_one_time_token(token_hash=token_hash, purpose=purpose))
    # The lock may have waited for another request with the same token.
    if not found or not fetch(queries.used_one_time_token(token_hash=token_hash)):
        _reject_link(member)
    user_id: int = found[0][0]
    return user_id


def _reject_link(member: str) -> NoReturn:
    abort(422, messages={"json": {member: {"token": [INVALID_LINK]}}})


@blp.post("/logout/")
@login_required
@blp.response(204)
def delete_token() -> None:
    """Log out

    The token becomes invalid at once.
    """
    account = current_account()
    fetch(queries.deleted_token(token_hash=account.token_hash))
    audit.record("logged_out", user_id=account.user_id)


@blp.get("/me/")
@login_required
@blp.response(200, UserSchema, holds=CONTACT_DATA)
def get_me() -> str:
    """Get your account

    With the email address, which nobody else sees without an agreement.
    """
    return _me(fetch(queries.user_by_id(user_id=current_account().user_id)))


@blp.patch("/me/")
@login_required
@blp.arguments(
    envelope("user_update", UserUpdateSchema), example={"user_update": {"username": "anna"}}
)
@blp.response(200, UserSchema, holds=CONTACT_DATA)
@blp.alt_response(403)
@blp.alt_response(409)
def update_me(changes: dict[str, str]) -> str:
    """Change your account

    Fields left out stay as they are. Changing the email or the password requires the old password,
    and makes all other tokens invalid. A mail tells you, and a new address has to be confirmed.
    Changing the username requires the old password or a login of the last 15 minutes.
    """
    account = current_account()
    changes_login = "email" in changes or "password" in changes
    told = set(changes)
    username = changes.get("username", account.username)
    renames = username.lower() != account.username.lower()
    if "email" in changes or renames:  # the response says whether it is taken
        limits.count(limits.registrations())
    if "old_password" in changes:
        changes = _confirmed_changes(account, **changes)
    elif renames:
        require_password_or_recent_login(None)
        if verify_current(username) is not None:
            abort(422, messages={"json": {"user_update": {"username": [GUESSABLE]}}})
    text = _me(_unless_taken(queries.changed_user(user_id=account.user_id, **changes)))
    if changes_login:
        fetch(queries.deleted_tokens(user_id=account.user_id, but=account.token_hash))
        fetch(queries.deleted_one_time_tokens(user_id=account.user_id, purpose=RECOVERY))
    for name in ("email", "password", "username"):
        if name in told:
            audit.record(f"{name}_changed", user_id=account.user_id)
    return text


def _confirmed_changes(
    account: Account, *, old_password: str, password: str | None = None, **changes: str
) -> dict[str, str]:
    """Return the changes with a hash of the new password; respond 403 if the old one is wrong."""
    found = verify_current(old_password)
    if found is None:
        if not fetch_autocommit(queries.user_by_id(user_id=account.user_id)):
            reject_token()  # it is being deleted
        reject_password()
    names = (changes.get("username", found.username), changes.get("email", found.email))
    if is_a_name(password or old_password, *names):
        abort(422, messages={"json": {"user_update": {"password": [IS_A_NAME]}}})
    if password is not None:
        changes["password_hash"] = hashed_password(password, f"user {account.user_id}")
    if "email" in changes:
        changes["email_key"] = email_key(changes["email"])
    if not still_valid(found):
        _me(fetch(queries.user_by_id(user_id=account.user_id)))
        abort(403, message="The email or the password has just been changed. Log in again.")
    _tell_of_changes(found, changes)
    return changes


def _tell_of_changes(found: Credentials, changes: dict[str, str]) -> None:
    """Leave the mails about changed credentials to the worker."""
    key = changes.get("email_key", found.email_key)
    if "password_hash" in changes:
        mails.tell_user(found.user_id, "password_changed")
    if key != found.email_key:
        mails.defer(mails.tell_of_email, former=found.email, email_key=key)
        mails.defer(mails.send_confirmation, email_key=key)


def _unless_taken(query: Query) -> list[tuple[Any, ...]]:
    """Return the rows of a query; respond 409 if the email or the username is taken."""
    try:
        return fetch(query)
    except UniqueViolation as error:
        abort(409, message=TAKEN[str(error.diag.constraint_name)])


def _me(rows: list[tuple[Any, ...]]) -> str:
    """Return the representation in the only row; respond 401 if the account is being deleted."""
    if not rows:
        reject_token()
    text: str = rows[0][0]
    return text
