"""Rate limits on guessing: how often something may be attempted in a time window.

Each attempt that counts is a row, so a limit holds for all workers on all machines, and its window
slides. The table is unlogged: after a crash of the database, counting starts again.
"""

import math
from datetime import datetime
from typing import NamedTuple

from flask import current_app
from flask_smorest import abort
from sqlalchemy import (
    BigInteger,
    DateTime,
    Executable,
    Index,
    Text,
    delete,
    func,
    insert,
    select,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from phresh.database.base import Base
from phresh.database.statements import Query, Value, query
from phresh.database.transactions import fetch_autocommit
from phresh.web.addresses import client_network

SECOND = text("interval '1 second'")


class Attempt(Base):
    """An attempt that counts."""

    __tablename__ = "attempts"
    __table_args__ = (Index(None, "key", "at"), Index(None, "at"), {"prefixes": ["UNLOGGED"]})

    # Not set; only the previous version reads it. It had a sequence, but those of unlogged tables
    # can be unusable on a standby that was promoted.
    id: Mapped[int | None] = mapped_column(BigInteger)
    key: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())

    __mapper_args__ = {"primary_key": [key, at]}  # SQLAlchemy needs one; the table has none


class Limit(NamedTuple):
    """How often something may be attempted.

    :param key: what, and by whom
    :param times: the number of attempts at most
    :param seconds: the length of the time window
    """

    key: str
    times: int
    seconds: int


def registrations() -> list[Limit]:
    """Return the limit on registrations from the client's network."""
    config = current_app.config
    key = f"registration from {client_network()}"
    return [Limit(key, config["REGISTRATIONS_PER_ADDRESS"], config["REGISTRATION_WINDOW"])]


def failed_logins(account: str) -> list[Limit]:
    """Return the limits on failed logins: to an account, and from the client's network."""
    config = current_app.config
    seconds = config["LOGIN_WINDOW"]
    return [
        Limit(f"login to {account}", config["LOGIN_FAILURES_PER_ACCOUNT"], seconds),
        Limit(f"login from {client_network()}", config["LOGIN_FAILURES_PER_ADDRESS"], seconds),
    ]


def reject_if_exceeded(limits: list[Limit]) -> None:
    """Respond 429, with the seconds to wait, when one of the limits is reached."""
    if not current_app.config["RATELIMIT_ENABLED"]:
        return
    waits = [
        float(row[0])
        for limit in limits
        for row in fetch_autocommit(_wait(limit.times, key=limit.key, seconds=limit.seconds))
    ]
    if waits:
        seconds = max(1, math.ceil(max(waits)))
        abort(
            429,
            message=f"Too many attempts. Try again in {seconds} seconds.",
            headers={"Retry-After": str(seconds)},
        )


def record(limits: list[Limit]) -> None:
    """Count an attempt, whether or not the request is rejected."""
    if current_app.config["RATELIMIT_ENABLED"]:
        for limit in limits:
            fetch_autocommit(_new_attempt(key=limit.key))


@query
def _wait(times: int, *, key: Value, seconds: Value) -> Executable:
    """Select the seconds until the limit allows an attempt; no row if it does now."""
    expires_at = Attempt.at + seconds * SECOND
    wait = select(func.extract("epoch", expires_at - func.now()))
    attempts = wait.where(Attempt.key == key, Attempt.at > func.now() - seconds * SECOND)
    return attempts.order_by(Attempt.at.desc()).offset(times - 1).limit(1)


@query
def _new_attempt(*, key: Value) -> Executable:
    return insert(Attempt).values(key=key)


def deleted_old_attempts() -> Query:
    """Delete the attempts that are older than any time window."""
    config = current_app.config
    return _deleted_attempts(seconds=max(config["LOGIN_WINDOW"], config["REGISTRATION_WINDOW"]))


@query
def _deleted_attempts(*, seconds: Value) -> Executable:
    old = Attempt.at <= func.now() - seconds * SECOND
    return delete(Attempt).where(old).returning(Attempt.key)
