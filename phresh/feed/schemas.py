"""The schemas of the feed."""

from datetime import datetime

from marshmallow import fields, validate

from phresh.cleanings.schemas import CleaningSchema
from phresh.web.pages import Order, PageSchema


class EventSchema(CleaningSchema):
    """A cleaning in its current state, with what happened to it and when."""

    event_type = fields.String(required=True, validate=validate.OneOf(["is_create", "is_update"]))
    event_timestamp = fields.AwareDateTime(required=True)


class FeedSchema(PageSchema):
    """A page of the feed."""

    ORDERS = {"-time": Order((("event_timestamp", datetime), ("id", int)), descending=True)}
