"""The OpenAPI document: Flask-Smorest's, completed with what holds for every operation."""

from copy import deepcopy
from http import HTTPStatus
from threading import Lock
from typing import Any, ClassVar

import flask_smorest
from apispec import BasePlugin
from flask import Flask, request
from flask_smorest.spec import openapi_cli
from werkzeug.exceptions import HTTPException

from phresh.web.app import Response
from phresh.web.conditional import etag_of, is_not_modified
from phresh.web.converters import CONVERTERS
from phresh.web.idempotency import KeyField
from phresh.web.problems import PROBLEM_JSON, ProblemSchema, problem_response

# How a token is sent; the first is a form in Swagger UI that fetches one.
LOGIN = "/api/users/login/token/"
SECURITY_SCHEMES: dict[str, Any] = {
    "login": {
        "type": "oauth2",
        "flows": {"password": {"tokenUrl": LOGIN, "scopes": {}}},
    },
    "bearer": {"type": "http", "scheme": "bearer"},
}
SECURITY: list[dict[str, list[str]]] = [{name: []} for name in SECURITY_SCHEMES]

PRECONDITIONS = ("IF_MATCH", "IF_NONE_MATCH")
# Whose success has an ETag, and in which statuses.
HAVE_ETAG = {"get": {200}, "put": {200}, "patch": {200}, "post": {201}, "delete": set()}

LOCATION = {"Location": {"description": "URL of the new resource", "schema": {"type": "string"}}}
RATE_LIMITS = {"RateLimit-Policy": "RATELIMIT_POLICY", "RateLimit": "RATELIMIT"}

# The settings that the document depends on.
SETTINGS = ("API_VERSION", "GUEST_POSTING", "PUBLIC_URL")


def init_app(app: Flask) -> "Api":
    """Make the app an API with a document, and return what blueprints are registered with."""
    app.config.update(API_TITLE="Phresh", OPENAPI_VERSION="3.1.0", OPENAPI_URL_PREFIX="/")
    return Api(app)


class Api(flask_smorest.Api):
    """Flask-Smorest with problem documents for every error.

    The document is made when it is first needed, once for all apps of a process that have the same
    resources and settings: that takes as long as a few hundred requests.
    """

    ERROR_SCHEMA: Any = ProblemSchema
    DEFAULT_ERROR_RESPONSE_NAME: Any = None

    _spec: Any = None
    _texts: ClassVar[dict[Any, str]] = {}
    _lock = Lock()

    def _init_spec(self, **_: Any) -> None:
        """Prepare for what :meth:`_make_spec` does later."""
        self._registered: list[tuple[Any, Any, dict[str, Any]]] = []
        self._app.cli.add_command(openapi_cli)

    @property
    def spec(self) -> Any:
        """The specification, which is made when it is first needed."""
        if self._spec is None:
            self._make_spec()
        return self._spec

    @spec.setter
    def spec(self, spec: Any) -> None:
        self._spec = spec

    def _make_spec(self) -> None:
        plugin = _OperationPlugin(guest_posting=self._app.config["GUEST_POSTING"])
        base = self._app.config["PUBLIC_URL"]
        super()._init_spec(extra_plugins=[plugin], servers=[{"url": base or "/"}])
        for name, scheme in SECURITY_SCHEMES.items():
            made = deepcopy(scheme)
            if "flows" in made:
                made["flows"]["password"]["tokenUrl"] = f"{base or ''}{LOGIN}"
            self._spec.components.security_scheme(name, made)
        for converter in CONVERTERS.values():
            self._register_converter(converter, lambda made: made.parameter)
        for registered in self._registered:
            self._document(*registered)

    def register_blueprint(self, blp: Any, *, parameters: Any = None, **options: Any) -> None:
        """Register a blueprint; one without a description adds operations to the tags of others."""
        name = options.get("name", blp.name)
        self._app.extensions["flask-smorest"]["blp_name_to_api"][name] = self
        self._app.register_blueprint(blp, **options)
        self._registered.append((blp, parameters, options))
        if self._spec is not None:
            self._document(blp, parameters, options)

    def _document(self, blp: Any, parameters: Any, options: dict[str, Any]) -> None:
        name = options.get("name", blp.name)
        blp.register_views_in_doc(self, self._app, self._spec, name=name, parameters=parameters)
        if blp.description:
            self._spec.tag({"name": name, "description": blp.description})

    @property
    def document(self) -> str:
        """The OpenAPI document as JSON text."""
        settings = [self._app.config[name] for name in SETTINGS]
        resources = [(blp, *map(str, rest)) for blp, *rest in self._registered]
        key = (*settings, *resources)
        with self._lock:
            if key not in self._texts:
                if len(self._texts) == 8:  # that many only in tests
                    self._texts.clear()
                self._texts[key] = self._app.json.dumps(self.spec.to_dict(), indent=2)
            return self._texts[key]

    def _openapi_json(self) -> Response:
        """Respond with the document, or 304."""
        text = self.document
        mount = request.script_root
        if mount and self._app.config["PUBLIC_URL"] is None:  # known only from requests
            text = text.replace('"url": "/"', f'"url": "{mount}"')
            text = text.replace('"tokenUrl": "', f'"tokenUrl": "{mount}')
        tag = etag_of(text)
        headers = {"ETag": tag, "Cache-Control": "no-cache"}
        if is_not_modified(tag):
            return Response(None, 304, headers)
        return Response(text, 200, headers, mimetype="application/json")

    def handle_http_exception(self, error: HTTPException) -> Response:
        """Return the problem document of an HTTP error."""
        return problem_response(error)

    def _register_responses(self) -> None:
        problem = {"content": {PROBLEM_JSON: {"schema": self.ERROR_SCHEMA}}}
        for status in HTTPStatus:
            if status >= 300:
                response = {"description": status.phrase, **(problem if status >= 400 else {})}
                if status == HTTPStatus.TOO_MANY_REQUESTS:
                    response["headers"] = {**RATE_LIMITS, "Retry-After": "RETRY_AFTER"}
                self.spec.components.response(status.name, response, lazy=True)

    def _register_etag_headers(self) -> None:
        tag = {"schema": {"type": "string"}}
        description = "Entity tag of this representation"
        self.spec.components.header("ETAG", {"description": description, **tag}, lazy=True)
        for name, description, kind in (
            ("RETRY_AFTER", "Seconds to wait", "integer"),
            ("RATELIMIT_POLICY", "Limits: `q` requests in `w` seconds", "string"),
            ("RATELIMIT", "`r` requests are left, and in `t` seconds there is one more", "string"),
        ):
            header = {"description": description, "schema": {"type": kind}}
            self.spec.components.header(name, header, lazy=True)
        for name, why in (
            ("If-Match", "Respond 412 unless the ETag still matches"),
            ("If-None-Match", "Respond 304 (to a write: 412) if the ETag matches"),
        ):
            header = {"name": name, "description": why, **tag}
            component = name.upper().replace("-", "_")
            self.spec.components.parameter(component, "header", header, lazy=True)
        key = {
            "name": "Idempotency-Key",
            "description": "Repeating the request with this key returns the first response and "
            "creates nothing",
            "schema": {
                "type": "string",
                "maxLength": KeyField.MAX_LENGTH,
                "pattern": f"^{KeyField.PATTERN}$",
            },
        }
        self.spec.components.parameter("IDEMPOTENCY_KEY", "header", key, lazy=True)

    def _register_pagination_header(self) -> None:
        """Leave out the header of Flask-Smorest's own pages."""


