"""What operators see and do, each with its line of the audit log."""

import re

import pytest

from tests.tools.jobs import run_jobs
from tests.tools.users import PASSWORD

ACCOUNTS, AUDIT_LOG = "/api/admin/accounts/", "/api/admin/audit-log/"
LOGIN, ME = "/api/users/login/token/", "/api/users/me/"


def log_in(client, user):
    return client.post(LOGIN, data={"username": user.email, "password": PASSWORD}).status_code


def of(user, rest=""):
    return f"{ACCOUNTS}{user.username}/{rest}"


def usernames(response):
    assert response.status_code == 200
    return [account["username"] for account in response.json]


def test_accounts_are_listed_with_the_newest_first(olga, anna, ben):
    response = olga.client.get(ACCOUNTS)
    assert usernames(response) == ["ben", "anna", "olga"]
    assert response.headers["Cache-Control"] == "private, no-store"
    assert [account["is_superuser"] for account in response.json] == [False, False, True]
    page = olga.client.get(ACCOUNTS, query_string={"limit": 1})
    assert 'rel="next"' in page.headers["Link"]


@pytest.mark.parametrize(
    ("q", "found"),
    [
        ("ANN", ["joanna", "anna"]),
        ("ohm@", ["ben"]),
        ("nobody", []),
        ("a_n", []),
        ("%nna", []),
        ("a\\n", []),
    ],
)
def test_accounts_are_found_by_a_part_of_the_username_or_email(olga, anna, make_user, q, found):
    make_user("ben", email="ben.ohm@phresh.example")
    make_user("joanna")
    assert usernames(olga.client.get(ACCOUNTS, query_string={"q": q})) == found


def test_indexes_find_what_is_searched(app, owner_engine):
    in_transaction = owner_engine.execution_options(isolation_level="READ COMMITTED")
    with in_transaction.connect() as connection:
        connection.exec_driver_sql("SET LOCAL enable_seqscan = off")  # the table is small
        plan = connection.exec_driver_sql(
            "EXPLAIN SELECT id FROM users WHERE lower(username) LIKE '%%anna%%' "
            "OR email_key LIKE '%%anna%%'"
        ).all()
    text = "\n".join(line for (line,) in plan)
    assert "ix_users_username_trigrams" in text
    assert "ix_users_email_key_trigrams" in text


def test_an_account_is_shown_with_its_logins_and_how_much_it_has(
    olga, anna, ben, make_cleaning, sql
):
    cleanings = [make_cleaning(owner_id=anna.id) for _ in range(2)]
    sql("INSERT INTO offers (cleaning_id, user_id) VALUES (:job, :id)", job=cleanings[0], id=ben.id)
    account = olga.client.get(of(anna)).json
    assert account["email"] == anna.email
    assert account["is_active"] is True
    assert account["counts"] == {
        "cleanings": 2,
        "offers": 0,
        "evaluations_written": 0,
        "evaluations_received": 0,
    }
    [session] = account["sessions"]
    assert session.keys() == {"id", "created_at", "last_used_at", "address", "user_agent"}
    assert olga.client.get(of(ben)).json["counts"]["offers"] == 1


def test_an_account_is_disabled_with_a_reason_and_enabled(client, olga, anna, actions):
    change = {"account_update": {"is_active": False, "reason": "Spam."}}
    response = olga.client.patch(of(anna), json=change)
    assert response.json["is_active"] is False
    assert response.headers["ETag"] == olga.client.get(of(anna)).headers["ETag"]
    assert anna.client.get(ME).status_code == 401
    assert log_in(client, anna) == 400
    back = {"account_update": {"is_active": True}}
    assert olga.client.patch(of(anna), json=back).json["is_active"] is True
    assert log_in(client, anna) == 200
    assert [line for line in actions() if line[1] == olga.id] == [
        ("account_disabled", olga.id, anna.id, "Spam."),
        ("account_enabled", olga.id, anna.id, None),
    ]


