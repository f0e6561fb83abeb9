"""What Phresh changes in Flask-Smorest, and the pieces that every resource shares."""

import json
import re
import traceback
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from functools import wraps
from http import HTTPStatus
from typing import Any, NoReturn

import flask
import flask_smorest
import marshmallow as ma
from apispec import BasePlugin
from flask import Flask, Response, current_app, g, request
from flask.json.provider import DefaultJSONProvider
from flask_cors import CORS
from flask_smorest import abort
from sqlalchemy import exc
from webargs.flaskparser import FlaskParser
from werkzeug.exceptions import (
    BadRequest,
    HTTPException,
    NotFound,
    RequestEntityTooLarge,
    UnsupportedMediaType,
)
from werkzeug.http import HTTP_STATUS_CODES, generate_etag
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.routing import BaseConverter

from phresh.db import transaction

PROBLEM_JSON = "application/problem+json"
RETRY_AFTER = 1  # seconds
INTEGER_MAX = 2**31 - 1  # of PostgreSQL's type integer

# White space in the regular expressions of Python, PostgreSQL and ECMA-262 (JSON Schema) alike:
# their own \s differ.
BLANKS = (
    r"\u0009-\u000d\u001c-\u0020\u0085\u00a0\u1680\u2000-\u200a"
    r"\u2028\u2029\u202f\u205f\u3000\ufeff"
)
NOT_BLANK = f"[^{BLANKS}]"


# Input


class StrictJSONProvider(DefaultJSONProvider):
    """JSON as RFC 8259 has it, each doubt refused; numbers with a point become Decimal."""

    sort_keys = False

    def loads(self, s: str | bytes, **_: Any) -> Any:  # noqa: D102
        try:
            return json.loads(
                s if isinstance(s, str) else s.decode(),
                parse_float=Decimal,
                parse_constant=_refuse_constant,
                object_pairs_hook=_unique_keys,
            )
        except (RecursionError, ArithmeticError) as error:
            raise ValueError("nested too deeply, or a number too large") from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return members


class Request(flask.Request):
    """A request whose JSON is refused in this order: 413 too large, 415 not JSON, 400 broken."""

    def get_json(self, *args: Any, **kwargs: Any) -> Any:  # noqa: D102
        data = self.get_data()  # refuses a Content-Length that is too large
        if self.content_length is None:  # in chunks, of which Werkzeug reads no more than allowed
            if len(data) == self.max_content_length and self.environ["wsgi.input"].read(1):
                raise RequestEntityTooLarge
        elif len(data) < self.content_length:
            raise BadRequest("The body is shorter than its Content-Length.")
        return super().get_json(*args, **kwargs)

    def on_json_loading_failed(self, e: ValueError | None) -> NoReturn:  # noqa: D102
        if e is None:
            raise UnsupportedMediaType("The body has to be application/json.")
        raise BadRequest("The body is empty." if not self.get_data() else f"Broken JSON: {e}.")


class Parser(FlaskParser):
    """Reads the arguments of views. What no schema knows is refused everywhere."""

    DEFAULT_UNKNOWN_BY_LOCATION = {
        **FlaskParser.DEFAULT_UNKNOWN_BY_LOCATION,
        "query": ma.RAISE,
    }

    def _raw_load_json(self, req: flask.Request) -> Any:
        return req.get_json()

    def load_querystring(self, req: flask.Request, schema: ma.Schema) -> Any:  # noqa: D102
        parameters = super().load_querystring(req, schema)
        for name, values in req.args.lists():
            if len(values) > 1 and name not in parameters.multiple_keys:
                raise ma.ValidationError({name: ["Given more than once."]})
        return parameters


class Text(ma.fields.String):
    """Text that PostgreSQL can hold: no NUL, no lone surrogate, of a limited length.

    :param max_length: in characters (code points)
    :param blank: whether it may be empty or only white space
    """

    default_error_messages = {
        "nul": "Must not contain the character NUL.",
        "surrogate": "Must not contain half of a surrogate pair.",
        "blank": "Must not be blank.",
    }

    def __init__(self, *, max_length: int, blank: bool = True, **kwargs: Any) -> None:
        pattern = r"^[^\u0000]*$" if blank else rf"^[^\u0000]*[^\u0000{BLANKS}][^\u0000]*$"
        metadata = {"pattern": pattern, **kwargs.pop("metadata", {})}
        length = ma.validate.Length(min=None if blank else 1, max=max_length)
        super().__init__(validate=length, metadata=metadata, **kwargs)
        self.blank = blank

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> str:
        text: str = super()._deserialize(value, attr, data, **kwargs)
        if "\0" in text:
            raise self.make_error("nul")
        if not self.blank and not re.search(NOT_BLANK, text):
            raise self.make_error("blank")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise self.make_error("surrogate") from None
        return text


