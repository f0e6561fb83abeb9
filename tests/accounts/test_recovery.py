"""Mails about an account: confirm the address, set a new password, and be told."""

import re
import statistics
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from phresh.accounts import audit
from phresh.accounts.mails import RECOVERY_MINUTES
from tests.tools.jobs import run_jobs
from tests.tools.processes import wait_until
from tests.tools.users import PASSWORD

USERS = "/api/users/"
CONFIRMATION, RECOVERY = f"{USERS}confirmation/", f"{USERS}recovery/"
LOGIN, ME = f"{USERS}login/token/", f"{USERS}me/"
NEW = "four cats on a roof"
PUBLIC = "https://phresh.example"
INVALID = [
    {"pointer": "/recovery/token", "detail": "The link is no longer valid. Ask for another one."}
]
LINK = re.compile(rf"^{PUBLIC}/account/(\w+)/#token=([\w-]{{43}})$", re.MULTILINE)


@pytest.fixture
def mail_app(make_app):
    return make_app(ACCOUNT_URL=None, PUBLIC_URL=PUBLIC)


@pytest.fixture
def client(mail_app):
    return mail_app.test_client()


@pytest.fixture
def mails(mail_app):
    """Run the jobs, and give what was sent since the last time: recipient, subject and text."""

    def received():
        run_jobs(mail_app)
        sent = mail_app.extensions["mail"][:]
        mail_app.extensions["mail"].clear()
        return [
            (str(mail["To"]), str(mail["Subject"]), mail.get_body(("plain",)).get_content())
            for mail in sent
        ]

    return received


@pytest.fixture
def token(client, mails):
    """Ask for a mail, and give the token of its link."""

    def ask(path, email):
        member = path.split("/")[-2]
        assert client.post(path, json={member: {"email": email}}).status_code == 204
        [(to, _, text)] = mails()
        assert to == email
        [(purpose, found)] = LINK.findall(text)
        assert purpose == member
        return found

    return ask


def confirm(client, token):
    return client.post(CONFIRMATION, json={"confirmation": {"token": token}})


def recover(client, token, password=NEW):
    return client.put(RECOVERY, json={"recovery": {"token": token, "password": password}})


def bearer(user):
    return {"Authorization": f"Bearer {user.token}"}


def log_in(client, password, email="anna@phresh.example"):
    return client.post(LOGIN, data={"username": email, "password": password}).status_code


def register(client, **headers):
    new = {"email": "carl@phresh.example", "username": "carl", "password": PASSWORD}
    response = client.post(USERS, json={"new_user": new}, headers=headers)
    assert response.status_code == 201
    return response.json


def me(client, registered):
    token = registered["access_token"]["access_token"]
    return client.get(ME, headers={"Authorization": f"Bearer {token}"}).json


# Confirm the address


def test_a_registration_is_confirmed_by_the_link_in_its_mail_once(client, mails):
    registered = register(client)
    assert registered["email_verified"] is False
    [(to, subject, text)] = mails()
    assert (to, subject) == ("carl@phresh.example", "Confirm your email address")
    [(_, token)] = LINK.findall(text)
    assert confirm(client, token).status_code == 204
    assert me(client, registered)["email_verified"] is True
    assert confirm(client, token).status_code == 422


def test_the_language_of_a_mail_is_that_of_the_account(client, mails):
    registered = register(client, **{"Accept-Language": "ko-KR,ko;q=0.9,en;q=0.5"})
    assert registered["language"] == "ko"
    assert mails()[0][1] == "이메일 주소를 확인해 주세요"
    headers = {"Authorization": f"Bearer {registered['access_token']['access_token']}"}
    change = {"user_update": {"language": "en"}}
    assert client.patch(ME, json=change, headers=headers).json["language"] == "en"
    client.post(CONFIRMATION, json={"confirmation": {"email": "carl@phresh.example"}})
    assert mails()[0][1] == "Confirm your email address"


@pytest.mark.parametrize("header", ["", "fr", "*;q=0", "x" * 300, "ko;q=0, fr"])
def test_the_language_is_english_where_the_client_wants_another(client, header):
    assert register(client, **{"Accept-Language": header})["language"] == "en"


def test_a_new_address_is_to_be_confirmed_and_the_former_one_is_told(client, anna, mails, token):
    assert confirm(client, token(CONFIRMATION, anna.email)).status_code == 204
    change = {"user_update": {"email": "anna@new.example", "old_password": PASSWORD}}
    response = client.patch(ME, json=change, headers=bearer(anna))
    assert response.json["email_verified"] is False
    (to_old, subject, _), (to_new, _, text) = sorted(
        mails(), key=lambda mail: mail[0] != anna.email
    )
    assert (to_old, subject) == (anna.email, "Your email address was changed")
    assert to_new == "anna@new.example"
    [(_, found)] = LINK.findall(text)
    assert confirm(client, found).status_code == 204
    assert client.get(ME, headers=bearer(anna)).json["email_verified"] is True


