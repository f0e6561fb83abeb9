"""The schemas of users and tokens."""

import re
from functools import cache
from typing import Any

from email_validator import EmailNotValidError, validate_email
from marshmallow import (
    EXCLUDE,
    Schema,
    ValidationError,
    fields,
    pre_load,
    validate,
    validates_schema,
)
from zxcvbn.frequency_lists import FREQUENCY_LISTS

from phresh.accounts.models import EMAIL_MAX, email_key
from phresh.web.fields import (
    CREATED_AT,
    INTEGER_MAX,
    UPDATED_AT,
    USERNAME,
    USERNAME_MAX,
    USERNAME_MIN,
    BoundedString,
    Enumeration,
    Flag,
    Id,
    RawText,
    Text,
)
from phresh.web.languages import LANGUAGES

# ASVS 5.0 6.2.1, 6.2.4, 6.2.5, 6.2.9: a minimum length, not common, any characters.
PASSWORD_MIN, PASSWORD_MAX = 8, 128
COMMON = 3_000
TOKEN_MAX = 200
OTP_MAX = 40

EMAIL = {"description": "An email address.", "example": "anna@phresh.example"}
NAME = {
    "description": "A username, unique ignoring case.",
    "example": "anna",
}
FULL_NAME = {"description": "A name to be shown.", "example": "Anna Winter"}
PHONE_NUMBER = {"description": "A phone number, in any form.", "example": "+49 30 1234567"}
BIO = {"description": "A text about the person.", "example": "Quick, and kind to cats."}
IMAGE = {
    "description": "The URL of a picture, http or https.",
    "example": "https://phresh.example/anna.jpg",
    "format": "uri",
}
HIDDEN = {
    "description": "Whether an operator has hidden it. Only its user can read it then.",
    "example": False,
}
PASSWORD = {
    "description": f"{PASSWORD_MIN} to {PASSWORD_MAX} characters of any kind except NUL; not one "
    "of the most common passwords, the username or the email.",
    "example": "four cats on a roof",
}


def normalized(email: str) -> str:
    """Return the form of an email address that is stored: NFC, the domain in lower case.

    An internationalized domain is in Unicode, not in Punycode.

    :raises EmailNotValidError: when it is not an email address
    """
    return validate_email(email, check_deliverability=False).normalized


class Email(Text):
    """An email address by its syntax (RFC 5321, 5322, 6531); it need not exist."""

    def __init__(self, **kwargs: Any) -> None:
        metadata = {**EMAIL, "format": "email", "pattern": r"^[^@\x00]+@[^@\x00]+$"}
        super().__init__(max_length=EMAIL_MAX, metadata=metadata, **kwargs)

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> str:
        text = super()._deserialize(value, attr, data, **kwargs)
        try:
            email = normalized(text)
        except EmailNotValidError as error:
            raise ValidationError(str(error)) from None
        if len(email_key(email)) > EMAIL_MAX:
            raise ValidationError("The compatibility forms (NFKC) of its characters are too long.")
        return email


class Username(BoundedString):
    """A username."""

    error = f"Must be {USERNAME_MIN} to {USERNAME_MAX} letters (a to z), digits, _ or -."

    def __init__(self, **kwargs: Any) -> None:
        metadata = {"pattern": f"^{USERNAME}$", **kwargs.pop("metadata", {})}
        super().__init__(
            min_length=USERNAME_MIN,
            max_length=USERNAME_MAX,
            error=self.error,
            metadata=metadata,
            **kwargs,
        )

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> str:
        text = super()._deserialize(value, attr, data, **kwargs)
        if not re.fullmatch(USERNAME, text):
            raise ValidationError(self.error)
        return text


@cache
def _common_passwords() -> frozenset[str]:
    """Return the most common passwords that are long enough, in lower case."""
    long_enough = [text for text in FREQUENCY_LISTS["passwords"] if len(text) >= PASSWORD_MIN]
    return frozenset(long_enough[:COMMON])


def _reject_common(password: str) -> None:
    if password.lower() in _common_passwords():
        raise ValidationError("This password is too common.")


