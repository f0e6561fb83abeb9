"""Rate limits on logins and registrations: what counts, sliding windows, several workers."""

import http.client
import os
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from urllib.parse import urlencode

import pytest

from phresh.config import read_settings
from tests.tools.cluster import Phresh
from tests.tools.processes import copy_checkout
from tests.tools.users import PASSWORD

USERS = "/api/users/"
ME = f"{USERS}me/"
LOGIN = f"{USERS}login/token/"
ANNA = "anna@phresh.example"
WRONG = "wrong"
LIMITS = {
    "LOGIN_FAILURES_PER_ACCOUNT": 3,
    "LOGIN_FAILURES_PER_ADDRESS": 5,
    "REGISTRATIONS_PER_ADDRESS": 2,
}


@pytest.fixture
def make_client(make_app, app):
    """Return a function that makes clients of an app with low limits."""
    return lambda **values: make_app(**{**LIMITS, **values}).test_client()


@pytest.fixture
def client(make_client):
    return make_client()


def log_in(client, email=ANNA, password=WRONG, address="127.0.0.1", **headers):
    form = {"username": email, "password": password}
    environ = {"REMOTE_ADDR": address}
    return client.post(LOGIN, data=form, environ_base=environ, headers=headers)


def fail_to_log_in(client, times, email=ANNA, **options):
    for _ in range(times):
        assert log_in(client, email, **options).status_code == 401


def register(client, username, address="127.0.0.1", **values):
    new = {"email": f"{username}@phresh.io", "username": username, "password": PASSWORD, **values}
    environ = {"REMOTE_ADDR": address}
    return client.post(USERS, json={"new_user": new}, environ_base=environ)


def change_email(someone, old_password, client):
    headers = {"Authorization": f"Bearer {someone.token}"}
    body = {"user_update": {"email": "new@phresh.io", "old_password": old_password}}
    return client.patch(ME, json=body, headers=headers)


def age_attempts(sql, seconds):
    """Make the attempts so far so many seconds older."""
    sql("UPDATE attempts SET at = at - :seconds * interval '1 second'", seconds=seconds)


def expect_429(response):
    """Check that a response is a 429; return the seconds of its Retry-After."""
    assert response.status_code == 429, response.data
    assert response.content_type == "application/problem+json"
    seconds = response.headers["Retry-After"]
    assert re.fullmatch("[1-9][0-9]*", seconds)
    assert response.json["detail"] == f"Too many attempts. Try again in {seconds} seconds."
    return int(seconds)


def about(seconds):
    """Return the range of these seconds, less those that the test itself may have taken."""
    return range(seconds - 60, seconds + 1)


# Each limit


def test_the_rate_limits_have_the_expected_defaults():
    settings = read_settings({})
    assert settings["RATELIMIT_ENABLED"] is True
    assert settings["LOGIN_FAILURES_PER_ACCOUNT"] == 10
    assert settings["LOGIN_FAILURES_PER_ADDRESS"] == 50
    assert settings["LOGIN_WINDOW"] == 15 * 60
    assert settings["REGISTRATIONS_PER_ADDRESS"] == 20
    assert settings["REGISTRATION_WINDOW"] == 60 * 60


def test_a_login_after_10_failures_for_an_account_returns_429(make_app, anna):
    client = make_app().test_client()
    fail_to_log_in(client, 10)
    assert expect_429(log_in(client)) in about(15 * 60)


def test_a_login_after_50_failures_from_an_address_returns_429(make_app, app):
    client = make_app().test_client()
    for number in range(50):
        fail_to_log_in(client, 1, f"user-{number}@phresh.example")
    assert expect_429(log_in(client, "other@phresh.example")) in about(15 * 60)


def test_a_registration_after_20_from_an_address_returns_429(make_app, app):
    client = make_app().test_client()
    for number in range(20):
        assert register(client, f"user-{number}").status_code == 201
    assert expect_429(register(client, "other")) in about(60 * 60)


def test_below_the_limit_the_right_password_logs_in(client, anna):
    fail_to_log_in(client, 2)
    assert log_in(client, password=PASSWORD).status_code == 200
    fail_to_log_in(client, 1)


def test_at_the_limit_the_right_password_returns_429_and_is_not_verified(client, anna, monkeypatch):
    fail_to_log_in(client, 3)
    monkeypatch.delattr("phresh.accounts.passwords.Passwords.verify")
    assert expect_429(log_in(client, password=PASSWORD)) in about(900)


