"""What Phresh changes in Flask-Smorest, and the pieces that every resource shares."""

import json
import re
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from decimal import Decimal
from functools import lru_cache, wraps
from http import HTTPStatus
from typing import Any, NoReturn

import flask
import flask_smorest
import marshmallow as ma
import psycopg2
from apispec import BasePlugin
from flask import Flask, current_app, g, request
from flask.json.provider import DefaultJSONProvider
from flask.sessions import NullSession, SessionInterface
from flask_cors.core import DEFAULT_OPTIONS, get_cors_options, set_cors_headers
from flask_smorest import abort
from webargs.flaskparser import FlaskParser
from werkzeug.exceptions import (
    BadRequest,
    HTTPException,
    NotFound,
    RequestEntityTooLarge,
    UnsupportedMediaType,
)
from werkzeug.http import HTTP_STATUS_CODES, generate_etag, quote_etag
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.routing import BaseConverter, MapAdapter

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
            return _decode(s if isinstance(s, str) else s.decode())
        except (RecursionError, ArithmeticError) as error:
            raise ValueError("nested too deeply, or a number too large") from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return members


_decode = json.JSONDecoder(
    parse_float=Decimal, parse_constant=_refuse_constant, object_pairs_hook=_unique_keys
).decode


class Request(flask.Request):
    """A request whose JSON is refused in this order: 413 too large, 415 not JSON, 400 broken."""

    def get_json(self, *_: Any, **__: Any) -> Any:  # noqa: D102
        data = self.get_data()  # refuses a Content-Length that is too large
        if self.content_length is None:  # in chunks, of which Werkzeug reads no more than allowed
            if len(data) == self.max_content_length and self.environ["wsgi.input"].read(1):
                raise RequestEntityTooLarge
        elif len(data) < self.content_length:
            raise BadRequest("The body is shorter than its Content-Length.")
        if not self.is_json:
            raise UnsupportedMediaType("The body has to be application/json.")
        if not data:
            raise BadRequest("The body is empty.")
        try:
            return current_app.json.loads(data)
        except ValueError as error:
            raise BadRequest(f"Broken JSON: {error}.") from None


SECURITY_HEADERS = (
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Vary", "Origin"),  # CORS
)


class Response(flask.Response):
    """An answer; one whose body is there is sent with its headers as they are."""

    default_mimetype = None  # what has no body has no type
    policy = "default-src 'none'; frame-ancestors 'none'"  # Content-Security-Policy

    def __call__(self, environ: Any, start_response: Any) -> Any:  # noqa: D102
        if self.has_body and environ["REQUEST_METHOD"] != "HEAD":
            start_response(self.status, [*self.headers, *self.security_headers(environ)])
            return self.response
        return super().__call__(environ, start_response)

    def get_wsgi_headers(self, environ: Any) -> Any:  # noqa: D102
        headers = super().get_wsgi_headers(environ)
        headers.extend(self.security_headers(environ))
        return headers

    def security_headers(self, environ: Any) -> list[tuple[str, str]]:
        """Give what tells a browser to be careful, and caches that CORS differs by origin."""
        headers = [("Content-Security-Policy", self.policy), *SECURITY_HEADERS]
        if environ["wsgi.url_scheme"] == "https":
            headers.append(("Strict-Transport-Security", "max-age=31536000"))
        return headers

    @property
    def has_body(self) -> bool:
        """Whether it is all bytes, of a status that may have some (RFC 9110 6.4.1)."""
        return self.is_sequence and not self._on_close and self.status_code not in (204, 304)


class NoSessions(SessionInterface):
    """Flask's sessions: none, since no answer sets a cookie."""

    none = NullSession()

    def open_session(self, *_: Any) -> NullSession:
        """Give the one that can't be written."""
        return self.none


