"""Errors of the token endpoint as OAuth 2 has them (RFC 6749 5.2), beside those of RFC 9457."""

import re
from typing import Any

from marshmallow import fields
from werkzeug.http import HTTP_STATUS_CODES

from phresh.accounts.schemas import UNSUPPORTED
from phresh.web.problems import ProblemSchema

# Codes for statuses for which RFC 6749 5.2 has none; 4.1.2.1 has these.
CODES = {429: "temporarily_unavailable", 500: "server_error", 503: "temporarily_unavailable"}
# What a description must not have: all but printable ASCII, quotation marks and backslashes.
NOT_ALLOWED = re.compile(r"[^ !#-\[\]-~]")


class OAuthProblemSchema(ProblemSchema):
    """An error of the token endpoint: problem details, with the members of RFC 6749 5.2."""

    error = fields.String(
        required=True,
        metadata={
            "description": "`invalid_grant`: the email, the password or the code is wrong. "
            "`mfa_required`: send the code of the second factor too, as `otp`. "
            "`unsupported_grant_type` and `invalid_request`: correct the request. Other values: "
            "the status says what to do.",
            "example": "invalid_grant",
        },
    )
    error_description = fields.String(
        required=True,
        metadata={
            "description": "The same as `detail`, or the first of `errors`, in ASCII.",
            "example": "Wrong email or password.",
        },
    )


def with_oauth_errors(view: Any) -> Any:
    """Let every error of a view have the members of OAuth 2; what is not valid gets 400, not 422.

    OAuth 2 clients look at ``error`` to tell an error from a token.
    """
    view.complete_problem = complete_problem
    return view


def complete_problem(problem: dict[str, Any], given: dict[str, Any]) -> None:
    """Add to a problem document what OAuth 2 requires.

    :param given: the arguments of ``abort``; ``error`` is the code
    """
    invalid = problem.get("errors", [])
    if problem["status"] == 422:
        problem |= {"status": 400, "title": HTTP_STATUS_CODES[400]}
    code = given.get("error") or CODES.get(problem["status"], "invalid_request")
    description = problem["detail"]
    if invalid:
        where, description = invalid[0].get("parameter"), invalid[0]["detail"]
        if where is not None:
            description = f"{where}: {description}"
        if any(each["detail"] == UNSUPPORTED for each in invalid):
            code = "unsupported_grant_type"
    problem["error"] = code
    problem["error_description"] = NOT_ALLOWED.sub("?", description.replace('"', "'"))