def test_the_account_limit_applies_across_addresses_and_to_no_other_account(client, anna, ben):
    for address in ("192.0.2.1", "192.0.2.2", "2001:db8::1"):
        fail_to_log_in(client, 1, address=address)
    expect_429(log_in(client, address="192.0.2.3"))
    assert log_in(client, ben.email, PASSWORD).status_code == 200


def test_the_address_limit_applies_across_accounts_and_to_no_other_address(client, anna, ben):
    for number in range(5):
        fail_to_log_in(client, 1, f"user-{number}@phresh.example")
    expect_429(log_in(client, ben.email, PASSWORD))
    expect_429(log_in(client, "other@phresh.example"))
    assert log_in(client, ben.email, PASSWORD, address="127.0.0.2").status_code == 200


def test_the_registration_limit_applies_to_no_other_address(client, app, sql):
    for username in ("carl", "dora"):
        assert register(client, username).status_code == 201
    expect_429(register(client, "emil"))
    assert register(client, "emil", address="127.0.0.2").status_code == 201
    assert sql("SELECT count(*) FROM users") == [(3,)]


def test_logins_and_registrations_are_counted_separately(client, anna):
    fail_to_log_in(client, 3)
    fail_to_log_in(client, 2, "other@phresh.example")
    assert register(client, "carl").status_code == 201
    assert register(client, "dora").status_code == 201
    expect_429(register(client, "emil"))


# What counts


def test_a_successful_login_is_not_counted_and_resets_nothing(client, anna, sql):
    for _ in range(6):
        assert log_in(client, password=PASSWORD).status_code == 200
    assert sql("SELECT count(*) FROM attempts") == [(0,)]
    fail_to_log_in(client, 2)
    assert log_in(client, password=PASSWORD).status_code == 200
    fail_to_log_in(client, 1)
    expect_429(log_in(client, password=PASSWORD))


def test_a_rate_limited_login_is_not_counted(client, anna, sql):
    fail_to_log_in(client, 3)
    before = sql("SELECT count(*) FROM attempts")
    for _ in range(3):
        expect_429(log_in(client))
    assert sql("SELECT count(*) FROM attempts") == before


def test_a_registration_with_a_taken_name_counts_and_an_invalid_one_does_not(client, anna):
    for _ in range(3):
        assert register(client, "carl", password="short").status_code == 422
    assert register(client, "anna").status_code == 409
    assert register(client, "carl", email=ANNA.upper()).status_code == 409
    expect_429(register(client, "carl"))


@pytest.mark.parametrize("email", [ANNA, "nobody@phresh.example"])
@pytest.mark.parametrize(
    "case_changes",
    [
        [str.lower] * 4,
        [str.lower, str.upper, str.title, str.swapcase],
        [str.upper, str.lower, str.upper, str.lower],
    ],
)
def test_the_account_limit_is_the_same_for_known_and_unknown_emails(
    client, anna, email, case_changes
):
    responses = [log_in(client, change_case(email)) for change_case in case_changes]
    assert [response.status_code for response in responses] == [401, 401, 401, 429]
    assert expect_429(responses[-1]) in about(900)


def test_unknown_emails_are_counted_separately(client, anna):
    fail_to_log_in(client, 3, "nobody@phresh.example")
    expect_429(log_in(client, "nobody@phresh.example"))
    fail_to_log_in(client, 1, "other@phresh.example")
    assert log_in(client, password=PASSWORD).status_code == 200


def test_the_keys_of_attempts_contain_no_email(client, anna, sql):
    fail_to_log_in(client, 1, "nobody@phresh.example")
    fail_to_log_in(client, 1)
    keys = {key for (key,) in sql("SELECT key FROM attempts")}
    assert len(keys) == 3
    assert not any("@" in key or "nobody" in key for key in keys)


def test_logins_to_a_disabled_account_count_even_with_the_right_password(client, anna, sql):
    sql("UPDATE users SET is_active = false")
    fail_to_log_in(client, 3, password=PASSWORD)
    expect_429(log_in(client, password=PASSWORD))


def test_wrong_old_passwords_count_as_failed_logins(client, anna, ben):
    assert change_email(anna, WRONG, client).status_code == 403
    fail_to_log_in(client, 2)
    expect_429(change_email(anna, PASSWORD, client))
    expect_429(log_in(client, password=PASSWORD))
    assert change_email(ben, PASSWORD, client).status_code == 200


