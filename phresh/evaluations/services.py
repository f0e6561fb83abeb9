"""How a job is completed."""

from typing import Any

from flask_smorest import abort

from phresh.auth import refuse_token
from phresh.db import fetch
from phresh.evaluations import queries
from phresh.offers.queries import changed_offer
from phresh.offers.services import bid_of, lock_job
from phresh.users.queries import locked_users


def evaluate(cleaning_id: int, username: str, owner_id: int, values: dict[str, Any]) -> str:
    """Rate the cleaner of a job that is taken, which completes it."""
    users = dict(fetch(locked_users(username=username, user_id=owner_id)))
    job = lock_job(cleaning_id)
    cleaners = [user_id for user_id, is_named in users.items() if is_named]
    if not cleaners:
        abort(404, message="No user found with that username.")
    if owner_id not in users:
        refuse_token()
    if job.owner_id != owner_id:
        abort(403, message="Only who posted the cleaning can rate it.")
    bid = bid_of(username, cleaning_id)
    if bid.status == "completed":
        abort(409, message="You have rated this cleaning already.")
    if bid.status != "accepted":
        abort(409, message=f"Only who was accepted can be rated, this offer is {bid.status}.")
    people = {"cleaner_id": cleaners[0], "owner_id": owner_id}
    text: str = fetch(queries.new_evaluation(cleaning_id=cleaning_id, **people, **values))[0][0]
    fetch(changed_offer(offer_id=bid.offer_id, status="completed"))
    return text
