"""The queries on users and tokens."""

from typing import Any

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Executable,
    LargeBinary,
    Select,
    and_,
    cast,
    delete,
    exists,
    false,
    func,
    insert,
    literal_column,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import aliased

from phresh.accounts.models import (
    RESERVED,
    SESSIONS_MAX,
    AuditLine,
    OneTimeToken,
    Profile,
    RecoveryCode,
    ReleasedUsername,
    Token,
    TwoFactor,
    User,
)
from phresh.database.statements import Value, query, row_json

IS_CONFIRMED = func.coalesce(User.confirmed_key == User.email_key, false())
HAS_TWO_FACTOR = exists(
    select(TwoFactor.user_id).where(
        TwoFactor.user_id == User.id, TwoFactor.confirmed_at.is_not(None)
    )
)
# With null for each member where there is no profile: it is inserted when it is first changed.
PROFILE = (
    select(
        row_json(
            *(Profile.full_name, Profile.phone_number, Profile.bio, Profile.image),
            Profile.hidden_at.is_not(None).label("is_hidden"),
        )
    )
    .select_from(
        select(literal_column("1")).subquery().outerjoin(Profile, Profile.user_id == User.id)
    )
    .correlate(User)
    .scalar_subquery()
)
SHOWN = (
    *(User.id, User.email, IS_CONFIRMED.label("email_verified"), User.username, User.language),
    *(PROFILE.label("profile"), HAS_TWO_FACTOR.label("has_two_factor"), User.is_superuser),
    *(User.created_at, User.updated_at),
)
RENDERED = row_json(*SHOWN)
# A standby, where reading works, notes nothing.
CAN_WRITE = func.current_setting("transaction_read_only") == "off"
SECOND, MINUTE = text("interval '1 second'"), text("interval '1 minute'")
RECENT = text("interval '15 minutes'")  # how long a login is recent
CREDENTIALS = (
    *(User.id, User.email, User.email_key, User.username, User.password_hash, User.is_active),
)


def public_user(user_id: Any) -> ColumnElement[Any]:
    """Return the SQL for what everyone may see of a user, as JSON text; null for no user."""
    person = aliased(User)  # the statement around it may read from users too
    return select(row_json(person.username)).where(person.id == user_id).scalar_subquery()


def has_username(username: Value) -> ColumnElement[bool]:
    """Return the condition that a user has that username, ignoring case."""
    return func.lower(User.username) == func.lower(username)


def account_named(username: Value) -> ColumnElement[Any]:
    """Return the SQL for the id of the account that has a username, or has just given it up.

    For what was named before the account took another name; null for no account.
    """
    person, name = aliased(User), func.lower(username)
    has = select(person.id).where(func.lower(person.username) == name)
    had = select(ReleasedUsername.user_id).where(
        ReleasedUsername.username == name, ReleasedUsername.released_at > func.now() - RESERVED
    )
    return func.coalesce(has.scalar_subquery(), had.scalar_subquery())


def _by_id(user_id: Value) -> Select[Any]:
    return select(RENDERED).where(User.id == user_id)


@query
def user_by_id(*, user_id: Value) -> Executable:
    """Select a user as they see themselves."""
    return _by_id(user_id)


@query
def id_of_user(*, username: Value) -> Executable:
    """Select the id of a user."""
    return select(User.id).where(has_username(username))


@query
def is_named(*, username: Value, user_id: Value) -> Executable:
    """Select whether an account has a username, or has just given it up."""
    return select(func.coalesce(account_named(username) == user_id, false()))


@query
def locked_user(*, user_id: Value) -> Executable:
    """Lock a user against deletion until this transaction ends."""
    return select(User.id).where(User.id == user_id).with_for_update(read=True, key_share=True)


@query
def locked_users(*, username: Value, user_id: Value) -> Executable:
    """Lock two users against deletion; select their ids, and which one has or had the username."""
    named = User.id == account_named(username)
    users = select(User.id, named).where(or_(named, User.id == user_id)).order_by(User.id)
    return users.with_for_update(read=True, key_share=True)


@query
def credentials_by_email(*, email_key: Value) -> Executable:
    """Select the credentials of the account with an email."""
    return select(*CREDENTIALS).where(User.email_key == email_key)


@query
def credentials_by_id(*, user_id: Value) -> Executable:
    """Select the credentials of a user."""
    return select(*CREDENTIALS).where(User.id == user_id)


@query
def locked_credentials(*, user_id: Value, email_key: Value, password_hash: Value) -> Executable:
    """Lock a user against changes; no row if the email or the password has changed."""
    same = (User.email_key == email_key, User.password_hash == password_hash)
    unchanged = (User.id == user_id, *same, User.is_active)
    return select(User.id).where(*unchanged).with_for_update(key_share=True)


@query
def new_user(**values: Value) -> Executable:
    """Insert a user; select the id too."""
    return insert(User).values(values).returning(RENDERED, User.id)


@query
def changed_user(*, user_id: Value, **changes: Value) -> Executable:
    """Change a user; without changes, select them."""
    if not changes:
        return _by_id(user_id)
    changed = update(User).where(User.id == user_id)
    return changed.values(updated_at=func.now(), **changes).returning(RENDERED)


