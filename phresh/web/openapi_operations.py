"""How the OpenAPI document describes operations: what holds for each, said once as a component."""

import re
from copy import deepcopy
from typing import Any

from apispec import APISpec, BasePlugin
from flask import Flask
from werkzeug.http import HTTP_STATUS_CODES

from phresh.web.fields import INTEGER_MAX
from phresh.web.idempotency import KeyField
from phresh.web.openapi_examples import LOCAL_URL
from phresh.web.problems import PROBLEM_JSON, ProblemSchema

# How a token is sent. The form that fetches one is added by the docs page (docs.js): with a second
# scheme, generated clients send no token, or ask for two.
BEARER = {
    "type": "http",
    "scheme": "bearer",
    "description": "An access token, from the registration or the login: "
    "`Authorization: Bearer <token>` (RFC 6750).",
}
SECURITY: list[dict[str, list[str]]] = [{"bearer": []}]
# Where one may write without having confirmed the email address: what it takes to confirm it.
OWN_ACCOUNT = "/api/users/"

# What an error means, to whoever has to handle it.
MEANINGS = {
    304: "The representation that the client has (`If-None-Match`) is still current.",
    400: "The body is malformed or cut off.",
    401: "There is no token where one is needed, or it is invalid or has expired.",
    403: "This account is not allowed to do it.",
    404: "There is no such resource.",
    409: "The state of the resource does not allow it, a name is taken, or the first request with "
    "this `Idempotency-Key` is still running.",
    412: "A precondition does not hold: the resource has changed since it was read (`If-Match`), "
    "or exists (`If-None-Match`).",
    413: "The body is too large.",
    415: "The body has another content type than the documented one, or a `Content-Encoding`.",
    422: "A value is not valid, is missing or is unknown: `errors` says which.",
    429: "Too many attempts or writes. Wait for the seconds in `Retry-After`.",
    500: "A defect of the server. Report it with the `request_id`.",
    503: "The database is not available or too slow. Wait for the seconds in `Retry-After`.",
}

TEXT = {"type": "string"}
SECONDS = {"type": "integer", "format": "int32", "minimum": 0, "maximum": INTEGER_MAX}
# Components: the header's name, what it says, its schema and an example.
HEADERS: dict[str, tuple[str, str, dict[str, Any], Any]] = {
    "REQUEST_ID": (
        *("X-Request-Id", "The id of the request, as in the server's log."),
        *(TEXT, "f93b26d7a3c96d8f628b27eb7bcd1739"),
    ),
    "CACHE_CONTROL": (
        *("Cache-Control", "Who may store the response (RFC 9111)."),
        *(TEXT, "no-cache"),
    ),
    "ETAG": (
        *("ETag", "The entity tag of the representation, for `If-Match` and `If-None-Match`."),
        *(TEXT, '"1f3870be274f6c49b3e31a0c6728957f"'),
    ),
    "CONTENT_LOCATION": (
        *("Content-Location", "Where GET returns the representation."),
        *(TEXT, f"{LOCAL_URL}/api/cleanings/1/offers/anna/"),
    ),
    "RETRY_AFTER": ("Retry-After", "The seconds to wait.", SECONDS, 1),
    "WWW_AUTHENTICATE": (
        *("WWW-Authenticate", "How to authenticate (RFC 6750, section 3)."),
        *(TEXT, "Bearer"),
    ),
    "ACCEPT_ENCODING": (
        *("Accept-Encoding", "The content coding that is accepted, if the body had another one."),
        *(TEXT, "identity"),
    ),
    "RATELIMIT_POLICY": (
        *("RateLimit-Policy", "The limits of a write: `q` requests in `w` seconds."),
        *(TEXT, '"writes";q=600;w=3600'),
    ),
    "RATELIMIT": (
        *("RateLimit", "What is left of them: `r` requests; in `t` seconds there is one more."),
        *(TEXT, '"writes";r=599;t=6'),
    ),
}
EVERYWHERE = ("REQUEST_ID", "CACHE_CONTROL")
RATE_LIMITS = ("RATELIMIT_POLICY", "RATELIMIT")
OF_ERRORS = {
    401: ["WWW_AUTHENTICATE"],
    415: ["ACCEPT_ENCODING"],
    429: ["RETRY_AFTER"],
    503: ["RETRY_AFTER"],
}

PRECONDITIONS = ("IF_MATCH", "IF_NONE_MATCH")
# Whose success has an ETag, and in which statuses.
HAVE_ETAG = {"get": {200}, "put": {200}, "patch": {200}, "post": {201}, "delete": set()}


def component_of(status: int) -> str:
    """Return the name of the response with an error status.

    The names in http.HTTPStatus depend on Python's version.
    """
    return re.sub(r"\W+", "_", HTTP_STATUS_CODES[status]).upper()


def headers_of(*components: str) -> dict[str, str]:
    """Return what a response says of its headers, by their components."""
    return {HEADERS[name][0]: name for name in components}


