"""The endpoints under ``/api/cleanings/{cleaning_id}/offers/``, and those of one's own offers."""

from typing import Any

from flask_smorest import abort

from phresh.api import LOCATION, Blueprint, envelope
from phresh.auth import current_account, login_required
from phresh.db import fetch
from phresh.offers import queries, services
from phresh.offers.schemas import (
    MyOfferListSchema,
    OfferCreateSchema,
    OfferListSchema,
    OfferSchema,
)
from phresh.pages import LINK, Page

blp = Blueprint(
    "offers", __name__, url_prefix="/api", description="Who would clean for whom, and who does"
)

ALL = "/cleanings/<id:cleaning_id>/offers/"
ONE = f"{ALL}<username:username>/"


@blp.post(ALL)
@login_required
@blp.arguments(envelope("new_offer", OfferCreateSchema, required=False))
@blp.response(201, OfferSchema, headers=LOCATION)
@blp.alt_response(404)
@blp.alt_response(409)
def create_offer(offer: dict[str, Any], cleaning_id: int) -> tuple[str, dict[str, str]]:
    """Offer to clean

    Not on your own cleaning nor on a guest's, not on one that is taken or completed, and only once.
    A message may come with it; no body is needed.
    """
    account = current_account()
    text = services.make_offer(cleaning_id, account.user_id, offer["message"])
    place = f"/api/cleanings/{cleaning_id}/offers/{account.username}/"
    return text, {"Location": place}


@blp.get(ALL)
@login_required
@blp.arguments(OfferListSchema, location="query")
@blp.response(200, OfferSchema(many=True), headers=LINK)
@blp.alt_response(403)
@blp.alt_response(404)
def list_offers(query: dict[str, Any], cleaning_id: int) -> tuple[str, dict[str, str]]:
    """List the offers on a cleaning of yours, newest first"""
    page: Page = query["page"]
    of = {"cleaning_id": cleaning_id, "owner_id": current_account().user_id}
    rows = fetch(queries.offer_page(page, **of))
    if not rows and not _owns(cleaning_id):
        abort(403, message="Only who posted the cleaning can see all offers on it.")
    return page.answer(rows)


@blp.get(ONE)
@login_required
@blp.response(200, OfferSchema)
@blp.alt_response(403)
@blp.alt_response(404)
def get_offer(cleaning_id: int, username: str) -> str:
    """Get an offer of yours, or on a cleaning of yours"""
    # Others are not told whether there is one.
    is_own = username.lower() == current_account().username.lower()
    if not _owns(cleaning_id) and not is_own:
        abort(403, message="Only who made the offer and who posted the cleaning can see it.")
    return services.bid_of(username, cleaning_id).text


@blp.put(ONE)
@login_required
@blp.response(200, OfferSchema)
@blp.alt_response(403)
@blp.alt_response(404)
@blp.alt_response(409)
def accept_offer(cleaning_id: int, username: str) -> str:
    """Accept an offer on a cleaning of yours

    Which rejects all other pending ones.
    """
    return services.accept_offer(cleaning_id, username, current_account().user_id)


@blp.put(ALL)
@login_required
@blp.response(200, OfferSchema)
@blp.alt_response(404)
@blp.alt_response(409)
def cancel_offer(cleaning_id: int) -> str:
    """Cancel your offer that was accepted

    Which opens the cleaning again, and makes the rejected offers pending.
    """
    return services.cancel_offer(cleaning_id, current_account().user_id)


@blp.delete(ALL)
@login_required
@blp.response(204)
@blp.alt_response(404)
@blp.alt_response(409)
def delete_offer(cleaning_id: int) -> None:
    """Rescind your offer that is pending

    You can make another one.
    """
    services.rescind_offer(cleaning_id, current_account().user_id)


@blp.get("/users/me/offers/")
@login_required
@blp.arguments(MyOfferListSchema, location="query")
@blp.response(200, OfferSchema(many=True), headers=LINK)
def list_my_offers(query: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """List your offers, newest first"""
    page: Page = query.pop("page")
    user_id = current_account().user_id
    return page.answer(fetch(queries.offer_page(page, user_id=user_id, **query)))


def _owns(cleaning_id: int) -> bool:
    """Whether a cleaning is of who asks, or answer 404."""
    return services.find_job(cleaning_id).owner_id == current_account().user_id
