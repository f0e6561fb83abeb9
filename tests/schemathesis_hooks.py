"""What schemathesis is told of the rules that an OpenAPI document can't express."""

import base64
import uuid

import schemathesis


@schemathesis.hook
def before_call(context, case, kwargs):
    """Have a right request use a new key, and a place that is in the order it asks for.

    One of the phase that tries the bounds of each value, with all headers, means any state too.
    """
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    if "Idempotency-Key" in case.headers:
        case.headers["Idempotency-Key"] = uuid.uuid4().hex
    if "after" in case.query:
        order = case.query.get("sort", "-id")
        place = f"{order} 29.99 7" if "price" in order else f"{order} 7"
        case.query["after"] = base64.urlsafe_b64encode(place.encode()).decode().rstrip("=")
    if "If-Match" in case.headers and case.meta.phase.name.value == "coverage":
        case.headers["If-Match"] = "*"


@schemathesis.hook
def filter_failure(context, failure, case, response):
    """Drop the failure to accept a right request in these cases, and no other."""
    if "positive_data_acceptance" not in failure.checks:
        return True
    if response.status_code == 412:
        return "If-Match" not in case.headers  # of another state
    if response.status_code == 422:
        reasons = {error["detail"] for error in response.json().get("errors", [])}
        # The pattern for that, \p{L}, is not one in every language.
        return reasons != {"Each word must have a letter or a digit."}
    return True
