"""The routes of sessions, for the tests of all routes (tests/tools/features.py)."""

from tests.tools.features import ACCOUNTS, Feature, Route

ALL = "/api/users/me/sessions/"
ONE = f"{ALL}<session:session_id>/"


def logged_in_elsewhere(world):
    """Make a second session of the owner's and of the other user's, and name the owner's."""
    for user in (world.other, world.owner):
        [(session_id,)] = world.sql(
            "INSERT INTO tokens (hash, user_id, expires_at) "
            "VALUES (sha256(:name), :id, 'infinity') "
            "RETURNING encode(substr(hash, 1, 8), 'hex')",
            name=user.username.encode(),
            id=user.id,
        )
    return {"session_id": session_id}


FEATURE = Feature(
    prepare=logged_in_elsewhere,
    routes=[
        Route("GET", ALL, ACCOUNTS),
        Route("DELETE", ALL, (401, 204, 204)),
        Route("DELETE", ONE, (401, 404, 204), errors={404}),
    ],
    fuzz={
        "delete_session": """
            INSERT INTO tokens (hash, user_id, expires_at)
            SELECT sha256(convert_to('other-' || n, 'UTF8')), 1, now() + interval '1 day'
            FROM generate_series(1, 90) n
            RETURNING encode(substr(hash, 1, 8), 'hex') AS session_id
        """
    },
)