def test_an_account_is_not_disabled_without_a_reason(olga, anna, actions):
    change = {"account_update": {"is_active": False}}
    response = olga.client.patch(of(anna), json=change)
    assert response.status_code == 422
    assert response.json["errors"][0]["pointer"] == "/account_update/reason"
    assert anna.client.get(ME).status_code == 200
    assert actions() == []


def test_logins_are_ended(olga, anna, ben, actions):
    assert olga.client.delete(of(anna, "sessions/")).status_code == 204
    assert anna.client.get(ME).status_code == 401
    assert ben.client.get(ME).status_code == 200
    assert actions() == [("logins_ended", olga.id, anna.id, None)]


def test_a_second_factor_is_removed_and_its_owner_is_told(app, client, olga, anna, sql, actions):
    sql(
        "INSERT INTO two_factors (user_id, secret, confirmed_at) VALUES (:id, 'x', now())",
        id=anna.id,
    )
    app.extensions["mail"].clear()
    assert olga.client.delete(of(anna, "two-factor/")).status_code == 204
    assert olga.client.delete(of(anna, "two-factor/")).status_code == 404
    assert actions() == [("two_factor_removed", olga.id, anna.id, None)]
    run_jobs(app)
    assert [str(mail["To"]) for mail in app.extensions["mail"]] == [anna.email]
    assert log_in(client, anna) == 200


def test_the_mail_to_recover_an_account_is_sent(app, olga, anna, actions):
    app.extensions["mail"].clear()
    assert olga.client.post(of(anna, "recovery/")).status_code == 204
    run_jobs(app)
    [mail] = app.extensions["mail"]
    assert (str(mail["To"]), str(mail["Subject"])) == (anna.email, "Set a new password")
    assert actions() == [("recovery_sent", olga.id, anna.id, None)]


def test_without_mail_an_account_is_recovered_by_command(make_app, olga, anna):
    client = make_app(MAIL_URL=None).test_client()
    headers = {"Authorization": f"Bearer {olga.token}"}
    assert client.post(of(anna, "recovery/"), headers=headers).status_code == 503


@pytest.mark.parametrize(
    ("method", "rest"),
    [
        ("get", ""),
        ("patch", ""),
        ("delete", "sessions/"),
        ("delete", "two-factor/"),
        ("post", "recovery/"),
    ],
)
def test_an_account_that_is_not_there_is_404_for_operators_and_403_for_others(
    olga, anna, method, rest
):
    body = {"account_update": {"is_active": True}} if method == "patch" else None
    for user, status in ((olga, 404), (anna, 403)):
        path = f"{ACCOUNTS}nobody/{rest}"
        assert getattr(user.client, method)(path, json=body).status_code == status


def test_operators_read_the_audit_log(olga, anna, ben):
    for user in (anna, ben):
        assert olga.client.delete(of(user, "sessions/")).status_code == 204
    response = olga.client.get(AUDIT_LOG)
    assert [line["user_id"] for line in response.json] == [ben.id, anna.id]
    assert {line["actor_id"] for line in response.json} == {olga.id}
    [line] = olga.client.get(AUDIT_LOG, query_string={"username": "Anna"}).json
    assert (line["action"], line["user_id"]) == ("logins_ended", anna.id)
    assert re.fullmatch("[0-9a-f]{32}", line["request_id"])
    assert olga.client.get(AUDIT_LOG, query_string={"username": "nobody"}).json == []


def test_operators_need_a_second_factor_unless_the_server_does_not_require_it(make_app, olga, sql):
    sql("DELETE FROM two_factors")
    rejected = olga.client.get(ACCOUNTS)
    assert rejected.status_code == 403
    assert "second factor" in rejected.json["detail"]
    client = make_app(OPERATORS_NEED_TWO_FACTOR=False).test_client()
    headers = {"Authorization": f"Bearer {olga.token}"}
    assert client.get(ACCOUNTS, headers=headers).status_code == 200


def test_who_is_no_longer_an_operator_is_rejected_at_once(run, olga):
    assert run("make-operator", "olga", "--undo") == (0, "olga is no longer an operator.\n")
    assert olga.client.get(ACCOUNTS).status_code == 403
