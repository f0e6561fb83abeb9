"""How an account is deleted."""

from flask_smorest import abort

from phresh.accounts.tokens import reject_token
from phresh.database.transactions import fetch
from phresh.deletion import queries

# Cleanings that one request locks at most, with their offers.
MOST = 5_000
TOO_MANY = (
    f"The account has cleanings and offers for more than {MOST:,} cleanings, too many to delete "
    "them in one request. Delete some of them, or write to the operator, who can delete it."
)


def delete_account(user_id: int) -> None:
    """Delete an account with its cleanings and offers; only what is completed stays.

    A cleaning for which one of its offers was accepted opens again. Respond 409 if these are too
    many for one transaction.
    """
    # Locks in the order of phresh/offers/services.py.
    if not fetch(queries.locked_user(user_id=user_id)):
        reject_token()
    if delete_some(user_id, MOST + 1) > MOST:
        abort(409, message=TOO_MANY)
    fetch(queries.deleted_user(user_id=user_id))


def delete_some(user_id: int, most: int) -> int:
    """Delete what an account has to do with so many cleanings, and return how many there were."""
    cleaning_ids = [row[0] for row in fetch(queries.locked_cleanings(most, user_id=user_id))]
    of = {"user_id": user_id, "cleaning_ids": cleaning_ids}
    fetch(queries.reopened_offers(**of))
    fetch(queries.deleted_offers(**of))
    fetch(queries.deleted_cleanings(**of))
    for query in queries.without_user(**of):
        fetch(query)
    return len(cleaning_ids)
