"""What schemathesis is told of the rules that an OpenAPI document can't express."""

import base64
import itertools
import uuid

import schemathesis

from tests.tools.schemathesis_data import JOBS, PASSWORD, job_of

STRANGERS = itertools.count(1_000)
NUMBERS = {operation: itertools.count() for operation in JOBS}
# These end the token, or the password, that they are called with.
ENDING = {"delete_me", "delete_token", "update_me"}
PLACES = {
    "list_cleanings": "-id 7",
    "list_events": "-time 2026-01-02T03:04:05+00:00 7",
    "list_offers": "-id 7",
    "list_my_offers": "-id 7",
    "list_evaluations": "-id 7",
}


def operation_of(case):
    return case.operation.definition.raw["operationId"]


@schemathesis.hook
def before_call(context, case, kwargs):
    """Have a right request mean what there is, as its operation needs it.

    One of the phase that tries the bounds of each value, with all headers, means any state too.
    """
    name = operation_of(case)
    # Only where it would be this run's own token: a wrong one is sent on purpose.
    if name in ENDING and case.headers.get("Authorization") == "Bearer token-1":
        case.headers["Authorization"] = f"Bearer token-{next(STRANGERS)}"
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    if "Idempotency-Key" in case.headers:
        case.headers["Idempotency-Key"] = uuid.uuid4().hex
    if "after" in case.query:
        place = PLACES[name]
        if "price" in (order := case.query.get("sort", "")):
            place = f"{order} 29.99 7"
        elif order:
            place = f"{order} 7"
        case.query["after"] = base64.urlsafe_b64encode(place.encode()).decode().rstrip("=")
    if "If-Match" in case.headers and case.meta.phase.name.value == "coverage":
        case.headers["If-Match"] = "*"
    if name in JOBS:
        case.path_parameters["cleaning_id"] = job_of(name, next(NUMBERS[name]))
    if "username" in (case.path_parameters or {}):
        case.path_parameters["username"] = "user-2"
    if name == "create_token" and isinstance(case.body, dict):
        case.body |= {"username": "user-2@phresh.example", "password": PASSWORD}
    if name in ("create_user", "update_me") and isinstance(case.body, dict):
        for values in case.body.values():
            unique = uuid.uuid4().hex
            values |= {key: f"{unique}@phresh.example" for key in ("email",) if key in values}
            values |= {key: PASSWORD for key in ("old_password",) if key in values}
            if "email" in values or "password" in values:
                values |= {"old_password": PASSWORD} if name == "update_me" else {}


@schemathesis.hook
def filter_failure(context, failure, case, response):
    """Drop the failure to accept a right request in these cases, and no other."""
    if "positive_data_acceptance" not in failure.checks:
        return True
    if response.status_code == 412:
        return "If-Match" not in case.headers  # of another state
    if response.status_code == 422:
        reasons = {error["detail"] for error in response.json().get("errors", [])}
        return not reasons <= {
            # The pattern for that, \p{L}, is not one in every language.
            "Each word must have a letter or a digit.",
            "This password is too common.",
            "Must not be the username or the email.",
        }
    return True