class NewPassword(RawText):
    """A new password, as it was sent."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            min_length=PASSWORD_MIN,
            max_length=PASSWORD_MAX,
            validate=[_reject_common],
            metadata=PASSWORD,
            **kwargs,
        )


def is_a_name(password: str, *names: str) -> bool:
    """Return whether a password is one of these names, ignoring case."""
    return password.lower() in (name.lower() for name in names)


IS_A_NAME = "Must not be the username or the email."
GUESSABLE = "Must not be your password."


LANGUAGE = Enumeration("Language", LANGUAGES, "The language of mails to you.")


class OwnProfileSchema(Schema):
    """What a user has published about themselves, and the phone number."""

    full_name = fields.String(required=True, allow_none=True, metadata=FULL_NAME)
    phone_number = fields.String(required=True, allow_none=True, metadata=PHONE_NUMBER)
    bio = fields.String(required=True, allow_none=True, metadata=BIO)
    image = fields.String(required=True, allow_none=True, metadata=IMAGE)
    is_hidden = fields.Boolean(required=True, metadata=HIDDEN)


class UserSchema(Schema):
    """A user, as they see themselves."""

    id = Id("The id of the account.", required=True)
    email = fields.String(required=True, metadata=EMAIL)
    email_verified = Flag(
        required=True, metadata={"description": "Whether you have confirmed the email address."}
    )
    username = fields.String(required=True, metadata=NAME)
    language = fields.String(required=True, validate=LANGUAGE)
    profile = fields.Nested(
        OwnProfileSchema,
        required=True,
        metadata={"description": "Your profile, which `/api/profiles/me/` changes."},
    )
    has_two_factor = Flag(
        required=True, metadata={"description": "Whether a login needs the second factor."}
    )
    is_superuser = Flag(
        required=True, metadata={"description": "Whether the account is an operator."}
    )
    created_at = fields.AwareDateTime(required=True, metadata=CREATED_AT)
    updated_at = fields.AwareDateTime(required=True, metadata=UPDATED_AT)


class PublicUserSchema(Schema):
    """A user, as everyone sees them."""

    username = fields.String(required=True, metadata=NAME)


class PublicUser(fields.Nested):
    """A user as everyone may see them, in a response; or null, when the description says so."""

    def __init__(self, description: str) -> None:
        metadata = {"description": description}
        super().__init__(PublicUserSchema, required=True, allow_none=True, metadata=metadata)


class TokenSchema(Schema):
    """A token, to be sent as ``Authorization: Bearer ...`` (RFC 6749 5.1, RFC 6750)."""

    access_token = fields.String(
        required=True, metadata={"description": "The token. It is not shown again."}
    )
    token_type = fields.String(
        required=True,
        validate=validate.Equal("bearer"),
        metadata={"description": "How the token is sent (RFC 6750)."},
    )
    expires_in = fields.Integer(
        required=True,
        validate=validate.Range(1, INTEGER_MAX),
        metadata={"description": "For how many seconds the token is valid.", "example": 604800},
    )


class RegisteredUserSchema(UserSchema):
    """A user, and a first token."""

    access_token = fields.Nested(TokenSchema, required=True)


class UserCreateSchema(Schema):
    """A new account."""

    email = Email(required=True)
    username = Username(required=True, metadata=NAME)
    password = NewPassword(required=True)

    @validates_schema(skip_on_field_errors=True)
    def _reject_name(self, data: dict[str, str], **_: Any) -> None:
        if is_a_name(data["password"], data["username"], data["email"]):
            raise ValidationError(IS_A_NAME, "password")


WHEN_NEEDED = (
    "Needed to change the email or the password; for the username, if the login is older than "
    "15 minutes."
)


class UserUpdateSchema(Schema):
    """Changes to an account; fields left out stay as they are."""

    email = Email()
    username = Username(metadata=NAME)
    language = fields.String(validate=LANGUAGE)
    password = NewPassword()
    old_password = RawText(
        max_length=PASSWORD_MAX,
        metadata={**PASSWORD, "description": WHEN_NEEDED},
    )

    @validates_schema(skip_on_field_errors=True)
    def _require_old_password(self, data: dict[str, str], **_: Any) -> None:
        if ("email" in data or "password" in data) and "old_password" not in data:
            raise ValidationError("Needed to change email or password.", "old_password")


class OneTimeTokenField(RawText):
    """The token of a link in a mail."""

    def __init__(self, **kwargs: Any) -> None:
        description = "The token in the link of the mail: what stands after `#token=`."
        metadata = {"description": description, "example": "x" * 43}
        super().__init__(min_length=1, max_length=TOKEN_MAX, metadata=metadata, **kwargs)


class ConfirmationSchema(Schema):
    """An address to send a link to, or the token of the link."""

    email = Email()
    token = OneTimeTokenField()

    @validates_schema(skip_on_field_errors=True)
    def _require_one(self, data: dict[str, str], **_: Any) -> None:
        if len(data) != 1:
            raise ValidationError("Send the email or the token.", "token")


class RecoveryRequestSchema(Schema):
    """The address of the account to recover."""

    email = Email(required=True)


class RecoverySchema(Schema):
    """A new password, and the token of the link in the mail."""

    token = OneTimeTokenField(required=True)
    password = NewPassword(required=True)


UNSUPPORTED = "Only the grant type password is supported."
# Of the form of a login, ours and those of RFC 6749 4.3.2 and 2.3.1. None may occur twice (3.2).
LOGIN_PARAMETERS = (
    *("grant_type", "username", "password", "otp"),
    *("scope", "client_id", "client_secret"),
)


class LoginSchema(Schema):
    """The form of the password flow (RFC 6749 4.3.2); other fields are ignored (3.2)."""

    class Meta:
        unknown = EXCLUDE

    @pre_load
    def _without_empty(self, form: Any, **_: Any) -> dict[str, str]:
        """Leave out what has no value: it counts as omitted (RFC 6749 3.2)."""
        values = {name: [each for each in sent if each] for name, sent in form.data.lists()}
        repeated = [name for name in LOGIN_PARAMETERS if len(values.get(name, ())) > 1]
        if repeated:
            raise ValidationError({name: ["Given more than once."] for name in repeated})
        return {name: sent[0] for name, sent in values.items() if sent}

    grant_type = fields.String(
        validate=validate.Equal("password", error=UNSUPPORTED),
        metadata={"description": "The name of this flow. It may be left out."},
    )
    username = Text(
        required=True,
        min_length=1,
        max_length=EMAIL_MAX,
        metadata={**EMAIL, "description": "Your email address."},
    )
    password = RawText(
        required=True,
        min_length=1,
        max_length=PASSWORD_MAX,
        # Swagger UI masks it. Only here: in JSON, some clients would send asterisks.
        metadata={**PASSWORD, "description": "Your password.", "format": "password"},
    )
    otp = RawText(
        min_length=1,
        max_length=OTP_MAX,
        metadata={
            "description": "The code of the second factor, or a recovery code, if the account has "
            "one.",
        },
    )
