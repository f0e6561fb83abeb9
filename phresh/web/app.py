"""The Flask app, its requests and its responses."""

import re
from collections.abc import Callable
from inspect import iscoroutinefunction, unwrap
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

import flask
from flask import current_app, request
from flask.sessions import NullSession, SessionInterface
from werkzeug.exceptions import (
    BadRequest,
    PreconditionFailed,
    RequestEntityTooLarge,
    RequestHeaderFieldsTooLarge,
    RequestURITooLarge,
    UnsupportedMediaType,
)
from werkzeug.http import is_resource_modified
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.routing import MapAdapter
from werkzeug.utils import cached_property

from phresh.settings.values import MOUNT
from phresh.web.json import StrictJSONProvider

# One range of bytes: the first and the last, or how many of the last.
RANGE = re.compile(r"bytes=(?!-\Z)(\d{0,15})-(\d{0,15})", re.ASCII | re.IGNORECASE)
# For health checks, which use the address of a pod or of a server as the host.
ANY_HOST = ("/healthz", "/readyz")


class UnsupportedContentEncoding(UnsupportedMediaType):
    """A body with a content coding, which Phresh does not decode (RFC 9110 8.4)."""

    def __init__(self) -> None:
        super().__init__("Bodies with a Content-Encoding are not decoded: send it without one.")

    def get_headers(self, *args: Any) -> Any:
        """Return the headers, with what would be accepted (RFC 9110 12.5.3)."""
        return [*super().get_headers(*args), ("Accept-Encoding", "identity")]


class Request(flask.Request):
    """A request; its JSON is rejected in this order: 413 too large, 415 no JSON, 400 malformed."""

    @property
    def mimetype(self) -> str:
        """The content type in lower case, without its parameters: they can be long to parse."""
        content_type: str = self.environ.get("CONTENT_TYPE", "")
        return content_type.partition(";")[0].strip().lower()

    @cached_property
    def stream(self) -> Any:
        """The body, of which no more is read than is allowed.

        :raises RequestEntityTooLarge: for a Content-Length over ``MAX_CONTENT_LENGTH``
        :raises UnsupportedContentEncoding: for a body that is compressed
        """
        stream = super().stream
        coding = self.environ.get("HTTP_CONTENT_ENCODING")
        if coding is not None and coding.strip().lower() not in ("", "identity"):
            raise UnsupportedContentEncoding
        return stream

    def get_json(self, *_: Any, **__: Any) -> Any:
        """Return what the body says.

        :raises RequestEntityTooLarge: over ``MAX_CONTENT_LENGTH``
        :raises UnsupportedMediaType: when the ``Content-Type`` is not JSON
        :raises BadRequest: when the body is cut off, empty or malformed
        """
        data = self.get_data()  # raises for a Content-Length that is too large
        length = self.content_length
        if length is None:  # in chunks, of which Werkzeug reads no more than allowed
            if len(data) == self.max_content_length and self.environ["wsgi.input"].read(1):
                raise RequestEntityTooLarge
        elif len(data) < length:
            raise BadRequest("The body is shorter than its Content-Length.")
        if not self.is_json:
            raise UnsupportedMediaType("The body must be JSON: send Content-Type application/json.")
        if not data:
            raise BadRequest("The body is empty.")
        try:
            return current_app.json.loads(data)
        except ValueError as error:
            raise BadRequest(f"Malformed JSON: {error}.") from None


# Bytes of the query, and of each header that is parsed. Their work is linear in their length, but
# up to 2 microseconds a byte.
QUERY_MAX, HEADER_MAX = 8192, 4096
PARSED_HEADERS = (
    *("HTTP_ACCEPT", "HTTP_ACCEPT_ENCODING", "HTTP_ORIGIN", "HTTP_RANGE", "HTTP_IF_RANGE"),
    *("HTTP_ACCESS_CONTROL_REQUEST_HEADERS", "HTTP_ACCESS_CONTROL_REQUEST_METHOD"),
    *("HTTP_IF_MATCH", "HTTP_IF_NONE_MATCH"),
    *("HTTP_IF_MODIFIED_SINCE", "HTTP_IF_UNMODIFIED_SINCE"),
)

SECURITY_HEADERS = (
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
)


