"""The schemas of what operators see and send."""

from collections.abc import Mapping
from typing import Any, ClassVar

from marshmallow import Schema, ValidationError, fields, validates_schema

from phresh.accounts.models import REASON_MAX, SESSIONS_MAX
from phresh.accounts.schemas import NAME, Username, UserSchema
from phresh.sessions.schemas import SessionSchema
from phresh.web.fields import INTEGER_MAX, BoundedString, Count, Flag, Id, Text
from phresh.web.pages import NEWEST_FIRST, Order, PageSchema

SEARCH_MIN, SEARCH_MAX = 3, 254

REASON = {"description": "Why. The account can read it.", "example": "Spam."}


class AccountSchema(UserSchema):
    """An account, as operators see it."""

    is_active = Flag(
        required=True, metadata={"description": "Whether it can be used; else it is disabled."}
    )


class CountsSchema(Schema):
    """How much an account has, of each kind 10,000 at most."""

    cleanings = Count("The cleanings that it has posted.", required=True)
    offers = Count("The offers that it has made.", required=True)
    evaluations_written = Count("The evaluations that it has written.", required=True)
    evaluations_received = Count("The evaluations that it has got.", required=True)


class AccountSessionSchema(SessionSchema):
    """A login of an account."""

    class Meta:
        exclude = ("is_current",)


class AccountDetailsSchema(AccountSchema):
    """An account, with its logins and how much it has."""

    counts = fields.Nested(CountsSchema, required=True)
    sessions = fields.List(
        fields.Nested(AccountSessionSchema),
        required=True,
        validate=lambda sessions: len(sessions) <= SESSIONS_MAX,
        metadata={"description": "Its logins, the newest first.", "maxItems": SESSIONS_MAX},
    )


class AccountPageSchema(PageSchema):
    """The query parameters of the list of accounts."""

    ORDERS: ClassVar[Mapping[str, Order]] = NEWEST_FIRST

    q = BoundedString(
        min_length=SEARCH_MIN,
        max_length=SEARCH_MAX,
        metadata={
            "description": "Part of the username or the email address, in any case.",
            "example": "anna",
        },
    )


class AccountUpdateSchema(Schema):
    """Whether an account can be used."""

    is_active = Flag(
        required=True,
        metadata={
            "description": "False ends all its logins, and it cannot log in; true lets it log in.",
            "example": True,
        },
    )
    reason = Text(max_length=REASON_MAX, blank=False, metadata=REASON)

    @validates_schema(skip_on_field_errors=True)
    def _require_reason(self, data: dict[str, Any], **_: Any) -> None:
        if not data["is_active"] and "reason" not in data:
            raise ValidationError("Needed to disable an account.", "reason")


class VisibilitySchema(Schema):
    """Whether something is hidden."""

    is_hidden = Flag(
        required=True,
        metadata={
            "description": "True hides it from others than its owner, false shows it again.",
            "example": False,
        },
    )
    reason = Text(max_length=REASON_MAX, blank=False, metadata=REASON)

    @validates_schema(skip_on_field_errors=True)
    def _require_reason(self, data: dict[str, Any], **_: Any) -> None:
        if data["is_hidden"] and "reason" not in data:
            raise ValidationError("Needed to hide something.", "reason")


def _account_id(description: str) -> fields.Integer:
    """Return the field for the id of an account, or null."""
    metadata = {"format": "int32", "minimum": 1, "maximum": INTEGER_MAX}
    return fields.Integer(
        required=True, allow_none=True, metadata={"description": description, **metadata}
    )


class AuditLogLineSchema(Schema):
    """A line of the audit log."""

    id = Id("The id of the line.", required=True)
    at = fields.AwareDateTime(required=True, metadata={"description": "When it was done."})
    action = fields.String(
        required=True, metadata={"description": "What was done.", "example": "logged_in"}
    )
    actor_id = _account_id(
        "The id of the account that has done it; null for a login, and for a command on the "
        "machine."
    )
    user_id = _account_id("The id of the account that it was done to; null if it is of none.")
    target = fields.String(
        required=True,
        allow_none=True,
        metadata={"description": "What else it was done to.", "example": "cleaning 7"},
    )
    reason = fields.String(required=True, allow_none=True, metadata=REASON)
    address = fields.String(
        required=True,
        allow_none=True,
        metadata={
            "description": "From which IP address; null for a command on the machine.",
            "example": "192.0.2.1",
        },
    )
    request_id = fields.String(
        required=True, allow_none=True, metadata={"description": "By which request."}
    )


class AuditPageSchema(PageSchema):
    """The query parameters of the audit log."""

    ORDERS: ClassVar[Mapping[str, Order]] = NEWEST_FIRST

    username = Username(
        metadata={**NAME, "description": "Only lines about the account that has this username."}
    )
