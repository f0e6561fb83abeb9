"""Request ids, and log lines as JSON that have them."""

import json
import logging
import os
import random
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TextIO

from flask import Flask, Request, g, has_app_context, request

access = logging.getLogger("phresh.access")

# What several processes write to one pipe is not mixed up to this number of bytes (POSIX, write();
# PIPE_BUF on Linux).
ATOMIC = 4096

WELL_FORMED = re.compile(r"[\w.:/+=-]{1,128}", re.ASCII)


def init_app(app: Flask) -> None:
    """Add an id to every request, and that id and a log line to every response.

    The id is the one that a trusted proxy has sent. Of other clients none is taken: they could give
    many requests one id, or that of someone else's.
    """
    trusts_client = app.config["TRUSTED_PROXIES"] > 0

    @app.before_request
    def begin() -> None:
        context = g._get_current_object()
        given = request.environ.get("HTTP_X_REQUEST_ID", "") if trusts_client else ""
        # Not a secret, so it need not come from the system's generator.
        made = f"{random.getrandbits(128):032x}"
        context.request_id = given if WELL_FORMED.fullmatch(given) else made
        context.began = time.monotonic()

    app.after_request(_end)


def _end(response: Any) -> Any:
    # Each use of a proxy looks its object up.
    received: Request = request._get_current_object()  # type: ignore[attr-defined]
    context = g._get_current_object()
    response.headers.add("X-Request-Id", context.request_id)
    fields = {
        "method": received.method,
        "path": received.path,
        "status": response.status_code,
        "duration_ms": round((time.monotonic() - context.began) * 1000, 1),
        "remote_addr": received.environ.get("REMOTE_ADDR"),
    }
    if (account := context.get("account")) is not None:
        fields["user_id"] = account.user_id
    elif (user_id := context.get("user_id")) is not None:  # who logs in or registers
        fields["user_id"] = user_id
    if access.isEnabledFor(logging.INFO):
        access.handle(AccessRecord(fields))
    return response


class AccessRecord(logging.LogRecord):
    """The record of one request: of its time and its fields; the rest is the same for each.

    What ``logging`` finds out for a record takes as long as writing the line.
    """

    def __init__(self, fields: dict[str, Any]) -> None:
        now = time.time()
        own = {"created": now, "msecs": now % 1 * 1000, "process": os.getpid(), "fields": fields}
        self.__dict__ = {**SAME, **own}


# A formatter that needs the others raises KeyError.
OTHERS = ("relativeCreated", "thread", "threadName", "taskName")
SAME = vars(logging.LogRecord(access.name, logging.INFO, __file__, 0, "request", None, None))
SAME = {name: value for name, value in SAME.items() if name not in OTHERS}


class JSONFormatter(logging.Formatter):
    """Formats a record as one line of JSON, with the id of the request that it belongs to."""

    encode = staticmethod(json.JSONEncoder().encode)

    def format(self, record: logging.LogRecord) -> str:  # noqa: D102
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if has_app_context() and (request_id := g.get("request_id")):
            line["request_id"] = request_id
        line.update(getattr(record, "fields", ()))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        # ASCII only, and no control character: a terminal would obey U+009B, or DEL.
        return self.encode(line).replace("\x7f", "\\u007f")


class LoopHandler(logging.StreamHandler[TextIO]):
    """Writes to stderr; under an event loop, all lines of a turn of the loop at once.

    A system call for each line would take as long as the rest of the line's work.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lines: list[str] = []
        self._soon: Callable[[Callable[[], None]], object] | None = None

    def defer(self, soon: Callable[[Callable[[], None]], object]) -> None:
        """Write in the next turn of an event loop from now on.

        :param soon: has the loop call a function in its next turn
        """
        self._soon = soon

    def handle(self, record: logging.LogRecord) -> bool:  # noqa: D102
        if self._soon is None or self.filters:
            return super().handle(record)
        self.emit(record)  # without the lock: only the loop's thread logs
        return True

    def emit(self, record: logging.LogRecord) -> None:  # noqa: D102
        try:
            self._lines.append(self.format(record) + self.terminator)
            if self._soon is None:
                self.flush()
            elif len(self._lines) == 1:
                self._soon(self.flush)
        except Exception:
            self.handleError(record)

    def flush(self) -> None:
        """Write what is left, in parts that no other process can write into."""
        lines, self._lines = self._lines, []
        part, size = "", 0
        for line in lines:
            length = len(line) if line.isascii() else len(line.encode(errors="backslashreplace"))
            if size and size + length > ATOMIC:
                self.stream.write(part)
                super().flush()
                part, size = "", 0
            part += line
            size += length
        self.stream.write(part)
        super().flush()
