"""CORS: pages of other origins may use the API, without credentials."""

import re

from flask import Flask, Response, request
from flask_cors.core import DEFAULT_OPTIONS, get_cors_options, set_cors_headers


def _pattern(origin: str) -> str | re.Pattern[str]:
    """Return what matches the origins that an entry of ``CORS_ORIGINS`` allows, and no others.

    Flask-Cors would take a text with a bracket or a ``*`` for a regular expression.
    """
    if origin == "*":
        return origin
    pattern = re.escape(origin).replace(r"\*", "[a-z0-9_-]+")
    return re.compile(rf"{pattern}\Z", re.ASCII | re.IGNORECASE)


def init_app(app: Flask) -> None:
    """Let pages of the origins in ``CORS_ORIGINS`` use the API.

    The extension of Flask-Cors would compute its headers for each response; here only for those
    to a page.
    """
    options = {
        "origins": [_pattern(origin) for origin in app.config["CORS_ORIGINS"]],
        "send_wildcard": True,  # "*", not an echo of the origin
        "allow_headers": [
            "Authorization",
            "Content-Type",
            "If-Match",
            "If-None-Match",
            "Idempotency-Key",
        ],
        "expose_headers": [
            "Deprecation",
            "ETag",
            "Link",
            "Location",
            "RateLimit",
            "RateLimit-Policy",
            "Retry-After",
            "Sunset",
            "X-Request-Id",
        ],
        "vary_header": False,
    }
    computed = get_cors_options(app, DEFAULT_OPTIONS, options)

    @app.after_request
    def allow_origin(response: Response) -> Response:
        # A header that is too long to be parsed is not parsed here either.
        if "HTTP_ORIGIN" in request.environ and response.status_code != 431:
            set_cors_headers(response, computed)
        return response