def add_components(spec: APISpec) -> None:
    """Add what operations refer to: security, headers, parameters and errors."""
    components = spec.components
    components.security_scheme("bearer", BEARER)
    for name, (_, description, schema, example) in HEADERS.items():
        described = {"description": description, "schema": schema, "example": example}
        components.header(name, described, lazy=True)
    *_, tag = HEADERS["ETAG"]
    key = {**TEXT, "maxLength": KeyField.MAX_LENGTH, "pattern": f"^{KeyField.PATTERN}$"}
    # Tools send an example with each request: only that of If-None-Match does no harm.
    for header in (
        {
            "name": "If-Match",
            "description": "Respond 412 unless this ETag is current (RFC 9110, 13.1.1).",
            "schema": TEXT,
        },
        {
            "name": "If-None-Match",
            "description": "Respond 304, to a write 412, if this ETag is current (RFC 9110, "
            "13.1.2).",
            "schema": TEXT,
            "example": tag,
        },
        {
            "name": "Idempotency-Key",
            "description": "A new key for each thing to be created. A repeated request with the "
            "same key and the same body returns the first response and creates nothing; with "
            "another body it gets 422, and while the first request is running, 409. A key is "
            "stored for at least a day.",
            "schema": key,
        },
    ):
        name = str(header["name"]).upper().replace("-", "_")
        components.parameter(name, "header", header, lazy=True)
    for status in MEANINGS:
        if status == 304:
            headers = headers_of(*EVERYWHERE, "ETAG")
            response = {"description": description_of(304), "headers": headers}
        else:
            response = error_of(status, {PROBLEM_JSON: {"schema": ProblemSchema}})
        components.response(component_of(status), response, lazy=True)


def description_of(status: int) -> str:
    """Return the description of a response with that status: its name, and what it means."""
    return f"{HTTP_STATUS_CODES[status]}. {MEANINGS[status]}"


def error_of(status: int, content: dict[str, Any]) -> dict[str, Any]:
    """Return the description of an error.

    :param content: by content type
    """
    headers = headers_of(*EVERYWHERE, *OF_ERRORS.get(status, ()), *RATE_LIMITS)
    return {
        "description": description_of(status),
        "headers": headers,
        "content": deepcopy(content),
    }


class OperationPlugin(BasePlugin):
    """Completes each operation: its id, and the responses that any operation can have.

    :param app: whose setting decides whether guests may post, and whose rules say what can be read
    """

    def __init__(self, app: Flask) -> None:
        self._guest_posting = app.config["GUEST_POSTING"]
        rules = app.url_map.iter_rules()
        self._readable = {str(rule) for rule in rules if "GET" in (rule.methods or ())}

    def operation_helper(  # noqa: D102
        self,
        path: Any = None,  # noqa: ARG002
        operations: Any = None,
        **kwargs: Any,
    ) -> None:
        rule = kwargs["rule"]
        name = rule.endpoint.rpartition(".")[2]
        for method, operation in operations.items():
            operation["operationId"] = name if len(operations) == 1 else f"{name}_{method}"
            if method == "put" and "patch" in operations and "summary" in operation:  # one view
                operation["summary"] += " (PUT)"
            statuses = {int(status) for status in operation["responses"]} | {500}
            success = operation["responses"][min(operation["responses"], key=int)]
            headers = success.setdefault("headers", {})
            headers |= headers_of("REQUEST_ID")
            if rule.rule.startswith("/api/"):
                headers |= headers_of("CACHE_CONTROL")
                statuses |= {412, 422, 503}
                statuses |= {304} if method == "get" else {429}
                parameters = operation.setdefault("parameters", [])
                # Where GET is possible, here or elsewhere; blp.etag has named them.
                if rule.rule in self._readable or "Content-Location" in headers:
                    parameters += [name for name in PRECONDITIONS if name not in parameters]
                if 429 in statuses:
                    headers |= headers_of(*RATE_LIMITS)
                if min(statuses) in HAVE_ETAG[method]:
                    headers |= headers_of("ETAG")
            if "requestBody" in operation:
                statuses |= {400, 413, 415}
            if operation.setdefault("security", []):
                statuses |= {401}
                if method != "get" and not rule.rule.startswith(OWN_ACCOUNT):
                    statuses |= {403}
                if method != "get" and not self._guest_posting:
                    operation["security"] = SECURITY
            own = operation["responses"].get(400, {}).get("content")
            if own:  # the errors of a format of its own, which are 400 where others are 422
                statuses -= {422}
            operation["responses"] = {
                status: self._response(operation, status, headers, own)
                for status in sorted(statuses)
            }

    def _response(
        self, operation: dict[str, Any], status: int, headers: dict[str, Any], own: Any
    ) -> Any:
        if status < 300:
            return operation["responses"][status]
        if own:
            return error_of(status, own)
        if status == 304 and not headers.keys() <= headers_of(*EVERYWHERE, "ETAG").keys():
            # A 304 has the headers of its 200.
            return {"description": description_of(status), "headers": headers}
        return component_of(status)
