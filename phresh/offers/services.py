"""The transitions of offers, and by them of cleanings.

Row locks are taken in one order, so that transactions can't deadlock: users, then cleanings by
their id. A locked cleaning protects its offers too, which need no lock of their own.
"""

from typing import NamedTuple, NoReturn

from flask_smorest import abort
from psycopg2.errors import UniqueViolation

from phresh.accounts.queries import locked_user
from phresh.accounts.tokens import reject_token
from phresh.cleanings.queries import job_by_id, locked_job
from phresh.database.statements import Query
from phresh.database.transactions import fetch
from phresh.offers import queries


class Job(NamedTuple):
    """The owner and the status of a cleaning, and whether an operator has hidden it."""

    owner_id: int | None
    status: str
    is_hidden: bool


class Bid(NamedTuple):
    """An offer: its representation, its id and status."""

    text: str
    offer_id: int
    status: str


def make_offer(cleaning_id: int, user_id: int, message: str | None) -> str:
    """Make an offer and return its representation."""
    if not fetch(locked_user(user_id=user_id)):
        reject_token()
    job = lock_job(cleaning_id, user_id)
    if job.owner_id == user_id:
        _conflict("You can't make an offer on your own cleaning.")
    _require_open(job)  # first: a completed cleaning may have lost its owner
    if job.owner_id is None:
        _conflict("Guest cleanings take no offers: they have no owner who could accept one.")
    offer = {"cleaning_id": cleaning_id, "user_id": user_id, "message": message}
    try:
        return fetch(queries.new_offer(**offer))[0][0]
    except UniqueViolation:
        _conflict("You have already made an offer on this cleaning.")


def accept_offer(cleaning_id: int, username: str, owner_id: int) -> str:
    """Accept an offer, reject the other pending ones, and return the accepted one."""
    job = lock_job(cleaning_id, owner_id)
    if job.owner_id != owner_id:
        abort(403, message="Only the owner can accept an offer.")
    bid = find_bid(username, cleaning_id)
    _require_open(job)
    if job.is_hidden:  # each side would see the other's contact data
        _conflict("An operator has hidden the cleaning: no offer can be accepted.")
    if bid.status != "pending":
        _conflict(f"Only a pending offer can be accepted; this one is {bid.status}.")
    text: str = fetch(queries.changed_offer(offer_id=bid.offer_id, status="accepted"))[0][0]
    fetch(queries.changed_offers("pending", "rejected", cleaning_id=cleaning_id))
    return text


def cancel_offer(cleaning_id: int, user_id: int) -> str:
    """Cancel an accepted offer, make the rejected ones pending, and return the cancelled one."""
    lock_job(cleaning_id, user_id)
    bid = _find_own_bid(cleaning_id, user_id)
    if bid.status != "accepted":
        _conflict(f"Only an accepted offer can be cancelled; yours is {bid.status}.")
    text: str = fetch(queries.changed_offer(offer_id=bid.offer_id, status="cancelled"))[0][0]
    fetch(queries.changed_offers("rejected", "pending", cleaning_id=cleaning_id))
    return text


def rescind_offer(cleaning_id: int, user_id: int) -> None:
    """Delete a pending offer."""
    lock_job(cleaning_id, user_id)
    bid = _find_own_bid(cleaning_id, user_id)
    if bid.status != "pending":
        _conflict(f"Only a pending offer can be rescinded; yours is {bid.status}.")
    fetch(queries.deleted_offer(offer_id=bid.offer_id))


def lock_job(cleaning_id: int, user_id: int) -> Job:
    """Lock a cleaning with its offers and return it; respond 404 if there is none.

    :param user_id: the current user, for whom a hidden one may not be there
    """
    return _job(locked_job(cleaning_id=cleaning_id, user_id=user_id))


def find_job(cleaning_id: int, user_id: int) -> Job:
    """Return the same without a lock; respond 404 if there is none."""
    return _job(job_by_id(cleaning_id=cleaning_id, user_id=user_id))


def _job(query: Query) -> Job:
    rows = fetch(query)
    if not rows:
        abort(404, message="No cleaning has this id.")
    return Job(*rows[0])


def _require_open(job: Job) -> None:
    """Respond 409 if it is taken or completed."""
    if job.status != "open":
        _conflict(f"The cleaning is already {job.status}.")


def find_bid(username: str, cleaning_id: int) -> Bid:
    """Return the offer of a bidder; respond 404 if there is none."""
    offer = queries.offer_by_username(cleaning_id=cleaning_id, username=username)
    return _bid(offer, "This user has not made an offer on this cleaning.")


def _find_own_bid(cleaning_id: int, user_id: int) -> Bid:
    offer = queries.offer_by_user(cleaning_id=cleaning_id, user_id=user_id)
    return _bid(offer, "You have not made an offer on this cleaning.")


def _bid(query: Query, missing: str) -> Bid:
    rows = fetch(query)
    if not rows:
        abort(404, message=missing)
    return Bid(*rows[0])


def _conflict(message: str) -> NoReturn:
    abort(409, message=message)
