"""The queries on users and their tokens."""

from typing import Any

from sqlalchemy import (
    ColumnElement,
    Executable,
    Select,
    delete,
    func,
    insert,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.orm import aliased

from phresh.statements import Value, json_object, query, row_json
from phresh.users.models import Token, User

RENDERED = row_json(
    *(getattr(User, name) for name in ("id", "email", "username", "created_at", "updated_at"))
)
CREDENTIALS = (User.id, User.email, User.username, User.password_hash, User.is_active)


def public_user(user_id: Any) -> ColumnElement[Any]:
    """What everyone may know of a user, as a JSON object in another row; null of nobody."""
    person = aliased(User)  # of their own, where users are read from already
    return select(json_object(person.username)).where(person.id == user_id).scalar_subquery()


def has_username(username: Value) -> ColumnElement[bool]:
    """Whether a user has that name, in any case."""
    return func.lower(User.username) == func.lower(username)


def _by_id(user_id: Value) -> Select[Any]:
    return select(RENDERED).where(User.id == user_id)


@query
def user_by_id(*, user_id: Value) -> Executable:
    """One user as they see themselves, or no row."""
    return _by_id(user_id)


@query
def id_of_user(*, username: Value) -> Executable:
    """The id of a user, or no row."""
    return select(User.id).where(has_username(username))


@query
def locked_user(*, user_id: Value) -> Executable:
    """One user who can't be deleted until this transaction ends, or no row."""
    return select(User.id).where(User.id == user_id).with_for_update(read=True, key_share=True)


@query
def locked_users(*, username: Value, user_id: Value) -> Executable:
    """Two users who can't be deleted until this transaction ends, and whether it is that name."""
    is_named = has_username(username)
    users = select(User.id, is_named).where(or_(is_named, User.id == user_id)).order_by(User.id)
    return users.with_for_update(read=True, key_share=True)


@query
def user_to_delete(*, user_id: Value) -> Executable:
    """One user to whom nobody else can refer until this transaction ends, or no row."""
    return select(User.id).where(User.id == user_id).with_for_update()


@query
def credentials_by_email(*, email: Value) -> Executable:
    """What decides who may log in with an email, or no row."""
    return select(*CREDENTIALS).where(func.lower(User.email) == func.lower(email))


@query
def credentials_by_id(*, user_id: Value) -> Executable:
    """The same of a user, or no row."""
    return select(*CREDENTIALS).where(User.id == user_id)


@query
def locked_credentials(*, user_id: Value, password_hash: Value) -> Executable:
    """A user who can't be changed until this transaction ends; no row if the password was."""
    unchanged = (User.id == user_id, User.password_hash == password_hash, User.is_active)
    return select(User.id).where(*unchanged).with_for_update(key_share=True)


@query
def new_user(**values: Value) -> Executable:
    """Insert a user; gives the id too."""
    return insert(User).values(values).returning(RENDERED, User.id)


@query
def changed_user(*, user_id: Value, **changes: Value) -> Executable:
    """Change a user, or no row; without changes they are only read."""
    if not changes:
        return _by_id(user_id)
    changed = update(User).where(User.id == user_id)
    return changed.values(updated_at=func.now(), **changes).returning(RENDERED)


@query
def rehashed_password(*, user_id: Value, password_hash: Value) -> Executable:
    """Store another hash of the same password."""
    return update(User).where(User.id == user_id).values(password_hash=password_hash)


@query
def disabled_user(*, username: Value, is_active: Value) -> Executable:
    """Disable an account, or enable it again; no row where there is none."""
    changed = update(User).where(has_username(username)).values(is_active=is_active)
    return changed.returning(User.id)


@query
def deleted_user(*, user_id: Value) -> Executable:
    """Delete a user."""
    return delete(User).where(User.id == user_id)


@query
def new_token(*, user_id: Value, token_hash: Value, seconds: Value) -> Executable:
    """Insert a token that expires after so many seconds."""
    expires_at = func.now() + seconds * text("interval '1 second'")
    values = {"user_id": user_id, "hash": token_hash, "expires_at": expires_at}
    return insert(Token).values(values)


@query
def user_of_token(*, token_hash: Value) -> Executable:
    """The user that a token stands for, or no row: unknown, ended, expired, account disabled."""
    user = select(User.id, User.username).join(Token, Token.user_id == User.id)
    return user.where(Token.hash == token_hash, Token.expires_at > func.now(), User.is_active)


@query
def deleted_token(*, token_hash: Value) -> Executable:
    """End a token."""
    return delete(Token).where(Token.hash == token_hash)


@query
def deleted_tokens(*, user_id: Value, **kept: Value) -> Executable:
    """End all tokens of a user, but the one with the hash ``but`` where that is given."""
    others = [Token.hash != token_hash for token_hash in kept.values()]
    return delete(Token).where(Token.user_id == user_id, *others)


@query
def deleted_expired_tokens() -> Executable:
    """Delete the tokens that are good for nothing any more."""
    return delete(Token).where(Token.expires_at <= func.now()).returning(Token.user_id)