@query
def rehashed_password(*, user_id: Value, password_hash: Value) -> Executable:
    """Store a new hash of the same password."""
    return update(User).where(User.id == user_id).values(password_hash=password_hash)


@query
def disabled_user(*, username: Value, is_active: Value) -> Executable:
    """Disable an account, or enable it again."""
    changed = update(User).where(has_username(username)).values(is_active=is_active)
    return changed.returning(User.id)


@query
def new_token(
    *, user_id: Value, token_hash: Value, seconds: Value, address: Value, user_agent: Value
) -> Executable:
    """Insert a token that expires after that many seconds; delete the oldest of too many."""
    newest = select(Token.hash).where(Token.user_id == user_id)
    newest = newest.order_by(Token.created_at.desc(), Token.hash)
    others = newest.offset(literal_column(str(SESSIONS_MAX - 1)))
    deleted = delete(Token).where(Token.hash.in_(others))
    values = {"user_id": user_id, "hash": token_hash, "expires_at": func.now() + seconds * SECOND}
    new = insert(Token).values(address=address, user_agent=user_agent, **values)
    return new.add_cte(deleted.cte("deleted"))


@query
def user_of_token(*, token_hash: Value, idle: Value) -> Executable:
    """Select the user of a token; no row if it is not valid or the account is disabled.

    :param idle: the seconds after which an unused token is no longer valid
    """
    return valid_token(token_hash, idle)


def valid_token(token_hash: Value, idle: Value) -> Any:
    """Return the SQL for the user of a token, and what an ``Account`` has of it."""
    user = select(
        *(User.id, User.username, IS_CONFIRMED.label("is_confirmed")),
        (Token.created_at > func.now() - RECENT).label("is_recent"),
        and_(Token.last_used_at < func.now() - MINUTE, CAN_WRITE).label("is_to_be_noted"),
    )
    return user.join(Token, Token.user_id == User.id).where(
        Token.hash == token_hash, *is_valid(idle), User.is_active
    )