def test_a_link_to_a_former_address_confirms_nothing(client, anna, token, sql):
    found = token(CONFIRMATION, anna.email)
    sql("UPDATE users SET email = 'anna@new.example'")
    assert confirm(client, found).status_code == 422


def test_no_mail_is_sent_to_a_confirmed_address(client, anna, mails, token):
    assert confirm(client, token(CONFIRMATION, anna.email)).status_code == 204
    client.post(CONFIRMATION, json={"confirmation": {"email": anna.email}})
    assert mails() == []


@pytest.mark.parametrize("body", [{}, {"email": "a@b.example", "token": "x"}])
def test_a_confirmation_has_an_address_or_a_token(client, body):
    assert client.post(CONFIRMATION, json={"confirmation": body}).status_code == 422


# Recover


def test_a_new_password_is_set_by_the_link_in_the_mail_and_ends_all_else(
    client, anna, mails, token
):
    first, second = token(RECOVERY, anna.email), token(RECOVERY, anna.email)
    assert recover(client, second).status_code == 204
    assert client.get(ME, headers=bearer(anna)).status_code == 401
    assert log_in(client, PASSWORD) == 400
    assert log_in(client, NEW) == 200
    [(to, subject, _), (_, login, _)] = mails()
    assert (to, subject) == (anna.email, "Your password was changed")
    assert login == "A login from a new network"
    for used in (first, second):
        response = recover(client, used, "five cats on a roof")
        assert response.status_code == 422
        assert response.json["errors"] == INVALID
    assert log_in(client, NEW) == 200


def test_a_recovery_confirms_the_address(client, anna, token, sql):
    assert recover(client, token(RECOVERY, anna.email)).status_code == 204
    assert sql("SELECT confirmed_key = email_key FROM users") == [(True,)]


def test_one_of_two_uses_of_a_token_at_the_same_time_succeeds(mail_app, anna, token):
    found = token(RECOVERY, anna.email)

    def use(number):
        return recover(mail_app.test_client(), found, f"{number} cats on a roof").status_code

    with ThreadPoolExecutor(5) as pool:
        assert sorted(pool.map(use, range(5))) == [204, 422, 422, 422, 422]


@pytest.fixture
def at_the_same_time(monkeypatch, sql):
    """Run a request while another one, which is about to commit, holds its locks."""
    waiting = """
        SELECT count(*) > 0 FROM pg_stat_activity
        WHERE datname = current_database() AND pg_blocking_pids(pid) <> '{}'
    """

    def run(action, first, second):
        """Return the status of both.

        :param action: of the line in the audit log, which ``first`` writes when it has its locks
        """
        record, begun = audit.record, []

        def record_during_another(recorded, **about):
            record(recorded, **about)
            if recorded == action and not begun:
                begun.append(pool.submit(second))
                assert wait_until(lambda: begun[0].done() or sql(waiting) == [(True,)])

        monkeypatch.setattr(audit, "record", record_during_another)
        with ThreadPoolExecutor(1) as pool:
            status = first()
            return status, begun[0].result()

    return run


@pytest.mark.parametrize("is_first", [True, False])
def test_a_login_with_the_old_password_during_a_recovery_leaves_no_valid_token(
    mail_app, anna, token, sql, at_the_same_time, is_first
):
    found = token(RECOVERY, anna.email)

    def old_login():
        return log_in(mail_app.test_client(), PASSWORD)

    def recovery():
        return recover(mail_app.test_client(), found).status_code

    if is_first:
        assert at_the_same_time("logged_in", old_login, recovery) == (200, 204)
    else:
        assert at_the_same_time("password_recovered", recovery, old_login) == (204, 400)
    assert sql("SELECT count(*) FROM tokens") == [(0,)]
    assert log_in(mail_app.test_client(), NEW) == 200


@pytest.mark.parametrize("is_first", [True, False])
def test_a_confirmation_during_a_change_does_not_confirm_the_new_address(
    mail_app, anna, token, at_the_same_time, is_first
):
    found = token(CONFIRMATION, anna.email)

    def confirmation():
        return confirm(mail_app.test_client(), found).status_code

    def change():
        new = {"user_update": {"email": "anna@new.example", "old_password": PASSWORD}}
        return mail_app.test_client().patch(ME, json=new, headers=bearer(anna)).status_code

    if is_first:
        assert at_the_same_time("email_confirmed", confirmation, change) == (204, 200)
    else:
        assert at_the_same_time("email_changed", change, confirmation) == (200, 422)
    changed = mail_app.test_client().get(ME, headers=bearer(anna)).json
    assert (changed["email"], changed["email_verified"]) == ("anna@new.example", False)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE one_time_tokens SET expires_at = now()",
        "UPDATE users SET email = 'anna@new.example'",
        "UPDATE users SET is_active = false",
        "UPDATE one_time_tokens SET purpose = 'confirmation'",
    ],
)
def test_a_link_that_no_longer_counts_changes_nothing(client, anna, token, sql, change):
    found = token(RECOVERY, anna.email)
    sql(change)
    before = sql("SELECT password_hash FROM users")
    assert recover(client, found).json["errors"] == INVALID
    assert sql("SELECT password_hash FROM users") == before


