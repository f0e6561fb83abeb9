"""A test client that holds every response to the OpenAPI document.

``tests/conftest.py`` makes it the test client of every app. A response must have a status, headers
and a content type that the document names for its operation, and a body that fits the schema;
errors are problem documents. A response that belongs to no operation of the document, such as the
404 of an unknown URL, is checked only if it is a problem document.
"""

import json
import re
from collections.abc import Iterator
from functools import cache, cached_property
from typing import Any
from weakref import WeakKeyDictionary

import jsonschema_rs
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.exceptions import HTTPException
from werkzeug.routing import RequestRedirect
from werkzeug.test import TestResponse

from tests.tools.features import Route

PROBLEM_JSON = "application/problem+json"
# Details of what any URL can respond before the request comes to an operation: it names no host, or
# not one of TRUSTED_HOSTS; its query or one of its headers is too long.
WRONG_HEAD = {
    400: re.compile(r"The Host header is missing\.|Host '.*' is not trusted\."),
    414: re.compile("The query is longer than 8192 bytes\\."),
    431: re.compile("[A-Z][A-Za-z-]+ is longer than 4096 bytes\\."),
}
# Headers of every response, by HTTP and for browsers, which the document does not name.
GENERAL = {
    *("content-type", "content-length", "vary", "content-security-policy", "referrer-policy"),
    *("x-content-type-options", "strict-transport-security"),
}
# Every time is in UTC with six decimals, of the forms that RFC 3339 allows.
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", re.ASCII)
# What formats mean here. A profile's image may have letters of any script in its host name: that is
# an `iri`, and the document says `uri`.
FORMATS = {"date-time": lambda text: TIME.fullmatch(text) is not None, "uri": lambda _: True}


class ContractError(AssertionError):
    """A response is not as the OpenAPI document says."""


class ContractClient(FlaskClient):
    """Flask's test client, which raises ContractError for a response that the document excludes."""

    def open(self, *args: Any, **kwargs: Any) -> TestResponse:
        """Send a request and return the response, which is closed, as a server does."""
        response = super().open(*args, **{"buffered": True, **kwargs})
        for each in (*response.history, response):
            check(self.application, each)
        return response


class Contract:
    """The document of an app, with a compiled validator for each response.

    :param document: JSON, as the app serves it
    """

    def __init__(self, document: str) -> None:
        self.document = json.loads(document)
        self.components = json.loads(json.dumps(self.document["components"]))
        # A response may have members that a later version adds; but not in this version.
        for schema in self.components["schemas"].values():
            if "properties" in schema:
                schema.setdefault("additionalProperties", False)
        self.validators: dict[Any, Any] = {}

    @cached_property
    def problem(self) -> Any:
        """The validator of problem documents."""
        return self.validator({"$ref": "#/components/schemas/Problem"})

    def operation(self, rule: str, method: str) -> dict[str, Any] | None:
        """Return what the document says of a method of a URL rule, None if it says nothing."""
        path = self.document["paths"].get(document_path(rule), {})
        return path.get("get" if method == "HEAD" else method.lower())

    def response(self, operation: dict[str, Any], status: int) -> dict[str, Any] | None:
        """Return what the document says of a status of an operation."""
        response = operation["responses"].get(str(status))
        if response is not None and "$ref" in response:
            name = response["$ref"].rpartition("/")[2]
            return self.document["components"]["responses"][name]
        return response

    def validator(self, schema: dict[str, Any]) -> Any:
        """Return a compiled validator of a schema of the document."""
        key = json.dumps(schema, sort_keys=True)
        if key not in self.validators:
            whole = {**schema, "components": self.components}
            self.validators[key] = jsonschema_rs.Draft202012Validator(
                whole, validate_formats=True, formats=FORMATS
            )
        return self.validators[key]

    def reasons(self, response: TestResponse, rule: str | None) -> Iterator[str]:
        """Yield each reason for which a response is not as the document says.

        :param rule: the URL rule that the request matched
        """
        method, status = response.request.method, response.status_code
        operation = None if rule is None else self.operation(rule, method)
        if operation is None or has_wrong_head(response):
            if response.mimetype == PROBLEM_JSON and method != "HEAD":
                yield from self.problem_reasons(response)
            return
        documented = self.response(operation, status)
        if documented is None:
            yield f"{operation['operationId']} does not document the status {status}"
            return
        documented_headers = {name.lower() for name in documented.get("headers", {})} | GENERAL
        for name in response.headers.keys():  # noqa: SIM118 - it is no dict
            if name.lower() not in documented_headers and not name.startswith("Access-Control-"):
                yield f"the header {name} is not documented"
        content = documented.get("content", {})
        if not content:
            if response.get_data():
                yield f"the status {status} has no body in the document"
        elif method == "HEAD":
            if response.mimetype not in content:
                yield f"the content type {response.mimetype} is not documented"
        elif response.mimetype == PROBLEM_JSON and PROBLEM_JSON in content:
            schema = self.validator(content[PROBLEM_JSON]["schema"])
            yield from self.problem_reasons(response, schema)
        elif response.mimetype not in content:
            yield f"the content type {response.mimetype} is not documented"
        else:
            yield from self.body_reasons(response, content[response.mimetype]["schema"])

    def problem_reasons(self, response: TestResponse, schema: Any = None) -> Iterator[str]:
        """Yield each reason for which a body is no problem document of its response.

        :param schema: the validator of its operation's problem documents
        """
        yield from invalid(schema or self.problem, problem := json.loads(response.get_data()))
        if problem.get("status") != response.status_code:
            yield f"/status: {problem.get('status')} is not the status of the response"

    def body_reasons(self, response: TestResponse, schema: dict[str, Any]) -> Iterator[str]:
        """Yield each reason for which a body does not fit its schema."""
        yield from invalid(self.validator(schema), json.loads(response.get_data()))


