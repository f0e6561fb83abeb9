"""The rows that are measured: sample cleanings, most of which belong to one of many users."""

import hashlib
from datetime import UTC, datetime, timedelta

from sqlalchemy import insert, text

from phresh.db import db
from phresh.demo import add_samples
from phresh.users.models import Token, User

USERS = 1_000
DISABLED, EXPIRED = USERS + 1, USERS + 2  # two more, whose tokens are not good
# While samples are added these stand for what COPY leaves out; lastval() is the id of the row.
FILLING = {
    "owner_id": f"CASE WHEN lastval() % 10 > 0 THEN lastval() % {USERS} END",
    "created_at": "timestamptz '2025-01-01 00:00Z' + lastval() * interval '1.000001 seconds'",
    "updated_at": "timestamptz '2025-07-01 00:00Z' + lastval() * interval '1.000001 seconds'",
}
USUAL = {"owner_id": "NULL", "created_at": "now()", "updated_at": "now()"}


def owner_of(cleaning_id: int) -> int | None:
    """Give the id of the user who owns a sample, None of a guest's."""
    return cleaning_id % USERS if cleaning_id % 10 else None


def username(user_id: int) -> str:
    """Give the name of a user."""
    return f"user_{user_id}"


def token(user_id: int) -> str:
    """Give the token of a user, of the length that they have."""
    return hashlib.sha256(username(user_id).encode()).hexdigest()[:43]


def token_hash(user_id: int) -> bytes:
    """Give what the database knows of it."""
    return hashlib.sha256(token(user_id).encode()).digest()


def add_owned_samples(count: int) -> None:
    """Add users, their tokens and that many cleanings to an empty database."""
    ids = [*range(1, USERS + 1), DISABLED, EXPIRED]
    now, year = datetime.now(UTC), timedelta(days=365)
    users = [
        {
            "id": i,
            "email": f"{username(i)}@phresh.io",
            "username": username(i),
            "password_hash": "",  # nobody logs in
            "is_active": i != DISABLED,
        }
        for i in ids
    ]
    tokens = [
        {
            "hash": token_hash(i),
            "user_id": i,
            "expires_at": now - year if i == EXPIRED else now + year,
        }
        for i in ids
    ]
    with db.engine.begin() as connection:
        connection.execute(insert(User), users)
        connection.execute(insert(Token), tokens)
    _set_defaults(FILLING)
    add_samples(count)
    _set_defaults(USUAL)


def _set_defaults(defaults: dict[str, str]) -> None:
    changes = ", ".join(f"ALTER {name} SET DEFAULT {value}" for name, value in defaults.items())
    with db.engine.begin() as connection:
        connection.execute(text(f"ALTER TABLE cleanings {changes}"))
