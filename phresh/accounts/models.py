"""The tables of users, of their tokens and of their second factors."""

import unicodedata
from datetime import datetime

from email_validator import EmailNotValidError, validate_email
from sqlalchemy import (
    DDL,
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Text,
    event,
    false,
    func,
    text,
    true,
)
from sqlalchemy.orm import Mapped, mapped_column

from phresh.database.base import Base
from phresh.web.fields import USERNAME

EMAIL_MAX = 254  # RFC 5321 4.5.3.1.3, less the brackets


def email_key(email: str) -> str:
    """Return what two spellings of one email address have in common.

    Accounts are found, counted and refused by it and by nothing else, so that no spelling is one
    email here and another there. It ignores case and compatibility forms (NFKC, case folding), and
    has the domain as IDNA makes it (UTS 46). PostgreSQL's ``lower()`` of an ASCII address is the
    same; the trigger below relies on that.

    :param email: not longer than an email can be; it need not be one
    """
    try:
        parts = validate_email(email, check_deliverability=False)
    except EmailNotValidError:  # no account has it, but attempts to log in with it count
        return _folded(email)
    # Not folded: IDNA has mapped it, and keeps apart what folding does not, like ss and sharp s.
    return f"{_folded(parts.local_part)}@{parts.domain}"


def _folded(text: str) -> str:
    """Return a text without differences of case and compatibility (Unicode 3.13.5, NFKC)."""
    for _ in range(2):  # folding makes what NFKC composes, and NFKC what is to be folded
        text = unicodedata.normalize("NFKC", text).casefold()
    return unicodedata.normalize("NFKC", text)


class User(Base):
    """An account. Its email, by its key, and its username, ignoring case, are unique."""

    __tablename__ = "users"
    __table_args__ = (
        CheckConstraint(f"char_length(email) <= {EMAIL_MAX}", name="email_length"),
        CheckConstraint("email ~ '^[^@]+@[^@]+$'", name="email"),
        CheckConstraint(f"char_length(email_key) <= {EMAIL_MAX}", name="key_length"),
        CheckConstraint(f"username ~ '^{USERNAME}$'", name="username"),
        CheckConstraint("language IN ('en', 'ko')", name="language"),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    email: Mapped[str] = mapped_column(Text)
    email_key: Mapped[str] = mapped_column(Text)  # see email_key
    username: Mapped[str] = mapped_column(Text)
    password_hash: Mapped[str] = mapped_column(Text)
    is_active: Mapped[bool] = mapped_column(server_default=true())
    is_superuser: Mapped[bool] = mapped_column(server_default=false())  # an operator
    language: Mapped[str] = mapped_column(Text, server_default="en")  # of mails
    # The key of the address that was confirmed: any other one is not.
    confirmed_key: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


UNIQUE_EMAIL, UNIQUE_USERNAME = "uq_users_email", "uq_users_username"
Index(UNIQUE_EMAIL, User.email_key, unique=True)
Index(UNIQUE_USERNAME, func.lower(User.username), unique=True)
Index("ix_users_lower_email", func.lower(User.email))  # for the code of the last release
# For the search of operators.
Index(
    "ix_users_username_trigrams",
    func.lower(User.username).label("name"),
    postgresql_using="gin",
    postgresql_ops={"name": "gin_trgm_ops"},
)
Index(
    "ix_users_email_key_trigrams",
    User.email_key,
    postgresql_using="gin",
    postgresql_ops={"email_key": "gin_trgm_ops"},
)

# The last release does not write the key. A new row gets the one that Python would make, except for
# the few letters that folding changes more than lower() does; a changed row, if it is ASCII. Of
# others it is not known whether Python has made the key, which may stay the same.
FILL = """
CREATE FUNCTION fill_email_key() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$ BEGIN
    IF octet_length(NEW.email) = char_length(NEW.email) THEN
        NEW.email_key := lower(NEW.email);
    ELSIF NEW.email_key IS NULL THEN
        NEW.email_key := lower(normalize(NEW.email, NFKC));
    END IF;
    RETURN NEW;
END $$
"""
ON_EMAIL = """
CREATE TRIGGER fill_email_key BEFORE INSERT OR UPDATE OF email ON users
FOR EACH ROW EXECUTE FUNCTION fill_email_key()
"""
for statement in (FILL, ON_EMAIL):
    event.listen(User.__table__, "after_create", DDL(statement))

RESERVED = text("interval '90 days'")


class ReleasedUsername(Base):
    """A username that an account has given up, by a new one or by being deleted.

    For 90 days nobody else can take it, so that what names its former owner, like the URL of an
    offer, never means another account. The trigger sees to it.
    """

    __tablename__ = "released_usernames"
    __table_args__ = (
        CheckConstraint("username = lower(username)", name="lower"),
        Index(None, "user_id"),
    )

    username: Mapped[str] = mapped_column(Text, primary_key=True)
    user_id: Mapped[int] = mapped_column(Integer)  # who may be gone
    released_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=func.now()
    )