def invalid(validator: Any, value: Any) -> Iterator[str]:
    """Yield each violation of a schema, with where it is (RFC 6901)."""
    if not validator.is_valid(value):
        for error in validator.iter_errors(value):
            where = "".join(f"/{part}" for part in error.instance_path)
            yield f"{where or '/'}: {error.message}"


def document_path(rule: str) -> str:
    """Return the path that the document has for a URL rule."""
    return re.sub(r"<(?:[^:<>]+:)?(\w+)>", r"{\1}", rule)


def document_example(operation: dict[str, Any]) -> dict[str, Any]:
    """Return the example of an operation's body, as arguments of the test client."""
    [(kind, content)] = operation["requestBody"]["content"].items()
    is_form = kind == "application/x-www-form-urlencoded"
    return {"data" if is_form else "json": content["example"]}


def body_of(app: Flask, route: Route) -> dict[str, Any]:
    """Return what a request of a route has as its body: the document's example, or its own."""
    operation = contract_of(app).operation(route.rule, route.method)
    if route.send is not None or operation is None or "requestBody" not in operation:
        return dict(route.send or {})
    return document_example(operation)


def has_wrong_head(response: TestResponse) -> bool:
    """Return whether a request was rejected for its head, before it came to any operation."""
    if response.status_code not in WRONG_HEAD or response.mimetype != PROBLEM_JSON:
        return False
    if response.request.method == "HEAD":
        return response.status_code != 400
    detail = json.loads(response.get_data())["detail"]
    return WRONG_HEAD[response.status_code].fullmatch(detail) is not None


contracts: WeakKeyDictionary[Flask, Contract] = WeakKeyDictionary()
contract_of_document = cache(Contract)


def contract_of(app: Flask) -> Contract:
    """Return the contract of an app; apps with the same document share one."""
    if app not in contracts:
        api = app.extensions["flask-smorest"]["apis"][""]["ext_obj"]
        contracts[app] = contract_of_document(api.document)
    return contracts[app]


def matched_rule(app: Flask, response: TestResponse) -> str | None:
    """Return the URL rule that the request of a response matched, None if it matched none."""
    environ = response.request.environ
    path = environ["PATH_INFO"].encode("latin-1").decode(errors="replace")
    try:
        found, _ = app.url_map.bind("").match(path, environ["REQUEST_METHOD"], return_rule=True)
    except (HTTPException, RequestRedirect):
        return None
    return found.rule


def check(app: Flask, response: TestResponse) -> None:
    """Check a response against the document of its app.

    :raises ContractError: with each reason
    """
    reasons = list(contract_of(app).reasons(response, matched_rule(app, response)))
    if reasons:
        sent = f"{response.request.method} {response.request.path}"
        raise ContractError(
            f"{sent} responded {response.status_code}, which is not as the OpenAPI document says: "
            f"{'; '.join(reasons)}. Change the view or the schemas of its @blp decorators. "
            f"The body: {response.get_data(as_text=True)[:500]}"
        )
