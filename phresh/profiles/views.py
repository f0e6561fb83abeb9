"""The endpoints under ``/api/profiles/``."""

from typing import Any

from flask_smorest import abort
from psycopg2.errors import ForeignKeyViolation

from phresh.api import Blueprint, envelope
from phresh.auth import (
    current_account,
    current_account_or_guest,
    login_optional,
    login_required,
    refuse_token,
)
from phresh.db import fetch
from phresh.profiles import queries
from phresh.profiles.schemas import ProfileSchema, ProfileUpdateSchema

blp = Blueprint(
    "profiles", __name__, url_prefix="/api/profiles", description="What users say of themselves"
)


@blp.get("/<username:username>/")
@login_optional
@blp.response(200, ProfileSchema)
@blp.alt_response(404)
def get_profile(username: str) -> str:
    """Get a profile

    Email and phone number are there for oneself, and between a job's owner and the cleaner whose
    offer was accepted.
    """
    account = current_account_or_guest()
    if account is None:
        rows = fetch(queries.public_profile(username=username))
    else:
        rows = fetch(queries.seen_profile(username=username, viewer_id=account.user_id))
    if not rows:
        abort(404, message="No user found with that username.")
    return rows[0][0]


@blp.route("/me/", methods=["PATCH", "PUT"])
@login_required
@blp.arguments(envelope("profile_update", ProfileUpdateSchema))
@blp.response(200, ProfileSchema)
def update_profile(changes: dict[str, Any]) -> str:
    """Change your profile

    Fields left out stay as they are, with PATCH and with PUT.
    """
    user_id = current_account().user_id
    if changes:
        try:
            fetch(queries.changed_profile(user_id=user_id, **changes))
        except ForeignKeyViolation:  # the account was deleted this moment
            refuse_token()
    rows = fetch(queries.own_profile(user_id=user_id))
    if not rows:
        refuse_token()
    return rows[0][0]
