"""The endpoints under ``/api/admin/``."""

from typing import Any, NoReturn

from flask_smorest import abort

from phresh.accounts.tokens import operator_required
from phresh.admin import queries, services
from phresh.admin.schemas import (
    AccountDetailsSchema,
    AccountPageSchema,
    AccountSchema,
    AccountUpdateSchema,
    AuditLogLineSchema,
    AuditPageSchema,
    VisibilitySchema,
)
from phresh.cleanings.queries import hidden_cleaning
from phresh.database.transactions import fetch
from phresh.evaluations.queries import hidden_evaluation
from phresh.mail import sending
from phresh.profiles.queries import hidden_profile
from phresh.web.arguments import envelope
from phresh.web.blueprint import Blueprint
from phresh.web.pages import LINK
from phresh.web.responses import CONTACT_DATA

blp = Blueprint(
    "admin", __name__, url_prefix="/api/admin", description="What only operators may do"
)

VISIBILITY = envelope("visibility", VisibilitySchema)  # one schema of the document


@blp.get("/accounts/")
@operator_required
@blp.arguments(AccountPageSchema, location="query")
@blp.response(200, AccountSchema(many=True), headers=LINK, holds=CONTACT_DATA)
def list_accounts(parameters: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """List accounts

    The newest first.
    """
    page = parameters["page"]
    listed: tuple[str, dict[str, str]] = page.respond(
        queries.account_page(page, parameters.get("q", ""))
    )
    return listed


@blp.get("/accounts/<username:username>/")
@operator_required
@blp.response(200, AccountDetailsSchema, holds=CONTACT_DATA)
@blp.alt_response(404)
def get_account(username: str) -> str:
    """Get an account

    With its logins, and how much it has posted.
    """
    return _account(username)


@blp.patch("/accounts/<username:username>/")
@operator_required
@blp.arguments(envelope("account_update", AccountUpdateSchema))
@blp.response(200, AccountDetailsSchema, holds=CONTACT_DATA)
@blp.alt_response(404)
def update_account(change: dict[str, Any], username: str) -> str:
    """Disable or enable an account

    A disabled account cannot log in. What it has posted stays.
    """
    if not services.set_active(username, **change):
        _reject_username()
    return _account(username)


@blp.delete("/accounts/<username:username>/sessions/")
@operator_required
@blp.response(204)
@blp.alt_response(404)
def end_sessions(username: str) -> None:
    """End all logins of an account

    Their tokens become invalid at once.
    """
    services.end_sessions(_user_id(username))


@blp.delete("/accounts/<username:username>/two-factor/")
@operator_required
@blp.response(204)
@blp.alt_response(404)
def remove_two_factor(username: str) -> None:
    """Remove the second factor of an account

    Make sure first that it is the owner of the account who wants it.
    """
    if not services.remove_second_factor(_user_id(username)):
        abort(404, message="The account has no second factor.")


@blp.post("/accounts/<username:username>/recovery/")
@operator_required
@blp.response(204)
@blp.alt_response(404)
@blp.alt_response(503)
def send_recovery(username: str) -> None:
    """Send an account the mail to set a new password

    To its email address. The link in the mail works once, for an hour.
    """
    user_id = _user_id(username)
    if not sending.is_configured():
        abort(503, message="This server sends no mail.")
    services.send_recovery(user_id)


@blp.patch("/cleanings/<id:cleaning_id>/")
@operator_required
@blp.arguments(VISIBILITY)
@blp.response(204)
@blp.alt_response(404)
def update_cleaning_visibility(change: dict[str, Any], cleaning_id: int) -> None:
    """Hide or show a cleaning

    A hidden one is there only for its owner, and for the cleaner whose offer was accepted.
    """
    query = hidden_cleaning(cleaning_id=cleaning_id, is_hidden=change["is_hidden"])
    if not services.set_hidden(query, "cleaning", f"cleaning {cleaning_id}", **change):
        abort(404, message="There is no such cleaning.")


@blp.patch("/evaluations/<id:cleaning_id>/")
@operator_required
@blp.arguments(VISIBILITY)
@blp.response(204)
@blp.alt_response(404)
def update_evaluation_visibility(change: dict[str, Any], cleaning_id: int) -> None:
    """Hide or show the evaluation of a cleaning

    A hidden one is there only for its author. It counts in no average.
    """
    query = hidden_evaluation(cleaning_id=cleaning_id, is_hidden=change["is_hidden"])
    target = f"evaluation of cleaning {cleaning_id}"
    if not services.set_hidden(query, "evaluation", target, **change):
        abort(404, message="The cleaning has no evaluation.")


@blp.patch("/profiles/<username:username>/")
@operator_required
@blp.arguments(VISIBILITY)
@blp.response(204)
@blp.alt_response(404)
def update_profile_visibility(change: dict[str, Any], username: str) -> None:
    """Hide or show a profile

    A hidden one is there only for its user. What they have posted stays.
    """
    query = hidden_profile(username=username, is_hidden=change["is_hidden"])
    if not services.set_hidden(query, "profile", "profile", **change):
        _reject_username()


@blp.get("/audit-log/")
@operator_required
@blp.arguments(AuditPageSchema, location="query")
@blp.response(200, AuditLogLineSchema(many=True), headers=LINK, holds=CONTACT_DATA)
def list_audit_log(parameters: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """Read the audit log

    The newest line first.
    """
    page = parameters["page"]
    listed: tuple[str, dict[str, str]] = page.respond(
        queries.audit_page(page, parameters.get("username"))
    )
    return listed


def _account(username: str) -> str:
    found = fetch(queries.account(username=username))
    if not found:
        _reject_username()
    [(text, user_id, counts)] = found
    sessions = ", ".join(row for (row,) in fetch(queries.sessions(user_id=user_id)))
    return f'{text[:-1]}, "counts" : {counts}, "sessions" : [{sessions}]}}'


def _user_id(username: str) -> int:
    user_id = services.user_id_of(username)
    if user_id is None:
        _reject_username()
    return user_id


def _reject_username() -> NoReturn:
    abort(404, message="No user has this username.")
