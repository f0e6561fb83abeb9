"""An app that does nothing: the cost of gunicorn and Phresh's worker alone."""

from collections.abc import Iterable
from typing import Any

BODY = b'{"id": 1}'
HEADERS = [("Content-Type", "application/json"), ("Content-Length", str(len(BODY)))]


def app(_environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Return the same response to every request."""
    start_response("200 OK", HEADERS)
    return [BODY]


# Phresh's worker reads the limit of a request body from the settings of the app.
app.config = {"MAX_CONTENT_LENGTH": 64 * 1024}
