"""The commands of an operator: what nobody may do over the API, and what has had its time."""

import json

import pytest

from tests.tools.users import PASSWORD

NOBODY = "2147483647"


def test_a_guest_s_cleaning_is_changed(run, client, make_cleaning):
    cleaning_id = make_cleaning(name="Old", price="20.00")
    code, output = run("change-cleaning", str(cleaning_id), '{"name": "New", "price": "30.50"}')
    assert code == 0
    assert json.loads(output) == client.get(f"/api/cleanings/{cleaning_id}/").json
    assert (json.loads(output)["name"], json.loads(output)["price"]) == ("New", 30.5)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ("{", "Broken JSON"),
        ('{"price": 1.005}', "at most 2 decimals"),
        ('{"name": " "}', "Must not be blank."),
        ('{"owner": "anna"}', "Unknown field."),
        ("[]", "Invalid input type."),
    ],
)
def test_bad_changes_are_refused_and_nothing_changes(run, sql, make_cleaning, changes, why):
    code, output = run("change-cleaning", str(make_cleaning(name="Old")), changes)
    assert code != 0
    assert why in output
    assert sql("SELECT name FROM cleanings") == [("Old",)]


def test_a_guest_s_cleaning_is_deleted(run, sql, make_cleaning):
    cleaning_id, other = make_cleaning(), make_cleaning()
    assert run("delete-cleaning", str(cleaning_id)) == (0, f"Deleted cleaning {cleaning_id}.\n")
    assert sql("SELECT id FROM cleanings") == [(other,)]


@pytest.mark.parametrize(
    ("arguments", "noun"),
    [
        (("change-cleaning", NOBODY, "{}"), "cleaning"),
        (("delete-cleaning", NOBODY), "cleaning"),
        (("disable-account", "nobody"), "account"),
    ],
)
def test_what_is_not_there_is_one_line(run, arguments, noun):
    assert run(*arguments) == (1, f"Error: There is no such {noun}.\n")


@pytest.mark.parametrize("cleaning_id", ["0", "-1", "2147483648", "x"])
def test_what_is_no_id_is_refused(run, cleaning_id):
    assert run("delete-cleaning", cleaning_id)[0] == 2


def test_a_disabled_account_is_out_until_it_logs_in_again(run, client, anna, ben, sql):
    form = {"username": anna.email, "password": PASSWORD}
    assert run("disable-account", "ANNA") == (0, "Disabled ANNA.\n")
    assert anna.client.get("/api/users/me/").status_code == 401
    assert client.post("/api/users/login/token/", data=form).status_code == 401
    assert ben.client.get("/api/users/me/").status_code == 200
    assert run("disable-account", "anna", "--undo") == (0, "Enabled anna.\n")
    assert sql("SELECT is_active FROM users WHERE username = 'anna'") == [(True,)]
    assert anna.client.get("/api/users/me/").status_code == 401
    assert client.post("/api/users/login/token/", data=form).status_code == 200


def test_what_has_had_its_time_is_removed(run, anna, sql):
    sql(
        "INSERT INTO tokens (hash, user_id, expires_at) VALUES (sha256('a'), :user, now())",
        user=anna.id,
    )
    sql("INSERT INTO attempts (key, at) VALUES ('old', now() - interval '61 minutes')")
    sql("INSERT INTO attempts (key, at) VALUES ('young', now() - interval '59 minutes')")
    expected = "Removed 0 idempotency keys, 1 tokens, 1 counted tries.\n"
    assert run("remove-expired") == (0, expected)
    assert anna.client.get("/api/users/me/").status_code == 200
    assert sql("SELECT key FROM attempts") == [("young",)]
