"""The endpoints under ``/api/users/{username}/evaluations/``."""

from typing import Any

from flask import request
from flask_smorest import abort

from phresh.api import LOCATION, Blueprint, envelope
from phresh.auth import current_account, login_required
from phresh.db import fetch
from phresh.evaluations import queries, services
from phresh.evaluations.schemas import (
    EvaluationCreateSchema,
    EvaluationListSchema,
    EvaluationSchema,
    StatsSchema,
)
from phresh.pages import LINK, Page
from phresh.users.queries import id_of_user

blp = Blueprint(
    "evaluations",
    __name__,
    url_prefix="/api/users/<username:username>/evaluations",
    description="How owners rated who cleaned",
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
    """Rate who cleaned for you

    Which completes the cleaning. It has to be taken by this user; once only.
    """
    text = services.evaluate(cleaning_id, username, current_account().user_id, evaluation)
    return text, {"Location": f"{request.path.rstrip('/')}/"}


@blp.get("/")
@blp.arguments(EvaluationListSchema, location="query")
@blp.response(200, EvaluationSchema(many=True), headers=LINK)
@blp.alt_response(404)
def list_evaluations(query: dict[str, Any], username: str) -> tuple[str, dict[str, str]]:
    """List the evaluations of a user, newest first"""
    page: Page = query["page"]
    return page.answer(fetch(queries.evaluation_page(page, _id_of(username))))


@blp.get("/<id:cleaning_id>/")
@blp.response(200, EvaluationSchema)
@blp.alt_response(404)
def get_evaluation(username: str, cleaning_id: int) -> str:
    """Get the evaluation of a user for a cleaning"""
    cleaner_id = _id_of(username)
    rows = fetch(queries.evaluation_by_cleaning(cleaner_id=cleaner_id, cleaning_id=cleaning_id))
    if not rows:
        abort(404, message="No evaluation found of that user for that cleaning.")
    return rows[0][0]


@blp.get("/stats/")
@blp.response(200, StatsSchema)
@blp.alt_response(404)
def get_stats(username: str) -> str:
    """Get what the evaluations of a user come to"""
    text: str = fetch(queries.stats(cleaner_id=_id_of(username)))[0][0]
    return text


def _id_of(username: str) -> int:
    rows = fetch(id_of_user(username=username))
    if not rows:
        abort(404, message="No user found with that username.")
    return rows[0][0]
