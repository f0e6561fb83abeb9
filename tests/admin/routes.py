"""The routes of operators, for the tests of all routes (tests/tools/features.py)."""

from tests.tools.features import Feature, Route
from tests.two_factor.routes import two_factor

ACCOUNTS = "/api/admin/accounts/"
ACCOUNT = f"{ACCOUNTS}<username:username>/"
# "The owner" is an operator here, who acts on the account of a third person.
OPERATORS, WRITES = (401, 403, 200), (401, 403, 204)


def operator(world):
    """Let the owner be an operator, and name another account with a login."""
    cleo = world.make_user("cleo")
    two_factor(world)
    world.sql("UPDATE users SET is_superuser = true WHERE id = :id", id=world.owner.id)
    return {"username": cleo.username}


FEATURE = Feature(
    prepare=operator,
    routes=[
        Route("GET", ACCOUNTS, OPERATORS, filters={"q": [None, "cleo"]}, statements=4),
        Route("GET", ACCOUNT, OPERATORS, errors={404}),
        Route("PATCH", ACCOUNT, OPERATORS, errors={404}),
        Route("DELETE", f"{ACCOUNT}sessions/", WRITES, errors={404}),
        Route("DELETE", f"{ACCOUNT}two-factor/", WRITES, errors={404}),
        # The apps of these tests send mail into memory.
        Route("POST", f"{ACCOUNT}recovery/", WRITES, errors={404, 503}),
        Route(
            *("GET", "/api/admin/audit-log/", OPERATORS),
            filters={"username": [None, "cleo"]},
            statements=4,
        ),
    ],
)
