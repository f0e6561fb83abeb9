"""Heads of responses, and the responses that the worker makes itself."""

import json
import time
from collections.abc import Iterable
from email.utils import formatdate
from functools import lru_cache
from typing import Any

from werkzeug.http import HTTP_STATUS_CODES

BODILESS = ("204", "304")  # RFC 9110 6.4.1
# What is the server's to say, and not the app's (RFC 9110 7.6.1, PEP 3333). Stock gunicorn drops
# the same.
DROPPED = frozenset(
    (
        *("date", "server", "keep-alive", "proxy-authenticate", "proxy-authorization"),
        *("te", "trailer", "trailers", "transfer-encoding", "upgrade"),
    )
)

# Those of the app's errors (phresh/web/app.py): this package must not import it; a test compares.
POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
REJECTION_HEADERS = (
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", POLICY),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
)


def response_head(
    status: str, headers: Iterable[tuple[str, str]], size: int, *, is_last: bool
) -> tuple[bytes, bool]:
    """Return the head of a response, and whether it is the last on its connection.

    :param size: of its body, in bytes
    :param is_last: whether it is the last even if the app does not say so
    :raises ValueError: when a header has a line break
    """
    fields = []
    has_length = status[:3] in BODILESS
    for name, value in headers:
        kind = _kind(name)
        if kind == "dropped":
            continue
        if kind == "connection":
            is_last = is_last or "close" in value.lower().replace(",", " ").split()
            continue
        if kind == "length":
            has_length = True
        fields.append(f"\r\n{name}: {value}")
    text = "".join(fields)
    if text.count("\n") != len(fields) or text.count("\r") != len(fields):
        raise ValueError("a header with a line break")
    if not has_length:
        text += f"\r\nContent-Length: {size}"
    connection = "close" if is_last else "keep-alive"
    start = f"HTTP/1.1 {status}\r\nDate: {_date(int(time.time()))}\r\nConnection: {connection}"
    return f"{start}{text}\r\n\r\n".encode("latin-1"), is_last


def declared_size(started: list[Any]) -> int | None:
    """Return the ``Content-Length`` with which a response was started; None without one."""
    for name, value in started[1] if started else ():
        if _kind(name) == "length":
            return int(value)
    return None


def rejection(status: int) -> tuple[bytes, bytes]:
    """Return head and body of a response that the worker makes instead of the app (RFC 9457)."""
    title = HTTP_STATUS_CODES[status]
    problem = {"type": "about:blank", "title": title, "status": status, "detail": title}
    body = json.dumps(problem).encode()
    headers = [("Content-Type", "application/problem+json"), *REJECTION_HEADERS]
    head, _ = response_head(f"{status} {title}", headers, len(body), is_last=True)
    return head, body


@lru_cache(maxsize=256)
def _kind(name: str) -> str:
    """Return what the worker does with a header of the app; nothing with most."""
    lowered = name.lower()
    if lowered in DROPPED:
        return "dropped"
    return {"connection": "connection", "content-length": "length"}.get(lowered, "")


@lru_cache(maxsize=1)
def _date(seconds: int) -> str:
    return formatdate(seconds, usegmt=True)
