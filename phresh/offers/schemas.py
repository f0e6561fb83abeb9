"""The schemas of offers."""

from marshmallow import Schema, fields, validate

from phresh.accounts.schemas import PublicUserSchema
from phresh.offers.models import MESSAGE_MAX, STATUSES
from phresh.web.fields import Text
from phresh.web.pages import NEWEST_FIRST, PageSchema

MESSAGE = {"example": "I could come on Friday."}


class OfferSchema(Schema):
    """An offer."""

    id = fields.Integer(required=True, metadata={"example": 1})
    cleaning_id = fields.Integer(required=True, metadata={"example": 1})
    user = fields.Nested(
        PublicUserSchema,
        required=True,
        allow_none=True,
        metadata={"description": "null if the account was deleted"},
    )
    message = fields.String(required=True, allow_none=True, metadata=MESSAGE)
    status = fields.String(required=True, validate=validate.OneOf(STATUSES))
    created_at = fields.AwareDateTime(required=True)
    updated_at = fields.AwareDateTime(required=True)


class OfferCreateSchema(Schema):
    """A new offer."""

    message = Text(load_default=None, allow_none=True, max_length=MESSAGE_MAX, metadata=MESSAGE)


class OfferListSchema(PageSchema):
    """A page of the offers on a cleaning."""

    ORDERS = NEWEST_FIRST


class MyOfferListSchema(PageSchema):
    """The filter and the page of a list of your offers."""

    ORDERS = NEWEST_FIRST

    status = fields.String(validate=validate.OneOf(STATUSES))
