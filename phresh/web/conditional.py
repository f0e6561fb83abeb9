"""Conditional requests: entity tags, If-Match and If-None-Match (RFC 9110 8.8.3, 13.1)."""

from flask import request
from flask_smorest import abort
from werkzeug.http import generate_etag


def etag_of(*parts: str) -> str:
    """Return the strong entity tag of a representation, made of its text."""
    return generate_etag("\0".join(parts).encode())


def is_known(tag: str) -> bool:
    """Return whether the client has the representation already, by ``If-None-Match``."""
    return "HTTP_IF_NONE_MATCH" in request.environ and request.if_none_match.contains_weak(tag)


def check_if_match(text: str) -> None:
    """Respond 412 unless the resource has the entity tag that ``If-Match`` names.

    :param text: the representation of a row that is locked until it is written
    """
    if not request.if_match.contains(etag_of(text, "")):
        abort(412, message="The resource has changed since you read it (If-Match).")
