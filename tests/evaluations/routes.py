"""The routes of evaluations, for the tests of all routes (tests/tools/features.py)."""

from tests.offers.routes import accepted, jobs, offered
from tests.tools.features import EVERYONE, Feature, Route

ALL = "/api/users/<username:username>/evaluations/"
ONE = f"{ALL}<id:cleaning_id>/"


def rated(world):
    """Make a completed cleaning of the owner's, whose cleaner is rated."""
    values = accepted(world)
    path = f"/api/users/{values['username']}/evaluations/{values['cleaning_id']}/"
    rating = {"evaluation_create": {"overall_rating": 5, "headline": "Spotless"}}
    assert world.owner.client.post(path, json=rating).status_code == 201
    return values


FEATURE = Feature(
    prepare=rated,
    routes=[
        Route("GET", ALL, EVERYONE, errors={404}),
        Route("GET", f"{ALL}stats/", EVERYONE, errors={404}),
        Route("GET", ONE, EVERYONE, errors={404}),
        Route("GET", ONE, (404, 404, 404), prepare=accepted),
        Route("POST", ONE, (401, 403, 201), errors={403, 404, 409}, prepare=accepted),
        Route("POST", ONE, (401, 403, 409), prepare=offered),
        Route("POST", ONE, (401, 403, 409)),
    ],
    rows={
        "evaluations": """
            INSERT INTO evaluations (cleaning_id, cleaner_id, overall_rating)
            SELECT cleanings.id, users.id, 5 FROM cleanings, users WHERE owner_id IS NULL
        """
    },
    fuzz={
        "create_evaluation": jobs(1, "accepted"),
        "get_evaluation": f"""
            {jobs(1, "completed")};
            INSERT INTO evaluations (cleaning_id, cleaner_id, owner_id, overall_rating)
            SELECT cleaning_id, 2, 1, 5 FROM offers WHERE status = 'completed' RETURNING cleaning_id
        """,
    },
)
