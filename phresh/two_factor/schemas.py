"""The schemas of the second factor."""

from marshmallow import Schema, fields, validate

from phresh.accounts.models import RECOVERY_CODES
from phresh.accounts.schemas import PASSWORD, PASSWORD_MAX
from phresh.web.fields import BoundedString, RawText


class PasswordSchema(Schema):
    """The password, where the login is older than 15 minutes."""

    old_password = RawText(
        max_length=PASSWORD_MAX,
        metadata={**PASSWORD, "description": "Needed if the login is older than 15 minutes."},
    )


class TwoFactorSchema(Schema):
    """A code of the second factor."""

    code = BoundedString(
        required=True,
        min_length=6,
        max_length=6,
        error="Must be 6 digits.",
        metadata={
            "description": "The code that the app shows now.",
            "example": "123456",
            "pattern": "^[0-9]{6}$",
        },
        validate=[validate.Regexp("[0-9]{6}\\Z", error="Must be 6 digits.")],
    )


class TwoFactorSecretSchema(Schema):
    """The secret of a second factor. It is not shown again."""

    secret = fields.String(
        required=True,
        metadata={"description": "The secret, in base 32.", "example": "JBSWY3DPEHPK3PXP" * 2},
    )
    uri = fields.String(
        required=True,
        metadata={
            "description": "The same as a URI that an app reads, for example from a QR code.",
            "example": f"otpauth://totp/Phresh:anna?secret={'JBSWY3DPEHPK3PXP' * 2}&issuer=Phresh",
        },
    )


class NewRecoveryCodesSchema(Schema):
    """The recovery codes of an account. They are not shown again."""

    recovery_codes = fields.List(
        fields.String(metadata={"example": "k3jd-7xqa-mz2e-p4ws-b6yh-t5nc"}),
        required=True,
        validate=validate.Length(max=RECOVERY_CODES),
        metadata={"description": "Each takes the place of a code once."},
    )
