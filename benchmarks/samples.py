"""The rows of the benchmark: sample cleanings, most of which belong to one of many users."""

import hashlib
from datetime import UTC, datetime, timedelta

from sqlalchemy import insert, text

from phresh.accounts.models import Token, User
from phresh.cli.demo import add_many
from phresh.database.base import db

USERS = 1_000
DISABLED, EXPIRED = USERS + 1, USERS + 2  # two more users, whose tokens are rejected
POPULAR = range(1, 1000, 10)  # open cleanings with an owner and OFFERS offers
OFFERS = 40
# The bidders are the users whose ids follow the owner's.
ADD_OFFERS = text("""
    INSERT INTO offers (cleaning_id, user_id, message)
    SELECT id, (owner_id - 1 + bid) % :users + 1, 'I could come on Friday.'
    FROM cleanings CROSS JOIN generate_series(1, :offers) bid
    WHERE id = ANY(:popular) ORDER BY bid, id
""")


def owner_of(cleaning_id: int) -> int | None:
    """Return the id of the owner of a sample cleaning, or None if a guest posted it."""
    number = cleaning_id - 1
    return None if number % 10 == 9 else number % USERS + 1


def is_open(cleaning_id: int) -> bool:
    """Return whether a sample cleaning is open, so that its price can be changed."""
    return cleaning_id % 5 != 0


def username(user_id: int) -> str:
    """Return the name of a user."""
    return f"demo-{user_id}"


def token(user_id: int) -> str:
    """Return the token of a user, as long as a real one."""
    return hashlib.sha256(username(user_id).encode()).hexdigest()[:43]


def token_hash(user_id: int) -> bytes:
    """Return the hash of a user's token, which the database stores."""
    return hashlib.sha256(token(user_id).encode()).digest()


def add_owned_samples(count: int) -> None:
    """Add users, their tokens, that many cleanings, and offers to an empty database."""
    add_many(count, USERS)
    now, year = datetime.now(UTC), timedelta(days=365)
    special = [
        {
            "id": i,
            "email": f"{username(i)}@phresh.io",
            "username": username(i),
            "password_hash": "",  # nobody can log in
            "is_active": i != DISABLED,
        }
        for i in (DISABLED, EXPIRED)
    ]
    tokens = [
        {
            "hash": token_hash(i),
            "user_id": i,
            "expires_at": now - year if i == EXPIRED else now + year,
        }
        for i in [*range(1, USERS + 1), DISABLED, EXPIRED]
    ]
    with db.engine.begin() as connection:
        connection.execute(insert(User), special)
        connection.execute(insert(Token), tokens)
        offers = {"users": USERS, "offers": OFFERS, "popular": list(POPULAR)}
        connection.execute(ADD_OFFERS, offers)