class Response(flask.Response):
    """A response with security headers; one whose body is complete is sent without a detour."""

    default_mimetype = None  # a response without a body has no type
    # Content-Security-Policy; default-src is no fallback for base-uri and form-action.
    policy = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    varies_by = "Origin"  # Vary: CORS

    def __call__(self, environ: Any, start_response: Any) -> Any:
        """Send it, as WSGI has it."""
        if self.has_body and environ["REQUEST_METHOD"] != "HEAD":
            start_response(self.status, [*self.headers, *self.security_headers(environ)])
            return self.response
        return super().__call__(environ, start_response)

    def get_wsgi_headers(self, environ: Any) -> Any:
        """Return the headers with which it is sent."""
        headers = super().get_wsgi_headers(environ)
        headers.extend(self.security_headers(environ))
        return headers

    def security_headers(self, environ: Any) -> list[tuple[str, str]]:
        """Return what tells browsers to be careful, and caches that CORS differs by origin."""
        headers = [
            ("Content-Security-Policy", self.policy),
            *SECURITY_HEADERS,
            ("Vary", self.varies_by),
        ]
        if environ["wsgi.url_scheme"] == "https":
            headers.append(("Strict-Transport-Security", "max-age=31536000"))
        return headers

    def make_conditional(
        self,
        request_or_environ: Any,
        accept_ranges: bool | str = False,
        complete_length: int | None = None,
    ) -> Any:
        """Evaluate conditions and ranges of a request for a file, in the order of RFC 9110 13.2.2.

        Werkzeug evaluates ranges first, also for HEAD, and rejects what it does not know.

        :raises PreconditionFailed: when ``If-Match`` names another representation
        """
        environ = {**getattr(request_or_environ, "environ", request_or_environ)}
        if environ.get("HTTP_IF_MATCH", "").strip() == "*":
            del environ["HTTP_IF_MATCH"]  # there is a file
        wanted = self._wanted_range(environ, complete_length)
        for name in ("HTTP_RANGE", "HTTP_IF_RANGE"):
            environ.pop(name, None)
        if wanted is not None:
            environ["HTTP_RANGE"] = wanted
        response = super().make_conditional(environ, accept_ranges, complete_length)
        if response.status_code == 412:
            self.close()
            raise PreconditionFailed("If-Match names another representation.")
        return response

    def _wanted_range(self, environ: Any, length: int | None) -> str | None:
        """Return the one range of the file to send; None for all of it (RFC 9110 14.2)."""
        match = RANGE.fullmatch(environ.get("HTTP_RANGE", ""))
        if environ["REQUEST_METHOD"] != "GET" or match is None:
            return None
        etag, modified = self.headers.get("ETag"), self.headers.get("Last-Modified")
        # A weak ETag never matches (13.1.5); a date does if it is the same.
        if environ.get("HTTP_IF_RANGE", etag) not in (etag, modified):
            return None
        if not is_resource_modified(environ, etag, last_modified=modified):
            return None  # 304 or 412
        first, last = match.groups()
        if not first and length is not None and int(last) > length:
            return "bytes=0-"  # the last bytes, as many as there are
        return f"bytes={first}-{last}"

    @property
    def has_body(self) -> bool:
        """Return whether it is all bytes, with a status that allows a body (RFC 9110 6.4.1)."""
        return self.is_sequence and not self._on_close and self.status_code not in (204, 304)


class NoSession(NullSession):
    """An empty session, which says what to use instead."""

    def _fail(self, *_: Any, **__: Any) -> NoReturn:
        raise RuntimeError(
            "flask.session is not available: Phresh sets no cookies. Authenticate by token "
            "(phresh/accounts/tokens.py), and store what must last in the database."
        )

    __setitem__ = __delitem__ = clear = pop = popitem = update = setdefault = _fail


class NoSessions(SessionInterface):
    """Flask's sessions: none, since no response sets a cookie."""

    none = NoSession()

    def open_session(self, *_: Any) -> NullSession:
        """Return an empty, read-only session."""
        return self.none


