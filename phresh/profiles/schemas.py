"""The schemas of profiles."""

from marshmallow import Schema, fields, validate

from phresh.accounts.models import BIO_MAX, FULL_NAME_MAX, IMAGE_MAX, PHONE_NUMBER_MAX
from phresh.accounts.schemas import (
    BIO,
    EMAIL,
    FULL_NAME,
    HIDDEN,
    IMAGE,
    NAME,
    PASSWORD,
    PASSWORD_MAX,
    PHONE_NUMBER,
)
from phresh.evaluations.schemas import Average
from phresh.web.fields import Count, RawText, Text

SHOWN = "Only for yourself, and between the owner of a cleaning and its accepted cleaner."


class ProfileSchema(Schema):
    """A profile; email and phone number only for those who may see them."""

    username = fields.String(required=True, metadata=NAME)
    full_name = fields.String(required=True, allow_none=True, metadata=FULL_NAME)
    bio = fields.String(required=True, allow_none=True, metadata=BIO)
    image = fields.String(required=True, allow_none=True, metadata=IMAGE)
    avg_overall_rating = Average("The average of all overall ratings; null if there are none.")
    total_evaluations = Count("The number of evaluations.", required=True)
    is_hidden = fields.Boolean(required=True, metadata=HIDDEN)
    email = fields.String(metadata={**EMAIL, "description": SHOWN})
    phone_number = fields.String(allow_none=True, metadata={**PHONE_NUMBER, "description": SHOWN})


class ProfileUpdateSchema(Schema):
    """Changes to a profile; fields left out stay as they are, null deletes."""

    full_name = Text(
        allow_none=True, min_length=0, max_length=FULL_NAME_MAX, blank=False, metadata=FULL_NAME
    )
    phone_number = Text(allow_none=True, max_length=PHONE_NUMBER_MAX, metadata=PHONE_NUMBER)
    old_password = RawText(
        max_length=PASSWORD_MAX,
        metadata={
            **PASSWORD,
            "description": "Needed for another phone number if the login is older than 15 minutes.",
        },
    )
    bio = Text(allow_none=True, max_length=BIO_MAX, metadata=BIO)
    image = Text(
        allow_none=True,
        max_length=IMAGE_MAX,
        validate=[validate.URL(schemes={"http", "https"})],
        metadata=IMAGE,
    )
