"""The schemas of cleanings."""

import re
from decimal import Decimal
from typing import Any

from marshmallow import Schema, ValidationError, fields, validate, validates

from phresh.accounts.schemas import PublicUserSchema, Username
from phresh.cleanings.models import (
    CLEANING_TYPES,
    DESCRIPTION_MAX,
    NAME_MAX,
    ORDERS,
    PRICE_MAX,
    SEARCHED_MAX,
    STATUSES,
    WORDS_MAX,
    is_word_character,
)
from phresh.web.fields import CONTROLS, DIRECTIONS, INVISIBLE, BoundedList, Text
from phresh.web.pages import PageSchema

CENT = Decimal("0.01")
PRICE_TEXT = "[0-9]{1,8}(\\.[0-9]{1,2})?"
ANY_PRICE_TEXT = "[0-9]{1,20}(\\.[0-9]{1,20})?"  # whose error says more than "invalid"


class Price(fields.Field[Decimal]):
    """A price per hour: a number, or a decimal string; rejected rather than rounded."""

    default_error_messages = {
        "invalid": "Must be a number or a string like 29.99.",
        "range": f"Must be from 0 to {PRICE_MAX}.",
        "decimals": "Must have at most 2 decimals.",
    }

    def __init__(self, **kwargs: Any) -> None:
        metadata = kwargs.pop("metadata", {"example": 29.99})
        number = {"type": "number", "minimum": 0, "maximum": float(PRICE_MAX), "multipleOf": 0.01}
        text = {"type": "string", "maxLength": 11, "pattern": f"^{PRICE_TEXT}$"}
        super().__init__(metadata={"anyOf": [number, text], **metadata}, **kwargs)

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> Decimal:
        number = isinstance(value, int | Decimal) and not isinstance(value, bool)
        if not number and not (isinstance(value, str) and re.fullmatch(ANY_PRICE_TEXT, value)):
            raise self.make_error("invalid")
        price = Decimal(value)
        # The range first: to quantize a number like 1e9999999 would fill the memory.
        if not 0 <= price <= PRICE_MAX:
            raise self.make_error("range")
        rounded = price.quantize(CENT)
        if price != rounded or not (number or re.fullmatch(PRICE_TEXT, value)):
            raise self.make_error("decimals")
        return rounded


NAME = {"example": "Clean my house"}
DESCRIPTION = {"example": "Three rooms and a cat."}


class CleaningSchema(Schema):
    """A cleaning."""

    id = fields.Integer(required=True, metadata={"example": 1})
    name = fields.String(required=True, metadata=NAME)
    description = fields.String(required=True, allow_none=True, metadata=DESCRIPTION)
    cleaning_type = fields.String(required=True, validate=validate.OneOf(CLEANING_TYPES))
    price = fields.Decimal(required=True, metadata={"description": "Per hour", "example": 29.99})
    status = fields.String(required=True, validate=validate.OneOf(STATUSES))
    owner = fields.Nested(
        PublicUserSchema,
        required=True,
        allow_none=True,
        metadata={"description": "null if a guest posted it or the account was deleted"},
    )
    created_at = fields.AwareDateTime(required=True)
    updated_at = fields.AwareDateTime(required=True)


class CleaningCreateSchema(Schema):
    """A new cleaning."""

    name = Text(required=True, max_length=NAME_MAX, blank=False, metadata=NAME)
    description = Text(
        load_default=None, allow_none=True, max_length=DESCRIPTION_MAX, metadata=DESCRIPTION
    )
    cleaning_type = fields.String(
        load_default="spot_clean", validate=validate.OneOf(CLEANING_TYPES)
    )
    price = Price(required=True)


class CleaningUpdateSchema(Schema):
    """Changes to a cleaning; fields left out stay as they are."""

    name = Text(max_length=NAME_MAX, blank=False, metadata=NAME)
    description = Text(allow_none=True, max_length=DESCRIPTION_MAX, metadata=DESCRIPTION)
    cleaning_type = fields.String(validate=validate.OneOf(CLEANING_TYPES))
    price = Price()


SPACES = r"\t\n\r \xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"  # between words
IN_WORD = f"[^{CONTROLS}{DIRECTIONS}{SPACES}]*"
WORD = f"{IN_WORD}[^{CONTROLS}{DIRECTIONS}{INVISIBLE}]{IN_WORD}"
WORDS = f"^[{SPACES}]*{WORD}([{SPACES}]+{WORD}){{0,{WORDS_MAX - 1}}}[{SPACES}]*$"


class CleaningListSchema(PageSchema):
    """The filters, the sort order and the page of a list of cleanings."""

    ORDERS = ORDERS

    cleaning_type = BoundedList(
        fields.String(validate=validate.OneOf(CLEANING_TYPES)),
        max_length=20,
        metadata={"description": "One of these types; can be repeated"},
    )
    price_min = Price(metadata={"description": "Minimum price per hour"})
    price_max = Price(metadata={"description": "Maximum price per hour"})
    status = fields.String(validate=validate.OneOf(STATUSES))
    owner = Username(metadata={"description": "Username of the owner"})
    q = Text(
        max_length=100,
        blank=False,
        metadata={
            "description": f"At most {WORDS_MAX} words. All of them must occur in the name or in "
            f"the first {SEARCHED_MAX} characters of the description, also inside longer words. "
            "Words of one or two characters match only at the start of a word.",
            "pattern": WORDS,
        },
    )
    sort = fields.String(load_default="-id", validate=validate.OneOf(ORDERS))

    @validates("q")
    def _check_words(self, q: str, **_: Any) -> None:
        words = q.split()
        if len(words) > WORDS_MAX:
            raise ValidationError(f"Must have at most {WORDS_MAX} words.")
        if not all(any(map(is_word_character, word)) for word in words):
            raise ValidationError("Each word must have a letter or a digit.")
