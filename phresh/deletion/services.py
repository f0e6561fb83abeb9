"""How an account is deleted."""

from phresh.accounts.tokens import reject_token
from phresh.database.transactions import fetch
from phresh.deletion import queries


def delete_account(user_id: int) -> None:
    """Delete an account with its cleanings and offers; only what is completed stays.

    A cleaning for which one of its offers was accepted opens again.
    """
    # Locks in the order of phresh/offers/services.py.
    if not fetch(queries.locked_user(user_id=user_id)):
        reject_token()
    fetch(queries.locked_cleanings(user_id=user_id))
    fetch(queries.reopened_offers(user_id=user_id))
    fetch(queries.deleted_offers(user_id=user_id))
    fetch(queries.deleted_cleanings(user_id=user_id))
    fetch(queries.deleted_user(user_id=user_id))
