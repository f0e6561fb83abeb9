"""The queries that delete an account with what belongs to it."""

from typing import Any

from sqlalchemy import Executable, delete, func, literal_column, select, union, update
from sqlalchemy.orm import aliased

from phresh.accounts.models import User
from phresh.cleanings.models import Cleaning
from phresh.database.statements import Query, Value, query
from phresh.evaluations.models import Evaluation
from phresh.offers.models import Offer


@query
def locked_user(*, user_id: Value) -> Executable:
    """Lock a user, so that nothing new can refer to them until this transaction ends."""
    return select(User.id).where(User.id == user_id).with_for_update()


@query
def locked_cleanings(limit: int, *, user_id: Value) -> Executable:
    """Lock the first cleanings that a user owns or has an offer on, in the order of their ids."""
    own = aliased(Cleaning)
    # Each by its index; with OR all cleanings would be read.
    of_user = union(
        select(own.id).where(own.owner_id == user_id),
        select(Offer.cleaning_id).where(Offer.user_id == user_id),
    ).subquery()
    first = select(of_user.c.id).order_by(of_user.c.id).limit(literal_column(str(limit)))
    cleanings = select(Cleaning.id).where(Cleaning.id.in_(first)).order_by(Cleaning.id)
    return cleanings.with_for_update(of=Cleaning)


@query
def reopened_offers(*, user_id: Value, cleaning_ids: Value) -> Executable:
    """Make the offers pending that were rejected when an offer of this user was accepted."""
    own = aliased(Offer)
    of_user = (own.user_id == user_id, own.cleaning_id.in_(cleaning_ids))
    taken = select(own.cleaning_id).where(*of_user, own.status == "accepted")
    changed = update(Offer).where(Offer.cleaning_id.in_(taken), Offer.status == "rejected")
    return changed.values(status="pending", updated_at=func.clock_timestamp())


@query
def deleted_offers(*, user_id: Value, cleaning_ids: Value) -> Executable:
    """Delete the offers of a user, except completed ones."""
    of_user = (Offer.user_id == user_id, Offer.cleaning_id.in_(cleaning_ids))
    return delete(Offer).where(*of_user, Offer.status != "completed")


@query
def deleted_cleanings(*, user_id: Value, cleaning_ids: Value) -> Executable:
    """Delete the cleanings of a user, except completed ones."""
    of_user = (Cleaning.owner_id == user_id, Cleaning.id.in_(cleaning_ids))
    return delete(Cleaning).where(*of_user, Cleaning.status != "completed")


def without_user(*, user_id: Any, cleaning_ids: Any) -> list[Query]:
    """Return the queries that take a user's name off what stays.

    When the user is deleted, their foreign keys do the same, but with all rows at once.
    """
    of = {"user_id": user_id, "cleaning_ids": cleaning_ids}
    return [
        _without_user(Cleaning, Cleaning.id, Cleaning.owner_id, **of),
        _without_user(Offer, Offer.cleaning_id, Offer.user_id, **of),
        _without_user(Evaluation, Evaluation.cleaning_id, Evaluation.owner_id, **of),
        _without_user(Evaluation, Evaluation.cleaning_id, Evaluation.cleaner_id, **of),
    ]


@query
def _without_user(
    table: Any, cleaning_id: Any, role: Any, *, user_id: Value, cleaning_ids: Value
) -> Executable:
    changed = update(table).where(cleaning_id.in_(cleaning_ids), role == user_id)
    return changed.values({role: None})


@query
def deleted_user(*, user_id: Value) -> Executable:
    """Delete a user."""
    return delete(User).where(User.id == user_id)
