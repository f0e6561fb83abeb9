"""Converters for the variable parts of paths."""

from typing import Any

from flask import Flask
from werkzeug.exceptions import NotFound
from werkzeug.routing import BaseConverter

from phresh.web.fields import INTEGER_MAX, USERNAME, USERNAME_MAX, USERNAME_MIN


class UsernameConverter(BaseConverter):
    """A username in a path, in any case."""

    regex = USERNAME
    parameter: dict[str, Any] = {
        "type": "string",
        "minLength": USERNAME_MIN,
        "maxLength": USERNAME_MAX,
        "pattern": f"^{USERNAME}$",
        "description": "A username, in any case.",
        "example": "anna",
    }


class IdConverter(BaseConverter):
    """An id in a path, in its canonical form; anything else is no such URL."""

    regex = "[1-9][0-9]{0,9}"
    parameter: dict[str, Any] = {
        "type": "integer",
        "format": "int32",
        "description": "The id of the {}.",  # of what, the name of the variable says
        "minimum": 1,
        "maximum": INTEGER_MAX,
        "example": 1,
    }

    def to_python(self, value: str) -> int:
        """Return the id.

        :raises NotFound: when it is more than PostgreSQL's type integer holds
        """
        if (number := int(value)) > INTEGER_MAX:
            # ValidationError would lead to 405: by then rules of other methods have matched.
            raise NotFound
        return number


class SessionConverter(BaseConverter):
    """The id of a session in a path."""

    regex = "[0-9a-f]{16}"
    parameter: dict[str, Any] = {
        "type": "string",
        "minLength": 16,
        "maxLength": 16,
        "pattern": f"^{regex}$",
        "description": "The id of the login.",
        "example": "3f786850e387550f",
    }


CONVERTERS = {"id": IdConverter, "session": SessionConverter, "username": UsernameConverter}


def init_app(app: Flask) -> None:
    """Let the app's paths use ``<id:...>``, ``<session:...>`` and ``<username:...>``."""
    app.url_map.converters.update(CONVERTERS)
