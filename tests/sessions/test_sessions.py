"""Sessions: what is shown of them, how they end, and what needs a recent login."""

import pytest
from sqlalchemy import make_url

from tests.tools.users import PASSWORD

SESSIONS, ME, PROFILE = "/api/users/me/sessions/", "/api/users/me/", "/api/profiles/me/"
LOGIN = "/api/users/login/token/"
AGENT = "Browser/1.0 (a phone)"


@pytest.fixture
def log_in(app, anna):
    """Log Anna in; gives a client with the token."""

    def log_in(agent=AGENT, address="192.0.2.7"):
        client = app.test_client()
        client.environ_base |= {"HTTP_USER_AGENT": agent, "REMOTE_ADDR": address}
        form = {"username": anna.email, "password": PASSWORD}
        token = client.post(LOGIN, data=form).json["access_token"]
        client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {token}"
        return client

    return log_in


def test_sessions_are_listed_with_the_newest_first(anna, log_in):
    client = log_in()
    response = client.get(SESSIONS)
    assert response.headers["Cache-Control"] == "private, no-store"
    new, old = response.json
    assert (new["address"], new["user_agent"], new["is_current"]) == ("192.0.2.7", AGENT, True)
    assert (old["address"], old["user_agent"], old["is_current"]) == (None, None, False)
    assert new["created_at"] > old["created_at"]
    assert [each["is_current"] for each in anna.client.get(SESSIONS).json] == [False, True]


def test_pages_of_sessions_have_each_once(log_in):
    client = [log_in() for _ in range(3)][-1]
    seen, path = [], f"{SESSIONS}?limit=1"
    while path:
        response = client.get(path)
        seen += [each["id"] for each in response.json]
        path = response.headers.get("Link", "").partition(">")[0].lstrip("<")
    assert seen == [each["id"] for each in client.get(SESSIONS).json]
    assert len(seen) == 4


def test_sessions_of_others_and_invalid_ones_are_not_listed(anna, ben, sql):
    for expires_at, last_used_at in (("-1 s", "0"), ("1 day", "-31 days")):
        sql(
            "INSERT INTO tokens (hash, user_id, expires_at, last_used_at) VALUES "
            "(sha256(:name), :id, now() + cast(:expires AS interval), "
            "now() + cast(:used AS interval))",
            name=expires_at.encode(),
            id=anna.id,
            expires=expires_at,
            used=last_used_at,
        )
    assert len(anna.client.get(SESSIONS).json) == 1


@pytest.mark.parametrize("agent", ["", "x" * 500, "a\x85b\u00e9"])
def test_what_a_client_names_itself_is_kept_as_far_as_it_can_be_shown(log_in, agent):
    shown = log_in(agent=agent.encode().decode("latin-1")).get(SESSIONS).json[0]["user_agent"]
    assert shown is None if not agent else len(shown) <= 200
    assert (shown or "").isprintable()


def test_a_session_is_ended(anna, log_in):
    client = log_in()
    [first] = [each for each in client.get(SESSIONS).json if not each["is_current"]]
    assert client.delete(f"{SESSIONS}{first['id']}/").status_code == 204
    assert anna.client.get(ME).status_code == 401
    assert client.delete(f"{SESSIONS}{first['id']}/").status_code == 404
    assert client.get(ME).status_code == 200


def test_all_other_sessions_are_ended(anna, ben, log_in):
    client, other = log_in(), log_in()
    assert client.delete(SESSIONS).status_code == 204
    assert [each.get(ME).status_code for each in (client, other, anna.client)] == [200, 401, 401]
    assert ben.client.get(ME).status_code == 200


def test_the_last_use_is_noted_to_the_minute(anna, sql, statements):
    used = "SELECT last_used_at, last_used_at = date_trunc('minute', now()) FROM tokens"
    before = sql(used)
    anna.client.get(ME)
    assert sql(used) == before  # a minute has not passed
    assert len(statements) == 2
    sql("UPDATE tokens SET last_used_at = now() - interval '90 s'")
    anna.client.get(ME)
    assert sql(used)[0][1]


def test_an_unused_session_is_no_longer_valid(anna, sql):
    sql("UPDATE tokens SET last_used_at = now() - interval '29 days 23 hours'")
    assert anna.client.get(ME).status_code == 200
    sql("UPDATE tokens SET last_used_at = now() - interval '30 days 1 s'")
    assert anna.client.get(ME).status_code == 401
    assert anna.client.patch(ME, json={"user_update": {}}).status_code == 401


