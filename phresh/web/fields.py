"""marshmallow fields that several resources use."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import marshmallow as ma

INTEGER_MAX = 2**31 - 1  # of PostgreSQL's type integer
USERNAME = "[A-Za-z0-9_-]{3,30}"

# White space in the regular expressions of Python, PostgreSQL and ECMA-262 (JSON Schema) alike:
# their own \s differ.
BLANKS = (
    r"\u0009-\u000d\u001c-\u0020\u0085\u00a0\u1680\u2000-\u200a"
    r"\u2028\u2029\u202f\u205f\u3000\ufeff"
)
NOT_BLANK = f"[^{BLANKS}]"


class Text(ma.fields.String):
    """Text that PostgreSQL can store: no NUL, no lone surrogate, of a limited length.

    :param max_length: in characters (code points), as is ``min_length``
    :param blank: whether it may be empty or only white space
    :param validate: further validators
    """

    default_error_messages = {
        "nul": "Must not contain the character NUL.",
        "surrogate": "Must not contain half of a surrogate pair.",
        "blank": "Must not be blank.",
    }

    def __init__(
        self,
        *,
        max_length: int,
        min_length: int | None = None,
        blank: bool = True,
        validate: Sequence[Callable[[str], Any]] = (),
        **kwargs: Any,
    ) -> None:
        pattern = r"^[^\u0000]*$" if blank else rf"^[^\u0000]*[^\u0000{BLANKS}][^\u0000]*$"
        metadata = {"pattern": pattern, **kwargs.pop("metadata", {})}
        shortest = min_length if blank else (min_length or 1)
        length = ma.validate.Length(shortest, max_length)
        super().__init__(validate=[length, *validate], metadata=metadata, **kwargs)
        self.blank = blank

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> str:
        text: str = super()._deserialize(value, attr, data, **kwargs)
        if "\0" in text:
            raise self.make_error("nul")
        if not self.blank and not re.search(NOT_BLANK, text):
            raise self.make_error("blank")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise self.make_error("surrogate") from None
        return text


class Digits(ma.fields.Integer):
    """A number in a query string, in ASCII digits: int() accepts other scripts, signs and _ too."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> Any:
        if not re.fullmatch("[0-9]{1,10}", value):
            raise self.make_error("invalid")
        return super()._deserialize(value, attr, data, **kwargs)


class Flag(ma.fields.Boolean):
    """True or false; no other value is accepted for them."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> bool:
        if not isinstance(value, bool):
            raise self.make_error("invalid", input=value)
        return value