# The address of the client


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", True),
        ("2001:db8::1", "2001:DB8:0:0::2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("", "", True),
    ],
)
def test_limits_apply_per_ipv4_address_or_64_bit_ipv6_prefix(client, app, first, second, same):
    for username in ("carl", "dora"):
        assert register(client, username, address=first).status_code == 201
    expect_429(register(client, "emil", address=first))
    expected = 429 if same else 201
    assert register(client, "emil", address=second).status_code == expected


@pytest.mark.parametrize(
    ("proxies", "forwarded"),
    [
        (0, ("192.0.2.1", "192.0.2.2")),
        (1, ("192.0.2.1, 192.0.2.9", "192.0.2.2, 192.0.2.9")),
        (2, ("192.0.2.1, 192.0.2.9, 192.0.2.7", "192.0.2.2, 192.0.2.9, 192.0.2.8")),
    ],
)
def test_forwarded_addresses_not_written_by_a_trusted_proxy_are_ignored(
    make_client, app, proxies, forwarded
):
    client = make_client(TRUSTED_PROXIES=proxies)
    for number in range(5):
        email = f"user-{number}@phresh.example"
        fail_to_log_in(client, 1, email, **{"X-Forwarded-For": forwarded[number % 2]})
    for value in forwarded:
        expect_429(log_in(client, "other@phresh.example", **{"X-Forwarded-For": value}))


@pytest.mark.parametrize("proxies", [1, 2])
def test_clients_behind_trusted_proxies_are_counted_separately(make_client, app, proxies):
    client = make_client(TRUSTED_PROXIES=proxies)
    rest = ", 192.0.2.9" * (proxies - 1)
    for number in range(5):
        headers = {"X-Forwarded-For": "192.0.2.1" + rest}
        fail_to_log_in(client, 1, f"user-{number}@phresh.example", **headers)
    expect_429(log_in(client, **headers))
    fail_to_log_in(client, 1, **{"X-Forwarded-For": "192.0.2.2" + rest})


@pytest.mark.parametrize(
    ("first", "same", "other"),
    [
        ("192.0.2.1:1234", "192.0.2.1:99", "192.0.2.2:1234"),
        ("192.0.2.1:1234", "192.0.2.1", "192.0.2.2"),
        ("[2001:db8::1]:1234", "[2001:db8::1]:99", "[2001:db8:0:1::1]:1234"),
        ("[2001:db8::1]", "2001:db8::1", "[2001:db8:0:1::1]"),
    ],
)
def test_the_port_in_a_forwarded_address_is_ignored(make_client, app, first, same, other):
    client = make_client(TRUSTED_PROXIES=1)
    for number in range(5):
        fail_to_log_in(client, 1, f"user-{number}@phresh.example", **{"X-Forwarded-For": first})
    expect_429(log_in(client, **{"X-Forwarded-For": same}))
    fail_to_log_in(client, 1, **{"X-Forwarded-For": other})


# Retry-After and sliding windows


def test_login_works_again_after_the_seconds_of_retry_after(client, anna, sql):
    fail_to_log_in(client, 3)
    seconds = expect_429(log_in(client))
    age_attempts(sql, seconds - 60)
    assert expect_429(log_in(client, password=PASSWORD)) in about(60)
    age_attempts(sql, 60)
    assert log_in(client, password=PASSWORD).status_code == 200


@pytest.mark.parametrize(("ages", "left"), [((500, 300, 100), 400), ((840, 800, 700), 60)])
def test_the_login_window_slides(client, anna, sql, ages, left):
    for before, after in zip(ages, (*ages[1:], 0), strict=True):
        fail_to_log_in(client, 1)
        age_attempts(sql, before - after)
    assert expect_429(log_in(client)) in about(left)
    age_attempts(sql, left)
    fail_to_log_in(client, 1)
    assert expect_429(log_in(client)) in about(900 - ages[1] - left)


def test_retry_after_lasts_until_the_attempts_are_below_the_limit(make_client, anna, sql):
    fail_to_log_in(make_client(), 3)
    age_attempts(sql, 300)
    fail_to_log_in(make_client(LOGIN_FAILURES_PER_ACCOUNT=5), 2)
    assert expect_429(log_in(make_client(LOGIN_FAILURES_PER_ACCOUNT=2))) in about(900)
    assert expect_429(log_in(make_client(LOGIN_FAILURES_PER_ACCOUNT=4))) in about(600)