def test_a_changed_password_ends_the_links_that_set_one(client, anna, token):
    found = token(RECOVERY, anna.email)
    change = {"user_update": {"password": NEW, "old_password": PASSWORD}}
    assert client.patch(ME, json=change, headers=bearer(anna)).status_code == 200
    assert recover(client, found, "five cats on a roof").status_code == 422


def test_a_link_expires(client, anna, token, sql):
    token(RECOVERY, anna.email)
    lifetime = "round(extract(epoch FROM expires_at - created_at) / 60)"
    assert sql(f"SELECT {lifetime} FROM one_time_tokens") == [(RECOVERY_MINUTES,)]


@pytest.mark.parametrize("password", ["anna", "ANNA@phresh.example", "password123", "short"])
def test_the_rules_for_passwords_hold(client, anna, token, password):
    found = token(RECOVERY, anna.email)
    assert recover(client, found, password).status_code == 422
    assert recover(client, found).status_code == 204


@pytest.mark.parametrize("path", [CONFIRMATION, RECOVERY])
def test_the_response_is_the_same_for_every_address(client, anna, ben, mails, sql, path):
    sql("UPDATE users SET is_active = false WHERE username = 'ben'")
    member = path.split("/")[-2]
    seen = set()
    for email in (anna.email, ben.email, "nobody@phresh.example"):
        response = client.post(path, json={member: {"email": email}})
        headers = {name: value for name, value in response.headers if name != "X-Request-Id"}
        headers.pop("RateLimit")  # that of the network goes on
        seen.add((response.status_code, response.data, tuple(sorted(headers.items()))))
    assert len(seen) == 1
    assert [to for to, _, _ in mails()] == [anna.email]


@pytest.mark.parametrize("path", [CONFIRMATION, RECOVERY])
def test_mails_are_limited_for_an_address_whether_or_not_an_account_has_it(client, anna, path):
    member = path.split("/")[-2]
    for email in (anna.email, "nobody@phresh.example"):
        codes = [client.post(path, json={member: {"email": email}}).status_code for _ in range(6)]
        assert codes == [204] * 5 + [429]


def test_no_token_is_stored_where_others_can_read_it(client, anna, sql, token):
    client.post(RECOVERY, json={"recovery": {"email": anna.email}})
    [(arguments,)] = sql("SELECT args - 'request_id' FROM procrastinate_jobs")
    assert arguments == {"email_key": anna.email}
    sql("DELETE FROM procrastinate_jobs")
    found = token(RECOVERY, anna.email)
    assert sql("SELECT hash = sha256(:token) FROM one_time_tokens", token=found.encode()) == [
        (True,)
    ]


@pytest.mark.parametrize("path", [CONFIRMATION, RECOVERY])
def test_a_server_that_sends_no_mail_says_so(make_app, anna, path):
    member = path.split("/")[-2]
    response = (
        make_app(MAIL_URL=None).test_client().post(path, json={member: {"email": anna.email}})
    )
    assert response.status_code == 503
    assert response.json["detail"] == "This server sends no mail."


@pytest.mark.parametrize("path", [CONFIRMATION, RECOVERY])
def test_the_statements_are_the_same_for_every_address(client, anna, statements, path):
    member, seen = path.split("/")[-2], []
    for email in (anna.email, "nobody@phresh.example"):
        statements.clear()
        assert client.post(path, json={member: {"email": email}}).status_code == 204
        seen.append(statements[:])
    assert len(seen[0]) > 1
    assert seen[0] == seen[1]


@pytest.mark.slow
@pytest.mark.parametrize("path", [CONFIRMATION, RECOVERY])
def test_the_time_is_the_same_for_every_address(make_app, anna, path):
    client, member = make_app(RATELIMIT_ENABLED=False).test_client(), path.split("/")[-2]
    times = {anna.email: [], "nobody@phresh.example": []}
    for _ in range(50):
        for email, seconds in times.items():
            began = time.perf_counter()
            assert client.post(path, json={member: {"email": email}}).status_code == 204
            seconds.append(time.perf_counter() - began)
    known, unknown = (statistics.median(seconds) for seconds in times.values())
    assert 0.5 < known / unknown < 2
