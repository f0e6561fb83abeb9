"""The endpoints under ``/api/cleanings/``."""

from collections.abc import Sequence
from typing import Any

from flask_smorest import abort
from psycopg2.errors import ForeignKeyViolation

from phresh.accounts.tokens import (
    current_account,
    current_account_or_none,
    login_not_required,
    login_optional,
    login_required,
    login_to_post,
    reject_token,
)
from phresh.cleanings import queries, services
from phresh.cleanings.schemas import (
    CleaningCreateSchema,
    CleaningListSchema,
    CleaningSchema,
    CleaningUpdateSchema,
)
from phresh.database.statements import Query
from phresh.database.transactions import fetch
from phresh.web.arguments import envelope
from phresh.web.blueprint import Blueprint
from phresh.web.openapi import LOCATION
from phresh.web.pages import LINK, Page

blp = Blueprint("cleanings", __name__, url_prefix="/api/cleanings", description="Cleaning jobs")


@blp.get("/")
@login_not_required
@blp.arguments(CleaningListSchema, location="query")
@blp.response(200, CleaningSchema(many=True), headers=LINK)
def list_cleanings(query: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """List cleanings, newest first

    With `q` it is a search. A search that takes too long, and one of too many at once, gets 503
    with `Retry-After`.
    """
    page: Page = query.pop("page")
    if "q" in query:
        return services.search(page, query)
    return page.respond(queries.cleaning_page(page, **query))


@blp.post("/")
@login_to_post
@blp.arguments(envelope("new_cleaning", CleaningCreateSchema))
@blp.response(201, CleaningSchema, headers=LOCATION)
def create_cleaning(cleaning: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """Post a cleaning

    If you are logged in, you own it. Nobody can change or delete a cleaning that a guest posted.
    """
    account = current_account_or_none()
    owner_id = None if account is None else account.user_id
    try:
        text, cleaning_id = fetch(queries.new_cleaning(**cleaning, owner_id=owner_id))[0]
    except ForeignKeyViolation:  # the account is being deleted
        reject_token()
    return text, {"Location": f"{blp.url_prefix}/{cleaning_id}/"}


@blp.get("/<id:cleaning_id>/")
@login_optional
@blp.response(200, CleaningSchema)
@blp.alt_response(404)
def get_cleaning(cleaning_id: int) -> str:
    """Get a cleaning

    Everyone can read it, whatever its status. One that an operator has hidden is 404, except for
    its owner and its accepted cleaner.
    """
    account = current_account_or_none()
    if account is None:
        return _one(fetch(queries.cleaning_by_id(cleaning_id=cleaning_id)))[0]
    seen = queries.seen_cleaning(cleaning_id=cleaning_id, viewer_id=account.user_id)
    return _one(fetch(seen))[0]


@blp.route("/<id:cleaning_id>/", methods=["PATCH", "PUT"])
@login_required
@blp.arguments(envelope("cleaning_update", CleaningUpdateSchema))
@blp.response(200, CleaningSchema)
@blp.alt_response(403)
@blp.alt_response(404)
@blp.alt_response(409)
def update_cleaning(changes: dict[str, Any], cleaning_id: int) -> str:
    """Change your cleaning

    Fields left out stay as they are, with PATCH and with PUT. The type and the price can't change
    once the cleaning is taken.
    """
    own = {"cleaning_id": cleaning_id, "owner_id": current_account().user_id}
    change = queries.changed_cleaning(**own, **changes)
    return _write(cleaning_id, change, "its type and price can no longer change")


@blp.delete("/<id:cleaning_id>/")
@login_required
@blp.response(204)
@blp.alt_response(403)
@blp.alt_response(404)
@blp.alt_response(409)
def delete_cleaning(cleaning_id: int) -> None:
    """Delete your cleaning

    Only while it is open.
    """
    own = {"cleaning_id": cleaning_id, "owner_id": current_account().user_id}
    _write(cleaning_id, queries.deleted_cleaning(**own), "it can no longer be deleted")


def _write(cleaning_id: int, query: Query, consequence: str) -> str:
    """Change or delete a cleaning and return its text; when the query did nothing, say why.

    :param query: it writes only what the owner may write
    :param consequence: what is no longer possible once the cleaning is taken
    """
    if not (rows := fetch(query)):
        user_id = current_account().user_id
        job = queries.locked_job(cleaning_id=cleaning_id, user_id=user_id)
        owner_id, status, _ = _one(fetch(job))
        if owner_id != user_id:
            abort(403, message="Only the owner can change or delete a cleaning.")
        if status != "open":
            abort(409, message=f"The cleaning is {status}; {consequence}.")
        rows = fetch(query)  # it was opened between the two
    return _one(rows)[0]


def _one(rows: Sequence[tuple[Any, ...]]) -> tuple[Any, ...]:
    """Return the only row; respond 404 if there is none."""
    if not rows:
        abort(404, message="No cleaning has this id.")
    return rows[0]