class App(flask.Flask):
    """Flask with our requests and responses, without what costs time and has no use here."""

    request_class = Request
    response_class = Response
    json_provider_class = StrictJSONProvider
    session_interface = NoSessions()

    # Scheme, host and path of PUBLIC_URL, for url_for.
    public: tuple[str, str, str] | None = None

    def __init__(self, import_name: str) -> None:
        super().__init__(import_name, static_folder=str(Path(__file__).with_name("static")))
        self.url_map.strict_slashes = False  # the trailing slash is optional
        self.url_map.merge_slashes = False

    def add_url_rule(
        self, rule: str, endpoint: str | None = None, view_func: Any = None, *args: Any, **kw: Any
    ) -> None:
        """Connect a URL rule to a view.

        :raises TypeError: for a coroutine function
        """
        reject_coroutine(view_func)
        super().add_url_rule(rule, endpoint, view_func, *args, **kw)

    def create_url_adapter(self, request: Any) -> Any:
        """Bind the URL map to a request, without what serves routes that have a host.

        :raises BadRequest: for HTTP/1.1 without a Host header (RFC 9112 3.2)
        """
        if request is None:
            return super().create_url_adapter(request)
        environ = request.environ
        host = environ.get("HTTP_HOST")
        if host is None:
            if environ.get("SERVER_PROTOCOL") != "HTTP/1.0":
                raise BadRequest("The Host header is missing.")
            host = environ["SERVER_NAME"]
        is_limited = self.config["TRUSTED_HOSTS"] is not None
        if is_limited and environ["PATH_INFO"].rstrip("/") not in ANY_HOST:
            adapter = super().create_url_adapter(request)
        else:
            adapter = self._bind(environ, host)
        if self.public is not None and adapter is not None:
            adapter.url_scheme, adapter.server_name, adapter.script_name = self.public
        return adapter

    def _bind(self, environ: Any, host: str) -> MapAdapter:
        return MapAdapter(
            self.url_map,
            server_name=host,
            script_name=environ["SCRIPT_NAME"] or "/",
            subdomain="",
            url_scheme=environ["wsgi.url_scheme"],
            path_info=environ["PATH_INFO"].encode("latin-1").decode(errors="replace"),
            default_method=environ["REQUEST_METHOD"],
            query_args=environ["QUERY_STRING"],
        )

    def dispatch_request(self) -> Any:
        """Call the view, unless the head of the request is more work to parse than any needs.

        :raises RequestURITooLarge: for a query over ``QUERY_MAX``
        :raises RequestHeaderFieldsTooLarge: for a header over ``HEADER_MAX`` that is parsed
        """
        environ = request.environ
        if len(environ["QUERY_STRING"]) > QUERY_MAX:
            raise RequestURITooLarge(f"The query is longer than {QUERY_MAX} bytes.")
        for name in PARSED_HEADERS:
            if name in environ and len(environ[name]) > HEADER_MAX:
                header = name.removeprefix("HTTP_").replace("_", "-").title()
                raise RequestHeaderFieldsTooLarge(f"{header} is longer than {HEADER_MAX} bytes.")
        return super().dispatch_request()

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function: none is a coroutine function (:meth:`add_url_rule`)."""
        return func


def reject_coroutine(view: Any) -> None:
    """Refuse a coroutine function as a view.

    :raises TypeError: for one, under decorators too
    """
    if iscoroutinefunction(unwrap(view)):
        raise TypeError(
            f"{view.__name__}() is a coroutine function (async def), which Phresh does not run: "
            "write a plain function. Waiting in it lets other requests run, since each has a "
            "thread, green or not."
        )


def init_app(app: App) -> None:
    """Limit the app to the hosts, trust the proxies and use the URL that its settings name."""
    app.config["MAX_FORM_PARTS"] = 20  # of multipart/form-data
    if app.config["TRUSTED_HOSTS"] is not None:
        # Requests from inside, like a container's health check, use no public name.
        app.config["TRUSTED_HOSTS"] += ["localhost", "127.0.0.1"]
    if proxies := app.config["TRUSTED_PROXIES"]:
        app.wsgi_app = Proxies(app.wsgi_app, proxies)  # type: ignore[method-assign]
    if app.config["PUBLIC_URL"] is not None:
        parts = urlsplit(app.config["PUBLIC_URL"])
        app.public = (parts.scheme, parts.netloc, f"{parts.path}/")


class Proxies(ProxyFix):
    """Applies the headers of trusted proxies: the client's address, its scheme, and the mount.

    :param count: of the proxies that a request passes; each header has a value of each
    """

    def __init__(self, app: Any, count: int) -> None:
        super().__init__(app, x_for=count, x_proto=count, x_prefix=count)

    def __call__(self, environ: Any, start_response: Any) -> Any:
        """Call the app, without a mount that is no plain path: it gets into URLs."""
        prefixes = environ.get("HTTP_X_FORWARDED_PREFIX", "").split(",")
        if not all(MOUNT.fullmatch(prefix.strip()) for prefix in prefixes):
            del environ["HTTP_X_FORWARDED_PREFIX"]
        return super().__call__(environ, start_response)
