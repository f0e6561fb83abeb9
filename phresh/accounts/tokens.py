"""Tokens, and the decorators that say who may use a view; they count what is written."""

import hashlib
import secrets
from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple, NoReturn

from flask import current_app, g, request
from flask_smorest import abort

from phresh.accounts import limits, queries
from phresh.accounts.models import USER_AGENT_MAX
from phresh.database.transactions import fetch, fetch_autocommit
from phresh.web.blueprint import READING, Blueprint
from phresh.web.openapi_operations import OWN_ACCOUNT, SECURITY

AUTHORIZATION_MAX = 1_000  # characters; our own are 50


class Account(NamedTuple):
    """The current user, by the token of the request."""

    user_id: int
    username: str
    is_confirmed: bool  # the email address
    is_recent: bool  # the login
    token_hash: bytes


def new_token(user_id: int) -> dict[str, Any]:
    """Create a token for a user, and return it as in RFC 6749 5.1; only its hash is stored."""
    token, seconds = secrets.token_urlsafe(32), current_app.config["TOKEN_LIFETIME"]
    shown = "".join(filter(str.isprintable, request.user_agent.string[:USER_AGENT_MAX]))
    values = {"seconds": seconds, "address": request.remote_addr, "user_agent": shown or None}
    fetch(queries.new_token(user_id=user_id, token_hash=digest(token), **values))
    return {"access_token": token, "token_type": "bearer", "expires_in": seconds}


def note_user(user_id: int) -> None:
    """Note for the log which account a request without a token is for."""
    g.user_id = user_id


def digest(text: str) -> bytes:
    """Return the SHA-256 of a text."""
    return hashlib.sha256(text.encode()).digest()


def login_required(view: Callable[..., Any]) -> Any:
    """Require a valid token: respond 401 without."""
    return _with_account(view, SECURITY, lambda: True)


def login_optional(view: Callable[..., Any]) -> Any:
    """Accept requests with and without a token: respond 401 to one that is not valid."""
    return _with_account(view, [*SECURITY, {}], lambda: False)


def login_to_post(view: Callable[..., Any]) -> Any:
    """Require a valid token unless guests may post (``GUEST_POSTING``)."""
    return _with_account(view, [*SECURITY, {}], lambda: not current_app.config["GUEST_POSTING"])


def operator_required(view: Callable[..., Any]) -> Any:
    """Require a valid token of an operator: respond 401 without, 403 to other accounts."""

    @wraps(view)
    def as_operator(*args: Any, **kwargs: Any) -> Any:
        found = fetch_autocommit(queries.operator(user_id=current_account().user_id))
        if not found:
            abort(403, message="Only operators may do this.")
        if current_app.config["OPERATORS_NEED_TWO_FACTOR"] and not found[0][0]:
            abort(403, message="Operators need a second factor: switch it on first.")
        return view(*args, **kwargs)

    return login_required(Blueprint.doc(responses={403: {}})(as_operator))


def login_not_required(view: Any) -> Any:
    """Mark a view that anyone may use, and that ignores tokens."""
    view.is_public = True
    view.before_writing = lambda: limits.count(limits.writes_by_address())
    return view


def _with_account(
    view: Callable[..., Any], security: list[Any], is_required: Callable[[], bool]
) -> Any:
    @wraps(view)
    def with_account(*args: Any, **kwargs: Any) -> Any:
        g.account = _account()
        if g.account is None:
            if is_required():
                message = "Authentication required: send `Authorization: Bearer <token>`."
                _reject(message, "Bearer")
            if request.environ["REQUEST_METHOD"] not in READING:
                limits.count(limits.guest_writes())
        elif not g.account.is_confirmed and current_app.config["REQUIRE_CONFIRMED_EMAIL"]:
            is_own = request.path.startswith(OWN_ACCOUNT)
            if not is_own and request.environ["REQUEST_METHOD"] not in READING:
                abort(403, message="Confirm your email address first, by the link in the mail.")
        return view(*args, **kwargs)

    return Blueprint.doc(security=security)(with_account)


def current_account() -> Account:
    """Return the current user, in a view under ``login_required``."""
    account: Account = g.account
    return account


def current_account_or_none() -> Account | None:
    """Return the current user, or None for a guest, in a view where a token is optional."""
    account: Account | None = g.account
    return account


def _account() -> Account | None:
    """Return the account of the token that was sent (RFC 6750 2.1), None without a token."""
    if "HTTP_AUTHORIZATION" not in request.environ:
        return None
    if len(request.environ["HTTP_AUTHORIZATION"]) > AUTHORIZATION_MAX:
        reject_token()
    sent = request.authorization
    if sent is None or sent.type != "bearer" or not sent.token:
        reject_token()
    token_hash = digest(sent.token)
    idle = current_app.config["SESSION_IDLE"]
    # Not in the view's transaction: the view may take its time before that begins.
    if request.environ["REQUEST_METHOD"] in READING:
        rows = fetch_autocommit(queries.user_of_token(token_hash=token_hash, idle=idle))
        found = rows[0] if rows else None
    else:
        found = limits.account_and_count(token_hash, idle)
    if found is None:
        reject_token()
    user_id, username, is_confirmed, is_recent, is_to_be_noted = found
    if is_to_be_noted:
        fetch_autocommit(queries.used_token(token_hash=token_hash))
    return Account(user_id, username, is_confirmed, is_recent, token_hash)


def require_recent_login() -> None:
    """Respond 403 unless the current user has logged in with this token a short time ago."""
    if not current_account().is_recent:
        abort(403, message="Log in again: this needs a login of the last 15 minutes.")


def reject_token() -> NoReturn:
    """Respond 401: the token is not valid."""
    message = "The access token is invalid or has expired. Log in again."
    _reject(message, 'Bearer error="invalid_token"')


def _reject(message: str, challenge: str) -> NoReturn:
    """Respond 401 with a challenge (RFC 6750 3)."""
    abort(401, message=message, headers={"WWW-Authenticate": challenge})