class App(flask.Flask):
    """Flask with our requests and answers, and without what costs time and has no use here."""

    request_class = Request
    response_class = Response
    json_provider_class = StrictJSONProvider
    session_interface = NoSessions()

    def create_url_adapter(self, request: Any) -> Any:
        """Bind the URL map to a request, without what is for routes that have a host.

        HTTP/1.1 without a Host is 400 (RFC 9112 3.2).
        """
        if request is not None and "HTTP_HOST" not in request.environ:
            raise BadRequest("There is no Host header.")
        if request is None or self.config["TRUSTED_HOSTS"] is not None:
            return super().create_url_adapter(request)
        environ = request.environ
        return MapAdapter(
            self.url_map,
            server_name=environ["HTTP_HOST"],
            script_name=environ["SCRIPT_NAME"] or "/",
            subdomain="",
            url_scheme=environ["wsgi.url_scheme"],
            path_info=environ["PATH_INFO"].encode("latin-1").decode(errors="replace"),
            default_method=environ["REQUEST_METHOD"],
            query_args=environ["QUERY_STRING"],
        )

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Give the function: none is a coroutine."""
        return func


# The place in a query string that asks for the next page; none that is there twice.
PLACE = re.compile(r"(?:^|&)after=([A-Za-z0-9_-]+)(?=&|\Z)")


class Parser(FlaskParser):
    """Reads the arguments of views. What no schema knows is refused everywhere."""

    DEFAULT_UNKNOWN_BY_LOCATION = {
        **FlaskParser.DEFAULT_UNKNOWN_BY_LOCATION,
        "query": ma.RAISE,
    }

    def parse(  # noqa: D102
        self, argmap: Any, req: Any = None, *, location: str | None = None, **options: Any
    ) -> Any:
        if location == "query" and len(query := request.environ["QUERY_STRING"]) <= 200:
            return self._parse_query(argmap, query)
        if location == "headers" and not self.load_headers(request, argmap):
            return {}  # no header is required
        return super().parse(argmap, req, location=location, **options)

    def _parse_query(self, schema: ma.Schema, query: str) -> dict[str, Any]:
        """Load a query string, apart from the place where a page begins: that is another each time.

        A place that can't be used is left to the schema, which refuses it.
        """
        before, *place = PLACE.split(query)
        if len(place) == 2 and "after" in schema.fields:
            found = self._load_query(schema, before + place[1])
            with suppress(ValueError):
                return {**found, "page": found["page"].at(place[0])}
        return dict(self._load_query(schema, query))

    @lru_cache(maxsize=256)  # noqa: B019 - the one parser there is lives as long
    def _load_query(self, schema: ma.Schema, query: str) -> Any:
        """Load a query string, the same one only once: most requests send one of a few."""
        return super().parse(schema, Request({"QUERY_STRING": query}), location="query")

    def load_headers(self, req: flask.Request, schema: ma.Schema) -> Any:
        """Give the headers that the schema has."""
        names = (field.data_key for field in schema.fields.values() if field.data_key)
        return {name: req.headers[name] for name in names if name in req.headers}

    def load_json(self, req: flask.Request, schema: ma.Schema) -> Any:
        """Give the body; of an optional one that is not there, an empty object."""
        # One that is cut off is there, and refused.
        is_there = req.content_length or req.get_data()
        if not is_there and not getattr(schema, "is_required", True):
            return {}
        return req.get_json()

    def load_form(self, req: flask.Request, schema: ma.Schema) -> Any:
        """Give the fields of a form; 415 to what is none."""
        if req.mimetype not in ("application/x-www-form-urlencoded", "multipart/form-data"):
            raise UnsupportedMediaType("The body has to be application/x-www-form-urlencoded.")
        return super().load_form(req, schema)

    def load_querystring(self, req: flask.Request, schema: ma.Schema) -> Any:  # noqa: D102
        parameters = super().load_querystring(req, schema)
        for name, values in req.args.lists():
            if len(values) > 1 and name not in parameters.multiple_keys:
                raise ma.ValidationError({name: ["Given more than once."]})
        return parameters


class Text(ma.fields.String):
    """Text that PostgreSQL can hold: no NUL, no lone surrogate, of a limited length.

    :param max_length: in characters (code points), as is ``min_length``
    :param blank: whether it may be empty or only white space
    :param validate: what else to check
    """

    default_error_messages = {
        "nul": "Must not contain the character NUL.",
        "surrogate": "Must not contain half of a surrogate pair.",
        "blank": "Must not be blank.",
    }

    def __init__(
        self,
        *,
        max_length: int,
        min_length: int | None = None,
        blank: bool = True,
        validate: Sequence[Callable[[str], Any]] = (),
        **kwargs: Any,
    ) -> None:
        pattern = r"^[^\u0000]*$" if blank else rf"^[^\u0000]*[^\u0000{BLANKS}][^\u0000]*$"
        metadata = {"pattern": pattern, **kwargs.pop("metadata", {})}
        shortest = min_length if blank else (min_length or 1)
        length = ma.validate.Length(shortest, max_length)
        super().__init__(validate=[length, *validate], metadata=metadata, **kwargs)
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


def envelope(key: str, schema: type[ma.Schema], *, required: bool = True) -> ma.Schema:
    """Give the schema of a body ``{key: {...}}`` that loads as what is inside.

    :param required: whether there has to be a body; else none loads as an empty one
    """

    inner = schema()

    class Envelope(ma.Schema):
        is_required = required

        def load(self, data: Any, **options: Any) -> Any:
            if data == {} and not required:
                return inner.load({})
            if not isinstance(data, dict) or list(data) != [key] or data[key] is None:
                return super().load(data, **options)  # which is refused
            # What is inside by itself takes half the time.
            try:
                return inner.load(data[key])
            except ma.ValidationError as error:
                raise ma.ValidationError({key: error.messages}) from None

    name = schema.__name__.removesuffix("Schema") + "Body"
    return Envelope.from_dict({key: ma.fields.Nested(schema, required=required)}, name=name)()


USERNAME = "[A-Za-z0-9_-]{3,30}"


class UsernameConverter(BaseConverter):
    """A username in a path, in any case."""

    regex = USERNAME


class IdConverter(BaseConverter):
    """An id in a path, in the one way to write it; all else is no such URL."""

    regex = "[1-9][0-9]{0,9}"

    def to_python(self, value: str) -> int:  # noqa: D102
        if (number := int(value)) > INTEGER_MAX:
            # ValidationError would answer 405: by then rules of other methods have matched.
            raise NotFound
        return number


# Views

LOCATION = {"Location": {"description": "Where it is", "schema": {"type": "string"}}}


class Blueprint(flask_smorest.Blueprint):
    """Views that give JSON text, or ``(text, headers)``; those that write commit."""

    ARGUMENTS_PARSER = Parser()

    def route(self, rule: str, **options: Any) -> Callable[[Any], Any]:  # noqa: D102
        register = super().route(rule, **options)
        if options.get("methods", ["GET"]) == ["GET"]:
            return register
        return lambda view: register(transaction(view))

    def arguments(  # type: ignore[override]
        self, schema: Any, *, location: str = "json"
    ) -> Callable[[Any], Any]:
        """Document what comes in at a location, and give the view what the schema makes of it."""
        # No further options, as the library has: they would be ignored here.
        # Of a class, webargs makes an instance for each request.
        instance = schema() if isinstance(schema, type) else schema
        required = getattr(instance, "is_required", True)
        document = super().arguments(instance, location=location, required=required)
        parse = self.ARGUMENTS_PARSER.parse

        def decorator(view: Callable[..., Any]) -> Any:
            @wraps(view)
            def parsed(*args: Any, **kwargs: Any) -> Any:
                return view(*args, parse(instance, location=location), **kwargs)

            return _documented(document, parsed)

        return decorator

    def response(
        self, status_code: int, schema: Any = None, **options: Any
    ) -> Callable[[Any], Any]:
        """Document the answer, and make it of what the view returns."""
        document = super().response(status_code, schema, **options)

        def decorator(view: Callable[..., Any]) -> Any:
            @wraps(view)
            def answer(*args: Any, **kwargs: Any) -> Response:
                environ = request.environ
                if environ.get("QUERY_STRING") and request.args:
                    _refuse_undeclared_query()
                result = view(*args, **kwargs)
                text, given = result if isinstance(result, tuple) else (result, {})
                headers = list(given.items())
                if text is not None:
                    headers.append(("Content-Type", "application/json"))
                if environ["REQUEST_METHOD"] in ("GET", "HEAD"):
                    # The link to the next page is a part of the state: it comes with a row.
                    tag = etag_of(text, given.get("Link", ""))
                    headers += [("ETag", quote_etag(tag)), ("Cache-Control", "no-cache")]
                    # Who has it is told so (RFC 9110 13.1.2).
                    if "HTTP_IF_NONE_MATCH" in environ and request.if_none_match.contains_weak(tag):
                        return Response(None, 304, headers)
                return Response(text, status_code, headers)

            return _documented(document, answer)

        return decorator

    def alt_response(self, *args: Any, **options: Any) -> Callable[[Any], Any]:  # noqa: D102
        document = super().alt_response(*args, **options)
        return lambda view: _documented(document, view)

    @staticmethod
    def doc(**options: Any) -> Callable[[Any], Any]:  # noqa: D102
        document = flask_smorest.Blueprint.doc(**options)
        return lambda view: _documented(document, view)


def _documented(document: Callable[[Any], Any], view: Any) -> Any:
    """Give the view itself, with what a decorator of Flask-Smorest says of it in the document.

    That decorator's wrapper has nothing left to do, but would be called for each request.
    """
    view._apidoc = document(view)._apidoc
    return view


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


def _database_problem(error: psycopg2.Error) -> HTTPException:
    """Say what a failure of the database means to the client, and log what it is."""
    name = type(error).__name__
    if (state := error.pgcode) is not None:
        status = 503 if state.startswith(SQLSTATE_AWAY) else SQLSTATE_STATUS.get(state, 500)
        # Not its text, which quotes values: of the row, or of the statement.
        about = f"{name} ({state}) {error.diag.constraint_name or ''}".strip()
    else:  # no answer of the server: not connected, connection lost, none left in the pool
        away = (psycopg2.OperationalError, psycopg2.InterfaceError)
        status = 503 if isinstance(error, away) else 500
        about = f"{name}: {error}"
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


# How a token is sent; the first is a form in Swagger UI that fetches one.
SECURITY_SCHEMES = {
    "login": {
        "type": "oauth2",
        "flows": {"password": {"tokenUrl": "/api/users/login/token/", "scopes": {}}},
    },
    "bearer": {"type": "http", "scheme": "bearer"},
}
SECURITY: list[dict[str, list[str]]] = [{name: []} for name in SECURITY_SCHEMES]


class _OperationPlugin(BasePlugin):
    """Completes each operation of the document: its id, and the errors that any can answer."""

    def __init__(self, *, guest_posting: bool) -> None:
        self._guest_posting = guest_posting

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
            if "security" in operation:
                statuses |= {401}
                if method != "get" and not self._guest_posting:
                    operation["security"] = SECURITY
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


def init_app(app: Flask) -> Api:
    """Make the app an API: its parser, its paths, its errors, CORS. Blueprints follow."""
    if app.config["TRUSTED_HOSTS"] is not None:
        # What asks from inside, like a container's health check, names no host that others know.
        app.config["TRUSTED_HOSTS"] += ["localhost", "127.0.0.1"]
    if proxies := app.config["TRUSTED_PROXIES"]:
        app.wsgi_app = ProxyFix(app.wsgi_app, proxies, proxies)  # type: ignore[method-assign]
    app.url_map.strict_slashes = False  # the path without its last slash is the same
    app.url_map.merge_slashes = False
    app.url_map.converters.update(id=IdConverter, username=UsernameConverter)
    app.config.update(API_TITLE="Phresh", OPENAPI_VERSION="3.1.0", OPENAPI_URL_PREFIX="/")
    plugin = _OperationPlugin(guest_posting=app.config["GUEST_POSTING"])
    api = Api(app, spec_kwargs={"extra_plugins": [plugin]})
    for name, scheme in SECURITY_SCHEMES.items():
        api.spec.components.security_scheme(name, scheme)
    schema = {"type": "integer", "minimum": 1, "maximum": INTEGER_MAX, "example": 1}
    api.register_converter(IdConverter, lambda _: schema)
    username = {"type": "string", "pattern": f"^{USERNAME}$", "example": "anna"}
    api.register_converter(UsernameConverter, lambda _: username)
    app.register_error_handler(
        psycopg2.Error, lambda error: api.handle_http_exception(_database_problem(error))
    )
    _allow_origins(app)
    return api


def _allow_origins(app: Flask) -> None:
    """Let pages of other origins use the API, without credentials.

    The extension of Flask-Cors would work out its headers for each answer; these are for what asks
    from a page.
    """
    options = {
        "origins": app.config["CORS_ORIGINS"],
        "send_wildcard": True,  # "*", not an echo of who asks
        "allow_headers": [
            "Authorization",
            "Content-Type",
            "If-Match",
            "If-None-Match",
            "Idempotency-Key",
        ],
        "expose_headers": ["ETag", "Link", "Location", "Retry-After", "X-Request-Id"],
        "vary_header": False,
    }
    computed = get_cors_options(app, DEFAULT_OPTIONS, options)

    @app.after_request
    def allow_origin(response: Response) -> Response:
        if "HTTP_ORIGIN" in request.environ:
            set_cors_headers(response, computed)
        return response