def is_valid(idle: Value) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions that a token has not expired, and was used within so many seconds."""
    unused_since = func.now() - idle * SECOND
    return Token.expires_at > func.now(), Token.last_used_at > unused_since


@query
def used_token(*, token_hash: Value) -> Executable:
    """Note when a token was used, to the minute; not while another transaction has locked it."""
    to_be_noted = (Token.hash == token_hash, Token.last_used_at < func.now() - MINUTE)
    unlocked = select(Token.hash).where(*to_be_noted).with_for_update(skip_locked=True)
    used = update(Token).where(Token.hash == unlocked.scalar_subquery())
    return used.values(last_used_at=func.date_trunc("minute", func.now()))


@query
def deleted_token(*, token_hash: Value) -> Executable:
    """Delete a token."""
    return delete(Token).where(Token.hash == token_hash)


@query
def deleted_tokens(*, user_id: Value, **kept: Value) -> Executable:
    """Delete all tokens of a user, except the one with the hash ``but``, if that is passed."""
    others = [Token.hash != token_hash for token_hash in kept.values()]
    return delete(Token).where(Token.user_id == user_id, *others)


@query
def deleted_released_usernames() -> Executable:
    """Delete the usernames that are no longer reserved."""
    free = ReleasedUsername.released_at <= func.now() - RESERVED
    return delete(ReleasedUsername).where(free).returning(ReleasedUsername.username)


@query
def deleted_expired_tokens() -> Executable:
    """Delete expired tokens."""
    return delete(Token).where(Token.expires_at <= func.now()).returning(Token.user_id)


@query
def account_to_mail(*, email_key: Value) -> Executable:
    """Select what a mail to an address needs to know of its account, unless that is disabled."""
    columns = (User.id, User.email, User.username, User.language, IS_CONFIRMED)
    return select(*columns).where(User.email_key == email_key, User.is_active)


@query
def user_to_mail(*, user_id: Value) -> Executable:
    """Select what a mail to a user needs to know of them."""
    columns = (User.email, User.username, User.language)
    return select(*columns).where(User.id == user_id, User.is_active)


@query
def key_of_user(*, user_id: Value) -> Executable:
    """Select the key of the email of a user."""
    return select(User.email_key).where(User.id == user_id)


@query
def operator(*, user_id: Value) -> Executable:
    """Select whether a user has a second factor; no row for who is no operator."""
    return select(HAS_TWO_FACTOR).where(User.id == user_id, User.is_superuser)


@query
def new_one_time_token(
    *, user_id: Value, token_hash: Value, purpose: Value, email_key: Value, seconds: Value
) -> Executable:
    """Insert a one-time token that expires after that many seconds."""
    expires_at = func.now() + seconds * SECOND
    values = {"user_id": user_id, "hash": token_hash, "purpose": purpose, "email_key": email_key}
    return insert(OneTimeToken).values(expires_at=expires_at, **values)


@query
def user_of_one_time_token(*, token_hash: Value, purpose: Value) -> Executable:
    """Select the user of a one-time token; no row if it is not valid any more."""
    return _user_of_one_time_token(token_hash, purpose)


@query
def locked_user_of_one_time_token(*, token_hash: Value, purpose: Value) -> Executable:
    """Do the same, and lock the user against changes until this transaction ends."""
    found = _user_of_one_time_token(token_hash, purpose)
    return found.with_for_update(key_share=True, of=User)


def _user_of_one_time_token(token_hash: Value, purpose: Value) -> Select[Any]:
    columns: Any = (User.id, User.username, User.email)
    found: Select[Any] = select(*columns).join(OneTimeToken, OneTimeToken.user_id == User.id)
    valid = (OneTimeToken.expires_at > func.now(), OneTimeToken.email_key == User.email_key)
    return found.where(
        OneTimeToken.hash == token_hash, OneTimeToken.purpose == purpose, *valid, User.is_active
    )


@query
def used_one_time_token(*, token_hash: Value) -> Executable:
    """Delete a one-time token; no row if it was used in the meantime."""
    used = delete(OneTimeToken).where(OneTimeToken.hash == token_hash)
    return used.returning(OneTimeToken.user_id)


@query
def deleted_one_time_tokens(*, user_id: Value, purpose: Value) -> Executable:
    """Delete all one-time tokens of a user for a purpose."""
    of_user = (OneTimeToken.user_id == user_id, OneTimeToken.purpose == purpose)
    return delete(OneTimeToken).where(*of_user)


@query
def confirmed_user(*, user_id: Value) -> Executable:
    """Note that the email address of a user was confirmed."""
    return update(User).where(User.id == user_id).values(confirmed_key=User.email_key)


@query
def recovered_user(*, user_id: Value, password_hash: Value) -> Executable:
    """Set a new password of a user, whose address the mail has confirmed."""
    changes = {"password_hash": password_hash, "confirmed_key": User.email_key}
    return update(User).where(User.id == user_id).values(updated_at=func.now(), **changes)


@query
def two_factor(*, user_id: Value) -> Executable:
    """Select the secret of a second factor, and whether it is confirmed."""
    confirmed = TwoFactor.confirmed_at.is_not(None)
    return select(TwoFactor.secret, confirmed).where(TwoFactor.user_id == user_id)


@query
def new_two_factor(*, user_id: Value, secret: Value) -> Executable:
    """Insert a second factor, instead of one that is not confirmed; else select no row."""
    new = upsert(TwoFactor).values(user_id=user_id, secret=secret)
    return new.on_conflict_do_update(
        index_elements=[TwoFactor.user_id],
        set_={"secret": secret, "last_step": 0},
        where=TwoFactor.confirmed_at.is_(None),
    ).returning(TwoFactor.user_id)


@query
def used_step(*, user_id: Value, secret: Value, step: Value) -> Executable:
    """Use up the codes of a time step, and confirm the second factor; no row if they are used."""
    unused = (TwoFactor.secret == secret, TwoFactor.last_step < step)
    used = update(TwoFactor).where(TwoFactor.user_id == user_id, *unused)
    confirmed_at = func.coalesce(TwoFactor.confirmed_at, func.now())
    return used.values(last_step=step, confirmed_at=confirmed_at).returning(TwoFactor.user_id)


@query
def deleted_two_factor(*, user_id: Value) -> Executable:
    """Delete a second factor."""
    mine = delete(TwoFactor).where(TwoFactor.user_id == user_id)
    return mine.returning(TwoFactor.user_id)


@query
def has_recovery_code(*, code_hash: Value) -> Executable:
    """Select the user of a recovery code."""
    return select(RecoveryCode.user_id).where(RecoveryCode.hash == code_hash)


@query
def used_recovery_code(*, code_hash: Value) -> Executable:
    """Delete a recovery code; no row if it was used in the meantime."""
    used = delete(RecoveryCode).where(RecoveryCode.hash == code_hash)
    return used.returning(RecoveryCode.user_id)


@query
def new_recovery_codes(*, user_id: Value, hashes: Value) -> Executable:
    """Insert recovery codes."""
    each = func.unnest(cast(hashes, ARRAY(LargeBinary)))
    return insert(RecoveryCode).from_select(["user_id", "hash"], select(user_id, each))


@query
def deleted_recovery_codes(*, user_id: Value) -> Executable:
    """Delete the recovery codes of a user."""
    return delete(RecoveryCode).where(RecoveryCode.user_id == user_id)


@query
def deleted_expired_one_time_tokens() -> Executable:
    """Delete expired one-time tokens."""
    expired = delete(OneTimeToken).where(OneTimeToken.expires_at <= func.now())
    return expired.returning(OneTimeToken.user_id)


@query
def new_audit_line(**values: Value) -> Executable:
    """Insert a line of the audit log."""
    return insert(AuditLine).values(values)


@query
def deleted_old_audit_lines(*, seconds: Value) -> Executable:
    """Delete the lines of the audit log that are older than that many seconds."""
    old = AuditLine.at < func.now() - seconds * SECOND
    return delete(AuditLine).where(old).returning(AuditLine.id)