class _OperationPlugin(BasePlugin):
    """Completes each operation: its id, and the responses that any operation can have."""

    def __init__(self, *, guest_posting: bool) -> None:
        self._guest_posting = guest_posting

    def operation_helper(self, path: Any = None, operations: Any = None, **kwargs: Any) -> None:  # noqa: ARG002
        rule = kwargs["rule"]
        name = rule.endpoint.rpartition(".")[2]
        for method, operation in operations.items():
            operation["operationId"] = name if len(operations) == 1 else f"{name}_{method}"
            statuses = {int(status) for status in operation["responses"]} | {500}
            if rule.rule.startswith("/api/"):
                statuses |= {412, 422, 503}
                statuses |= {304} if method == "get" else {429}
                parameters = operation.setdefault("parameters", [])
                # blp.etag has named them.
                parameters += [name for name in PRECONDITIONS if name not in parameters]
                success = min(operation["responses"], key=int)
                if method != "get":
                    response = operation["responses"][success]
                    response["headers"] = {**response.get("headers", {}), **RATE_LIMITS}
                if int(success) in HAVE_ETAG[method]:
                    operation["responses"][success].setdefault("headers", {})["ETag"] = "ETAG"
            if "requestBody" in operation:
                statuses |= {400, 413, 415}
            if "security" in operation:
                statuses |= {401}
                if method != "get" and not self._guest_posting:
                    operation["security"] = SECURITY
            own = operation["responses"].get(400, {}).get("content")
            if own:  # the errors of a format of its own, which are 400 where others are 422
                statuses -= {422}
            operation["responses"] = {
                status: self._response(operation["responses"], status, own)
                for status in sorted(statuses)
            }

    def _response(self, responses: Any, status: int, own: Any) -> Any:
        if status < 300:
            return responses[status]
        if status == 304 or not own:
            return HTTPStatus(status).name
        response = {"description": HTTPStatus(status).phrase, "content": own}
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            response["headers"] = {**RATE_LIMITS, "Retry-After": "RETRY_AFTER"}
        return response