def test_retry_after_is_the_longest_wait_of_several_limits(client, anna, sql):
    fail_to_log_in(client, 2)
    age_attempts(sql, 300)
    fail_to_log_in(client, 1, "a@phresh.example")
    fail_to_log_in(client, 1, "b@phresh.example")
    age_attempts(sql, 300)
    fail_to_log_in(client, 1, address="127.0.0.2")
    fail_to_log_in(client, 1, "c@phresh.example")
    assert expect_429(log_in(client, "d@phresh.example")) in about(300)
    assert expect_429(log_in(client, address="127.0.0.3")) in about(300)
    age_attempts(sql, 301)
    assert log_in(client).status_code == 401


@pytest.mark.parametrize("seconds", [1, 60, 3600])
def test_the_windows_follow_their_settings(make_client, anna, sql, seconds):
    client = make_client(LOGIN_WINDOW=seconds, REGISTRATION_WINDOW=seconds)
    sql(
        "INSERT INTO attempts (key, at) SELECT key, now() + interval '1 minute' FROM"
        " generate_series(1, 3), (VALUES ('registration from 127.0.0.1'), (:key)) AS k (key)",
        key=f"login to user {anna.id}",
    )
    assert expect_429(log_in(client)) in about(seconds + 60)
    assert expect_429(register(client, "carl")) in about(seconds + 60)
    age_attempts(sql, seconds + 60)
    fail_to_log_in(client, 1)
    assert register(client, "carl").status_code == 201


# Concurrent requests; disabled limits


def test_concurrent_logins_do_not_exceed_the_limit(make_client, anna):
    app = make_client().application
    with ThreadPoolExecutor(12) as pool:
        statuses = list(pool.map(lambda _: log_in(app.test_client()).status_code, range(12)))
    assert sorted(statuses) == [401] * 3 + [429] * 9


def test_concurrent_registrations_do_not_exceed_the_limit(make_client, app, sql):
    limited_app = make_client().application

    def attempt(number):
        return register(limited_app.test_client(), f"user-{number}").status_code

    with ThreadPoolExecutor(12) as pool:
        assert sorted(pool.map(attempt, range(12))) == [201] * 2 + [429] * 10
    assert sql("SELECT count(*) FROM users") == [(2,)]


def test_disabled_limits_count_and_reject_nothing(make_client, anna, sql):
    client = make_client(RATELIMIT_ENABLED=False)
    fail_to_log_in(client, 6)
    for number in range(3):
        assert register(client, f"user-{number}").status_code == 201
    assert sql("SELECT count(*) FROM attempts") == [(0,)]
    fail_to_log_in(make_client(), 3)
    assert log_in(client, password=PASSWORD).status_code == 200


@pytest.mark.parametrize(("value", "enabled"), [("false", False), ("0", False), ("true", True)])
def test_the_environment_can_disable_the_limits(monkeypatch, value, enabled):
    monkeypatch.setenv("RATELIMIT_ENABLED", value)
    assert read_settings()["RATELIMIT_ENABLED"] is enabled


def test_the_openapi_document_lists_429_for_limited_operations(client, app):
    paths = client.get("/openapi.json").json["paths"]
    for path, method in ((USERS, "post"), (LOGIN, "post"), (ME, "patch")):
        assert "429" in paths[path][method]["responses"]


# Several workers


@pytest.fixture
def server(tmp_path, database_url, app):
    checkout = copy_checkout(tmp_path / "checkout")
    cheap = {"ARGON2_TIME_COST": "1", "ARGON2_MEMORY_COST": "8"}
    limits = {name: str(times) for name, times in LIMITS.items()}
    server = Phresh(checkout, database_url, WORKERS="2", **cheap, **limits)
    yield server
    assert server.stop() == 0


@contextmanager
def suspended(process):
    """Suspend a process; resume it at the end."""
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


@pytest.mark.slow
def test_two_workers_share_the_login_limit(server, anna):
    def attempt(password=WRONG):
        form = urlencode({"username": ANNA, "password": password})
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=25)
        with closing(connection):
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            connection.request("POST", LOGIN, form, headers)
            return connection.getresponse().status

    first, second = server.workers()
    with suspended(second):
        assert attempt(PASSWORD) == 200
        assert [attempt(), attempt()] == [401, 401]
    with suspended(first):
        assert attempt(PASSWORD) == 200
        assert [attempt(), attempt()] == [401, 429]
    with suspended(second):
        assert attempt(PASSWORD) == 429
