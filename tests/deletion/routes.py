"""The route that deletes an account, for the tests of all routes (tests/tools/features.py)."""

from phresh.deletion.services import MOST
from tests.accounts.routes import logged_in_long_ago
from tests.tools.features import Feature, Route

ME = "/api/users/me/"


def too_many(world):
    """Make more cleanings of the owner's than one request deletes."""
    world.sql(
        "INSERT INTO cleanings (name, price, owner_id) SELECT 'Job', 1, :id "
        "FROM generate_series(0, :most)",
        id=world.owner.id,
        most=MOST,
    )
    return {}


FEATURE = Feature(
    routes=[
        Route("DELETE", ME, (401, 204, 204), errors={409}),
        Route("DELETE", ME, (401, 204, 409), prepare=too_many),
        Route("DELETE", ME, (401, 403, 403), prepare=logged_in_long_ago),
    ]
)
