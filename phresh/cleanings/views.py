"""The endpoints under ``/api/cleanings/``."""

from collections.abc import Sequence
from typing import Any

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
from phresh.statements import Query

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
    return _one(fetch(queries.cleaning_by_id(cleaning_id=cleaning_id)))[0]


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
    own = {"cleaning_id": cleaning_id, "owner_id": current_account().user_id}
    change = queries.changed_cleaning(**own, **changes)
    return _write(cleaning_id, change, "type and price can't change")


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
    own = {"cleaning_id": cleaning_id, "owner_id": current_account().user_id}
    _write(cleaning_id, queries.deleted_cleaning(**own), "it can't be deleted")


def _write(cleaning_id: int, query: Query, refusal: str) -> str:
    """Write a cleaning by a query that does so only as its owner may; when it did not, say why.

    :param refusal: what can't be done once it is taken
    """
    if "If-Match" in request.headers:
        _lock(cleaning_id)
    if not (rows := fetch(query)):
        status = _lock(cleaning_id)
        if status != "open":
            abort(409, message=f"It is {status}, so {refusal}.")
        rows = fetch(query)  # it was opened between the two
    return _one(rows)[0]


def _lock(cleaning_id: int) -> str:
    """Lock a cleaning and give its status; answer 404, 403, or 412 if ``If-Match`` says so."""
    is_conditional = "If-Match" in request.headers
    locked = queries.locked_job(is_conditional, cleaning_id=cleaning_id)
    owner_id, status, *rendered = _one(fetch(locked))
    if owner_id != current_account().user_id:
        abort(403, message="Only who posted a cleaning can change or delete it.")
    if is_conditional:
        refuse_if_changed(*rendered)
    return status


def _one(rows: Sequence[tuple[Any, ...]]) -> tuple[Any, ...]:
    """Give the only row, or answer 404."""
    if not rows:
        abort(404, message="No cleaning found with that id.")
    return rows[0]
