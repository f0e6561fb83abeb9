"""The endpoints under ``/api/cleanings/``."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from flask import request
from flask_smorest import abort
from psycopg2.errors import ForeignKeyViolation

from phresh.api import LOCATION, Blueprint, envelope, refuse_if_changed
from phresh.auth import (
    current_account,
    current_account_or_guest,
    login_required,
    login_to_post,
    refuse_token,
)
from phresh.cleanings import queries
from phresh.cleanings.schemas import (
    CleaningCreateSchema,
    CleaningListSchema,
    CleaningSchema,
    CleaningUpdateSchema,
)
from phresh.db import fetch
from phresh.idempotency import IdempotencyKeySchema, idempotent
from phresh.pages import LINK, Page

blp = Blueprint(
    "cleanings", __name__, url_prefix="/api/cleanings", description="Homes to be cleaned"
)


@blp.get("/")
@blp.arguments(CleaningListSchema, location="query")
@blp.response(200, CleaningSchema(many=True), headers=LINK)
def list_cleanings(query: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """List cleanings, newest first"""
    page: Page = query.pop("page")
    return page.answer(fetch(queries.cleaning_page(page, **query)))


@blp.post("/")
@login_to_post
@blp.arguments(envelope("new_cleaning", CleaningCreateSchema))
@blp.arguments(IdempotencyKeySchema, location="headers")
@blp.response(201, CleaningSchema, headers=LOCATION)
@blp.alt_response(409)
@idempotent
def create_cleaning(cleaning: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """Post a cleaning

    It is yours if you are logged in. Nobody can change or delete what a guest has posted.
    """
    account = current_account_or_guest()
    owner_id = None if account is None else account.user_id
    try:
        text, cleaning_id = fetch(queries.new_cleaning(**cleaning, owner_id=owner_id))[0]
    except ForeignKeyViolation:  # the account was deleted this moment
        refuse_token()
    return text, {"Location": f"{blp.url_prefix}/{cleaning_id}/"}


@blp.get("/<id:cleaning_id>/")
@blp.response(200, CleaningSchema)
@blp.alt_response(404)
def get_cleaning(cleaning_id: int) -> str:
    """Get a cleaning"""
    return _one(fetch(queries.cleaning_by_id(cleaning_id=cleaning_id)))


@blp.route("/<id:cleaning_id>/", methods=["PATCH", "PUT"])
@login_required
@blp.arguments(envelope("cleaning_update", CleaningUpdateSchema))
@blp.doc(parameters=["IF_MATCH"])
@blp.response(200, CleaningSchema)
@blp.alt_response(403)
@blp.alt_response(404)
@blp.alt_response(409)
@blp.alt_response(412)
def update_cleaning(changes: dict[str, Any], cleaning_id: int) -> str:
    """Change a cleaning of yours

    Fields left out stay as they are, with PATCH and with PUT. Type and price can't change once it
    is taken.
    """
    own = _lock_own(cleaning_id)
    fixed = {"cleaning_type": own.cleaning_type, "price": own.price}
    if own.status != "open" and any(changes.get(name, was) != was for name, was in fixed.items()):
        abort(409, message=f"It is {own.status}, so type and price can't change.")
    return _one(fetch(queries.changed_cleaning(cleaning_id=cleaning_id, **changes)))


@blp.delete("/<id:cleaning_id>/")
@login_required
@blp.doc(parameters=["IF_MATCH"])
@blp.response(204)
@blp.alt_response(403)
@blp.alt_response(404)
@blp.alt_response(409)
@blp.alt_response(412)
def delete_cleaning(cleaning_id: int) -> None:
    """Delete a cleaning of yours

    As long as it is open.
    """
    own = _lock_own(cleaning_id)
    if own.status != "open":
        abort(409, message=f"It is {own.status}, so it can't be deleted.")
    _one(fetch(queries.deleted_cleaning(cleaning_id=cleaning_id)))


class Own(NamedTuple):
    """What of a locked cleaning decides on who may change it, and what."""

    owner_id: int | None
    status: str
    cleaning_type: str
    price: Decimal


def _lock_own(cleaning_id: int) -> Own:
    """Lock a cleaning for its owner; answer 404, 403, or 412 if the request means another state."""
    is_conditional = "If-Match" in request.headers
    rows = fetch(queries.locked_cleaning(is_conditional, cleaning_id=cleaning_id))
    text = _one(rows)
    own = Own(*rows[0][1:])
    if own.owner_id != current_account().user_id:
        abort(403, message="Only who posted a cleaning can change or delete it.")
    if is_conditional:
        refuse_if_changed(text)
    return own


def _one(rows: Sequence[tuple[Any, ...]]) -> str:
    """Give what the only row renders, or answer 404."""
    if not rows:
        abort(404, message="No cleaning found with that id.")
    return rows[0][0]
