"""The second factor: switched on and off, asked for at each login, guessed by nobody."""

import time
from concurrent.futures import ThreadPoolExecutor

import pyotp
import pytest

from tests.tools.jobs import run_jobs
from tests.tools.users import PASSWORD

TWO_FACTOR, ME = "/api/users/me/two-factor/", "/api/users/me/"
LOGIN = "/api/users/login/token/"
STEP = 30


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves only when it is told to."""

    class Clock:
        now = 1_800_000_000.0

    monkeypatch.setattr("phresh.accounts.second_factor.time", Clock)
    Clock.time = staticmethod(lambda: Clock.now)
    return Clock


@pytest.fixture
def app_of_anna(anna, clock):
    """Switch Anna's second factor on; gives what her authenticator app shows, and the codes."""

    class AuthenticatorApp:
        secret = anna.client.post(TWO_FACTOR).json["secret"]

        def code(self, steps=0):
            return pyotp.TOTP(self.secret).at(int(clock.now) + steps * STEP)

    authenticator = AuthenticatorApp()
    response = confirm(anna.client, authenticator.code())
    assert response.status_code == 200
    authenticator.recovery_codes = response.json["recovery_codes"]
    clock.now += STEP
    return authenticator


def confirm(client, code):
    return client.put(TWO_FACTOR, json={"two_factor": {"code": code}})


def log_in(client, otp=None, password=PASSWORD, email="anna@phresh.example"):
    form = {"username": email, "password": password}
    return client.post(LOGIN, data=form if otp is None else {**form, "otp": otp})


def actions(sql, user):
    lines = "SELECT action FROM audit_log WHERE user_id = :id ORDER BY id"
    return [action for (action,) in sql(lines, id=user.id)]


def test_the_secret_is_one_for_an_app(anna):
    begun = anna.client.post(TWO_FACTOR)
    assert begun.headers["Cache-Control"] == "private, no-store"
    totp = pyotp.parse_uri(begun.json["uri"])
    assert (totp.secret, totp.name, totp.issuer) == (begun.json["secret"], "anna", "Phresh")
    assert anna.client.get(ME).json["has_two_factor"] is False


def test_a_login_needs_a_code_once_it_is_on(client, anna, ben, app_of_anna):
    assert anna.client.get(ME).json["has_two_factor"] is True
    asked = log_in(client)
    assert (asked.status_code, asked.json["error"]) == (400, "mfa_required")
    assert "`otp`" in asked.json["detail"]
    assert log_in(client, app_of_anna.code()).status_code == 200
    assert log_in(client, email=ben.email).status_code == 200


def test_who_does_not_know_the_password_is_not_asked(client, anna, app_of_anna):
    assert log_in(client, password="wrong horse battery").json["error"] == "invalid_grant"


def test_a_code_counts_once(client, anna, app_of_anna, clock):
    code = app_of_anna.code()
    assert log_in(client, code).status_code == 200
    again = log_in(client, code)
    assert (again.status_code, again.json["error"]) == (400, "invalid_grant")
    clock.now += STEP
    assert log_in(client, app_of_anna.code()).status_code == 200
    assert log_in(client, app_of_anna.code(-1)).status_code == 400  # before the last one


@pytest.mark.parametrize(("steps", "status"), [(-2, 400), (-1, 200), (1, 200), (2, 400)])
def test_clocks_may_differ_by_a_step(client, anna, app_of_anna, clock, steps, status):
    clock.now += 10 * STEP
    assert log_in(client, app_of_anna.code(steps)).status_code == status


@pytest.mark.parametrize("otp", ["000000", "x", "123 456", "\u0661\u0662\u0663\u0664\u0665\u0666"])
def test_a_wrong_code_is_rejected_and_logged(client, anna, app_of_anna, sql, otp):
    rejected = log_in(client, otp)
    assert (rejected.status_code, rejected.json["error"]) == (400, "invalid_grant")
    assert actions(sql, anna)[-1] == "code_failed"


def test_of_two_requests_with_one_code_one_logs_in(app, anna, app_of_anna):
    code = app_of_anna.code()
    with ThreadPoolExecutor(4) as threads:
        clients = [app.test_client() for _ in range(4)]
        found = [*threads.map(lambda client: log_in(client, code).status_code, clients)]
    assert sorted(found) == [200, 400, 400, 400]


def test_a_recovery_code_counts_once_in_any_case_and_with_or_without_hyphens(
    client, anna, app_of_anna, sql
):
    first, second, *_ = app_of_anna.recovery_codes
    assert len(set(app_of_anna.recovery_codes)) == 10
    assert log_in(client, first).status_code == 200
    assert log_in(client, first).status_code == 400
    assert log_in(client, second.replace("-", "").upper()).status_code == 200
    assert "recovery_code_used" in actions(sql, anna)
    stored = sql("SELECT hash FROM recovery_codes")
    assert len(stored) == 8
    assert not any(code.encode() in each.hash for each in stored for code in (first, second))


def test_of_two_requests_with_one_recovery_code_one_logs_in(app, anna, app_of_anna):
    code = app_of_anna.recovery_codes[0]
    with ThreadPoolExecutor(4) as threads:
        clients = [app.test_client() for _ in range(4)]
        found = [*threads.map(lambda client: log_in(client, code).status_code, clients)]
    assert sorted(found) == [200, 400, 400, 400]


