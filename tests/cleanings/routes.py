"""The routes of cleanings, for the tests of all routes (tests/tools/features.py)."""

from phresh.cleanings.models import CLEANING_TYPES, STATUSES
from tests.tools.features import EVERYONE, OWNERS, Feature, Route

ALL = "/api/cleanings/"
ONE = f"{ALL}<id:cleaning_id>/"
FILTERS = {
    "cleaning_type": [None, *(CLEANING_TYPES[:count] for count in (1, 2, 3))],
    "price_min": [None, "1"],
    "price_max": [None, "2"],
    "status": [None, *STATUSES[:2]],
    "owner": [None, "anna"],
    "q": [None, "a", "abc ab", "a b c d e f g h"],
}


def own_cleaning(world):
    return {"cleaning_id": world.make_cleaning(owner_id=world.owner.id, name="Hers")}


def taken_cleaning(world):
    """Make a cleaning of the owner's for which an offer is accepted."""
    values = own_cleaning(world)
    path = f"/api/cleanings/{values['cleaning_id']}/offers/"
    assert world.other.client.post(path).status_code == 201
    assert world.owner.client.put(f"{path}{world.other.username}/").status_code == 200
    return values


FEATURE = Feature(
    prepare=own_cleaning,
    routes=[
        Route("GET", ALL, EVERYONE, filters=FILTERS, statements=68),
        Route("POST", ALL, (201, 201, 201)),
        Route("GET", ONE, EVERYONE, errors={404}),
        Route("PATCH", ONE, OWNERS, errors={403, 404, 409}),
        Route("PUT", ONE, OWNERS, errors={403, 404, 409}),
        Route("DELETE", ONE, (401, 403, 204), errors={403, 404, 409}),
        *(
            Route(method, ONE, (401, 403, 409), prepare=taken_cleaning)
            for method in ("PATCH", "PUT", "DELETE")
        ),
    ],
    rows={
        "cleanings": """
            INSERT INTO cleanings (name, price, owner_id) SELECT 'Hers', 1, id FROM users;
            INSERT INTO cleanings (name, price) VALUES ('A guest''s', 1);
        """
    },
    undocumented={
        # The pattern for that, \p{L}, is not one in every language.
        "Each word must have a letter or a digit.",
        # In floating-point numbers, 19.99 is no multiple of 0.01.
        "Must have at most 2 decimals.",
    },
)
