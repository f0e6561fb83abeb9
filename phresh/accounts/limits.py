"""Rate limits: how often a client may attempt something, or write.

A limit is a quota that is used up and comes back evenly: of 10 in 15 minutes, 10 may be used at
once, then one each 90 seconds. A key has one row, however often it is used: the time at which its
whole quota is available again. So a limit holds for all workers on all machines, and checking and
counting are one statement, which concurrent requests can't exceed. What is refused is not counted
and makes nobody wait longer.

The table is unlogged: after a crash of the database, counting starts again.
"""

import hashlib
import math
from datetime import datetime
from typing import Any, NamedTuple, NoReturn

from flask import Response, after_this_request, current_app, g
from flask_smorest import abort
from sqlalchemy import (
    BigInteger,
    DateTime,
    Executable,
    Index,
    Text,
    cast,
    delete,
    false,
    func,
    literal,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import Insert, insert
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.sql.dml import ReturningInsert

from phresh.accounts.queries import SECOND, user_of_token, valid_token
from phresh.database.base import Base
from phresh.database.statements import Value, query
from phresh.database.transactions import fetch, fetch_autocommit
from phresh.web.addresses import client_network

# A stranger with one address reaches the limit of an address and account; an account has this many
# times that limit for all addresses together.
ADDRESSES = 10
BY_ACCOUNT = "write of user "
KNOWN = 30 * 24 * 3600  # seconds for which a network from which an account has logged in is known


class Quota(Base):
    """A quota of which something has been used."""

    __tablename__ = "quotas"
    # Room for new versions of the rows on their own page: no index has to change with them.
    __table_args__ = ({"prefixes": ["UNLOGGED"], "postgresql_with": {"fillfactor": 50}},)

    key: Mapped[str] = mapped_column(Text, primary_key=True)
    full_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class Limit(NamedTuple):
    """How often something may be attempted.

    :param name: in the headers of the response; empty where the client must not know what is left
    :param key: what, and by whom
    :param times: the quota
    :param seconds: in which the whole quota comes back
    :param unless: the key of a quota; while something of it is used, this limit does not apply
    """

    name: str
    key: str
    times: int
    seconds: int
    unless: str | None = None

    @property
    def cost(self) -> float:
        """The seconds in which one of the quota comes back."""
        return self.seconds / self.times

    @property
    def most(self) -> float:
        """The seconds until the whole quota is available, at most; PostgreSQL rounds each cost."""
        return self.seconds + self.cost / 100


def writes(account: str) -> list[Limit]:
    """Return the limits on what an account writes, and on what is written from its network."""
    config = current_app.config
    times, seconds = config["WRITES_PER_ACCOUNT"], config["WRITE_WINDOW"]
    return [Limit("writes", f"{BY_ACCOUNT}{account}", times, seconds), *writes_by_address()]


def writes_by_address() -> list[Limit]:
    """Return the limit on what is written from the client's network."""
    config = current_app.config
    limit = (config["WRITES_PER_ADDRESS"], config["WRITE_WINDOW"])
    return [Limit("writes-by-address", f"write from {client_network()}", *limit)]


def guest_writes() -> list[Limit]:
    """Return the limit on what guests write from the client's network."""
    config = current_app.config
    limit = (config["GUEST_WRITES_PER_ADDRESS"], config["WRITE_WINDOW"])
    return [Limit("guest-writes", f"guest's write from {client_network()}", *limit)]


def registrations() -> list[Limit]:
    """Return the limit on registrations from the client's network."""
    config = current_app.config
    limit = (config["REGISTRATIONS_PER_ADDRESS"], config["REGISTRATION_WINDOW"])
    return [Limit("registrations", f"registration from {client_network()}", *limit)]


def mails(account: str) -> list[Limit]:
    """Return the limits on mails that are asked for, to an address and from the client's network.

    :param account: for what the address may be of, whether or not it is one
    """
    config = current_app.config
    times, seconds = config["MAILS_PER_ACCOUNT"], config["MAIL_WINDOW"]
    from_here = config["MAILS_PER_ADDRESS"]
    return [
        Limit("mails", f"mail to {account}", times, seconds),
        Limit("mails-by-address", f"mail from {client_network()}", from_here, seconds),
    ]


def exports(account: str) -> list[Limit]:
    """Return the limit on exports of all that is stored about an account."""
    config = current_app.config
    limit = (config["EXPORTS_PER_ACCOUNT"], config["EXPORT_WINDOW"])
    return [Limit("exports", f"export of user {account}", *limit)]


def logins(account: str) -> list[Limit]:
    """Return the limit on logins to an account from the client's network, right or wrong."""
    config = current_app.config
    limit = (config["LOGINS_PER_ACCOUNT"], config["LOGIN_WINDOW"])
    return [Limit("logins", f"login to {account} from {client_network()}", *limit)]


def failed_logins(account: str) -> list[Limit]:
    """Return the limits on failed logins from the client's network, and to an account.

    To an account from this network, so that strangers elsewhere do not lock the login of its
    owner. From all networks together there may be many more; that limit does not apply to a network
    from which the account has logged in (:func:`remember`).
    """
    config, here = current_app.config, client_network()
    times, seconds = config["LOGIN_FAILURES_PER_ACCOUNT"], config["LOGIN_WINDOW"]
    from_here = config["LOGIN_FAILURES_PER_ADDRESS"]
    return [
        Limit("login-failures", f"failed login to {account} from {here}", times, seconds),
        Limit("login-failures-by-address", f"failed login from {here}", from_here, seconds),
        Limit("", f"failed login to {account}", times * ADDRESSES, seconds, _known(account)),
    ]


def codes(user_id: int) -> list[Limit]:
    """Return the limit on codes of the second factor that are tried for an account."""
    config = current_app.config
    limit = (config["LOGIN_FAILURES_PER_ACCOUNT"], config["LOGIN_WINDOW"])
    return [Limit("codes", f"code of user {user_id}", *limit)]


def remember(account: str) -> bool:
    """Know the client's network as one of an account, for as long as ``KNOWN`` says from now on.

    In the transaction of the login, so that it needs no second connection.

    :returns: whether it was not known
    """
    [(was_known,)] = fetch(_remembered(key=_known(account), seconds=KNOWN))
    return not was_known


def _known(account: str) -> str:
    # A digest: nobody should read for long who has been where.
    return hashlib.sha256(f"{account} from {client_network()}".encode()).hexdigest()


def failed_changes(token: str) -> list[Limit]:
    """Return the limit on wrong old passwords with a token.

    Apart from logins, so that strangers can't keep the owner of a token from changing the password;
    and for each token, so that neither can a thief who has another one.
    """
    config = current_app.config
    limit = (config["LOGIN_FAILURES_PER_ACCOUNT"], config["LOGIN_WINDOW"])
    return [Limit("password-failures", f"failed change by {token}", *limit)]


def reject_if_exceeded(limits: list[Limit]) -> None:
    """Respond 429, with the seconds to wait, when one of the limits is reached."""
    if not current_app.config["RATELIMIT_ENABLED"]:
        return
    keys = {key for limit in limits for key in (limit.key, limit.unless) if key}
    used = dict(fetch_autocommit(_used(keys=list(keys))))
    waits = []
    for limit in limits:
        if limit.unless in used:
            continue
        seconds = float(used.get(limit.key, 0))
        _tell(limit, seconds)
        if seconds + limit.cost > limit.most:
            waits.append(seconds + limit.cost - limit.seconds)
    if waits:
        _reject(max(waits))


def count(limits: list[Limit]) -> None:
    """Count an attempt; respond 429 instead when a limit is reached."""
    if not current_app.config["RATELIMIT_ENABLED"]:
        return
    for limit in limits:
        if not _count(limit):
            reject_if_exceeded([limit])


def record(limits: list[Limit]) -> None:
    """Count what a request has been rejected for already, up to the limits."""
    if current_app.config["RATELIMIT_ENABLED"]:
        for limit in limits:
            _count(limit)


def account_and_count(token_hash: bytes, idle: int) -> tuple[Any, ...] | None:
    """Return the row of a token that ``user_of_token`` selects, and count a write of its account.

    One statement does both. Return None, and count nothing, for a token that is not valid. Respond
    429 when a limit is reached.
    """
    if not current_app.config["RATELIMIT_ENABLED"]:
        rows = fetch_autocommit(user_of_token(token_hash=token_hash, idle=idle))
        return rows[0] if rows else None
    by_account, by_address = limits = writes("")
    rows = fetch_autocommit(
        _counted_user(
            token_hash=token_hash,
            idle=idle,
            account_cost=by_account.cost,
            account_most=by_account.most,
            address_key=by_address.key,
            address_cost=by_address.cost,
            address_most=by_address.most,
        )
    )
    if not rows:
        return None
    [(*account, by_account_used, by_address_used)] = rows
    for limit, seconds in zip(limits, (by_account_used, by_address_used), strict=True):
        if seconds is None:
            reject_if_exceeded(writes(str(account[0])))
        else:
            _tell(limit, float(seconds))
    return tuple(account)


def _count(limit: Limit) -> bool:
    """Count an attempt and return True, or return False when the limit is reached."""
    rows = fetch_autocommit(_counted(key=limit.key, cost=limit.cost, most=limit.most))
    for (seconds,) in rows:
        _tell(limit, float(seconds))
    return bool(rows)


def _tell(limit: Limit, seconds: float) -> None:
    """Note what is left of a limit for the headers of the response.

    :param seconds: in which the whole quota will be available
    """
    if not limit.name:
        return
    if "quotas" not in g:
        g.quotas = {}
        after_this_request(_add_headers)
    left = max(0, math.floor((limit.most - seconds) / limit.cost))
    # When there is one more: for none left, what Retry-After says.
    wait = math.ceil(seconds - limit.seconds + (left + 1) * limit.cost) if seconds > 0 else 0
    g.quotas[limit.name] = (limit.times, limit.seconds, left, max(0, wait))


def _add_headers(response: Response) -> Response:
    """Add to the response what its limits are, and what is left of them.

    After the IETF's draft-ietf-httpapi-ratelimit-headers: q in w seconds; r are left, and in t
    seconds there is one more.
    """
    quotas = g.quotas.items()
    response.headers["RateLimit-Policy"] = ", ".join(
        f'"{name}";q={times};w={window}' for name, (times, window, _, _) in quotas
    )
    response.headers["RateLimit"] = ", ".join(
        f'"{name}";r={left};t={wait}' for name, (_, _, left, wait) in quotas
    )
    return response


def _reject(wait: float) -> NoReturn:
    seconds = max(1, math.ceil(wait))
    abort(
        429,
        message=f"Too many attempts. Try again in {seconds} seconds.",
        headers={"Retry-After": str(seconds)},
    )


@query
def _used(*, keys: Value) -> Executable:
    """Select the keys of which something is used, and the seconds until nothing is."""
    used = select(Quota.key, func.extract("epoch", Quota.full_at - func.now()))
    return used.where(Quota.key.in_(keys), Quota.full_at > func.now())


@query
def _counted(*, key: Value, cost: Value, most: Value) -> Executable:
    """Use one of a quota; select the seconds until nothing is used, no row if there is none left.

    :param cost: the seconds in which one comes back
    :param most: the seconds until nothing is used, at most
    """
    return _use(insert(Quota).values(key=key, full_at=func.now() + cost * SECOND), cost, most)


@query
def _counted_user(
    *,
    token_hash: Value,
    idle: Value,
    account_cost: Value,
    account_most: Value,
    address_key: Value,
    address_cost: Value,
    address_most: Value,
) -> Executable:
    """Select the user of a token, and use one of the quotas of their writes.

    The seconds of a quota that is used up are null; then the next one is not used.
    """
    columns, now = ["key", "full_at"], func.now()
    account = valid_token(token_hash, idle).cte("account")
    key = literal(BY_ACCOUNT).concat(cast(account.c.id, Text))
    new = insert(Quota).from_select(columns, select(key, now + account_cost * SECOND))
    by_account = _use(new, account_cost, account_most).cte("by_account")
    new = insert(Quota).from_select(
        columns,
        select(cast(address_key, Text), now + address_cost * SECOND).select_from(by_account),
    )
    by_address = _use(new, address_cost, address_most).cte("by_address")
    user = select(account, by_account.c.seconds, by_address.c.seconds.label("seconds_by_address"))
    return user.select_from(account.outerjoin(by_account, true()).outerjoin(by_address, true()))


@query
def _remembered(*, key: Value, seconds: Value) -> Executable:
    """Use a whole quota; select whether something of it was used."""
    before = select(Quota.full_at > func.now()).where(Quota.key == key).cte("before")
    new = insert(Quota).values(key=key, full_at=func.now() + seconds * SECOND)
    used = new.on_conflict_do_update(
        index_elements=[Quota.key], set_={"full_at": new.excluded.full_at}
    )
    was_used = func.coalesce(select(before).scalar_subquery(), false())
    return used.returning(was_used).add_cte(before)


def _use(new: Insert, cost: Value, most: Value) -> ReturningInsert[Any]:
    """Return an insert of what is used of a quota, as one that adds it to what is used already."""
    now = func.now()
    used = func.greatest(Quota.full_at, now) + cost * SECOND
    counted = new.on_conflict_do_update(
        index_elements=[Quota.key],
        set_={"full_at": used},
        where=used <= now + most * SECOND,
    )
    return counted.returning(func.extract("epoch", Quota.full_at - now).label("seconds"))


@query
def deleted_old_quotas() -> Executable:
    """Delete the quotas that are available again."""
    return delete(Quota).where(Quota.full_at <= func.now()).returning(Quota.key)


class Attempt(Base):
    """Where the last release counts, which may run beside this one; the next one drops it."""

    __tablename__ = "attempts"
    __table_args__ = (Index(None, "key", "at"), Index(None, "at"), {"prefixes": ["UNLOGGED"]})

    # Not set; only the previous version reads it. It had a sequence, but those of unlogged tables
    # can be unusable on a standby that was promoted.
    id: Mapped[int | None] = mapped_column(BigInteger)
    key: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())

    __mapper_args__ = {"primary_key": [key, at]}  # SQLAlchemy needs one; the table has none
