"""The schemas of offers."""

from marshmallow import Schema, fields

from phresh.accounts.schemas import PublicUser
from phresh.offers.models import MESSAGE_MAX, STATUSES
from phresh.web.fields import CREATED_AT, UPDATED_AT, Enumeration, Id, Text
from phresh.web.pages import NEWEST_FIRST, PageSchema

MESSAGE = {"description": "A message to the owner.", "example": "I could come on Friday."}
OFFER_STATUS = Enumeration(
    "OfferStatus",
    STATUSES,
    "`pending`: the owner can accept it. `accepted`: its bidder has the job. `rejected`: another "
    "offer is accepted. `cancelled`: its bidder has cancelled it after it was accepted. "
    "`completed`: the owner has rated the bidder.",
)


class OfferSchema(Schema):
    """An offer to do a cleaning."""

    id = Id("The id of the offer.", required=True)
    cleaning_id = Id("The id of the cleaning.", required=True)
    user = PublicUser("The bidder; null if the account was deleted.")
    message = fields.String(required=True, allow_none=True, metadata=MESSAGE)
    status = fields.String(required=True, validate=OFFER_STATUS)
    created_at = fields.AwareDateTime(required=True, metadata=CREATED_AT)
    updated_at = fields.AwareDateTime(required=True, metadata=UPDATED_AT)


class OfferCreateSchema(Schema):
    """A new offer."""

    message = Text(load_default=None, allow_none=True, max_length=MESSAGE_MAX, metadata=MESSAGE)


class OfferListSchema(PageSchema):
    """A page of the offers on a cleaning."""

    ORDERS = NEWEST_FIRST


class MyOfferListSchema(PageSchema):
    """The filter and the page of a list of your offers."""

    ORDERS = NEWEST_FIRST

    status = fields.String(
        validate=OFFER_STATUS,
        metadata={"description": "Only offers with this status.", "example": "pending"},
    )