# After the row is written, and so after waiting for another transaction that gives the name up; by
# the name of the index, since for clients the name is taken.
RESERVE = """
CREATE FUNCTION reserve_username() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF TG_OP <> 'DELETE' THEN
        DELETE FROM released_usernames WHERE username = lower(NEW.username)
        AND (user_id = NEW.id OR released_at <= now() - interval '90 days');
        IF EXISTS (SELECT FROM released_usernames WHERE username = lower(NEW.username)) THEN
            RAISE unique_violation USING
                MESSAGE = 'the username is reserved', CONSTRAINT = 'uq_users_username';
        END IF;
    END IF;
    IF TG_OP = 'DELETE' OR (TG_OP = 'UPDATE' AND lower(NEW.username) <> lower(OLD.username)) THEN
        INSERT INTO released_usernames (username, user_id) VALUES (lower(OLD.username), OLD.id)
        ON CONFLICT (username) DO UPDATE SET user_id = OLD.id, released_at = now();
    END IF;
    RETURN NULL;
END $$
"""
ON_USERNAME = """
CREATE TRIGGER reserve_username AFTER INSERT OR DELETE OR UPDATE OF username ON users
FOR EACH ROW EXECUTE FUNCTION reserve_username()
"""
# Its table is found whatever the search_path of the session is: pg_dump's is empty.
PIN = """
DO $$ BEGIN
    EXECUTE format('ALTER FUNCTION reserve_username SET search_path = pg_catalog, %%I, pg_temp',
        current_schema());
END $$
"""
for statement in (RESERVE, ON_USERNAME, PIN):
    event.listen(User.__table__, "after_create", DDL(statement))


FULL_NAME_MAX = 200
PHONE_NUMBER_MAX = 50
BIO_MAX = 10_000
IMAGE_MAX = 2_000


class Profile(Base):
    """What users publish about themselves. Each CHECK mirrors a rule of the schemas."""

    __tablename__ = "profiles"
    __table_args__ = (
        CheckConstraint(f"char_length(full_name) <= {FULL_NAME_MAX}", name="full_name_length"),
        CheckConstraint(
            f"char_length(phone_number) <= {PHONE_NUMBER_MAX}", name="phone_number_length"
        ),
        CheckConstraint(f"char_length(bio) <= {BIO_MAX}", name="bio_length"),
        CheckConstraint(f"char_length(image) <= {IMAGE_MAX}", name="image_length"),
        CheckConstraint("image ~* '^https?://'", name="image"),
    )

    user_id: Mapped[int] = mapped_column(
        ForeignKey(User.id, ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    full_name: Mapped[str | None] = mapped_column(Text)
    phone_number: Mapped[str | None] = mapped_column(Text)
    bio: Mapped[str | None] = mapped_column(Text)
    image: Mapped[str | None] = mapped_column(Text)
    hidden_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))  # by an operator


USER_AGENT_MAX = 200
SESSIONS_MAX = 100  # of an account


