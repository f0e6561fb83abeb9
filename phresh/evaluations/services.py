"""How a cleaning is rated and completed."""

from typing import Any

from flask_smorest import abort

from phresh.accounts.queries import locked_users
from phresh.accounts.tokens import reject_token
from phresh.database.transactions import fetch
from phresh.evaluations import queries
from phresh.offers.queries import changed_offer
from phresh.offers.services import find_bid, lock_job


def evaluate(cleaning_id: int, username: str, owner_id: int, values: dict[str, Any]) -> str:
    """Rate the cleaner of a taken cleaning, which completes it, and return the evaluation."""
    users = dict(fetch(locked_users(username=username, user_id=owner_id)))
    job = lock_job(cleaning_id, owner_id)
    cleaners = [user_id for user_id, is_named in users.items() if is_named]
    if not cleaners:
        abort(404, message="No user has this username.")
    if owner_id not in users:
        reject_token()
    if job.owner_id != owner_id:
        abort(403, message="Only the owner can rate a cleaning.")
    bid = find_bid(username, cleaning_id)
    if bid.status == "completed":
        abort(409, message="You have already rated this cleaning.")
    if bid.status != "accepted":
        abort(409, message=f"Only an accepted cleaner can be rated; this offer is {bid.status}.")
    people = {"cleaner_id": cleaners[0], "owner_id": owner_id}
    text: str = fetch(queries.new_evaluation(cleaning_id=cleaning_id, **people, **values))[0][0]
    fetch(changed_offer(offer_id=bid.offer_id, status="completed"))
    return text
