"""Conditional requests: entity tags, If-Match and If-None-Match (RFC 9110 8.8.3, 13).

Every view of :class:`phresh.web.blueprint.Blueprint` honours them; a view does nothing for it.
Nothing has a ``Last-Modified`` date, so If-Unmodified-Since and If-Modified-Since are ignored, as
RFC 9110 13.1.3 and 13.1.4 have it.
"""

import io
import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from flask import current_app, g, request
from flask_smorest import abort
from werkzeug.exceptions import HTTPException
from werkzeug.http import generate_etag, quote_etag, unquote_etag
from werkzeug.wrappers import Response as BaseResponse

from phresh.database.deadlines import earlier_deadline
from phresh.database.transactions import reading_committed
from phresh.web.app import Response

TAG = re.compile(r'(W/)?"([!#-~\x80-\xff]*+)"')
LIST = re.compile(rf"[ \t,]*+{TAG.pattern}(?:[ \t]*+,[ \t,]*+{TAG.pattern})*+[ \t,]*+")

CHANGED = "The resource has changed since you read it (If-Match). Read it again, then decide."
UNREADABLE = (
    "If-Match can't hold: there is nothing that you can read at this path and that would have an "
    "ETag. Send the request without If-Match."
)
WEAK = (
    'If-Match has a weak ETag (W/"..."), which never matches (RFC 9110 13.1.1). Phresh sends '
    "strong ETags, so a proxy has weakened this one, probably because it compresses responses. "
    "Send the ETag without W/, or let the proxy leave the responses as they are."
)
WEAK_AND_CHANGED = f"{WEAK} The resource has also changed since you read it."
KNOWN = "The resource exists, or has an ETag that If-None-Match excludes."
MALFORMED = '{} is not valid: send * or a list of ETags in double quotes, like "1f3870be".'
NOT_FOUND = (401, 403, 404, 410)  # for this client, there is no representation


class Tags(NamedTuple):
    """The entity tags of a condition.

    :param anything: whether it is ``*``
    """

    strong: frozenset[str] = frozenset()
    weak: frozenset[str] = frozenset()
    anything: bool = False


def etag_of(text: str, link: str = "") -> str:
    """Return the ``ETag`` of a representation: a strong one, made of its text.

    :param link: the header ``Link``, which belongs to a page: it comes with a new row
    """
    return quote_etag(generate_etag(f"{text}\0{link}".encode()))


def is_not_modified(header: str) -> bool:
    """Return whether the client of a GET has the representation already, by ``If-None-Match``.

    Respond 412 unless ``If-Match`` holds, which is looked at first (RFC 9110 13.2.2).

    :param header: the ``ETag`` of the representation
    """
    environ = request.environ
    if "HTTP_IF_MATCH" not in environ and "HTTP_IF_NONE_MATCH" not in environ:
        return False
    if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
        return False
    tag, is_weak = unquote_etag(header)
    _check_if_match(f"W/{tag}" if is_weak else tag)
    return "HTTP_IF_NONE_MATCH" in environ and request.if_none_match.contains_weak(tag)


def revalidated(body: bytes | str, mimetype: str, headers: dict[str, str]) -> Response:
    """Return a response that clients may store and have to revalidate; 304 to whom has it.

    :param headers: with the ``ETag`` of the body
    """
    headers = {**headers, "Cache-Control": "no-cache"}
    if is_not_modified(headers["ETag"]):
        return Response(None, 304, headers)
    return Response(body, 200, headers, mimetype=mimetype)


def _check_if_match(tag: str | None) -> None:
    """Respond 412 unless ``If-Match`` has the tag, which is compared strongly.

    :param tag: of the current representation; None if there is none
    """
    tags = _sent("If-Match")
    if tags is None or (tags.anything and tag is not None) or tag in tags.strong:
        return
    if tag is None:
        abort(412, message=UNREADABLE)
    if tags.weak:
        abort(412, message=WEAK if tag in tags.weak else WEAK_AND_CHANGED)
    abort(412, message=CHANGED)


def is_conditional() -> bool:
    """Return whether the request has preconditions."""
    return "HTTP_IF_MATCH" in request.environ or "HTTP_IF_NONE_MATCH" in request.environ


def checked(view: Callable[[], BaseResponse], path: str | None) -> BaseResponse:
    """Return the response of a writing view, or respond 412 where a precondition does not hold.

    The view runs first, in its transaction: what it changes is locked then, so the committed state
    stays as it is until this transaction ends, and a 412 rolls it back. Errors of the view come
    before 412 (RFC 9110 13.2.1), except 409: whoever knows an older state is told so.

    :param path: where GET returns the representation that the view changes
    """
    try:
        response = view()
    except HTTPException as error:
        if error.code == 409:
            _check(path)
        raise
    if response.status_code < 300:
        _check(path)
    return response


def _check(path: str | None) -> None:
    """Respond 412 unless both preconditions hold, in the order of RFC 9110 13.2.2."""
    tag = _committed_tag(path)
    _check_if_match(tag)
    tags = _sent("If-None-Match")
    if tags is None or tag is None:
        return
    if tags.anything or tag in tags.strong or tag in tags.weak:
        abort(412, message=KNOWN)


def _sent(name: str) -> Tags | None:
    """Return the tags in a header, None without it; respond 412 if it is malformed."""
    value = request.headers.get(name)
    if value is None:
        return None
    if value.strip() == "*":
        return Tags(anything=True)
    if LIST.fullmatch(value) is None:
        abort(412, message=MALFORMED.format(name))
    tags = TAG.findall(value)
    return Tags(
        frozenset(tag for weak, tag in tags if not weak),
        frozenset(tag for weak, tag in tags if weak),
    )


def _committed_tag(path: str | None) -> str | None:
    """Return the entity tag that GET of a path has now for this client; None if it finds nothing.

    It calls the view for GET, as in a request of its own, on another connection: that one does not
    see what this transaction has written.

    :param path: None: the path of this request
    """
    app: Any = current_app._get_current_object()  # type: ignore[attr-defined]
    if path is not None:
        path = path.encode().decode("latin-1")  # as WSGI has it
    dropped = ("HTTP_IF_", "CONTENT_", "werkzeug.")
    environ: dict[str, Any] = {
        **{k: v for k, v in request.environ.items() if not k.startswith(dropped)},
        "REQUEST_METHOD": "GET",
        "PATH_INFO": request.environ["PATH_INFO"] if path is None else path,
        "QUERY_STRING": "",
        "wsgi.input": io.BytesIO(),
    }
    fields = vars(g._get_current_object())  # both requests share it
    kept = dict(fields)
    try:
        # The end of the inner request would end the deadline of both.
        with earlier_deadline(math.inf), reading_committed(), app.request_context(environ):
            if request.routing_exception is not None:  # there is no GET
                return None
            view = app.view_functions[request.endpoint]
            response = app.make_response(view(**(request.view_args or {})))
            if response.status_code != 200:
                return None
            tag, is_weak = response.get_etag()
            return f"W/{tag}" if is_weak else tag or ""  # neither matches strongly
    except HTTPException as error:
        if error.code in NOT_FOUND:
            return None
        raise
    finally:
        fields.clear()
        fields.update(kept)
