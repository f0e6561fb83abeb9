"""The endpoints under ``/api/profiles/``."""

from typing import Any

from flask_smorest import abort
from psycopg2.errors import ForeignKeyViolation

from phresh.accounts.services import require_password_or_recent_login
from phresh.accounts.tokens import (
    current_account,
    current_account_or_none,
    login_optional,
    login_required,
    reject_token,
)
from phresh.database.transactions import fetch
from phresh.profiles import queries
from phresh.profiles.schemas import ProfileSchema, ProfileUpdateSchema
from phresh.web.arguments import envelope
from phresh.web.blueprint import Blueprint
from phresh.web.responses import CONTACT_DATA

blp = Blueprint(
    "profiles", __name__, url_prefix="/api/profiles", description="Public user profiles"
)


@blp.get("/<username:username>/")
@login_optional
@blp.response(200, ProfileSchema, holds=CONTACT_DATA)
@blp.alt_response(404)
def get_profile(username: str) -> str:
    """Get a profile

    `email` and `phone_number` are included only for yourself and between the owner of a cleaning
    and its accepted cleaner. A profile that an operator has hidden is 404, except for its user.
    """
    account = current_account_or_none()
    if account is None:
        rows = fetch(queries.public_profile(username=username))
    else:
        rows = fetch(queries.seen_profile(username=username, viewer_id=account.user_id))
    if not rows:
        abort(404, message="No user has this username.")
    return rows[0][0]


@blp.get("/me/")
@login_required
@blp.response(200, ProfileSchema, holds=CONTACT_DATA)
def get_own_profile() -> str:
    """Get your profile

    With the email address and the phone number.
    """
    return _own_profile()


@blp.route("/me/", methods=["PATCH", "PUT"])
@login_required
@blp.arguments(
    envelope("profile_update", ProfileUpdateSchema),
    example={
        "profile_update": {
            "full_name": "Anna Winter",
            "phone_number": "+49 30 1234567",
            "bio": "Quick, and kind to cats.",
            "image": "https://phresh.example/anna.jpg",
        }
    },
)
@blp.response(200, ProfileSchema, holds=CONTACT_DATA)
@blp.alt_response(403)
def update_profile(changes: dict[str, Any]) -> str:
    """Change your profile

    Fields left out stay as they are, with PATCH and with PUT. Changing the phone number requires
    the password or a login of the last 15 minutes.
    """
    user_id = current_account().user_id
    old_password = changes.pop("old_password", None)
    if "phone_number" in changes:
        phone_number = changes["phone_number"]
        if not fetch(queries.has_phone_number(user_id=user_id, phone_number=phone_number)):
            require_password_or_recent_login(old_password)
    if changes:
        try:
            fetch(queries.changed_profile(user_id=user_id, **changes))
        except ForeignKeyViolation:  # the account is being deleted
            reject_token()
    return _own_profile()


def _own_profile() -> str:
    """Return the current user's profile; respond 401 if the account is being deleted."""
    rows = fetch(queries.own_profile(user_id=current_account().user_id))
    if not rows:
        reject_token()
    text: str = rows[0][0]
    return text
