"""The routes of profiles, for the tests of all routes (tests/tools/features.py)."""

from tests.tools.features import ACCOUNTS, EVERYONE, Feature, Route

ONE = "/api/profiles/<username:username>/"
MINE = "/api/profiles/me/"

FEATURE = Feature(
    prepare=lambda world: {"username": world.make_user("cleo").username},
    routes=[
        Route("GET", ONE, EVERYONE, errors={404}),
        Route("GET", MINE, ACCOUNTS),
        Route("PATCH", MINE, ACCOUNTS),
        Route("PUT", MINE, ACCOUNTS),
    ],
    rows={"profiles": "INSERT INTO profiles (user_id) SELECT id FROM users"},
)