class Digits(ma.fields.Integer):
    """A number in a query string, in ASCII digits: int() takes other scripts, signs and _ too."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> Any:
        if not re.fullmatch("[0-9]{1,10}", value):
            raise self.make_error("invalid")
        return super()._deserialize(value, attr, data, **kwargs)


def envelope(key: str, schema: type[ma.Schema]) -> ma.Schema:
    """Give the schema of a body ``{key: {...}}`` that loads as what is inside."""

    class Envelope(ma.Schema):
        @ma.post_load
        def open(self, data: dict[str, Any], **_: Any) -> Any:
            return data[key]

    name = schema.__name__.removesuffix("Schema") + "Body"
    return Envelope.from_dict({key: ma.fields.Nested(schema, required=True)}, name=name)()


class IdConverter(BaseConverter):
    """An id in a path, in the one way to write it; all else is no such URL."""

    regex = "[1-9][0-9]{0,9}"

    def to_python(self, value: str) -> int:  # noqa: D102
        if (number := int(value)) > INTEGER_MAX:
            # ValidationError would answer 405: by then rules of other methods have matched.
            raise NotFound
        return number


# Views


class Blueprint(flask_smorest.Blueprint):
    """Views that give JSON text, or ``(text, headers)``; those that write commit."""

    ARGUMENTS_PARSER = Parser()

    def route(self, rule: str, **options: Any) -> Callable[[Any], Any]:  # noqa: D102
        register = super().route(rule, **options)
        if options.get("methods", ["GET"]) == ["GET"]:
            return register
        return lambda view: register(transaction(view))

    def response(
        self, status_code: int, schema: Any = None, **options: Any
    ) -> Callable[[Any], Any]:
        """Document the answer, and make it of what the view returns."""
        document = super().response(status_code, schema, **options)

        def decorator(view: Callable[..., Any]) -> Any:
            @wraps(view)
            def answer(*args: Any, **kwargs: Any) -> Response:
                if request.args:
                    _refuse_undeclared_query()
                result = view(*args, **kwargs)
                text, headers = result if isinstance(result, tuple) else (result, None)
                response = Response(text, status_code, headers, mimetype="application/json")
                if text is None:
                    del response.headers["Content-Type"]
                if request.method in ("GET", "HEAD"):
                    _make_conditional(response, text)
                return response

            return document(answer)

        return decorator


def _make_conditional(response: Response, text: str) -> None:
    """Name the state that is answered, and answer 304 to who has it (RFC 9110 13.1.2)."""
    # The link to the next page is a part of the state: it comes with the row after the last.
    tag = etag_of(text, response.headers.get("Link", ""))
    response.set_etag(tag)
    response.cache_control.no_cache = True
    if request.if_none_match.contains_weak(tag):
        response.status_code = 304


def etag_of(*parts: str) -> str:
    """Give the strong entity tag of a state, by its text."""
    return generate_etag("\0".join(parts).encode())


def refuse_if_changed(text: str) -> None:
    """Answer 412 unless the state is the one that ``If-Match`` names (RFC 9110 13.1.1).

    :param text: the state of a row that is locked until it is written
    """
    if not request.if_match.contains(etag_of(text, "")):
        abort(412, message="It was changed meanwhile.")


def _refuse_undeclared_query() -> None:
    """Answer 422 when the view takes no query parameters; else its schema has judged them.

    It is called after the body was judged, which keeps the order of refusals.
    """
    view: Any = current_app.view_functions[request.endpoint or ""]
    declared = view._apidoc.get("arguments", {}).get("parameters", [])
    if not any(parameter["in"] == "query" for parameter in declared):
        abort(422, messages={"query": {name: ["Unknown field."] for name in request.args}})


def array(rows: Iterable[str]) -> str:
    """Give the JSON array of rows that are JSON texts."""
    return f"[{','.join(rows)}]"


# Errors

SQLSTATE_STATUS = {
    "22003": 422,  # numeric value out of range
    "22021": 422,  # character not in repertoire
    "22P02": 422,  # invalid text representation
    "23503": 409,  # foreign key violation
    "23505": 409,  # unique violation
    "23514": 422,  # check violation
    "25006": 503,  # read-only transaction: a primary that was demoted
    "40001": 503,  # serialization failure
    "40P01": 503,  # deadlock
    "54000": 422,  # program limit exceeded: a value too long to index
    "55P03": 503,  # lock not available
    "57014": 503,  # query cancelled: the statement time limit
}
SQLSTATE_AWAY = ("08", "53", "57P")  # connection exceptions, insufficient resources, shutdown

DATABASE_DETAIL = {
    409: "It conflicts with what is already there.",
    422: "The database refuses a value.",
    503: "The database is away. Try again soon.",
}


class ProblemSchema(ma.Schema):
    """Problem details (RFC 9457), the one form of every error."""

    class ErrorSchema(ma.Schema):
        """One bad value: where it is in the body (RFC 6901), or which parameter, and why."""

        pointer = ma.fields.String(metadata={"example": "/new_cleaning/price"})
        parameter = ma.fields.String(metadata={"example": "limit"})
        location = ma.fields.String(data_key="in", metadata={"example": "query"})
        detail = ma.fields.String(required=True)

    type = ma.fields.String(required=True, metadata={"example": "about:blank"})
    title = ma.fields.String(required=True, metadata={"example": "Not Found"})
    status = ma.fields.Integer(required=True, metadata={"example": 404})
    detail = ma.fields.String(required=True)
    request_id = ma.fields.String(metadata={"description": "As in `X-Request-Id` and in the logs"})
    errors = ma.fields.List(ma.fields.Nested(ErrorSchema))


def _bad_values(messages: dict[str, Any]) -> Iterator[dict[str, str]]:
    """Turn webargs' messages, ``{location: {field: ...}}``, into the errors of a problem."""
    for location, fields in messages.items():
        for path, detail in _leaves(fields):
            if location == "json":
                escaped = (str(part).replace("~", "~0").replace("/", "~1") for part in path)
                yield {"pointer": "".join(f"/{part}" for part in escaped), "detail": detail}
            else:
                place = "header" if location == "headers" else location
                yield {"parameter": str(path[0]), "in": place, "detail": detail}


