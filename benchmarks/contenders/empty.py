"""An app that does nothing: what gunicorn and its workers leave to be spent."""

from collections.abc import Iterable
from typing import Any

BODY = b'{"id": 1}'
HEADERS = [("Content-Type", "application/json"), ("Content-Length", str(len(BODY)))]


def app(_environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Answer anything with the same."""
    start_response("200 OK", HEADERS)
    return [BODY]
