"""The schemas of sessions."""

from collections.abc import Mapping
from datetime import datetime
from typing import ClassVar

from marshmallow import Schema, fields

from phresh.web.converters import SessionConverter
from phresh.web.fields import CREATED_AT, Flag
from phresh.web.pages import Order, PageSchema


class SessionSchema(Schema):
    """A login, and with it its access token."""

    id = fields.String(required=True, metadata=SessionConverter.parameter)
    created_at = fields.AwareDateTime(required=True, metadata=CREATED_AT)
    last_used_at = fields.AwareDateTime(
        required=True, metadata={"description": "When its token was last used, to the minute."}
    )
    address = fields.String(
        required=True,
        allow_none=True,
        metadata={"description": "The IP address of the login.", "example": "192.0.2.1"},
    )
    user_agent = fields.String(
        required=True,
        allow_none=True,
        metadata={"description": "The client of the login, as it names itself in `User-Agent`."},
    )
    is_current = Flag(
        required=True, metadata={"description": "Whether it is the one of this request."}
    )


class SessionPageSchema(PageSchema):
    """The query parameters of the list of sessions."""

    ORDERS: ClassVar[Mapping[str, Order]] = {
        "-created_at": Order((("created_at", datetime), ("id", str)), descending=True)
    }
