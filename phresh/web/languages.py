"""The language of a client."""

from flask import request

LANGUAGES = ("en", "ko")
HEADER_MAX = 200  # characters; of longer ones nothing is read


def client_language() -> str:
    """Return the one of our languages that a client prefers (RFC 9110 12.5.4), or English."""
    if len(request.headers.get("Accept-Language", "")) > HEADER_MAX:
        return LANGUAGES[0]
    return request.accept_languages.best_match(LANGUAGES) or LANGUAGES[0]
