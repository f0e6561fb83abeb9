"""Deprecated operations: what their responses and the document say of it."""

import re
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from email.utils import format_datetime
from functools import wraps
from typing import Any

from flask import after_this_request
from werkzeug.wrappers import Response

# Days from the deprecation to the earliest end: what docs/api.md promises.
NOTICE_DAYS = 180
# In the document; the latter as oasdiff has it.
SINCE, SUNSET = "x-deprecated-since", "x-sunset"
DESCRIPTIONS = {
    "Deprecation": "When the operation became deprecated: `@` and seconds since 1970 (RFC 9745)",
    "Sunset": "When the operation stops working (RFC 8594)",
    "Link": "With `rel` `deprecation` or `sunset`: the page that says what to do instead",
}
URL = re.compile(r"https?://[!#-;=?-\[\]_a-z~]+")  # RFC 3986


@dataclass(frozen=True)
class Deprecation:
    """That an operation is deprecated.

    :param since: the day from which on it is
    :param sunset: the day on which it stops to work; None: not decided
    :param link: the page that says what to do instead
    :raises TypeError: for what is not a date
    :raises ValueError: for a sunset that is too early, or a link that is not an absolute URL
    """

    since: date
    sunset: date | None = None
    link: str | None = None

    def __post_init__(self) -> None:
        for name in ("since", "sunset"):
            value = getattr(self, name)
            if type(value) is not date and (name == "since" or value is not None):
                raise TypeError(f"{name} must be a datetime.date, not {type(value).__name__}.")
        earliest = self.since + timedelta(NOTICE_DAYS)
        if self.sunset is not None and self.sunset < earliest:
            raise ValueError(
                f"sunset must be at least {NOTICE_DAYS} days after since, as docs/api.md promises: "
                f"{earliest} or later."
            )
        if self.link is not None and not URL.fullmatch(self.link):
            raise ValueError("link must be an absolute URL: https://...")

    @property
    def headers(self) -> list[tuple[str, str]]:
        """The headers of each response: RFC 9745, RFC 8594."""
        pairs = [("Deprecation", f"@{_midnight(self.since).timestamp():.0f}")]
        relations = ["deprecation"]
        if self.sunset is not None:
            pairs.append(("Sunset", format_datetime(_midnight(self.sunset), usegmt=True)))
            relations.append("sunset")
        if self.link is not None:
            pairs += [("Link", f'<{self.link}>; rel="{name}"') for name in relations]
        return pairs

    @property
    def documented(self) -> dict[str, Any]:
        """What the document says of the operation, beside its description and its headers."""
        documented: dict[str, Any] = {"deprecated": True, SINCE: self.since.isoformat()}
        if self.sunset is not None:
            documented[SUNSET] = self.sunset.isoformat()
        if self.link is not None:
            documented["externalDocs"] = {"url": self.link, "description": "What to do instead"}
        return documented

    def described(self, description: str) -> str:
        """Return the description of the operation, with what this means for its callers."""
        text = f"Deprecated since {self.since}."
        if self.sunset is not None:
            text += f" It stops working on {self.sunset}."
        return f"{description}\n\n{text}".strip()

    def announced(self, view: Callable[..., Any]) -> Callable[..., Any]:
        """Return a view whose responses have the headers, errors too."""

        def add_headers(response: Response) -> Response:
            response.headers.extend(self.headers)
            return response

        @wraps(view)
        def announcing(*args: Any, **kwargs: Any) -> Any:
            after_this_request(add_headers)
            return view(*args, **kwargs)

        return announcing


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def complete(document: dict[str, Any]) -> None:
    """Complete the deprecated operations of a document: the words, and the headers of responses.

    Responses that operations share are copied into these.
    """
    for operation in (each for item in document["paths"].values() for each in item.values()):
        if isinstance(operation, dict) and SINCE in operation:
            _complete(operation, document["components"].get("responses", {}))


def _complete(operation: dict[str, Any], shared: dict[str, Any]) -> None:
    since = date.fromisoformat(operation[SINCE])
    sunset = date.fromisoformat(operation[SUNSET]) if SUNSET in operation else None
    deprecation = Deprecation(since, sunset, operation.get("externalDocs", {}).get("url"))
    operation["description"] = deprecation.described(operation.get("description", ""))
    for status, response in operation["responses"].items():
        if "$ref" in response:
            response = deepcopy(shared[response["$ref"].rpartition("/")[2]])
            operation["responses"][status] = response
        headers = response.setdefault("headers", {})
        for name, value in deprecation.headers:
            header = {"description": DESCRIPTIONS[name], "schema": {"type": "string"}}
            headers.setdefault(name, {**header, "example": value})
