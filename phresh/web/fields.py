"""marshmallow fields that several resources use."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import marshmallow as ma

INTEGER_MAX = 2**31 - 1  # of PostgreSQL's type integer
USERNAME_MIN, USERNAME_MAX = 3, 30
USERNAME = f"[A-Za-z0-9_-]{{{USERNAME_MIN},{USERNAME_MAX}}}"

# White space in the regular expressions of Python, PostgreSQL and ECMA-262 (JSON Schema) alike:
# their own \s differ.
BLANKS = (
    r"\u0009-\u000d\u001c-\u0020\u0085\u00a0\u1680\u2000-\u200a"
    r"\u2028\u2029\u202f\u205f\u3000\ufeff"
)
NOT_BLANK = f"[^{BLANKS}]"


class BoundedString(ma.fields.String):
    """A string of a limited length, which is checked before anything else is done with it.

    A body or a query can have tens of thousands of characters, for which regular expressions,
    normalization and encodings take long. A field that does such things derives from this one and
    does them after ``super()._deserialize()``.

    :param max_length: in characters (code points), as is ``min_length``
    :param error: what replaces the message for a wrong length
    :param validate: further validators
    """

    def __init__(
        self,
        *,
        max_length: int,
        min_length: int | None = None,
        error: str | None = None,
        validate: Sequence[Callable[[str], Any]] = (),
        **kwargs: Any,
    ) -> None:
        self.max_length = max_length
        self.length = ma.validate.Length(min_length, max_length, error=error)
        super().__init__(validate=[self.length, *validate], **kwargs)

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> str:
        if isinstance(value, str | bytes) and len(value) > self.max_length:
            self.length(value)  # raises
        text: str = super()._deserialize(value, attr, data, **kwargs)
        return text


class BoundedList(ma.fields.List):
    """A list of a limited length, which is checked before its items are.

    :param max_length: number of items
    """

    def __init__(self, inner: Any, *, max_length: int, **kwargs: Any) -> None:
        self.length = ma.validate.Length(max=max_length)
        super().__init__(inner, validate=self.length, **kwargs)

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(value, list | tuple):
            self.length(value)
        return super()._deserialize(value, *args, **kwargs)


class Text(BoundedString):
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
        **kwargs: Any,
    ) -> None:
        pattern = r"^[^\u0000]*$" if blank else rf"^[^\u0000]*[^\u0000{BLANKS}][^\u0000]*$"
        metadata = {"pattern": pattern, **kwargs.pop("metadata", {})}
        shortest = min_length if blank else (min_length or 1)
        super().__init__(max_length=max_length, min_length=shortest, metadata=metadata, **kwargs)
        self.blank = blank

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> str:
        text = super()._deserialize(value, attr, data, **kwargs)
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
        if len(value) > 10 or not re.fullmatch("[0-9]+", value):
            raise self.make_error("invalid")
        return super()._deserialize(value, attr, data, **kwargs)


class Flag(ma.fields.Boolean):
    """True or false; no other value is accepted for them."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> bool:
        if not isinstance(value, bool):
            raise self.make_error("invalid", input=value)
        return value
