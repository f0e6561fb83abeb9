"""Commands for operators: changes that the API does not allow, and deleting expired rows."""

import json

import pytest

from tests.tools.users import PASSWORD

UNKNOWN_ID = "2147483647"


@pytest.fixture
def audited(sql):
    """The lines of the audit log so far: what, and whose account."""
    return lambda: [
        tuple(line) for line in sql("SELECT action, user_id FROM audit_log ORDER BY id")
    ]


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
        (("recover-account", "nobody"), "account"),
        (("remove-two-factor", "nobody"), "account"),
        (("make-operator", "nobody"), "account"),
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


def test_an_account_becomes_an_operator_and_no_longer_one(run, anna, sql, audited):
    is_superuser = "SELECT is_superuser FROM users"
    assert run("make-operator", "anna") == (0, "anna is now an operator.\n")
    assert sql(is_superuser) == [(True,)]
    assert anna.client.get("/api/users/me/").json["is_superuser"] is True
    assert run("make-operator", "ANNA", "--undo") == (0, "ANNA is no longer an operator.\n")
    assert sql(is_superuser) == [(False,)]
    assert audited() == [("operator_made", anna.id), ("operator_removed", anna.id)]


def invoke(app, *arguments):
    with app.app_context():
        return app.test_cli_runner().invoke(args=arguments)


def test_a_link_to_recover_an_account_is_handed_over(make_app, client, anna, audited):
    result = invoke(make_app(PUBLIC_URL="https://phresh.example"), "recover-account", "anna")
    url, _, token = result.output.strip().partition("#token=")
    assert url == "https://phresh.example/account/recovery/"
    new = {"recovery": {"token": token, "password": "four cats on a roof"}}
    assert client.put("/api/users/recovery/", json=new).status_code == 204
    assert audited() == [("recovery_link_made", anna.id), ("password_recovered", anna.id)]


def test_a_link_needs_the_public_url(make_app, anna):
    app = make_app(PUBLIC_URL=None, ACCOUNT_URL=None, MAIL_URL=None)
    result = invoke(app, "recover-account", "anna")
    assert result.exit_code == 1
    assert result.output.startswith("Error: PUBLIC_URL: ")


def test_a_second_factor_is_removed_by_command(run, anna, sql, audited):
    assert run("remove-two-factor", "anna") == (1, "Error: The account has no second factor.\n")
    sql("INSERT INTO two_factors (user_id, secret) VALUES (:id, 'x')", id=anna.id)
    assert run("remove-two-factor", "anna") == (0, "Removed the second factor of anna.\n")
    assert sql("SELECT count(*) FROM two_factors") == [(0,)]
    assert audited() == [("two_factor_removed", anna.id)]


def test_each_command_writes_what_it_did_to_the_audit_log(run, sql, anna, make_cleaning):
    cleaning_id = make_cleaning()
    run("change-cleaning", str(cleaning_id), '{"price": 31}')
    run("delete-cleaning", str(cleaning_id))
    run("disable-account", "anna", "--reason", "Spam.")
    run("disable-account", "anna", "--undo")
    run("delete-account", "anna")
    columns = "action, user_id, target, reason, address"
    lines = [tuple(line) for line in sql(f"SELECT {columns} FROM audit_log ORDER BY id")]
    target = f"cleaning {cleaning_id}"
    assert lines == [
        ("cleaning_changed", None, target, None, None),
        ("cleaning_deleted", None, target, None, None),
        ("account_disabled", anna.id, None, "Spam.", None),
        ("account_enabled", anna.id, None, None, None),
        ("account_disabled", anna.id, None, None, None),
        ("account_deleted", anna.id, None, None, None),
    ]
