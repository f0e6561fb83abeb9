"""What schemathesis must know that an OpenAPI document cannot express."""

import itertools
import json
import os
import uuid
from pathlib import Path

import schemathesis

from tests.tools.features import features

# {"cursors": ..., "paths": ...}, of tests/tools/schemathesis_data.py
DATA = json.loads(Path(os.environ["SCHEMATHESIS_DATA"]).read_text())
PATHS = {operation: itertools.cycle(rows) for operation, rows in DATA["paths"].items() if rows}
STRANGERS = itertools.count(1_000)
# These make the password, a token or the second factor of the sender invalid: others send them.
ENDING = {
    *("delete_me", "delete_token", "update_me", "delete_other_sessions"),
    *("begin_two_factor", "confirm_two_factor", "delete_two_factor"),
}
UNDOCUMENTED = {message for feature in features().values() for message in feature.undocumented}


def operation_of(case):
    return case.operation.definition.raw["operationId"]


@schemathesis.hook
def before_call(context, case, kwargs):
    """Give a valid request the rows and values that its operation needs.

    The coverage phase tries the bounds of each value with all headers: there, any state will do.
    """
    name = operation_of(case)
    # Only this run's own token: a wrong one is sent on purpose.
    if name in ENDING and case.headers.get("Authorization") == "Bearer token-1":
        case.headers["Authorization"] = f"Bearer token-{next(STRANGERS)}"
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    if "Idempotency-Key" in case.headers:
        case.headers["Idempotency-Key"] = uuid.uuid4().hex
    if "after" in case.query and name in DATA["cursors"]:
        case.query["after"] = DATA["cursors"][name][case.query.get("sort", "")]
    # Others are of another state, or malformed, which the document cannot express.
    if "If-Match" in case.headers:
        case.headers["If-Match"] = "*"
        if case.method == "POST":  # what it creates can't be read yet
            del case.headers["If-Match"]
    if "If-None-Match" in case.headers and case.method != "GET":
        case.headers["If-None-Match"] = '"other"'
    if "username" in (case.path_parameters or {}):
        case.path_parameters["username"] = "user-2"
    if name in PATHS:
        case.path_parameters |= next(PATHS[name])
    for feature in features().values():
        feature.correct(name, case)


@schemathesis.hook
def filter_failure(context, failure, case, response):
    """Drop the failure to accept a valid request in these cases, and no other."""
    if "positive_data_acceptance" not in failure.checks:
        return True
    if response.status_code == 412:
        return "If-Match" not in case.headers  # where nothing can be read
    if response.status_code == 422:
        reasons = {error["detail"] for error in response.json().get("errors", [])}
        return not reasons <= UNDOCUMENTED
    return True
