"""The endpoints under ``/api/users/``."""

from typing import Any

from flask import current_app
from flask_smorest import abort
from psycopg2.errors import UniqueViolation

from phresh import limits
from phresh.api import LOCATION, Blueprint, envelope
from phresh.auth import (
    confirmed,
    current_account,
    login_required,
    new_token,
    passwords,
    refuse_token,
    still_confirmed,
)
from phresh.db import fetch
from phresh.profiles.queries import new_profile
from phresh.statements import Query
from phresh.users import queries, services
from phresh.users.models import UNIQUE_EMAIL, UNIQUE_USERNAME
from phresh.users.schemas import (
    IS_A_NAME,
    LoginSchema,
    RegisteredUserSchema,
    TokenSchema,
    UserCreateSchema,
    UserSchema,
    UserUpdateSchema,
    is_a_name,
)

blp = Blueprint("users", __name__, url_prefix="/api/users", description="Accounts and tokens")

ME = f"{blp.url_prefix}/me/"
NO_STORE = {"Cache-Control": "no-store"}  # RFC 6749 5.1
TAKEN = {
    UNIQUE_EMAIL: "There is an account with that email already.",
    UNIQUE_USERNAME: "There is an account with that username already.",
}


@blp.post("/")
@blp.arguments(envelope("new_user", UserCreateSchema))
@blp.response(201, RegisteredUserSchema, headers=LOCATION)
@blp.alt_response(409)
@blp.alt_response(429)
def create_user(user: dict[str, str]) -> tuple[str, dict[str, str]]:
    """Register

    The answer has a first token, so that there is no need to log in.
    """
    tries = limits.registrations()
    with passwords().turn():
        limits.refuse_exceeded(tries)
        limits.count(tries)
        user["password_hash"] = passwords().hash(user.pop("password"))
    [(text, user_id)] = _unless_taken(queries.new_user(**user))
    fetch(new_profile(user_id=user_id))
    registered = {**current_app.json.loads(text), "access_token": new_token(user_id)}
    return current_app.json.dumps(registered), {"Location": ME, **NO_STORE}


@blp.post("/login/token/")
@blp.arguments(LoginSchema, location="form")
@blp.response(200, TokenSchema)
@blp.alt_response(401)
@blp.alt_response(429)
def create_token(form: dict[str, str]) -> tuple[str, dict[str, str]]:
    """Log in

    By email, as the field `username`, and password: the password flow of OAuth 2.
    """
    email, password = form["username"], form["password"]
    found = confirmed(queries.credentials_by_email(email=email), password, email.lower())
    password_hash = None
    if found is not None and passwords().is_outdated(found.password_hash):
        with passwords().turn():
            password_hash = passwords().hash(password)
    if found is None or not still_confirmed(found):
        why = "No account has that email and that password."
        abort(401, message=why, headers={"WWW-Authenticate": "Bearer"})
    if password_hash is not None:
        fetch(queries.rehashed_password(user_id=found.user_id, password_hash=password_hash))
    return current_app.json.dumps(new_token(found.user_id)), NO_STORE


@blp.post("/logout/")
@login_required
@blp.response(204)
def delete_token() -> None:
    """Log out

    Ends the token at once.
    """
    fetch(queries.deleted_token(token_hash=current_account().token_hash))


@blp.get("/me/")
@login_required
@blp.response(200, UserSchema)
def get_me() -> str:
    """Get your account"""
    return _me(fetch(queries.user_by_id(user_id=current_account().user_id)))


@blp.patch("/me/")
@login_required
@blp.arguments(envelope("user_update", UserUpdateSchema))
@blp.response(200, UserSchema)
@blp.alt_response(403)
@blp.alt_response(409)
@blp.alt_response(429)
def update_me(changes: dict[str, str]) -> str:
    """Change your account

    Fields left out stay as they are. To change the email or the password, which one logs in with,
    takes the old password, and ends all other tokens.
    """
    account = current_account()
    is_of_login = "email" in changes or "password" in changes
    if "old_password" in changes:
        changes = _confirmed_changes(account.user_id, **changes)
    text = _me(_unless_taken(queries.changed_user(user_id=account.user_id, **changes)))
    if is_of_login:
        fetch(queries.deleted_tokens(user_id=account.user_id, but=account.token_hash))
    return text


@blp.delete("/me/")
@login_required
@blp.response(204)
def delete_me() -> None:
    """Delete your account

    Your cleanings go with it, completed ones aside, and so do your offers; one that was accepted
    opens its cleaning again. What was completed stays without your name, and so do evaluations.
    """
    services.delete_account(current_account().user_id)


def _confirmed_changes(
    user_id: int, *, old_password: str, password: str | None = None, **changes: str
) -> dict[str, str]:
    """Give the changes with a hash of the new password, or answer 403 if the old one is wrong."""
    found = confirmed(queries.credentials_by_id(user_id=user_id), old_password, str(user_id))
    if found is not None:
        names = (changes.get("username", found.username), changes.get("email", found.email))
        if is_a_name(password or old_password, *names):
            abort(422, messages={"json": {"user_update": {"password": [IS_A_NAME]}}})
        if password is not None:
            with passwords().turn():
                changes["password_hash"] = passwords().hash(password)
    if found is None or not still_confirmed(found):
        _me(fetch(queries.user_by_id(user_id=user_id)))
        abort(403, message="The old password is wrong.")
    return changes


def _unless_taken(query: Query) -> list[tuple[Any, ...]]:
    """Give the rows of a query, or answer 409 which name is taken."""
    try:
        return fetch(query)
    except UniqueViolation as error:
        abort(409, message=TAKEN[str(error.diag.constraint_name)])


def _me(rows: list[tuple[Any, ...]]) -> str:
    """Give what the only row renders, or answer 401: the account was deleted this moment."""
    if not rows:
        refuse_token()
    text: str = rows[0][0]
    return text
