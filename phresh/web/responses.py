"""Responses: what a view returned, made into a response with its headers."""

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn
from urllib.parse import quote

import marshmallow as ma
from flask import current_app, request
from werkzeug.datastructures import Headers
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as BaseResponse

from phresh.web.app import Response
from phresh.web.conditional import etag_of, is_not_modified
from phresh.web.deprecation import Deprecation
from phresh.web.urls import url_of

Pairs = list[tuple[str, str]]  # headers
WITHOUT_BODY = (204, 205, 304)
RETURNS = (
    "A view returns JSON text; or a dict, a list, a mapped object or rows that its response schema "
    "can dump; or None with a status that has no body. A status, headers or both may follow in a "
    "tuple. Or it returns a flask.Response."
)


# What a response may hold that nobody may store.
CONTACT_DATA, SECRETS = "contact data", "secrets"


@dataclass
class Declared:
    """What the decorators of a view say of its responses.

    :param status: of its success
    :param holds: ``CONTACT_DATA``, ``SECRETS`` or None
    :param path: returns where GET has the representation that the view changes, by the view's
        arguments; None: at the view's own URL
    :param reads_token: whether the responses depend on the token of the request
    :param sets_etag: whether ``@blp.etag`` makes their entity tags
    :param deprecation: of the operation, or None
    """

    status: int
    holds: str | None = None
    path: Callable[..., str] | None = None
    reads_token: bool = False
    sets_etag: bool = False
    deprecation: Deprecation | None = None

    @property
    def cache_control(self) -> str:
        """Return who may store a response: everyone, its client or nobody; each revalidates it."""
        is_private = self.holds and not self.reads_token
        if self.reads_token and "HTTP_AUTHORIZATION" in request.environ:
            is_private = True
        if not is_private:
            return "no-cache"
        return "private, no-store" if self.holds else "private, no-cache"

    @property
    def is_idempotent(self) -> bool:
        """Return whether a repeated POST returns the first response, which is stored for it."""
        is_post = request.environ["REQUEST_METHOD"] == "POST"
        return is_post and self.status == 201 and self.holds != SECRETS

    def vary(self, response: BaseResponse) -> BaseResponse:
        """Return a response, after telling caches where it depends on the token."""
        if self.reads_token and isinstance(response, Response):
            response.varies_by = "Origin, Authorization"
        return response

    @property
    def represented_at(self) -> str | None:
        """Return the path where GET has the representation that the view changes."""
        return None if self.path is None else self.path(**(request.view_args or {}))

    def has_etag(self, status: int, headers: Container[str]) -> bool:
        """Return whether a response is a representation that GET returns too, here or elsewhere.

        :param headers: the names of those that the view has set, in lower case
        """
        method = request.environ["REQUEST_METHOD"]
        if method in ("GET", "HEAD"):
            return status == 200 and not self.sets_etag
        if method == "POST":  # of what it has created (RFC 9110 15.3.2)
            return status == 201 and "location" in headers and self.holds != SECRETS
        return status == 200 and (self.path is not None or _is_readable(str(request.url_rule)))


def _is_readable(rule: str) -> bool:
    """Return whether there is a GET with a URL rule."""
    extensions = current_app.extensions
    if "readable" not in extensions:
        rules = current_app.url_map.iter_rules()
        extensions["readable"] = {str(each) for each in rules if "GET" in (each.methods or ())}
    return rule in extensions["readable"]


def unpacked(view: Any, result: tuple[Any, ...]) -> tuple[Any, int | None, Pairs]:
    """Return body, status and headers of what a view returned as a tuple.

    :raises TypeError: for another tuple
    """
    match result:
        case body, dict() | list() | Headers() as headers:
            return body, None, _pairs(headers)
        case body, int() as status if status > 1:  # not a bool
            return body, int(status), []
        case body, int() as status, dict() | list() | Headers() as headers if status > 1:
            return body, int(status), _pairs(headers)
    kinds = ", ".join(type(part).__name__ for part in result)
    raise TypeError(f"{view.__name__}() returned a tuple of {kinds}. {RETURNS}")


def _pairs(headers: Any) -> Pairs:
    """Return headers in pairs; a dict may have several values for a name."""
    items = headers.items() if isinstance(headers, dict) else headers
    return [
        (name, each)
        for name, value in items
        for each in (value if isinstance(value, list | tuple) else (value,))
    ]