def test_a_use_waits_for_nobody_who_ends_the_session(anna, sql, owner_engine):
    sql("UPDATE tokens SET last_used_at = now() - interval '90 s'")
    with owner_engine.connect() as connection, connection.begin():
        connection.exec_driver_sql("SELECT FROM tokens FOR UPDATE")
        assert anna.client.get(ME).status_code == 200


def test_a_server_that_only_reads_does_not_note_it(make_app, settings, anna, sql):
    """As a standby, where reading works."""
    if not settings["DATABASE_LIMITS"]:
        pytest.skip("PgBouncer refuses options")
    url = make_url(settings["DATABASE_URL"])
    url = url.update_query_dict({"options": "-c default_transaction_read_only=on"})
    client = make_app(DATABASE_URL=url.render_as_string(hide_password=False)).test_client()
    sql("UPDATE tokens SET last_used_at = now() - interval '90 s'")
    response = client.get(ME, headers={"Authorization": f"Bearer {anna.token}"})
    assert response.status_code == 200, response.json


def test_an_account_has_100_sessions_at_most_and_the_oldest_goes(anna, ben, log_in, sql):
    sql(
        "INSERT INTO tokens (hash, user_id, expires_at, created_at) "
        "SELECT sha256(number::text::bytea), :id, 'infinity', now() - number * interval '1 s' "
        "FROM generate_series(1, 120) AS number",
        id=anna.id,
    )
    log_in()
    oldest = "SELECT count(*), min(created_at) > now() - interval '2 min' FROM tokens WHERE user_id"
    assert sql(f"{oldest} = :id", id=anna.id) == [(100, True)]
    assert ben.client.get(ME).status_code == 200


# What needs a recent login

OLD = "UPDATE tokens SET created_at = now() - interval '15 minutes 1 s'"
RENAME = {"user_update": {"username": "anna-maria"}}
PHONE = {"profile_update": {"phone_number": "+49 30 1"}}


def with_password(body, password=PASSWORD):
    [(member, changes)] = body.items()
    return {member: {**changes, "old_password": password}}


@pytest.mark.parametrize(("path", "body"), [(ME, RENAME), (PROFILE, PHONE)])
def test_a_change_needs_a_recent_login_or_the_password(anna, sql, path, body):
    sql(OLD)
    response = anna.client.patch(path, json=body)
    assert response.status_code == 403
    assert "`old_password`" in response.json["detail"]
    wrong = anna.client.patch(path, json=with_password(body, "wrong horse battery"))
    assert (wrong.status_code, wrong.json["detail"]) == (403, "The old password is wrong.")
    assert anna.client.patch(path, json=with_password(body)).status_code == 200


@pytest.mark.parametrize(("path", "body"), [(ME, RENAME), (PROFILE, PHONE)])
def test_after_a_recent_login_it_does_not(anna, path, body):
    assert anna.client.patch(path, json=body).status_code == 200


def test_a_phone_number_that_stays_needs_neither(anna, sql):
    assert anna.client.patch(PROFILE, json=PHONE).status_code == 200
    sql(OLD)
    changes = {"profile_update": {**PHONE["profile_update"], "bio": "Quick."}}
    assert anna.client.patch(PROFILE, json=changes).status_code == 200
    none = {"profile_update": {"phone_number": None}}
    assert anna.client.patch(PROFILE, json=none).status_code == 403


def test_an_account_is_deleted_after_a_recent_login_only(anna, log_in, sql):
    sql(OLD)
    response = anna.client.delete(ME)
    assert response.status_code == 403
    assert response.json["detail"] == "Log in again: this needs a login of the last 15 minutes."
    assert log_in().delete(ME).status_code == 204


# REQUIRE_CONFIRMED_EMAIL

NEW = {"new_cleaning": {"name": "Job", "price": 20}}


def test_where_the_address_must_be_confirmed_an_account_can_only_read_and_confirm(
    make_app, make_user, sql
):
    app = make_app(REQUIRE_CONFIRMED_EMAIL=True, PUBLIC_URL="https://phresh.example")
    client = make_user("carl").client
    client.application = app
    response = client.post("/api/cleanings/", json=NEW)
    assert response.status_code == 403
    assert response.json["detail"] == "Confirm your email address first, by the link in the mail."
    assert client.get("/api/users/me/offers/").status_code == 200
    assert client.patch(ME, json={"user_update": {"language": "ko"}}).status_code == 200
    sql("UPDATE users SET confirmed_key = email_key")
    assert client.post("/api/cleanings/", json=NEW).status_code == 201


def test_an_unconfirmed_account_may_do_everything_by_default(anna):
    assert anna.client.post("/api/cleanings/", json=NEW).status_code == 201
