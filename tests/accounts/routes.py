"""The routes of accounts, for the tests of all routes (tests/tools/features.py)."""

import uuid
from itertools import count

from tests.tools.features import ACCOUNTS, EVERYONE, Feature, Route
from tests.tools.users import PASSWORD

ALL = "/api/users/"
ME = f"{ALL}me/"
NEW = "a new password"
REGISTRATION = {"email": "carl@phresh.example", "username": "carl", "password": PASSWORD}


LINKS = count(100)  # the ids of users that have links for schemathesis to use


def correct(operation, case):
    """Let schemathesis send emails that are new, the right password, and links of mails."""
    if not isinstance(case.body, dict):
        return
    if operation == "recover_account":
        case.body["recovery"]["token"] = f"recovery-{next(LINKS)}"
    elif operation == "confirm_email":  # one of both
        has_token = "token" in case.body["confirmation"]
        link = {"token": f"confirmation-{next(LINKS)}"}
        case.body["confirmation"] = link if has_token else {"email": "user-2@phresh.example"}
    elif operation == "create_token":
        case.body |= {"username": "user-2@phresh.example", "password": PASSWORD}
    elif operation in ("create_user", "update_me"):
        for values in case.body.values():
            if "email" in values:
                values["email"] = f"{uuid.uuid4().hex}@phresh.example"
            if operation == "update_me" and values.keys() & {"email", "password", "old_password"}:
                values["old_password"] = PASSWORD


LINK_TOKEN = "x" * 43


def logged_in_long_ago(world):
    """Let the logins be of an hour ago."""
    world.sql("UPDATE tokens SET created_at = now() - interval '1 hour'")
    return {}


def recovery_link(world):
    """Have the owner recover their account by a link with ``LINK_TOKEN``."""
    world.sql(
        "INSERT INTO one_time_tokens (hash, user_id, purpose, email_key, expires_at) "
        "SELECT sha256(:token), id, 'recovery', email_key, 'infinity' FROM users WHERE id = :id",
        token=LINK_TOKEN.encode(),
        id=world.owner.id,
    )
    return {}


def unregistered(world):
    """Delete the owner's account, without a trace."""
    world.sql("DELETE FROM users WHERE id = :id", id=world.owner.id)
    world.sql("DELETE FROM released_usernames")
    return {}


FEATURE = Feature(
    routes=[
        Route(
            *("POST", ALL, (201, 201, 201)),
            errors={409},
            send={"json": {"new_user": REGISTRATION}},
            example=409,  # Anna is registered
        ),
        Route("POST", ALL, (201, 201, 201), prepare=unregistered),
        Route(
            *("POST", f"{ALL}login/token/", EVERYONE),
            send={"data": {"username": "anna@phresh.example", "password": PASSWORD}},
            example=400,  # another password
            rejected={400: {"data": {"username": "anna@phresh.example", "password": NEW}}},
        ),
        Route("POST", f"{ALL}logout/", (401, 204, 204)),
        Route("GET", ME, ACCOUNTS),
        Route(
            *("PATCH", ME, ACCOUNTS),
            errors={403, 409},
            send={"json": {"user_update": {"username": "renamed"}}},
            example=409,  # of another user: the name is Anna's
            rejected={
                403: {"json": {"user_update": {"password": NEW, "old_password": "another one"}}}
            },
        ),
        Route("PATCH", ME, (401, 409, 200)),
        Route("GET", "/account/confirmation/", EVERYONE),
        Route("GET", "/account/recovery/", EVERYONE),
        # The apps of these tests send mail into memory.
        Route("POST", f"{ALL}confirmation/", (204, 204, 204), errors={503}),
        Route("POST", f"{ALL}recovery/", (204, 204, 204), errors={503}),
        Route(
            *("PUT", f"{ALL}recovery/", (204, 204, 204)),
            prepare=recovery_link,
            send={"json": {"recovery": {"token": LINK_TOKEN, "password": NEW}}},
        ),
    ],
    rows={
        "users": """
            INSERT INTO users (email, username, password_hash) VALUES ('a@b.example', 'anna', '')
        """,
        "tokens": """
            INSERT INTO tokens (hash, user_id, expires_at)
            SELECT sha256('a'), id, 'infinity' FROM users
        """,
        "one_time_tokens": """
            INSERT INTO one_time_tokens (hash, user_id, purpose, email_key, expires_at)
            SELECT sha256('a'), id, 'recovery', email_key, 'infinity' FROM users
        """,
        "two_factors": "INSERT INTO two_factors (user_id, secret) SELECT id, 'x' FROM users",
        "recovery_codes": """
            INSERT INTO recovery_codes (hash, user_id) SELECT sha256('a'), id FROM users
        """,
        "audit_log": "INSERT INTO audit_log (action) VALUES ('logged_in')",
        "attempts": "INSERT INTO attempts (key) VALUES ('k')",
        "released_usernames": """
            INSERT INTO released_usernames (username, user_id) VALUES ('gone', 1)
        """,
        "quotas": "INSERT INTO quotas (key, full_at) VALUES ('k', now())",
    },
    fuzz={
        "recover_account": """
            INSERT INTO one_time_tokens (hash, user_id, purpose, email_key, expires_at)
            SELECT sha256(convert_to(purpose || '-' || id, 'UTF8')), id, purpose, email_key,
                now() + interval '1 day'
            FROM users, unnest(ARRAY['recovery', 'confirmation']) purpose
            WHERE id BETWEEN 100 AND 499
        """
    },
    correct=correct,
    undocumented={
        "This password is too common.",
        "Must not be the username or the email.",
        # Of parameters of OAuth 2 that the login ignores, and that the document leaves out.
        "Given more than once.",
        "The link is no longer valid. Ask for another one.",
    },
)