class Token(Base):
    """A token of a user, and so a session: valid until it expires, is unused for long or deleted.

    Only its hash is stored.
    """

    __tablename__ = "tokens"
    __table_args__ = (
        CheckConstraint("octet_length(hash) = 32", name="hash"),
        CheckConstraint(f"char_length(user_agent) <= {USER_AGENT_MAX}", name="user_agent"),
        Index(None, "user_id"),
        Index(None, "expires_at"),
    )

    hash: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    expires_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    # To the minute. It has no index, so that a new value needs no new entry in any.
    last_used_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=func.now()
    )
    # Of the login; null where the last release has made the token.
    address: Mapped[str | None] = mapped_column(Text)
    user_agent: Mapped[str | None] = mapped_column(Text)


class TwoFactor(Base):
    """The second factor of a user: codes of an authenticator app (TOTP, RFC 6238)."""

    __tablename__ = "two_factors"

    user_id: Mapped[int] = mapped_column(
        ForeignKey(User.id, ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    secret: Mapped[str] = mapped_column(Text)  # in base 32
    confirmed_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    # The time step of the code that was used last: a code counts once (RFC 6238 5.2).
    last_step: Mapped[int] = mapped_column(BigInteger, server_default="0")


RECOVERY_CODES = 10  # of an account


class RecoveryCode(Base):
    """A code that takes the place of the second factor once. Only its hash is stored."""

    __tablename__ = "recovery_codes"
    __table_args__ = (
        CheckConstraint("octet_length(hash) = 32", name="hash"),
        Index(None, "user_id"),
    )

    hash: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"))


CONFIRMATION, RECOVERY = PURPOSES = ("confirmation", "recovery")


class OneTimeToken(Base):
    """A token that was mailed to a user for one purpose, and is deleted when it is used.

    It counts only while the user has the address that it was sent to. Only its hash is stored.
    """

    __tablename__ = "one_time_tokens"
    __table_args__ = (
        CheckConstraint("octet_length(hash) = 32", name="hash"),
        CheckConstraint(f"purpose IN {PURPOSES}", name="purpose"),
        Index(None, "user_id"),
        Index(None, "expires_at"),
    )

    hash: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"))
    purpose: Mapped[str] = mapped_column(Text)
    email_key: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    expires_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


AUDIT_DAYS_MIN = 30  # for which a line cannot be deleted
REASON_MAX = 500


class AuditLine(Base):
    """A line of the audit log, which nothing changes.

    It stays when the accounts are gone that it is about.
    """

    __tablename__ = "audit_log"
    __table_args__ = (
        CheckConstraint("action ~ '^[a-z_]{1,50}$'", name="action"),
        CheckConstraint(f"char_length(reason) <= {REASON_MAX}", name="reason_length"),
        Index(None, "user_id", "id"),
        Index(None, "at"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    action: Mapped[str] = mapped_column(Text)
    # Who: null for whoever has no token, and for a command on the machine.
    actor_id: Mapped[int | None] = mapped_column(Integer)
    user_id: Mapped[int | None] = mapped_column(Integer)  # whose account
    target: Mapped[str | None] = mapped_column(Text)  # what else, like "cleaning 7"
    reason: Mapped[str | None] = mapped_column(Text)
    address: Mapped[str | None] = mapped_column(Text)  # null for a command
    request_id: Mapped[str | None] = mapped_column(Text)


PROTECT = f"""
CREATE FUNCTION protect_audit_log() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$ BEGIN
    IF TG_OP = 'DELETE' AND OLD.at < now() - interval '{AUDIT_DAYS_MIN} days' THEN
        RETURN OLD;
    END IF;
    RAISE insufficient_privilege USING MESSAGE = 'lines of the audit log cannot be changed';
END $$
"""
ON_CHANGE = """
CREATE TRIGGER protect_audit_log BEFORE DELETE OR UPDATE ON audit_log
FOR EACH ROW EXECUTE FUNCTION protect_audit_log()
"""
for statement in (PROTECT, ON_CHANGE):
    event.listen(AuditLine.__table__, "after_create", DDL(statement.replace("%", "%%")))
