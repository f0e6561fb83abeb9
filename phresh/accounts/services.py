"""What goes when an account goes."""

from phresh.auth import refuse_token
from phresh.cleanings.queries import deleted_jobs, locked_jobs
from phresh.db import fetch
from phresh.offers.queries import deleted_offers, reopened_offers
from phresh.users import queries


def delete_account(user_id: int) -> None:
    """Delete an account; of what it was a part of, only what was completed stays."""
    # In the order of phresh/offers/services.py.
    if not fetch(queries.user_to_delete(user_id=user_id)):
        refuse_token()
    fetch(locked_jobs(user_id=user_id))
    fetch(reopened_offers(user_id=user_id))
    fetch(deleted_offers(user_id=user_id))
    fetch(deleted_jobs(user_id=user_id))
    fetch(queries.deleted_user(user_id=user_id))
