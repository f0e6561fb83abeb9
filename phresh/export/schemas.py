"""The schemas of the document with everything about an account."""

from typing import Any

from marshmallow import Schema, fields, validate

from phresh.accounts.models import PURPOSES
from phresh.accounts.schemas import EMAIL, NAME, UserSchema
from phresh.cleanings.schemas import CleaningSchema
from phresh.evaluations.schemas import EvaluationSchema
from phresh.offers.schemas import OfferSchema
from phresh.profiles.schemas import ProfileSchema
from phresh.sessions.schemas import SessionSchema
from phresh.web.fields import CREATED_AT, Enumeration

SIZE_MAX = 32 * 1024**2  # bytes of a document
ITEMS_MAX = SIZE_MAX // 64  # of a list: the shortest item has 66 bytes

LINK_PURPOSE = Enumeration(
    "LinkPurpose",
    PURPOSES,
    "`confirmation`: to confirm the email address. `recovery`: to set a new password.",
)
EXPIRES_AT = {"description": "When it expires."}


class ExportedSessionSchema(SessionSchema):
    """A login, also one that has expired and is not yet deleted."""

    class Meta:
        exclude = ("is_current",)

    expires_at = fields.AwareDateTime(required=True, metadata=EXPIRES_AT)


class MailedLinkSchema(Schema):
    """A link in a mail that has not been used."""

    purpose = fields.String(required=True, validate=LINK_PURPOSE)
    email = fields.String(
        required=True,
        metadata={**EMAIL, "description": "The address, in the form that accounts are found by."},
    )
    created_at = fields.AwareDateTime(required=True, metadata=CREATED_AT)
    expires_at = fields.AwareDateTime(required=True, metadata=EXPIRES_AT)


class FormerUsernameSchema(Schema):
    """A username that the account has given up, and that nobody else can take yet."""

    username = fields.String(required=True, metadata=NAME)
    released_at = fields.AwareDateTime(
        required=True, metadata={"description": "When it was given up."}
    )


class AuditLineSchema(Schema):
    """A line of the audit log about the account."""

    at = fields.AwareDateTime(required=True, metadata={"description": "When it was done."})
    action = fields.String(
        required=True, metadata={"description": "What was done.", "example": "logged_in"}
    )
    reason = fields.String(
        required=True, allow_none=True, metadata={"description": "Why, if somebody has said so."}
    )
    address = fields.String(
        required=True,
        allow_none=True,
        metadata={
            "description": "From which IP address; null if an operator has done it.",
            "example": "192.0.2.1",
        },
    )


class UsedKeySchema(Schema):
    """A request with an `Idempotency-Key`, whose response is stored for a day."""

    method = fields.String(
        required=True, metadata={"description": "The method.", "example": "POST"}
    )
    path = fields.String(
        required=True, metadata={"description": "The path.", "example": "/api/cleanings"}
    )
    created_at = fields.AwareDateTime(required=True, metadata=CREATED_AT)


def _list(schema: type[Schema], description: str) -> Any:
    length, metadata = validate.Length(max=ITEMS_MAX), {"description": description}
    return fields.List(fields.Nested(schema), required=True, validate=length, metadata=metadata)


class ExportSchema(Schema):
    """Everything that is stored about an account."""

    account = fields.Nested(UserSchema, required=True)
    profile = fields.Nested(ProfileSchema, required=True)
    sessions = _list(ExportedSessionSchema, "Your logins.")
    mailed_links = _list(MailedLinkSchema, "Links in mails to you that have not been used.")
    audit_log = _list(AuditLineSchema, "What was done to the account, and from where.")
    cleanings = _list(CleaningSchema, "The cleanings that you have posted.")
    offers = _list(OfferSchema, "The offers that you have made.")
    evaluations_written = _list(EvaluationSchema, "How you have rated cleaners.")
    evaluations_received = _list(EvaluationSchema, "How you were rated as a cleaner.")
    former_usernames = _list(FormerUsernameSchema, "Your former usernames of the last 90 days.")
    idempotency_keys = _list(UsedKeySchema, "Your requests with an `Idempotency-Key`.")