def _leaves(messages: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], str]]:
    if isinstance(messages, dict):
        for key, inner in messages.items():
            yield from _leaves(inner, path if key == "_schema" else (*path, key))
    elif isinstance(messages, list):
        for inner in messages:
            yield from _leaves(inner, path)
    else:
        yield path, messages


def _database_problem(error: exc.SQLAlchemyError) -> HTTPException:
    """Say what a failure of the database means to the client, and log what it is."""
    cause: Any = getattr(error, "orig", None) or error
    state = getattr(cause, "pgcode", None)
    if state is not None:
        status = 503 if state.startswith(SQLSTATE_AWAY) else SQLSTATE_STATUS.get(state, 500)
        # Not its text, which quotes values: of the row, or of the statement.
        about = f"{type(cause).__name__} ({state}) {cause.diag.constraint_name or ''}".strip()
    else:  # no answer of the server: not connected, connection lost, none left in the pool
        gone = isinstance(error, exc.OperationalError | exc.InterfaceError | exc.TimeoutError)
        status = 503 if gone or getattr(error, "connection_invalidated", False) else 500
        about = f"{type(cause).__name__}: {cause}"
    if status == 503:
        current_app.logger.warning("The database is away: %s", about)
    elif status == 500:
        frames = "".join(traceback.format_tb(error.__traceback__))
        fields = {"fields": {"traceback": frames}}
        current_app.logger.error("The database failed: %s", about, extra=fields)
    else:
        current_app.logger.error("The schemas let pass what the database refuses: %s", about)
    try:
        abort(status, message=DATABASE_DETAIL.get(status))
    except HTTPException as problem:
        return problem


class _OperationPlugin(BasePlugin):
    """Completes each operation of the document: its id, and the errors that any can answer."""

    def operation_helper(self, path: Any = None, operations: Any = None, **kwargs: Any) -> None:  # noqa: ARG002
        rule = kwargs["rule"]
        name = rule.endpoint.rpartition(".")[2]
        for method, operation in operations.items():
            operation["operationId"] = name if len(operations) == 1 else f"{name}_{method}"
            statuses = {int(status) for status in operation["responses"]} | {500}
            if rule.rule.startswith("/api/"):
                statuses |= {422, 503}
                if method == "get":
                    statuses |= {304}
                    operation.setdefault("parameters", []).append("IF_NONE_MATCH")
                    operation["responses"][200].setdefault("headers", {})["ETag"] = "ETAG"
            if "requestBody" in operation:
                statuses |= {400, 413, 415}
            operation["responses"] = {
                status: HTTPStatus(status).name if status >= 300 else operation["responses"][status]
                for status in sorted(statuses)
            }


