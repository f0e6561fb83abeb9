"""The schemas of the feed."""

from datetime import datetime

from marshmallow import fields

from phresh.cleanings.schemas import CleaningSchema
from phresh.web.fields import Enumeration
from phresh.web.pages import Order, PageSchema

EVENT_TYPE = Enumeration(
    "EventType",
    ["is_create", "is_update"],
    "`is_create`: the cleaning was posted. `is_update`: it, or its status, was changed.",
)


class EventSchema(CleaningSchema):
    """A cleaning in its current state, with what happened to it and when."""

    event_type = fields.String(required=True, validate=EVENT_TYPE)
    event_timestamp = fields.AwareDateTime(
        required=True, metadata={"description": "When it was posted or changed."}
    )


class FeedSchema(PageSchema):
    """A page of the feed."""

    ORDERS = {"-time": Order((("event_timestamp", datetime), ("id", int)), descending=True)}
