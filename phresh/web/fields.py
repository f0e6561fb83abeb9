"""marshmallow fields that several resources use."""

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import marshmallow as ma

INTEGER_MAX = 2**31 - 1  # of PostgreSQL's type integer
USERNAME_MIN, USERNAME_MAX = 3, 30
USERNAME = f"[A-Za-z0-9_-]{{{USERNAME_MIN},{USERNAME_MAX}}}"

# Metadata of the times that rows have.
CREATED_AT = {"description": "When it was created."}
UPDATED_AT = {"description": "When it was last changed."}

# White space in the regular expressions of Python and PostgreSQL alike: their own \s differ.
BLANKS = (
    r"\u0009-\u000d\u001c-\u0020\u0085\u00a0\u1680\u2000-\u200a"
    r"\u2028\u2029\u202f\u205f\u3000\ufeff"
)
NOT_BLANK = f"[^{BLANKS}]"

# All control characters but tab, line feed and carriage return; they begin with NUL. As \xNN they
# are in patterns of the document too: of \uNNNN, generators make the characters themselves, and a
# line separator in a regular expression is no TypeScript.
CONTROLS = r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"
# They embed, override or isolate a direction of writing. Without its end, one reorders what a page
# shows after a name. Arabic and Hebrew need none of them; LRM, RLM and ALM remain.
DIRECTIONS = r"\u202a-\u202e\u2066-\u2069"
# Letters and symbols by their category, but without a shape: fillers of Hangul, a braille pattern
# without dots, a musical notehead.
FILLERS = "\u115f\u1160\u3164\uffa0\u2800\U0001d159"
# As many combining marks in a row as any language has (UAX 15, Stream-Safe Text Format). To sort
# more for normalization takes a time that grows with the square of their number.
MARKS_MAX = 30


def is_visible(character: str) -> bool:
    """Return whether a character is a letter, a digit, punctuation or a symbol that can be seen."""
    return unicodedata.category(character)[0] in "LNPS" and character not in FILLERS


def normalized(text: str) -> str:
    """Return a text in Unicode's normalization form C.

    :raises ValueError: for too many combining marks in a row
    """
    if text.isascii():
        return text
    marks = bytes(map(bool, map(unicodedata.combining, text)))
    if b"\1" * (MARKS_MAX + 1) in marks:
        raise ValueError(text)
    return unicodedata.normalize("NFC", text)


class Enumeration(ma.validate.OneOf):
    """The values of a field, which are a schema of their own in the document.

    Fields that share one have the same type in a generated client::

        COLOR = Enumeration("Color", ["red", "green"], "The color of a door.")
        color = ma.fields.String(validate=COLOR)

    :param name: of the schema
    :param description: what the values mean
    :param names: of the values in generated clients, where the values can't be names
    """

    def __init__(
        self, name: str, values: Iterable[str], description: str, names: Sequence[str] = ()
    ) -> None:
        super().__init__(list(values))
        self.name = name
        self.description = description
        self.names = names


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


class RawText(BoundedString):
    """Text that PostgreSQL can store, no NUL and no lone surrogate, kept as it was sent."""

    default_error_messages = {
        "nul": "Must not contain the character NUL.",
        "surrogate": "Must not contain half of a surrogate pair.",
    }
    pattern = r"^[^\x00]*$"
    rules = ""  # for the document, beyond the pattern's and the length's

    def __init__(self, *, max_length: int, **kwargs: Any) -> None:
        metadata = {"pattern": self.pattern, **kwargs.pop("metadata", {})}
        super().__init__(max_length=max_length, metadata=metadata, **kwargs)

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> str:
        text = super()._deserialize(value, attr, data, **kwargs)
        if "\0" in text:
            raise self.make_error("nul")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise self.make_error("surrogate") from None
        return text


class Text(RawText):
    """Text that people read: in normalization form C, without control characters.

    :param max_length: in characters (code points), as sent and normalized; so is ``min_length``
    :param blank: whether it may be without a visible character; if not, it is a name
    :param validate: further validators
    """

    default_error_messages = {
        "controls": "Must not contain control characters other than tabs and line breaks.",
        "marks": f"Must not have more than {MARKS_MAX} combining marks in a row.",
        "blank": "Must not be blank.",
        "invisible": "Must have a visible character: a letter, a digit, punctuation or a symbol.",
        "directions": "Must not contain the characters U+202A to U+202E and U+2066 to U+2069, "
        "which change the direction of writing.",
    }
    pattern = f"^[^{CONTROLS}]*$"

    def __init__(
        self, *, max_length: int, min_length: int | None = None, blank: bool = True, **kwargs: Any
    ) -> None:
        self.blank = blank
        self.rules = "No control characters except tabs and line breaks."
        if not blank:
            self.rules += " At least one visible character."
            min_length = 1 if min_length is None else min_length
            # Accepts more than the field: letters without a shape, and DIRECTIONS.
            name = f"[^{CONTROLS}]*[^{CONTROLS}\\s][^{CONTROLS}]*"
            self.pattern = f"^{name}$" if min_length else f"^({name})?$"
        super().__init__(max_length=max_length, min_length=min_length, **kwargs)

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> str:
        text = super()._deserialize(value, attr, data, **kwargs)
        if re.search(f"[{CONTROLS}]", text):
            raise self.make_error("controls")
        if not self.blank and not (text == "" and self.length.min == 0):
            if not any(map(is_visible, text)):
                raise self.make_error("invisible" if text.strip() else "blank")
            if re.search(f"[{DIRECTIONS}]", text):
                raise self.make_error("directions")
        try:
            return normalized(text)
        except ValueError:
            raise self.make_error("marks") from None


class Digits(ma.fields.Integer):
    """A number in a query string, in ASCII digits: int() accepts other scripts, signs and _ too."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> Any:
        if len(value) > 10 or not re.fullmatch("[0-9]+", value):
            raise self.make_error("invalid")
        return super()._deserialize(value, attr, data, **kwargs)


class Count(ma.fields.Integer):
    """A number of rows, in a response."""

    minimum = 0

    def __init__(self, description: str, **kwargs: Any) -> None:
        metadata = {"description": description, "example": 1}
        validate = ma.validate.Range(self.minimum, INTEGER_MAX)
        super().__init__(strict=True, validate=validate, metadata=metadata, **kwargs)


class Id(Count):
    """The id of a row, in a response."""

    minimum = 1


class Flag(ma.fields.Boolean):
    """True or false; no other value is accepted for them."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> bool:
        if not isinstance(value, bool):
            raise self.make_error("invalid", input=value)
        return value