class Api(flask_smorest.Api):
    """Flask-Smorest with problem details for every error, and the exception's own headers kept."""

    ERROR_SCHEMA: Any = ProblemSchema
    DEFAULT_ERROR_RESPONSE_NAME: Any = None

    def _register_responses(self) -> None:
        problem = {"content": {PROBLEM_JSON: {"schema": self.ERROR_SCHEMA}}}
        for status in HTTPStatus:
            if status >= 300:
                response = {"description": status.phrase, **(problem if status >= 400 else {})}
                self.spec.components.response(status.name, response, lazy=True)

    def _register_etag_headers(self) -> None:
        tag = {"schema": {"type": "string"}}
        self.spec.components.header("ETAG", {"description": "Of this state", **tag}, lazy=True)
        for name, why in (
            ("If-Match", "Only if the state has this ETag"),
            ("If-None-Match", "Only if the state has not this ETag"),
        ):
            header = {"name": name, "description": why, **tag}
            component = name.upper().replace("-", "_")
            self.spec.components.parameter(component, "header", header, lazy=True)

    def _register_pagination_header(self) -> None:
        """Leave out the header of a way to make pages that is not ours."""

    def handle_http_exception(self, error: HTTPException) -> Response:  # noqa: D102
        given: dict[str, Any] = getattr(error, "data", None) or {}
        status = error.code or 500
        title = HTTP_STATUS_CODES[status]
        detail = given.get("message") or error.description
        if detail == type(error).description:
            detail = title
        problem = {"type": "about:blank", "title": title, "status": status, "detail": detail}
        if "request_id" in g:
            problem["request_id"] = g.request_id
        if "messages" in given:
            problem["detail"] = "The request has values that can't be used."
            problem["errors"] = list(_bad_values(given["messages"]))
        headers = {k: v for k, v in error.get_headers() if not k.startswith("Content-")}
        if status == 503:
            headers["Retry-After"] = str(RETRY_AFTER)
        body = current_app.json.dumps(problem)
        return Response(
            body, status, {**headers, **(given.get("headers") or {})}, mimetype=PROBLEM_JSON
        )


def _refuse_no_host() -> None:
    """Answer 400 to HTTP/1.1 without a Host (RFC 9112 3.2), which gunicorn lets pass."""
    if "Host" not in request.headers:
        raise BadRequest("There is no Host header.")


def init_app(app: Flask) -> Api:
    """Make the app an API: its parser, its paths, its errors, CORS. Blueprints follow."""
    app.request_class = Request
    if app.config["TRUSTED_HOSTS"] is not None:
        # What asks from inside, like a container's health check, names no host that others know.
        app.config["TRUSTED_HOSTS"] += ["localhost", "127.0.0.1"]
    app.before_request(_refuse_no_host)
    if proxies := app.config["TRUSTED_PROXIES"]:
        app.wsgi_app = ProxyFix(app.wsgi_app, proxies, proxies)  # type: ignore[method-assign]
    app.json = StrictJSONProvider(app)
    app.url_map.strict_slashes = False  # the path without its last slash is the same
    app.url_map.merge_slashes = False
    app.url_map.converters["id"] = IdConverter
    app.config.update(API_TITLE="Phresh", OPENAPI_VERSION="3.1.0", OPENAPI_URL_PREFIX="/")
    api = Api(app, spec_kwargs={"extra_plugins": [_OperationPlugin()]})
    schema = {"type": "integer", "minimum": 1, "maximum": INTEGER_MAX, "example": 1}
    api.register_converter(IdConverter, lambda _: schema)
    for kind in (exc.DBAPIError, exc.TimeoutError):
        app.register_error_handler(kind, lambda e: api.handle_http_exception(_database_problem(e)))
    CORS(
        app,
        origins=app.config["CORS_ORIGINS"],
        send_wildcard=True,  # "*", not an echo of who asks
        allow_headers=[
            "Authorization",
            "Content-Type",
            "If-Match",
            "If-None-Match",
            "Idempotency-Key",
        ],
        expose_headers=["ETag", "Link", "Location", "Retry-After", "X-Request-Id"],
    )
    return api
