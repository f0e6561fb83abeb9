"""The endpoints under ``/api/users/{username}/evaluations/``."""

from typing import Any

from flask import request
from flask_smorest import abort

from phresh.accounts.queries import id_of_user
from phresh.accounts.tokens import (
    current_account,
    current_account_or_none,
    login_not_required,
    login_optional,
    login_required,
)
from phresh.database.transactions import fetch
from phresh.evaluations import queries, services
from phresh.evaluations.schemas import (
    EvaluationCreateSchema,
    EvaluationListSchema,
    EvaluationSchema,
    StatsSchema,
)
from phresh.web.arguments import envelope
from phresh.web.blueprint import Blueprint
from phresh.web.openapi import LOCATION
from phresh.web.pages import LINK, Page

blp = Blueprint(
    "evaluations",
    __name__,
    url_prefix="/api/users/<username:username>/evaluations",
    description="Ratings of cleaners",
)


@blp.post("/<id:cleaning_id>/")
@login_required
@blp.arguments(envelope("evaluation_create", EvaluationCreateSchema))
@blp.response(201, EvaluationSchema, headers=LOCATION)
@blp.alt_response(403)
@blp.alt_response(404)
@blp.alt_response(409)
def create_evaluation(
    evaluation: dict[str, Any], username: str, cleaning_id: int
) -> tuple[str, dict[str, str]]:
    """Rate the cleaner

    Marks the cleaning as completed. The user must be the accepted cleaner. A cleaning can be rated
    once.
    """
    text = services.evaluate(cleaning_id, username, current_account().user_id, evaluation)
    return text, {"Location": f"{request.path.rstrip('/')}/"}


@blp.get("/")
@login_not_required
@blp.arguments(EvaluationListSchema, location="query")
@blp.response(200, EvaluationSchema(many=True), headers=LINK)
@blp.alt_response(404)
def list_evaluations(query: dict[str, Any], username: str) -> tuple[str, dict[str, str]]:
    """List a user's evaluations, newest first

    The evaluations that the user received as a cleaner.
    """
    page: Page = query["page"]
    return page.respond(queries.evaluation_page(page, _id_of(username)))


@blp.get("/<id:cleaning_id>/")
@login_optional
@blp.response(200, EvaluationSchema)
@blp.alt_response(404)
def get_evaluation(username: str, cleaning_id: int) -> str:
    """Get a user's evaluation for a cleaning

    The evaluation that the user received as the cleaner. One that an operator has hidden is 404,
    except for its author.
    """
    named = {"cleaner_id": _id_of(username), "cleaning_id": cleaning_id}
    account = current_account_or_none()
    if account is None:
        rows = fetch(queries.evaluation_by_cleaning(**named))
    else:
        rows = fetch(queries.seen_evaluation(**named, viewer_id=account.user_id))
    if not rows:
        abort(404, message="This user has no evaluation for this cleaning.")
    return rows[0][0]


@blp.get("/stats/")
@login_not_required
@blp.response(200, StatsSchema)
@blp.alt_response(404)
def get_stats(username: str) -> str:
    """Get a user's rating statistics

    Over all evaluations that the user received as a cleaner, without hidden ones.
    """
    text: str = fetch(queries.stats(cleaner_id=_id_of(username)))[0][0]
    return text


def _id_of(username: str) -> int:
    rows = fetch(id_of_user(username=username))
    if not rows:
        abort(404, message="No user has this username.")
    return rows[0][0]
