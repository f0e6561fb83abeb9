"""The tables of users and tokens."""

from datetime import datetime

from sqlalchemy import (
    CheckConstraint,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    LargeBinary,
    Text,
    func,
    true,
)
from sqlalchemy.orm import Mapped, mapped_column

from phresh.database.base import Base
from phresh.web.fields import USERNAME

EMAIL_MAX = 254  # RFC 5321 4.5.3.1.3, less the brackets


class User(Base):
    """An account. Its email and username are unique, ignoring case."""

    __tablename__ = "users"
    __table_args__ = (
        CheckConstraint(f"char_length(email) <= {EMAIL_MAX}", name="email_length"),
        CheckConstraint("email ~ '^[^@]+@[^@]+$'", name="email"),
        CheckConstraint(f"username ~ '^{USERNAME}$'", name="username"),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    email: Mapped[str] = mapped_column(Text)
    username: Mapped[str] = mapped_column(Text)
    password_hash: Mapped[str] = mapped_column(Text)
    is_active: Mapped[bool] = mapped_column(server_default=true())
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


UNIQUE_EMAIL, UNIQUE_USERNAME = "uq_users_email", "uq_users_username"
Index(UNIQUE_EMAIL, func.lower(User.email), unique=True)
Index(UNIQUE_USERNAME, func.lower(User.username), unique=True)


class Token(Base):
    """A token of a user, valid until it expires or is deleted; only its hash is stored."""

    __tablename__ = "tokens"
    __table_args__ = (
        CheckConstraint("octet_length(hash) = 32", name="hash"),
        Index(None, "user_id"),
        Index(None, "expires_at"),
    )

    hash: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey(User.id, ondelete="CASCADE"))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    expires_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
