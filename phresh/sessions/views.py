"""The endpoints under ``/api/users/me/sessions/``."""

from typing import Any

from flask import current_app
from flask_smorest import abort

from phresh.accounts import audit
from phresh.accounts.queries import deleted_tokens
from phresh.accounts.tokens import current_account, login_required
from phresh.database.transactions import fetch
from phresh.sessions import queries
from phresh.sessions.schemas import SessionPageSchema, SessionSchema
from phresh.web.blueprint import Blueprint
from phresh.web.pages import LINK
from phresh.web.responses import CONTACT_DATA

blp = Blueprint("sessions", __name__, url_prefix="/api/users/me/sessions")


@blp.get("/", tags=["users"])
@login_required
@blp.arguments(SessionPageSchema, location="query")
@blp.response(200, SessionSchema(many=True), headers=LINK, holds=CONTACT_DATA)
def list_sessions(parameters: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """List your logins

    The newest first. An account has 100 at most: the next login ends the oldest one.
    """
    account, page = current_account(), parameters["page"]
    idle = current_app.config["SESSION_IDLE"]
    found = queries.session_page(
        page, user_id=account.user_id, token_hash=account.token_hash, idle=idle
    )
    listed: tuple[str, dict[str, str]] = page.respond(found)
    return listed


@blp.delete("/", tags=["users"])
@login_required
@blp.response(204)
def delete_other_sessions() -> None:
    """End all your other logins

    Their tokens become invalid at once.
    """
    account = current_account()
    fetch(deleted_tokens(user_id=account.user_id, but=account.token_hash))
    audit.record("logins_ended", user_id=account.user_id)


@blp.delete("/<session:session_id>/", tags=["users"])
@login_required
@blp.response(204)
@blp.alt_response(404)
def delete_session(session_id: str) -> None:
    """End one of your logins

    Its token becomes invalid at once.
    """
    user_id = current_account().user_id
    if not fetch(queries.deleted_session(user_id=user_id, session_id=session_id)):
        abort(404, message="You have no such login.")
    audit.record("login_ended", user_id=user_id)
