"""The routes of the second factor, for the tests of all routes (tests/tools/features.py)."""

from collections.abc import Mapping

import pyotp

from tests.accounts.routes import logged_in_long_ago
from tests.tools.features import Feature, Route
from tests.tools.users import PASSWORD

TWO_FACTOR = "/api/users/me/two-factor/"
SECRET = "JBSWY3DPEHPK3PXP" * 2


def begun_two_factor(world, confirmed_at="NULL"):
    """Let everyone's second factor have ``SECRET``."""
    world.sql(
        "INSERT INTO two_factors (user_id, secret, confirmed_at) "
        f"SELECT id, :secret, {confirmed_at} FROM users",
        secret=SECRET,
    )
    return {}


def two_factor(world):
    """Let everyone have a second factor."""
    return begun_two_factor(world, "now()")


class CurrentCode(Mapping):
    """A body with the code of ``SECRET`` that an app shows when the request is sent."""

    def __getitem__(self, name):
        return {"two_factor": {"code": pyotp.TOTP(SECRET).now()}}

    def __iter__(self):
        return iter(["json"])

    def __len__(self):
        return 1


def correct(operation, case):
    """Let schemathesis send the right code and password."""
    if operation in ("begin_two_factor", "confirm_two_factor") and isinstance(case.body, dict):
        for values in case.body.values():
            if "code" in values:
                values["code"] = pyotp.TOTP(SECRET).now()
            if "old_password" in values:
                values["old_password"] = PASSWORD


FEATURE = Feature(
    routes=[
        Route("POST", TWO_FACTOR, (401, 200, 200), errors={403, 409}),
        Route("POST", TWO_FACTOR, (401, 409, 409), prepare=two_factor),
        Route("POST", TWO_FACTOR, (401, 403, 403), prepare=logged_in_long_ago),
        Route(
            *("PUT", TWO_FACTOR, (401, 200, 200)),
            errors={403, 409},
            prepare=begun_two_factor,
            send=CurrentCode(),
            example=422,
        ),
        Route("PUT", TWO_FACTOR, (401, 409, 409)),
        Route("PUT", TWO_FACTOR, (401, 403, 403), prepare=logged_in_long_ago),
        Route("DELETE", TWO_FACTOR, (401, 204, 204), errors={403, 404}, prepare=two_factor),
        Route("DELETE", TWO_FACTOR, (401, 404, 404)),
        Route("DELETE", TWO_FACTOR, (401, 403, 403), prepare=logged_in_long_ago),
    ],
    fuzz={
        "confirm_two_factor": f"""
            INSERT INTO two_factors (user_id, secret) SELECT id, '{SECRET}' FROM users
            WHERE id >= 1000
        """
    },
    correct=correct,
)
