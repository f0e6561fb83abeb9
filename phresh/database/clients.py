"""Clients that have gone: nobody will read the response, so the database need not work for it.

A server that can tell whether a client is there passes a function for that in WSGI's environ.
"""

from collections.abc import Callable
from contextvars import ContextVar
from math import inf
from typing import Any

import psycopg2

KEY = "phresh.is_connected"  # in WSGI's environ
LOOK_AFTER = 0.05  # seconds of waiting before it is looked whether the client is there; and again
# Only these: a request that writes may have been committed already, and must not be in doubt.
SAFE = ("GET", "HEAD")

_is_connected: ContextVar[Callable[[], bool] | None] = ContextVar("is_connected", default=None)


class ClientGoneError(psycopg2.OperationalError):
    """The client of the request has gone, which ends its wait for the database."""


def watch_client(environ: dict[str, Any]) -> None:
    """Look from now on whether the client of a request that only reads is there."""
    safe = environ["REQUEST_METHOD"] in SAFE
    _is_connected.set(environ.get(KEY) if safe else None)


def next_look(now: float) -> float:
    """Return when to interrupt a wait to see whether the client is there; infinity for never.

    :param now: seconds of the monotonic clock
    """
    return inf if _is_connected.get() is None else now + LOOK_AFTER


def has_client_gone() -> bool:
    """Return whether nobody will read the response."""
    is_connected = _is_connected.get()
    return is_connected is not None and not is_connected()
