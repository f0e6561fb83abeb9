"""The endpoints under ``/api/cleanings/``."""

from collections.abc import Sequence
from typing import Any

from flask import request
from flask_smorest import abort

from phresh.api import Blueprint, envelope, refuse_if_changed
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

LOCATION = {"Location": {"description": "Where it is", "schema": {"type": "string"}}}


@blp.get("/")
@blp.arguments(CleaningListSchema, location="query")
@blp.response(200, CleaningSchema(many=True), headers=LINK)
def list_cleanings(query: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """List cleanings, newest first"""
    page: Page = query.pop("page")
    return page.answer(fetch(queries.cleaning_page(page, **query)))


@blp.post("/")
@blp.arguments(envelope("new_cleaning", CleaningCreateSchema))
@blp.arguments(IdempotencyKeySchema, location="headers")
@blp.response(201, CleaningSchema, headers=LOCATION)
@blp.alt_response(409)
@idempotent
def create_cleaning(cleaning: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """Post a cleaning"""
    text, cleaning_id = fetch(queries.new_cleaning(**cleaning))[0]
    return text, {"Location": f"{blp.url_prefix}/{cleaning_id}/"}


@blp.get("/<id:cleaning_id>/")
@blp.response(200, CleaningSchema)
@blp.alt_response(404)
def get_cleaning(cleaning_id: int) -> str:
    """Get a cleaning"""
    return _one(fetch(queries.cleaning_by_id(cleaning_id=cleaning_id)))


@blp.route("/<id:cleaning_id>/", methods=["PATCH", "PUT"])
@blp.arguments(envelope("cleaning_update", CleaningUpdateSchema))
@blp.doc(parameters=["IF_MATCH"])
@blp.response(200, CleaningSchema)
@blp.alt_response(404)
@blp.alt_response(412)
def update_cleaning(changes: dict[str, Any], cleaning_id: int) -> str:
    """Change a cleaning

    Fields left out stay as they are, with PATCH and with PUT.
    """
    _refuse_changed(cleaning_id)
    return _one(fetch(queries.changed_cleaning(cleaning_id=cleaning_id, **changes)))


@blp.delete("/<id:cleaning_id>/")
@blp.doc(parameters=["IF_MATCH"])
@blp.response(204)
@blp.alt_response(404)
@blp.alt_response(412)
def delete_cleaning(cleaning_id: int) -> None:
    """Delete a cleaning"""
    _refuse_changed(cleaning_id)
    _one(fetch(queries.deleted_cleaning(cleaning_id=cleaning_id)))


def _refuse_changed(cleaning_id: int) -> None:
    """Answer 412 when the request says which state it means and that is no longer so."""
    if "If-Match" in request.headers:
        refuse_if_changed(_one(fetch(queries.locked_cleaning(cleaning_id=cleaning_id))))


def _one(rows: Sequence[tuple[Any, ...]]) -> str:
    """Give what the only row renders, or answer 404."""
    if not rows:
        abort(404, message="No cleaning found with that id.")
    return rows[0][0]
