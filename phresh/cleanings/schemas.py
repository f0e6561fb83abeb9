"""The schemas of cleanings."""

import re
from decimal import Decimal
from typing import Any

from marshmallow import Schema, ValidationError, fields, validate, validates

from phresh.accounts.schemas import PublicUser, Username
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
from phresh.web.fields import (
    CONTROLS,
    CREATED_AT,
    UPDATED_AT,
    BoundedList,
    Enumeration,
    Id,
    Text,
)
from phresh.web.pages import PageSchema

CENT = Decimal("0.01")
PRICE = {
    "description": 'Price per hour, with at most 2 decimals. A string like `"29.99"` is accepted '
    "too.",
    "example": 29.99,
}
CLEANING_TYPE = Enumeration(
    "CleaningType", CLEANING_TYPES, "What is to be done: `spot_clean` if nothing is said."
)
CLEANING_STATUS = Enumeration(
    "CleaningStatus",
    STATUSES,
    "`open`: offers can be made. `taken`: an offer is accepted. `completed`: the owner has rated "
    "the cleaner.",
)
CLEANING_SORT = Enumeration(
    "CleaningSort",
    ORDERS,
    "The sort order of cleanings; `-` is descending, so `-id` has the newest first.",
    ["newest_first", "oldest_first", "cheapest_first", "dearest_first"],
)
PRICE_TEXT = "[0-9]{1,8}(\\.[0-9]{1,2})?"
# Whose error says more than "invalid"; tiny numbers are written like 1e-07.
ANY_PRICE_TEXT = "[0-9]{1,20}(\\.[0-9]{1,20})?(e-[0-9]{1,3})?"


class Price(fields.Field[Decimal]):
    """A price per hour: a number, or a decimal string; rejected rather than rounded."""

    default_error_messages = {
        "invalid": "Must be a number or a string like 29.99.",
        "range": f"Must be from 0 to {PRICE_MAX}.",
        "decimals": "Must have at most 2 decimals.",
    }

    def __init__(self, **kwargs: Any) -> None:
        # Without multipleOf, which in floating-point numbers rejects 19.99; without the string,
        # for which generated clients get a type that is no number.
        metadata = {"type": "number", "minimum": 0, "maximum": float(PRICE_MAX), **PRICE}
        super().__init__(metadata={**metadata, **kwargs.pop("metadata", {})}, **kwargs)

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


NAME = {
    "description": "What is to be cleaned, in a few words. It has a visible character.",
    "example": "Clean my house",
}
DESCRIPTION = {"description": "More about the job.", "example": "Three rooms and a cat."}


class CleaningSchema(Schema):
    """A cleaning: a job that someone has posted."""

    id = Id("The id of the cleaning.", required=True)
    name = fields.String(required=True, metadata=NAME)
    description = fields.String(required=True, allow_none=True, metadata=DESCRIPTION)
    cleaning_type = fields.String(required=True, validate=CLEANING_TYPE)
    price = fields.Decimal(
        required=True,
        validate=validate.Range(0, PRICE_MAX),
        metadata={**PRICE, "description": "Price per hour, with at most 2 decimals."},
    )
    status = fields.String(required=True, validate=CLEANING_STATUS)
    owner = PublicUser("Who posted it; null if a guest did, or if the account was deleted.")
    is_hidden = fields.Boolean(
        required=True,
        metadata={
            "description": "Whether an operator has hidden it. Only its owner and its accepted "
            "cleaner can read it then.",
            "example": False,
        },
    )
    created_at = fields.AwareDateTime(required=True, metadata=CREATED_AT)
    updated_at = fields.AwareDateTime(required=True, metadata=UPDATED_AT)


class CleaningCreateSchema(Schema):
    """A new cleaning."""

    name = Text(required=True, max_length=NAME_MAX, blank=False, metadata=NAME)
    description = Text(
        load_default=None, allow_none=True, max_length=DESCRIPTION_MAX, metadata=DESCRIPTION
    )
    cleaning_type = fields.String(load_default="spot_clean", validate=CLEANING_TYPE)
    price = Price(required=True)


class CleaningUpdateSchema(Schema):
    """Changes to a cleaning; fields left out stay as they are."""

    name = Text(max_length=NAME_MAX, blank=False, metadata=NAME)
    description = Text(allow_none=True, max_length=DESCRIPTION_MAX, metadata=DESCRIPTION)
    cleaning_type = fields.String(validate=CLEANING_TYPE)
    price = Price()


WORD = f"[^{CONTROLS}\\s]+"
SPACE = f"[^\\S{CONTROLS}]"  # \s alone has control characters too
WORDS = f"^{SPACE}*{WORD}({SPACE}+{WORD}){{0,{WORDS_MAX - 1}}}{SPACE}*$"


class CleaningListSchema(PageSchema):
    """The filters, the sort order and the page of a list of cleanings."""

    ORDERS = ORDERS

    cleaning_type = BoundedList(
        fields.String(validate=CLEANING_TYPE),
        max_length=20,
        metadata={
            "description": "Only cleanings of this type. Repeat it for several types.",
            "example": ["spot_clean", "full_clean"],
        },
    )
    price_min = Price(
        metadata={
            "description": "Only cleanings with at least this price per hour.",
            "example": 15,
        }
    )
    price_max = Price(
        metadata={
            "description": "Only cleanings with at most this price per hour.",
            "example": 40.5,
        }
    )
    status = fields.String(
        validate=CLEANING_STATUS,
        metadata={"description": "Only cleanings with this status.", "example": "open"},
    )
    owner = Username(
        metadata={
            "description": "Only cleanings of the user with this name, in any case.",
            "example": "anna",
        }
    )
    q = Text(
        max_length=100,
        blank=False,
        metadata={
            "description": f"Words to search for, at most {WORDS_MAX}. All of them must occur in "
            f"the name or in the first {SEARCHED_MAX} characters of the description, also inside "
            "longer words. Words of one or two characters match only at the start of a word.",
            "pattern": WORDS,
            "example": "clean house",
        },
    )
    sort = fields.String(
        load_default="-id",
        validate=CLEANING_SORT,
        metadata={"description": "The sort order.", "example": "-id"},
    )

    @validates("q")
    def _check_words(self, q: str, **_: Any) -> None:
        words = q.split()
        if len(words) > WORDS_MAX:
            raise ValidationError(f"Must have at most {WORDS_MAX} words.")
        if not all(any(map(is_word_character, word)) for word in words):
            raise ValidationError("Each word must have a letter or a digit.")