def dumped(view: Any, schema: Any, value: Any, status: int) -> str | None:
    """Return the JSON text of what a view returned.

    :raises TypeError: for what the schema can't dump
    """
    if value is None and status in WITHOUT_BODY:
        return None
    if not isinstance(schema, ma.Schema):
        if not isinstance(value, dict | list):
            _reject(view, value)
        return current_app.json.dumps(value)
    if schema.many:
        if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
            _reject(view, value)
        value = list(value)
    for item in value if schema.many else [value]:
        if not isinstance(item, Mapping) and not _has_attributes(item, schema):
            _reject(view, item)
    return current_app.json.dumps(schema.dump(value))


def _has_attributes(item: Any, schema: ma.Schema) -> bool:
    """Return whether an object has any of the attributes that a schema dumps."""
    # They have methods with names that fields may have, like count. A row is no tuple.
    if isinstance(item, str | bytes | int | float | list | set) or type(item) is tuple:
        return False
    names = [
        field.attribute or name
        for name, field in schema.dump_fields.items()
        if field._CHECK_ATTRIBUTE  # not a Method, Function or Constant
    ]
    missing = (schema.get_attribute(item, name, ma.missing) is ma.missing for name in names)
    return not names or not all(missing)


def _reject(view: Any, value: Any) -> NoReturn:
    raise TypeError(f"{view.__name__}() returned {type(value).__name__}. {RETURNS}")


def reject_text(view: Any, schema: Any) -> NoReturn:
    """Refuse JSON text as a response whose schema has fields that must not be sent.

    :raises TypeError: always
    """
    hidden = ", ".join(name for name, field in schema.fields.items() if field.load_only)
    raise TypeError(
        f"{view.__name__}() returned JSON text, which is sent as it is, but {hidden} of "
        f"{type(schema).__name__} is load_only: return an object to be dumped, or respond with a "
        "schema that has no such field."
    )


def finished(declared: Declared, text: str | None, status: int, given: Pairs) -> BaseResponse:
    """Return the response; headers that the view has given replace ours."""
    own = {name.lower(): value for name, value in given}
    if "location" in own:
        given = [(n, _public(value) if n.lower() == "location" else value) for n, value in given]
    headers = [("Cache-Control", declared.cache_control if status < 400 else "no-store")]
    if text is not None:
        headers.append(("Content-Type", "application/json"))
        if declared.has_etag(status, own):
            tag = own.get("etag") or etag_of(text, own.get("link", ""))
            headers.append(("ETag", tag))
            if declared.path is not None:
                headers.append(("Content-Location", _location(declared)))
            if is_not_modified(tag):
                text, status = None, 304
    if own:
        headers = [*given, *(pair for pair in headers if pair[0].lower() not in own)]
    return declared.vary(Response(text, status, headers))


def completed(
    declared: Declared, response: BaseResponse, status: int | None, given: Pairs
) -> BaseResponse:
    """Return a response that the view made, with the same headers."""
    if status is not None:
        response.status_code = status
    headers = response.headers
    headers.update(Headers(given))
    if "Location" in headers:
        headers["Location"] = _public(headers["Location"])
    is_error = response.status_code >= 400
    headers.setdefault("Cache-Control", "no-store" if is_error else declared.cache_control)
    names = [name.lower() for name, _ in headers]
    is_known = response.is_sequence or "etag" in names  # a stream has the tag that the view sets
    if is_known and declared.has_etag(response.status_code, names):
        if "etag" not in names:
            headers["ETag"] = etag_of(response.get_data(as_text=True), headers.get("Link", ""))
        if declared.path is not None:
            headers["Content-Location"] = _location(declared)
        try:
            if is_not_modified(headers["ETag"]):
                response.status_code = 304
        except HTTPException:  # 412: it is not sent, so nothing else closes its file
            response.close()
            raise
    return declared.vary(response)


def _location(declared: Declared) -> str:
    return url_of(quote(declared.represented_at or ""))


def _public(location: str) -> str:
    """Return the URL of a path that a view has given; anything else as it is."""
    is_path = location.startswith("/") and not location.startswith("//")
    return url_of(location) if is_path else location
