"""The queries on offers. Each that gives an offer gives it as rendered JSON."""

from sqlalchemy import ColumnElement, Executable, delete, func, insert, select, update
from sqlalchemy.orm import aliased

from phresh.cleanings.models import Cleaning
from phresh.offers.models import Offer
from phresh.pages import Page
from phresh.statements import Query, Value, query, row_json
from phresh.users.models import User
from phresh.users.queries import has_username, public_user


def _rendered(user_id: Value) -> ColumnElement[str]:
    return row_json(
        *(Offer.id, Offer.cleaning_id, public_user(user_id).label("user"), Offer.message),
        *(Offer.status, Offer.created_at, Offer.updated_at),
    )


RENDERED = _rendered(Offer.user_id)


def offer_page(page: Page, **of: Value) -> Query:
    """The page of the offers on a cleaning of that owner, or of a user, perhaps of one status."""
    return _offer_page(page, **of, **page.values)


@query
def _offer_page(page: Page, **values: Value) -> Executable:
    columns = ("cleaning_id", "user_id", "status")
    given = [getattr(Offer, name) == values[name] for name in columns if name in values]
    if "owner_id" in values:
        owner = select(Cleaning.owner_id).where(Cleaning.id == values["cleaning_id"])
        given.append(owner.scalar_subquery() == values["owner_id"])
    return page.of(select(RENDERED).where(*given), Offer)


@query
def offer_by_username(*, cleaning_id: Value, username: Value) -> Executable:
    """One user's offer on a cleaning, its id and status, or no row."""
    offer = select(RENDERED, Offer.id, Offer.status).join(User, User.id == Offer.user_id)
    return offer.where(Offer.cleaning_id == cleaning_id, has_username(username))


@query
def offer_by_user(*, cleaning_id: Value, user_id: Value) -> Executable:
    """The same by the id of the user."""
    offer = select(RENDERED, Offer.id, Offer.status)
    return offer.where(Offer.cleaning_id == cleaning_id, Offer.user_id == user_id)


@query
def new_offer(*, user_id: Value, **values: Value) -> Executable:
    """Insert an offer."""
    return insert(Offer).values(user_id=user_id, **values).returning(_rendered(user_id))


@query
def changed_offer(*, offer_id: Value, status: Value) -> Executable:
    """Give an offer another status."""
    changed = update(Offer).where(Offer.id == offer_id)
    return changed.values(status=status, updated_at=func.clock_timestamp()).returning(RENDERED)


@query
def changed_offers(before: str, after: str, *, cleaning_id: Value) -> Executable:
    """Give all offers on a cleaning that have one status another."""
    changed = update(Offer).where(Offer.cleaning_id == cleaning_id, Offer.status == before)
    return changed.values(status=after, updated_at=func.clock_timestamp())


@query
def reopened_offers(*, user_id: Value) -> Executable:
    """Make those pending that were rejected for an offer of a user."""
    mine = aliased(Offer)
    taken = select(mine.cleaning_id).where(mine.user_id == user_id, mine.status == "accepted")
    changed = update(Offer).where(Offer.cleaning_id.in_(taken), Offer.status == "rejected")
    return changed.values(status="pending", updated_at=func.clock_timestamp())


@query
def deleted_offers(*, user_id: Value) -> Executable:
    """Delete the offers of a user, but not what was completed."""
    return delete(Offer).where(Offer.user_id == user_id, Offer.status != "completed")


@query
def deleted_offer(*, offer_id: Value) -> Executable:
    """Delete an offer."""
    return delete(Offer).where(Offer.id == offer_id)
