"""Errors: every one is a problem document (RFC 9457), made here."""

import traceback
from collections.abc import Iterator
from itertools import islice
from typing import Any

import marshmallow as ma
import psycopg2
from flask import Flask, current_app, g, request
from flask_smorest import abort
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm.exc import ObjectDeletedError, StaleDataError
from werkzeug.exceptions import Conflict, HTTPException
from werkzeug.http import HTTP_STATUS_CODES

from phresh.database.clients import has_client_gone
from phresh.web.app import Response

PROBLEM_JSON = "application/problem+json"
RETRY_AFTER = 1  # seconds
ERRORS_MAX = 20  # of one request
NAME_MAX = 100  # characters of an unknown name that are repeated in an error
CLIENT_GONE = "499 Client Closed Request"  # as nginx has it; for the log, since nobody reads it

SQLSTATE_STATUS = {
    "0A000": 503,  # feature not supported: unlogged tables, which a standby cannot read
    "22003": 422,  # numeric value out of range
    "22021": 422,  # character not in repertoire
    "22P02": 422,  # invalid text representation
    "23503": 409,  # foreign key violation
    "23505": 409,  # unique violation
    "23514": 422,  # check violation
    "25006": 503,  # read-only transaction: a standby, or a primary that was demoted
    "40001": 503,  # serialization failure
    "40P01": 503,  # deadlock
    "54000": 422,  # program limit exceeded: a value too long to index
    "55P03": 503,  # lock not available
    "57014": 503,  # query cancelled: the statement time limit
}
SQLSTATE_AWAY = ("08", "53", "57P")  # connection exceptions, insufficient resources, shutdown

DATABASE_DETAIL = {
    409: "The request conflicts with existing data.",
    422: "The database rejects a value.",
    503: "The database is not available. Try again soon.",
}


LOST_RACE = (
    "Another request has changed or deleted the resource at the same time. Read it again, then "
    "decide."
)


class ProblemSchema(ma.Schema):
    """Problem details (RFC 9457), the format of every error."""

    class InvalidValueSchema(ma.Schema):
        """An invalid value: where it is, in the body or in a parameter, and why it is rejected."""

        pointer = ma.fields.String(
            metadata={"description": "Where in the body (JSON Pointer, RFC 6901)."}
        )
        parameter = ma.fields.String(
            metadata={"description": "The name of the parameter, if it is not in a JSON body."}
        )
        location = ma.fields.String(
            data_key="in",
            metadata={"description": "Where the parameter is: `query`, `header` or `form`."},
        )
        detail = ma.fields.String(
            required=True, metadata={"description": "What is wrong. The wording may change."}
        )

    type = ma.fields.String(
        required=True,
        metadata={"description": "`about:blank`: the status says which error it is."},
    )
    title = ma.fields.String(required=True, metadata={"description": "The name of the status."})
    status = ma.fields.Integer(
        required=True,
        validate=ma.validate.Range(400, 599),
        metadata={"description": "The status of the response."},
    )
    detail = ma.fields.String(
        required=True,
        metadata={"description": "What is wrong, and what to do. The wording may change."},
    )
    request_id = ma.fields.String(
        metadata={"description": "As in the header `X-Request-Id` and in the server's log."}
    )
    errors = ma.fields.List(
        ma.fields.Nested(InvalidValueSchema),
        validate=ma.validate.Length(max=ERRORS_MAX),
        metadata={"description": "Each value that is not valid, if the status is 422."},
    )


def init_app(app: Flask) -> None:
    """Turn errors of the database into problem documents; Flask-Smorest does so with HTTP's."""
    app.register_error_handler(psycopg2.Error, _database_response)
    app.register_error_handler(DBAPIError, _sqlalchemy_response)
    for lost_race in (StaleDataError, ObjectDeletedError):
        app.register_error_handler(lost_race, _lost_race_response)


def _database_response(error: psycopg2.Error) -> Response:
    if has_client_gone():
        return Response(status=CLIENT_GONE)
    return problem_response(_database_problem(error))


def _sqlalchemy_response(error: DBAPIError) -> Response:
    if not isinstance(error.orig, psycopg2.Error):
        raise error
    return _database_response(error.orig)


