"""The queries on offers. Those that select an offer select its representation as JSON text."""

from sqlalchemy import Executable, delete, func, insert, select, update

from phresh.accounts.queries import account_named, public_user
from phresh.cleanings.models import Cleaning
from phresh.database.statements import Query, Value, query, row_json
from phresh.offers.models import Offer
from phresh.web.pages import Page

RENDERED = row_json(
    *(Offer.id, Offer.cleaning_id, public_user(Offer.user_id).label("user"), Offer.message),
    *(Offer.status, Offer.created_at, Offer.updated_at),
)


def offer_page(page: Page, **of: Value) -> Query:
    """Select a page of the offers on a cleaning of an owner, or of a bidder; or of one status."""
    return _offer_page(page, **of, **page.values)


@query
def _offer_page(page: Page, **values: Value) -> Executable:
    columns = ("cleaning_id", "user_id", "status")
    given = [getattr(Offer, name) == values[name] for name in columns if name in values]
    if "owner_id" in values:
        owner = select(Cleaning.owner_id).where(Cleaning.id == values["cleaning_id"])
        given.append(owner.scalar_subquery() == values["owner_id"])
    return page.apply(select(RENDERED).where(*given), Offer)


@query
def offer_by_username(*, cleaning_id: Value, username: Value) -> Executable:
    """Select the offer of the account that has the username, or had it, its id and status."""
    offer = select(RENDERED, Offer.id, Offer.status)
    return offer.where(Offer.cleaning_id == cleaning_id, Offer.user_id == account_named(username))


@query
def offer_by_user(*, cleaning_id: Value, user_id: Value) -> Executable:
    """Select the same by the bidder's id."""
    offer = select(RENDERED, Offer.id, Offer.status)
    return offer.where(Offer.cleaning_id == cleaning_id, Offer.user_id == user_id)


@query
def new_offer(**values: Value) -> Executable:
    """Insert an offer."""
    return insert(Offer).values(values).returning(RENDERED)


@query
def changed_offer(*, offer_id: Value, status: Value) -> Executable:
    """Change the status of an offer."""
    changed = update(Offer).where(Offer.id == offer_id)
    return changed.values(status=status, updated_at=func.clock_timestamp()).returning(RENDERED)


@query
def changed_offers(before: str, after: str, *, cleaning_id: Value) -> Executable:
    """Change the status of all offers on a cleaning that have a certain one."""
    changed = update(Offer).where(Offer.cleaning_id == cleaning_id, Offer.status == before)
    return changed.values(status=after, updated_at=func.clock_timestamp())


@query
def deleted_offer(*, offer_id: Value) -> Executable:
    """Delete an offer."""
    return delete(Offer).where(Offer.id == offer_id)
