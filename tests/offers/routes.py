"""The routes of offers, for the tests of all routes (tests/tools/features.py)."""

from phresh.offers.models import STATUSES
from tests.cleanings.routes import own_cleaning
from tests.tools.features import ACCOUNTS, OWNERS, Feature, Route

ALL = "/api/cleanings/<id:cleaning_id>/offers/"
ONE = f"{ALL}<username:username>/"
MINE = "/api/users/me/offers/"


def offered(world, bidder=None):
    """Make a cleaning of the owner's with an offer, which is Cleo's unless another is named."""
    bidder = bidder or world.make_user("cleo")
    values = {**own_cleaning(world), "username": bidder.username}
    path = f"/api/cleanings/{values['cleaning_id']}/offers/"
    new = {"new_offer": {"message": "I could come on Friday."}}
    assert bidder.client.post(path, json=new).status_code == 201
    return values


def accepted(world, bidder=None):
    """Make a cleaning of the owner's with an accepted offer."""
    values = offered(world, bidder)
    path = f"/api/cleanings/{values['cleaning_id']}/offers/{values['username']}/"
    assert world.owner.client.put(path).status_code == 200
    return values


def jobs(owner, status=None):
    """Return SQL that makes 2,000 cleanings of a user; with a status, each has an offer.

    The offer is of user-1 or user-2, whichever is not the owner.
    """
    offers = f"""
        , new_offers AS (
            INSERT INTO offers (cleaning_id, user_id, status)
            SELECT id, {3 - owner}, '{status}' FROM new_cleanings
        )
    """
    return f"""
        WITH new_cleanings AS (
            INSERT INTO cleanings (name, price, owner_id)
            SELECT 'Job', 20, {owner} FROM generate_series(1, 2000) RETURNING id
        ) {offers if status else ""}
        SELECT id AS cleaning_id FROM new_cleanings
    """


FEATURE = Feature(
    prepare=offered,
    routes=[
        Route("GET", ALL, OWNERS, errors={403, 404}),
        Route("POST", ALL, (401, 201, 409), errors={404, 409}, prepare=own_cleaning),
        Route("PUT", ALL, (401, 404, 404), errors={404, 409}, prepare=accepted),
        Route("PUT", ALL, (401, 200, 404), prepare=lambda world: accepted(world, world.other)),
        Route("PUT", ALL, (401, 409, 404), prepare=lambda world: offered(world, world.other)),
        Route("DELETE", ALL, (401, 404, 404), errors={404, 409}),
        Route("DELETE", ALL, (401, 409, 404), prepare=lambda world: accepted(world, world.other)),
        Route("DELETE", ALL, (401, 204, 404), prepare=lambda world: offered(world, world.other)),
        Route("GET", ONE, OWNERS, errors={403, 404}),
        Route("GET", ONE, ACCOUNTS, prepare=lambda world: offered(world, world.other)),
        Route("PUT", ONE, OWNERS, errors={403, 404, 409}),
        Route("PUT", ONE, OWNERS, prepare=lambda world: offered(world, world.other)),
        Route("PUT", ONE, (401, 403, 409), prepare=accepted),
        Route("GET", MINE, ACCOUNTS, filters={"status": [None, *STATUSES[:2]]}, statements=4),
    ],
    rows={
        "offers": """
            INSERT INTO offers (cleaning_id, user_id, status)
            SELECT cleanings.id, users.id, 'completed' FROM cleanings, users WHERE owner_id IS NULL
        """
    },
    fuzz={
        "create_offer": jobs(2),
        "accept_offer": jobs(1, "pending"),
        "cancel_offer": jobs(2, "accepted"),
        "delete_offer": jobs(2, "pending"),
        "list_offers": jobs(1, "pending"),
        "get_offer": jobs(1, "pending"),
    },
)
