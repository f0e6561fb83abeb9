"""What the feed looks like."""

from datetime import datetime

from marshmallow import fields, validate

from phresh.cleanings.schemas import CleaningSchema
from phresh.pages import Order, PageSchema


class EventSchema(CleaningSchema):
    """A cleaning as it is now, and what happened to it when."""

    event_type = fields.String(required=True, validate=validate.OneOf(["is_create", "is_update"]))
    event_timestamp = fields.AwareDateTime(required=True)


class FeedSchema(PageSchema):
    """A page of the feed."""

    ORDERS = {"-time": Order((("event_timestamp", datetime), ("id", int)), descending=True)}
