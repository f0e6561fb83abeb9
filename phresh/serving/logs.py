"""Requests by their id, and log lines as JSON that carry it."""

import json
import logging
import random
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TextIO

from flask import Flask, Request, g, has_app_context, request

access = logging.getLogger("phresh.access")

WELL_FORMED = re.compile(r"[\w.:/+=-]{1,128}", re.ASCII)


def init_app(app: Flask) -> None:
    """Give every request an id, and every answer that id and a log line."""
    app.before_request(_begin)
    app.after_request(_end)


def _begin() -> None:
    given = request.environ.get("HTTP_X_REQUEST_ID", "")
    context = g._get_current_object()
    # Nothing secret, so not worth a call of the kernel.
    made = f"{random.getrandbits(128):032x}"
    context.request_id = given if WELL_FORMED.fullmatch(given) else made
    context.began = time.monotonic()


def _end(response: Any) -> Any:
    # Each use of a proxy finds its object anew.
    asked: Request = request._get_current_object()  # type: ignore[attr-defined]
    context = g._get_current_object()
    response.headers.add("X-Request-Id", context.request_id)
    fields = {
        "method": asked.method,
        "path": asked.path,
        "status": response.status_code,
        "duration_ms": round((time.monotonic() - context.began) * 1000, 1),
        "remote_addr": asked.environ.get("REMOTE_ADDR"),
    }
    if (account := context.get("account")) is not None:
        fields["user_id"] = account.user_id
    access.info("request", extra={"fields": fields})
    return response


class JSONFormatter(logging.Formatter):
    """Makes one line of JSON of a record, with the id of the request in which it was made."""

    encode = staticmethod(json.JSONEncoder(ensure_ascii=False).encode)

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
        return self.encode(line)


class LoopHandler(logging.StreamHandler[TextIO]):
    """Writes to stderr; once :meth:`defer` was called, all lines of a turn of the loop at once.

    A call of the kernel for each line would take as long as all else that a line takes.
    """

    def __init__(self) -> None:
        super().__init__()
        self._lines: list[str] = []
        self._soon: Callable[[Callable[[], None]], object] | None = None

    def defer(self, soon: Callable[[Callable[[], None]], object]) -> None:
        """Leave it to the event loop when to write.

        :param soon: calls a function in the next turn of the loop
        """
        self._soon = soon

    def emit(self, record: logging.LogRecord) -> None:  # noqa: D102
        try:
            self._lines.append(self.format(record) + self.terminator)
            if self._soon is None:
                self.flush()
            elif len(self._lines) == 1:
                self._soon(self.flush)
        except Exception:
            self.handleError(record)

    def flush(self) -> None:  # noqa: D102
        lines, self._lines = self._lines, []
        self.stream.write("".join(lines))
        super().flush()
