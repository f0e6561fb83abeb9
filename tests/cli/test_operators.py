"""Commands for operators: changes that the API does not allow, and deleting expired rows."""

import json

import pytest

from tests.tools.users import PASSWORD

UNKNOWN_ID = "2147483647"


def test_change_cleaning_changes_a_guest_cleaning(run, client, make_cleaning):
    cleaning_id = make_cleaning(name="Old", price="20.00")
    code, output = run("change-cleaning", str(cleaning_id), '{"name": "New", "price": "30.50"}')
    assert code == 0
    assert json.loads(output) == client.get(f"/api/cleanings/{cleaning_id}/").json
    assert (json.loads(output)["name"], json.loads(output)["price"]) == ("New", 30.5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ("{", "Malformed JSON"),
        ('{"price": 1.005}', "at most 2 decimals"),
        ('{"name": " "}', "Must not be blank."),
        ('{"owner": "anna"}', "Unknown field."),
        ("[]", "Invalid input type."),
    ],
)
def test_invalid_changes_are_rejected_and_nothing_changes(
    run, sql, make_cleaning, changes, message
):
    code, output = run("change-cleaning", str(make_cleaning(name="Old")), changes)
    assert code != 0
    assert message in output
    assert sql("SELECT name FROM cleanings") == [("Old",)]


def test_delete_cleaning_deletes_a_guest_cleaning(run, sql, make_cleaning):
    cleaning_id, other = make_cleaning(), make_cleaning()
    assert run("delete-cleaning", str(cleaning_id)) == (0, f"Deleted cleaning {cleaning_id}.\n")
    assert sql("SELECT id FROM cleanings") == [(other,)]


@pytest.mark.parametrize(
    ("arguments", "noun"),
    [
        (("change-cleaning", UNKNOWN_ID, "{}"), "cleaning"),
        (("delete-cleaning", UNKNOWN_ID), "cleaning"),
        (("disable-account", "nobody"), "account"),
        (("delete-account", "nobody"), "account"),
    ],
)
def test_a_missing_cleaning_or_account_is_reported_in_one_line(run, arguments, noun):
    assert run(*arguments) == (1, f"Error: There is no such {noun}.\n")


@pytest.mark.parametrize("cleaning_id", ["0", "-1", "2147483648", "x"])
def test_an_invalid_id_is_rejected(run, cleaning_id):
    assert run("delete-cleaning", cleaning_id)[0] == 2


def test_a_disabled_account_is_logged_out_and_logs_in_again_once_enabled(
    run, client, anna, ben, sql
):
    form = {"username": anna.email, "password": PASSWORD}
    assert run("disable-account", "ANNA") == (0, "Disabled ANNA.\n")
    assert anna.client.get("/api/users/me/").status_code == 401
    assert client.post("/api/users/login/token/", data=form).status_code == 400
    assert ben.client.get("/api/users/me/").status_code == 200
    assert run("disable-account", "anna", "--undo") == (0, "Enabled anna.\n")
    assert sql("SELECT is_active FROM users WHERE username = 'anna'") == [(True,)]
    assert anna.client.get("/api/users/me/").status_code == 401
    assert client.post("/api/users/login/token/", data=form).status_code == 200


def test_remove_expired_deletes_expired_rows(run, anna, sql):
    sql(
        "INSERT INTO tokens (hash, user_id, expires_at) VALUES (sha256('a'), :user, now())",
        user=anna.id,
    )
    sql("INSERT INTO quotas (key, full_at) VALUES ('old', now() - interval '1 second')")
    sql("INSERT INTO quotas (key, full_at) VALUES ('young', now() + interval '1 minute')")
    released = "INSERT INTO released_usernames (username, user_id, released_at)"
    sql(f"{released} VALUES ('old', 1, now() - interval '90 days')")
    sql(f"{released} VALUES ('young', 1, now() - interval '89 days')")
    counts = "0 idempotency keys, 1 tokens, 0 one-time tokens, "
    counts += "0 lines of the audit log, 1 counters, 1 usernames"
    assert run("remove-expired") == (0, f"Deleted {counts}.\n")
    assert anna.client.get("/api/users/me/").status_code == 200
    assert sql("SELECT key FROM quotas") == [("young",)]
    assert sql("SELECT username FROM released_usernames") == [("young",)]
