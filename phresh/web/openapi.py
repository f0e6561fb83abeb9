"""The OpenAPI document: Flask-Smorest's, completed with what holds for every operation."""

from http import HTTPStatus
from typing import Any

import flask_smorest
from apispec import BasePlugin
from flask import Flask
from werkzeug.exceptions import HTTPException

from phresh.web.app import Response
from phresh.web.converters import CONVERTERS
from phresh.web.problems import PROBLEM_JSON, ProblemSchema, problem_response

# How a token is sent; the first is a form in Swagger UI that fetches one.
SECURITY_SCHEMES = {
    "login": {
        "type": "oauth2",
        "flows": {"password": {"tokenUrl": "/api/users/login/token/", "scopes": {}}},
    },
    "bearer": {"type": "http", "scheme": "bearer"},
}
SECURITY: list[dict[str, list[str]]] = [{name: []} for name in SECURITY_SCHEMES]

LOCATION = {"Location": {"description": "URL of the new resource", "schema": {"type": "string"}}}


def init_app(app: Flask) -> "Api":
    """Make the app an API with a document, and return what blueprints are registered with."""
    app.config.update(API_TITLE="Phresh", OPENAPI_VERSION="3.1.0", OPENAPI_URL_PREFIX="/")
    plugin = _OperationPlugin(guest_posting=app.config["GUEST_POSTING"])
    api = Api(app, spec_kwargs={"extra_plugins": [plugin]})
    for name, scheme in SECURITY_SCHEMES.items():
        api.spec.components.security_scheme(name, scheme)
    for converter in CONVERTERS.values():
        api.register_converter(converter, lambda made: made.parameter)
    return api


class Api(flask_smorest.Api):
    """Flask-Smorest with problem documents for every error."""

    ERROR_SCHEMA: Any = ProblemSchema
    DEFAULT_ERROR_RESPONSE_NAME: Any = None

    def register_blueprint(self, blp: Any, *, parameters: Any = None, **options: Any) -> None:
        """Register a blueprint; one without a description adds operations to the tags of others."""
        tags = list(self.spec._tags)
        super().register_blueprint(blp, parameters=parameters, **options)
        if not blp.description:
            self.spec._tags[:] = tags

    def handle_http_exception(self, error: HTTPException) -> Response:
        """Return the problem document of an HTTP error."""
        return problem_response(error)

    def _register_responses(self) -> None:
        problem = {"content": {PROBLEM_JSON: {"schema": self.ERROR_SCHEMA}}}
        for status in HTTPStatus:
            if status >= 300:
                response = {"description": status.phrase, **(problem if status >= 400 else {})}
                self.spec.components.response(status.name, response, lazy=True)

    def _register_etag_headers(self) -> None:
        tag = {"schema": {"type": "string"}}
        description = "Entity tag of this representation"
        self.spec.components.header("ETAG", {"description": description, **tag}, lazy=True)
        for name, why in (
            ("If-Match", "Respond 412 unless the ETag still matches"),
            ("If-None-Match", "Respond 304 if the ETag still matches"),
        ):
            header = {"name": name, "description": why, **tag}
            component = name.upper().replace("-", "_")
            self.spec.components.parameter(component, "header", header, lazy=True)

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
                statuses |= {422, 503}
                if method == "get":
                    statuses |= {304}
                    parameters = operation.setdefault("parameters", [])
                    if "IF_NONE_MATCH" not in parameters:  # blp.etag has named it
                        parameters.append("IF_NONE_MATCH")
                    success = min(status for status in operation["responses"])
                    operation["responses"][success].setdefault("headers", {})["ETag"] = "ETAG"
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
