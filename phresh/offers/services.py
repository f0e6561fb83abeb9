"""What happens to offers, and by that to jobs.

Locks are taken in one order, so that they can't deadlock: users, then cleanings by their id; a
locked cleaning keeps others from its offers, which need no lock of their own.
"""

from typing import NamedTuple, NoReturn

from flask_smorest import abort
from psycopg2.errors import UniqueViolation

from phresh.auth import refuse_token
from phresh.cleanings.queries import job_by_id, locked_job
from phresh.db import fetch
from phresh.offers import queries
from phresh.statements import Query
from phresh.users.queries import locked_user


class Job(NamedTuple):
    """A cleaning: whose, and its status."""

    owner_id: int | None
    status: str


class Bid(NamedTuple):
    """An offer: as it is rendered, its id and status."""

    text: str
    offer_id: int
    status: str


def make_offer(cleaning_id: int, user_id: int, message: str | None) -> str:
    """Offer to do a job."""
    if not fetch(locked_user(user_id=user_id)):
        refuse_token()
    job = lock_job(cleaning_id)
    if job.owner_id == user_id:
        _refuse("You can't make an offer on your own cleaning.")
    _refuse_unless_open(job)  # first: one that is completed may have lost its owner
    if job.owner_id is None:
        _refuse("Nobody could accept an offer on a guest's cleaning.")
    offer = {"cleaning_id": cleaning_id, "user_id": user_id, "message": message}
    try:
        return fetch(queries.new_offer(**offer))[0][0]
    except UniqueViolation:
        _refuse("You have made an offer on this cleaning already.")


def accept_offer(cleaning_id: int, username: str, owner_id: int) -> str:
    """Take an offer, which rejects the others."""
    job = lock_job(cleaning_id)
    if job.owner_id != owner_id:
        abort(403, message="Only who posted the cleaning can accept an offer.")
    bid = bid_of(username, cleaning_id)
    _refuse_unless_open(job)
    if bid.status != "pending":
        _refuse(f"Only a pending offer can be accepted, this one is {bid.status}.")
    text: str = fetch(queries.changed_offer(offer_id=bid.offer_id, status="accepted"))[0][0]
    fetch(queries.changed_offers("pending", "rejected", cleaning_id=cleaning_id))
    return text


def cancel_offer(cleaning_id: int, user_id: int) -> str:
    """Withdraw from a job that one was accepted for, which makes the rejected offers pending."""
    lock_job(cleaning_id)
    bid = _own_bid(cleaning_id, user_id)
    if bid.status != "accepted":
        _refuse(f"Only an accepted offer can be cancelled, yours is {bid.status}.")
    text: str = fetch(queries.changed_offer(offer_id=bid.offer_id, status="cancelled"))[0][0]
    fetch(queries.changed_offers("rejected", "pending", cleaning_id=cleaning_id))
    return text


def rescind_offer(cleaning_id: int, user_id: int) -> None:
    """Take an offer back that nobody has decided on."""
    lock_job(cleaning_id)
    bid = _own_bid(cleaning_id, user_id)
    if bid.status != "pending":
        _refuse(f"Only a pending offer can be rescinded, yours is {bid.status}.")
    fetch(queries.deleted_offer(offer_id=bid.offer_id))


def lock_job(cleaning_id: int) -> Job:
    """Lock a cleaning against whatever else happens to it or its offers, or answer 404."""
    return _job(locked_job(cleaning_id=cleaning_id))


def find_job(cleaning_id: int) -> Job:
    """Give the same without a lock, or answer 404."""
    return _job(job_by_id(cleaning_id=cleaning_id))


def _job(query: Query) -> Job:
    rows = fetch(query)
    if not rows:
        abort(404, message="No cleaning found with that id.")
    return Job(*rows[0])


def _refuse_unless_open(job: Job) -> None:
    """Answer 409 if it is taken or completed."""
    if job.status != "open":
        _refuse(f"The cleaning is {job.status} already.")


def bid_of(username: str, cleaning_id: int) -> Bid:
    """Give the offer of a user, or answer 404."""
    offer = queries.offer_by_username(cleaning_id=cleaning_id, username=username)
    return _bid(offer, "No offer found of that user.")


def _own_bid(cleaning_id: int, user_id: int) -> Bid:
    offer = queries.offer_by_user(cleaning_id=cleaning_id, user_id=user_id)
    return _bid(offer, "You have made no offer on this cleaning.")


def _bid(query: Query, missing: str) -> Bid:
    rows = fetch(query)
    if not rows:
        abort(404, message=missing)
    return Bid(*rows[0])


def _refuse(why: str) -> NoReturn:
    abort(409, message=why)
