"""The endpoints under ``/api/cleanings/``."""

from collections.abc import Sequence
from typing import Any

from flask import url_for
from flask_smorest import abort
from sqlalchemy import Row

from phresh.api import Blueprint, array, envelope
from phresh.cleanings import queries
from phresh.cleanings.schemas import (
    CleaningCreateSchema,
    CleaningListSchema,
    CleaningSchema,
    CleaningUpdateSchema,
)
from phresh.db import fetch

blp = Blueprint(
    "cleanings", __name__, url_prefix="/api/cleanings", description="Homes to be cleaned"
)

LOCATION = {"Location": {"description": "Where it is", "schema": {"type": "string"}}}


@blp.get("/")
@blp.arguments(CleaningListSchema, location="query")
@blp.response(200, CleaningSchema(many=True))
def list_cleanings(query: dict[str, Any]) -> str:
    """List cleanings, newest first"""
    return array(row[0] for row in fetch(queries.newest_cleanings(query["limit"])))


@blp.post("/")
@blp.arguments(envelope("new_cleaning", CleaningCreateSchema))
@blp.response(201, CleaningSchema, headers=LOCATION)
def create_cleaning(cleaning: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """Post a cleaning"""
    text, cleaning_id = fetch(queries.new_cleaning(cleaning))[0]
    return text, {"Location": url_for("cleanings.get_cleaning", cleaning_id=cleaning_id)}


@blp.get("/<id:cleaning_id>/")
@blp.response(200, CleaningSchema)
@blp.alt_response(404)
def get_cleaning(cleaning_id: int) -> str:
    """Get a cleaning"""
    return _one(fetch(queries.cleaning_by_id(cleaning_id)))


@blp.route("/<id:cleaning_id>/", methods=["PATCH", "PUT"])
@blp.arguments(envelope("cleaning_update", CleaningUpdateSchema))
@blp.response(200, CleaningSchema)
@blp.alt_response(404)
def update_cleaning(changes: dict[str, Any], cleaning_id: int) -> str:
    """Change a cleaning

    Fields left out stay as they are, with PATCH and with PUT.
    """
    return _one(fetch(queries.changed_cleaning(cleaning_id, changes)))


@blp.delete("/<id:cleaning_id>/")
@blp.response(204)
@blp.alt_response(404)
def delete_cleaning(cleaning_id: int) -> None:
    """Delete a cleaning"""
    _one(fetch(queries.deleted_cleaning(cleaning_id)))


def _one(rows: Sequence[Row[*tuple[Any, ...]]]) -> str:
    """Give what the only row renders, or answer 404."""
    if not rows:
        abort(404, message="No cleaning found with that id.")
    return rows[0][0]
