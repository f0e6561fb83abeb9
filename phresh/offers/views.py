"""The endpoints under ``/api/cleanings/{cleaning_id}/offers/`` and ``/api/users/me/offers/``."""

from typing import Any

from flask_smorest import abort

from phresh.accounts.queries import is_named
from phresh.accounts.tokens import current_account, login_required
from phresh.database.transactions import fetch
from phresh.offers import queries, services
from phresh.offers.schemas import (
    MyOfferListSchema,
    OfferCreateSchema,
    OfferListSchema,
    OfferSchema,
)
from phresh.web.arguments import envelope
from phresh.web.blueprint import Blueprint
from phresh.web.openapi import LOCATION
from phresh.web.pages import LINK, Page

blp = Blueprint(
    "offers", __name__, url_prefix="/api", description="Offers to clean, and accepting them"
)

ALL = "/cleanings/<id:cleaning_id>/offers/"
ONE = f"{ALL}<username:username>/"


def _own_offer(cleaning_id: int) -> str:
    """Return the path of the current user's offer on a cleaning."""
    return f"{blp.url_prefix}/cleanings/{cleaning_id}/offers/{current_account().username}/"


@blp.post(ALL)
@login_required
@blp.arguments(envelope("new_offer", OfferCreateSchema, required=False))
@blp.response(201, OfferSchema, headers=LOCATION)
@blp.alt_response(404)
@blp.alt_response(409)
def create_offer(offer: dict[str, Any], cleaning_id: int) -> tuple[str, dict[str, str]]:
    """Make an offer

    You can make one offer on each open cleaning, but not on your own, nor on one that a guest
    posted. The body with a message is optional.
    """
    text = services.make_offer(cleaning_id, current_account().user_id, offer["message"])
    return text, {"Location": _own_offer(cleaning_id)}


@blp.get(ALL)
@login_required
@blp.arguments(OfferListSchema, location="query")
@blp.response(200, OfferSchema(many=True), headers=LINK)
@blp.alt_response(403)
@blp.alt_response(404)
def list_offers(query: dict[str, Any], cleaning_id: int) -> tuple[str, dict[str, str]]:
    """List the offers on your cleaning, newest first

    Only the owner of the cleaning can.
    """
    page: Page = query["page"]
    of = {"cleaning_id": cleaning_id, "owner_id": current_account().user_id}
    text, link = page.respond(queries.offer_page(page, **of))
    if text == "[]" and not _owns(cleaning_id):
        abort(403, message="Only the owner can see all offers on a cleaning.")
    return text, link


@blp.get(ONE)
@login_required
@blp.response(200, OfferSchema)
@blp.alt_response(403)
@blp.alt_response(404)
def get_offer(cleaning_id: int, username: str) -> str:
    """Get an offer of yours or on your cleaning

    Only its bidder and the owner of the cleaning can.
    """
    # Others do not learn whether there is an offer.
    if not _owns(cleaning_id) and not _is_named(username):
        abort(403, message="Only the bidder and the owner of the cleaning can see an offer.")
    return services.find_bid(username, cleaning_id).text


@blp.put(ONE)
@login_required
@blp.response(200, OfferSchema)
@blp.alt_response(403)
@blp.alt_response(404)
@blp.alt_response(409)
def accept_offer(cleaning_id: int, username: str) -> str:
    """Accept an offer on your cleaning

    The cleaning is taken then, and the other pending offers are rejected.
    """
    return services.accept_offer(cleaning_id, username, current_account().user_id)


@blp.put(ALL)
@login_required
@blp.represented_at(_own_offer)
@blp.response(200, OfferSchema)
@blp.alt_response(404)
@blp.alt_response(409)
def cancel_offer(cleaning_id: int) -> str:
    """Cancel your accepted offer

    The cleaning opens again, and the rejected offers are pending again.
    """
    return services.cancel_offer(cleaning_id, current_account().user_id)


@blp.delete(ALL)
@login_required
@blp.represented_at(_own_offer)
@blp.response(204)
@blp.alt_response(404)
@blp.alt_response(409)
def delete_offer(cleaning_id: int) -> None:
    """Rescind your pending offer

    You can make another offer afterwards.
    """
    services.rescind_offer(cleaning_id, current_account().user_id)


@blp.get("/users/me/offers/")
@login_required
@blp.arguments(MyOfferListSchema, location="query")
@blp.response(200, OfferSchema(many=True), headers=LINK)
def list_my_offers(query: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """List your offers, newest first

    On all cleanings, or with `status` only those of one status.
    """
    page: Page = query.pop("page")
    user_id = current_account().user_id
    return page.respond(queries.offer_page(page, user_id=user_id, **query))


def _is_named(username: str) -> bool:
    """Return whether the current user has that username, or had it when making an offer."""
    account = current_account()
    if username.lower() == account.username.lower():
        return True
    [(is_former,)] = fetch(is_named(username=username, user_id=account.user_id))
    return bool(is_former)


def _owns(cleaning_id: int) -> bool:
    """Return whether the current user owns a cleaning; respond 404 if there is none."""
    user_id = current_account().user_id
    return services.find_job(cleaning_id, user_id).owner_id == user_id