def test_a_recovery_code_of_another_account_is_wrong(client, anna, ben, app_of_anna):
    begun = ben.client.post(TWO_FACTOR).json["secret"]
    assert confirm(ben.client, pyotp.TOTP(begun).at(1_800_000_000 + STEP)).status_code == 200
    assert log_in(client, app_of_anna.recovery_codes[0], email=ben.email).status_code == 400


def test_codes_are_tried_10_times_at_most(client, anna, app_of_anna, sql):
    sql("DELETE FROM quotas WHERE key LIKE 'code of user %'")
    found = [log_in(client, "000000").status_code for _ in range(11)]
    assert found == [400] * 10 + [429]
    rejected = log_in(client, app_of_anna.code())
    assert rejected.status_code == 429
    assert rejected.headers["Retry-After"]
    assert anna.client.get(ME).status_code == 200


def test_switching_it_on_ends_other_logins(client, app, anna, clock):
    token = log_in(client).json["access_token"]
    secret = anna.client.post(TWO_FACTOR).json["secret"]
    assert confirm(anna.client, pyotp.TOTP(secret).at(int(clock.now))).status_code == 200
    assert client.get(ME, headers={"Authorization": f"Bearer {token}"}).status_code == 401
    assert anna.client.get(ME).status_code == 200


def test_a_wrong_code_does_not_switch_it_on(client, anna, clock, sql):
    assert confirm(anna.client, "123456").status_code == 409
    anna.client.post(TWO_FACTOR)
    rejected = confirm(anna.client, "000000")
    assert rejected.status_code == 422
    assert rejected.json["errors"][0]["pointer"] == "/two_factor/code"
    assert log_in(client).status_code == 200
    assert actions(sql, anna) == ["code_failed", "logged_in"]


def test_once_it_is_on_the_secret_stays(anna, app_of_anna):
    assert anna.client.post(TWO_FACTOR).status_code == 409


def test_new_recovery_codes_replace_the_old_ones(client, anna, app_of_anna):
    renewed = confirm(anna.client, app_of_anna.code())
    assert renewed.status_code == 200
    assert log_in(client, app_of_anna.recovery_codes[0]).status_code == 400
    assert log_in(client, renewed.json["recovery_codes"][0]).status_code == 200


def test_it_is_switched_off(client, anna, app_of_anna, sql):
    assert anna.client.delete(TWO_FACTOR).status_code == 204
    assert anna.client.delete(TWO_FACTOR).status_code == 404
    assert log_in(client).status_code == 200
    assert sql("SELECT count(*) FROM recovery_codes") == [(0,)]


@pytest.mark.parametrize("method", ["post", "put", "delete"])
def test_after_an_old_login_it_is_not_changed(anna, sql, method):
    sql("UPDATE tokens SET created_at = now() - interval '16 minutes'")
    body = {"two_factor": {"code": "123456"}} if method == "put" else None
    assert getattr(anna.client, method)(TWO_FACTOR, json=body).status_code == 403


def test_with_the_password_it_is_begun_after_an_old_login(anna, sql):
    sql("UPDATE tokens SET created_at = now() - interval '16 minutes'")
    body = {"two_factor": {"old_password": PASSWORD}}
    assert anna.client.post(TWO_FACTOR, json=body).status_code == 200


def test_a_recovered_password_does_not_replace_the_second_factor(client, anna, app_of_anna, sql):
    token = "x" * 43
    sql(
        "INSERT INTO one_time_tokens (hash, user_id, purpose, email_key, expires_at) "
        "SELECT sha256(:token), id, 'recovery', email_key, 'infinity' FROM users",
        token=token.encode(),
    )
    new = {"recovery": {"token": token, "password": "four cats on a roof"}}
    assert client.put("/api/users/recovery/", json=new).status_code == 204
    assert log_in(client, password="four cats on a roof").json["error"] == "mfa_required"


def test_mails_tell_of_it(app, anna, app_of_anna):
    app.extensions["mail"].clear()
    run_jobs(app)
    assert anna.client.delete(TWO_FACTOR).status_code == 204
    run_jobs(app)
    subjects = [str(mail["Subject"]) for mail in app.extensions["mail"]]
    assert subjects == ["Your second factor is on", "Your second factor is off"]


def test_a_login_from_a_new_network_is_told(app, anna):
    app.extensions["mail"].clear()
    for address in ("192.0.2.1", "192.0.2.1", "198.51.100.7"):
        client = app.test_client()
        client.environ_base["REMOTE_ADDR"] = address
        assert log_in(client).status_code == 200
    run_jobs(app)
    texts = [mail.get_body(("plain",)).get_content() for mail in app.extensions["mail"]]
    assert len(texts) == 2
    for text, address in zip(texts, ("192.0.2.1", "198.51.100.7"), strict=True):
        assert f"from {address}," in text
        assert time.strftime("%Y-", time.gmtime()) in text


def test_a_network_stays_known_while_it_is_used(app, anna, client, sql):
    log_in(client)
    known = "SELECT count(*) FROM quotas WHERE full_at > now() + interval '29 days 23 hours'"
    sql("UPDATE quotas SET full_at = now() + interval '1 day' WHERE full_at > now() + '1 day'")
    log_in(client)
    assert sql(known) == [(1,)]
