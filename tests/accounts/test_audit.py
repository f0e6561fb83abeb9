"""The audit log: what it has, and that nobody changes it."""

import psycopg2
import pytest
from sqlalchemy import text

from phresh.accounts.models import AUDIT_DAYS_MIN, PROTECT
from phresh.database.base import db
from tests.tools.users import PASSWORD

ME, LOGIN = "/api/users/me/", "/api/users/login/token/"
OWNS = "SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE relname = 'audit_log'"
NEW = {"email": "carl@phresh.example", "username": "carl", "password": PASSWORD}


@pytest.fixture
def lines(sql):
    """The lines so far: who, what, whose account, where, by which request."""
    columns = "action, actor_id, user_id, address, request_id"
    return lambda: [tuple(line) for line in sql(f"SELECT {columns} FROM audit_log ORDER BY id")]


def test_a_line_says_who_did_what_from_where_by_which_request(app, anna, lines):
    client = anna.make_client()
    client.environ_base["REMOTE_ADDR"] = "192.0.2.7"
    body = {"user_update": {"username": "anna-maria"}}
    response = client.patch(ME, json=body)
    assert response.status_code == 200
    [line] = lines()
    request_id = response.headers["X-Request-Id"]
    assert line == ("username_changed", anna.id, anna.id, "192.0.2.7", request_id)


def test_logins_and_their_failures_are_logged(client, anna, lines):
    for email, password in (
        (anna.email, PASSWORD),
        (anna.email, "wrong horse battery"),
        ("nobody@phresh.example", PASSWORD),
    ):
        client.post(LOGIN, data={"username": email, "password": password})
    found = [(action, actor, user) for action, actor, user, *_ in lines()]
    assert found == [
        ("logged_in", None, anna.id),
        ("login_failed", None, anna.id),
        ("login_failed", None, None),
    ]


def test_changes_of_credentials_are_logged(client, anna, lines):
    new = {"email": "anna@new.example", "password": "four cats on a roof"}
    change = {"user_update": {**new, "old_password": PASSWORD}}
    assert anna.client.patch(ME, json=change).status_code == 200
    assert client.post("/api/users/", json={"new_user": NEW}).status_code == 201
    assert anna.client.delete("/api/users/me/sessions/").status_code == 204
    assert anna.client.post("/api/users/logout/").status_code == 204
    assert [line[0] for line in lines()] == [
        *("email_changed", "password_changed", "registered", "logins_ended", "logged_out")
    ]


def test_a_wrong_old_password_is_logged(anna, lines):
    for path, change in (
        (ME, {"user_update": {"password": "four cats on a roof"}}),
        (ME, {"user_update": {"username": "anna-maria"}}),
        ("/api/profiles/me/", {"profile_update": {"phone_number": "+49 30 1"}}),
    ):
        [(member, values)] = change.items()
        body = {member: {**values, "old_password": "wrong horse battery"}}
        assert anna.client.patch(path, json=body).status_code == 403
    assert [line[:3] for line in lines()] == [("password_failed", anna.id, anna.id)] * 3


def test_a_deleted_account_leaves_its_lines(anna, lines):
    assert anna.client.delete(ME).status_code == 204
    assert [line[:3] for line in lines()] == [("account_deleted", anna.id, anna.id)]


def test_what_is_rolled_back_has_no_line(anna, ben, lines):
    body = {"user_update": {"username": "ben", "old_password": PASSWORD}}
    assert anna.client.patch(ME, json=body).status_code == 409
    assert lines() == []


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE audit_log SET user_id = 1",
        "DELETE FROM audit_log",
        "TRUNCATE audit_log",
        "ALTER TABLE audit_log DISABLE TRIGGER protect_audit_log",
        "DROP TABLE audit_log",
    ],
)
def test_the_serving_role_cannot_change_it(app, anna, client, change):
    client.post(LOGIN, data={"username": anna.email, "password": PASSWORD})
    with app.app_context(), db.engine.connect() as connection:
        if connection.execute(text(OWNS)).scalar() and not change.startswith(("UPDATE", "DELETE")):
            pytest.skip("One role serves and owns the tables, as through PgBouncer here.")
        with pytest.raises(Exception, match=r"audit_log|audit log") as raised:
            connection.execute(text(change))
        assert isinstance(raised.value.orig, psycopg2.errors.InsufficientPrivilege)


def test_lines_are_deleted_after_a_year(run, sql):
    for days in (364, 366):
        sql(
            "INSERT INTO audit_log (at, action) VALUES "
            "(now() - cast(:days AS integer) * interval '1 day', 'logged_in')",
            days=days,
        )
    code, output = run("remove-expired")
    assert (code, "1 lines of the audit log" in output) == (0, True), output
    assert sql("SELECT count(*) FROM audit_log") == [(1,)]


def test_what_protects_it_is_said_in_days():
    assert f"{AUDIT_DAYS_MIN} days" in PROTECT
