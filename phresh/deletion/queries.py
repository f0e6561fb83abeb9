"""The queries that delete an account with what belongs to it."""

from sqlalchemy import Executable, delete, func, select, union_all, update
from sqlalchemy.orm import aliased

from phresh.accounts.models import User
from phresh.cleanings.models import Cleaning
from phresh.database.statements import Value, query
from phresh.offers.models import Offer


@query
def locked_user(*, user_id: Value) -> Executable:
    """Lock a user, so that nothing new can refer to them until this transaction ends."""
    return select(User.id).where(User.id == user_id).with_for_update()


@query
def locked_cleanings(*, user_id: Value) -> Executable:
    """Lock the cleanings that a user owns or has an offer on, in the order of their ids."""
    own = aliased(Cleaning)
    # Each by its index; with OR all cleanings would be read.
    of_user = union_all(
        select(own.id).where(own.owner_id == user_id),
        select(Offer.cleaning_id).where(Offer.user_id == user_id),
    )
    cleanings = select(Cleaning.id).where(Cleaning.id.in_(of_user)).order_by(Cleaning.id)
    return cleanings.with_for_update(of=Cleaning)


@query
def reopened_offers(*, user_id: Value) -> Executable:
    """Make the offers pending that were rejected when an offer of this user was accepted."""
    own = aliased(Offer)
    taken = select(own.cleaning_id).where(own.user_id == user_id, own.status == "accepted")
    changed = update(Offer).where(Offer.cleaning_id.in_(taken), Offer.status == "rejected")
    return changed.values(status="pending", updated_at=func.clock_timestamp())


@query
def deleted_offers(*, user_id: Value) -> Executable:
    """Delete the offers of a user, except completed ones."""
    return delete(Offer).where(Offer.user_id == user_id, Offer.status != "completed")


@query
def deleted_cleanings(*, user_id: Value) -> Executable:
    """Delete the cleanings of a user, except completed ones."""
    return delete(Cleaning).where(Cleaning.owner_id == user_id, Cleaning.status != "completed")


@query
def deleted_user(*, user_id: Value) -> Executable:
    """Delete a user."""
    return delete(User).where(User.id == user_id)