def _lost_race_response(_: Exception) -> Response:
    """Return what it means that the row of a mapped object is gone, or is not what was loaded."""
    return problem_response(Conflict(LOST_RACE))


def problem_response(error: HTTPException) -> Response:
    """Return the problem document of an HTTP error, with the error's own headers.

    A view with an attribute ``complete_problem`` may add members to it, and change its status.
    """
    given: dict[str, Any] = getattr(error, "data", None) or {}
    status = error.code or 500
    title = HTTP_STATUS_CODES[status]
    detail = given.get("message") or error.description
    if detail == type(error).description:
        detail = title
    problem: dict[str, Any] = {"type": "about:blank", "title": title, "status": status}
    problem["detail"] = detail
    if "request_id" in g:
        problem["request_id"] = g.request_id
    if "messages" in given:
        problem["detail"] = "The request is not valid; see `errors`."
        problem["errors"] = list(islice(_invalid_values(given["messages"]), ERRORS_MAX))
    view = current_app.view_functions.get(request.endpoint or "")
    if (complete := getattr(view, "complete_problem", None)) is not None:
        complete(problem, given)
        status = problem["status"]
    headers = {
        name: value
        for name, value in error.get_headers()
        if not name.startswith("Content-") or name == "Content-Range"  # of 416, RFC 9110 15.5.17
    }
    headers["Cache-Control"] = "no-store"  # a cache may keep a 404 otherwise (RFC 9111 4.2.2)
    if status == 503:
        headers["Retry-After"] = str(RETRY_AFTER)
    body = current_app.json.dumps(problem)
    return Response(
        body, status, {**headers, **(given.get("headers") or {})}, mimetype=PROBLEM_JSON
    )


def _invalid_values(messages: dict[str, Any]) -> Iterator[dict[str, str]]:
    """Turn webargs' messages, ``{location: {field: ...}}``, into the errors of a problem."""
    for location, fields in messages.items():
        for path, detail in _leaves(fields):
            names = [_shortened(str(name)) for name in path]
            if location == "json":
                escaped = (name.replace("~", "~0").replace("/", "~1") for name in names)
                yield {"pointer": "".join(f"/{name}" for name in escaped), "detail": detail}
            else:
                place = "header" if location == "headers" else location
                where = {"parameter": names[0]} if names else {}
                yield {**where, "in": place, "detail": detail}


def _shortened(name: str) -> str:
    """Return a name that the client has made up, without what is too long to repeat."""
    return name if len(name) <= NAME_MAX else f"{name[:NAME_MAX]}..."


def _leaves(messages: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], str]]:
    if isinstance(messages, dict):
        for key, inner in messages.items():
            yield from _leaves(inner, path if key == "_schema" else (*path, key))
    elif isinstance(messages, list):
        for inner in messages:
            yield from _leaves(inner, path)
    else:
        yield path, messages


def _database_problem(error: psycopg2.Error) -> HTTPException:
    """Return what a failure of the database means to the client, and log what it is."""
    name = type(error).__name__
    if (state := error.pgcode) is not None:
        status = 503 if state.startswith(SQLSTATE_AWAY) else SQLSTATE_STATUS.get(state, 500)
        # Not its text, which quotes values: of the row, or of the statement.
        about = f"{name} ({state}) {error.diag.constraint_name or ''}".strip()
    else:  # nothing from the server: not connected, connection lost, none left in the pool
        away = (psycopg2.OperationalError, psycopg2.InterfaceError)
        status = 503 if isinstance(error, away) else 500
        about = f"{name}: {error}"
    if status == 503:
        current_app.logger.warning("The database is not available: %s", about)
    elif status == 500:
        frames = "".join(traceback.format_tb(error.__traceback__))
        fields = {"fields": {"traceback": frames}}
        current_app.logger.error("The database failed: %s", about, extra=fields)
    else:
        current_app.logger.error("The schemas accept what the database rejects: %s", about)
    try:
        abort(status, message=DATABASE_DETAIL.get(status))
    except HTTPException as problem:
        return problem
