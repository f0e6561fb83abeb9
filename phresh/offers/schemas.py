"""What an offer looks like, going in and out."""

from marshmallow import Schema, fields, validate

from phresh.api import Text
from phresh.offers.models import MESSAGE_MAX, STATUSES
from phresh.pages import NEWEST_FIRST, PageSchema
from phresh.users.schemas import PublicUserSchema

MESSAGE = {"example": "I could come on Friday."}


class OfferSchema(Schema):
    """An offer, as it is answered."""

    id = fields.Integer(required=True, metadata={"example": 1})
    cleaning_id = fields.Integer(required=True, metadata={"example": 1})
    user = fields.Nested(
        PublicUserSchema,
        required=True,
        allow_none=True,
        metadata={"description": "Null: the account was deleted"},
    )
    message = fields.String(required=True, allow_none=True, metadata=MESSAGE)
    status = fields.String(required=True, validate=validate.OneOf(STATUSES))
    created_at = fields.AwareDateTime(required=True)
    updated_at = fields.AwareDateTime(required=True)


class OfferCreateSchema(Schema):
    """An offer to be made."""

    message = Text(load_default=None, allow_none=True, max_length=MESSAGE_MAX, metadata=MESSAGE)


class OfferListSchema(PageSchema):
    """A page of the offers on a cleaning."""

    ORDERS = NEWEST_FIRST


class MyOfferListSchema(PageSchema):
    """Which of one's offers to list."""

    ORDERS = NEWEST_FIRST

    status = fields.String(validate=validate.OneOf(STATUSES))
