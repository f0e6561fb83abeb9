"""The route that exports an account, for the tests of all routes (tests/tools/features.py)."""

from phresh.export.schemas import SIZE_MAX
from tests.tools.features import ACCOUNTS, Feature, Route

EXPORT = "/api/users/me/export/"


def too_much(world):
    """Make more of the owner's than one document may hold."""
    world.sql(
        "INSERT INTO cleanings (name, description, price, owner_id) "
        "SELECT 'Job', repeat('x', 10000), 1, :id FROM generate_series(0, :most)",
        id=world.owner.id,
        most=SIZE_MAX // 10_000,
    )
    return {}


FEATURE = Feature(
    routes=[
        # One time more than the limit allows gets 429.
        Route("GET", EXPORT, ACCOUNTS, errors={409, 429}, rejected={429: {"times": 6}}),
        Route("GET", EXPORT, (401, 200, 409), prepare=too_much),
    ]
)
