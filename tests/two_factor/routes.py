"""The routes of the second factor, for the tests of all routes (tests/tools/features.py)."""

from collections.abc import Mapping

import pyotp

from tests.accounts.routes import logged_in_long_ago
from tests.tools.features import Feature, Route

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
    ]
)
