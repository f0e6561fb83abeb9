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
    cleaning_id = world.make_cleaning(owner_id=cleo.id)
    world.sql(
        "INSERT INTO evaluations (cleaning_id, cleaner_id, owner_id, overall_rating) "
        "VALUES (:cleaning_id, :cleaner_id, :owner_id, 5)",
        cleaning_id=cleaning_id,
        cleaner_id=world.other.id,
        owner_id=cleo.id,
    )
    two_factor(world)
    world.sql("UPDATE users SET is_superuser = true WHERE id = :id", id=world.owner.id)
    return {"username": cleo.username, "cleaning_id": cleaning_id}


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
        Route("PATCH", "/api/admin/cleanings/<id:cleaning_id>/", WRITES, errors={404}),
        Route("PATCH", "/api/admin/evaluations/<id:cleaning_id>/", WRITES, errors={404}),
        Route("PATCH", "/api/admin/profiles/<username:username>/", WRITES, errors={404}),
        Route(
            *("GET", "/api/admin/audit-log/", OPERATORS),
            filters={"username": [None, "cleo"]},
            statements=4,
        ),
    ],
    # The sender is an operator, who acts on the accounts of others than the requests of users.
    fuzz={
        "list_accounts": """
            UPDATE users SET is_superuser = true WHERE id = 1;
            INSERT INTO two_factors (user_id, secret, confirmed_at)
            SELECT id, 'x', now() FROM users WHERE id = 1 OR id BETWEEN 500 AND 999
        """,
        **dict.fromkeys(
            ["update_account", "end_sessions", "remove_two_factor", "send_recovery"],
            "SELECT username FROM users WHERE id BETWEEN 500 AND 999",
        ),
    },
    # A schema that depends on another property would be too much for some generators.
    undocumented={"Needed to disable an account.", "Needed to hide something."},
)
