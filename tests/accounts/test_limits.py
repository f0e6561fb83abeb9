"""Limits on guessing: reached and not reached, sliding, shared by all workers."""

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
    """Make clients of an app with few tries."""
    return lambda **values: make_app(**{**LIMITS, **values}).test_client()


@pytest.fixture
def client(make_client):
    return make_client()


def log_in(client, email=ANNA, password=WRONG, address="127.0.0.1", **headers):
    form = {"username": email, "password": password}
    environ = {"REMOTE_ADDR": address}
    return client.post(LOGIN, data=form, environ_base=environ, headers=headers)


def fail(client, times, email=ANNA, **options):
    for _ in range(times):
        assert log_in(client, email, **options).status_code == 401


def register(client, username, address="127.0.0.1", **values):
    new = {"email": f"{username}@phresh.io", "username": username, "password": PASSWORD, **values}
    environ = {"REMOTE_ADDR": address}
    return client.post(USERS, json={"new_user": new}, environ_base=environ)


def change(someone, old_password, client):
    headers = {"Authorization": f"Bearer {someone.token}"}
    body = {"user_update": {"email": "new@phresh.io", "old_password": old_password}}
    return client.patch(ME, json=body, headers=headers)


def age(sql, seconds):
    """Let so many seconds pass for the tries so far."""
    sql("UPDATE attempts SET at = at - :seconds * interval '1 second'", seconds=seconds)


def waits(response):
    assert response.status_code == 429, response.data
    assert response.content_type == "application/problem+json"
    seconds = response.headers["Retry-After"]
    assert re.fullmatch("[1-9][0-9]*", seconds)
    assert response.json["detail"] == f"Too many attempts. Try again in {seconds} seconds."
    return int(seconds)


def about(seconds):
    """So many seconds, less those that the test itself took."""
    return range(seconds - 60, seconds + 1)


# Each limit


def test_the_limits_are_these_unless_set():
    settings = read_settings({})
    assert settings["RATELIMIT_ENABLED"] is True
    assert settings["LOGIN_FAILURES_PER_ACCOUNT"] == 10
    assert settings["LOGIN_FAILURES_PER_ADDRESS"] == 50
    assert settings["LOGIN_WINDOW"] == 15 * 60
    assert settings["REGISTRATIONS_PER_ADDRESS"] == 20
    assert settings["REGISTRATION_WINDOW"] == 60 * 60


def test_10_failed_logins_to_an_account_are_enough(make_app, anna):
    client = make_app().test_client()
    fail(client, 10)
    assert waits(log_in(client)) in about(15 * 60)


def test_50_failed_logins_from_an_address_are_enough(make_app, app):
    client = make_app().test_client()
    for number in range(50):
        fail(client, 1, f"user-{number}@phresh.example")
    assert waits(log_in(client, "other@phresh.example")) in about(15 * 60)


def test_20_registrations_from_an_address_are_enough(make_app, app):
    client = make_app().test_client()
    for number in range(20):
        assert register(client, f"user-{number}").status_code == 201
    assert waits(register(client, "other")) in about(60 * 60)


def test_before_the_limit_the_right_password_lets_in(client, anna):
    fail(client, 2)
    assert log_in(client, password=PASSWORD).status_code == 200
    fail(client, 1)


def test_past_the_limit_not_even_the_right_password_lets_in(client, anna, monkeypatch):
    fail(client, 3)
    monkeypatch.delattr("phresh.accounts.passwords.Passwords.verify")
    assert waits(log_in(client, password=PASSWORD)) in about(900)


def test_the_limit_of_an_account_holds_from_everywhere_and_for_no_other(client, anna, ben):
    for address in ("192.0.2.1", "192.0.2.2", "2001:db8::1"):
        fail(client, 1, address=address)
    waits(log_in(client, address="192.0.2.3"))
    assert log_in(client, ben.email, PASSWORD).status_code == 200


def test_the_limit_of_an_address_holds_for_every_account_and_from_no_other(client, anna, ben):
    for number in range(5):
        fail(client, 1, f"user-{number}@phresh.example")
    waits(log_in(client, ben.email, PASSWORD))
    waits(log_in(client, "other@phresh.example"))
    assert log_in(client, ben.email, PASSWORD, address="127.0.0.2").status_code == 200


def test_the_limit_on_registrations_holds_from_no_other_address(client, app, sql):
    for username in ("carl", "dora"):
        assert register(client, username).status_code == 201
    waits(register(client, "emil"))
    assert register(client, "emil", address="127.0.0.2").status_code == 201
    assert sql("SELECT count(*) FROM users") == [(3,)]


def test_the_limits_on_logins_and_registrations_are_apart(client, anna):
    fail(client, 3)
    fail(client, 2, "other@phresh.example")
    assert register(client, "carl").status_code == 201
    assert register(client, "dora").status_code == 201
    waits(register(client, "emil"))


# What counts


def test_success_is_not_counted_and_forgives_nothing(client, anna, sql):
    for _ in range(6):
        assert log_in(client, password=PASSWORD).status_code == 200
    assert sql("SELECT count(*) FROM attempts") == [(0,)]
    fail(client, 2)
    assert log_in(client, password=PASSWORD).status_code == 200
    fail(client, 1)
    waits(log_in(client, password=PASSWORD))


def test_what_is_refused_for_the_limit_is_not_counted(client, anna, sql):
    fail(client, 3)
    before = sql("SELECT count(*) FROM attempts")
    for _ in range(3):
        waits(log_in(client))
    assert sql("SELECT count(*) FROM attempts") == before


def test_a_registration_counts_if_the_name_was_taken_but_not_if_it_was_invalid(client, anna):
    for _ in range(3):
        assert register(client, "carl", password="short").status_code == 422
    assert register(client, "anna").status_code == 409
    assert register(client, "carl", email=ANNA.upper()).status_code == 409
    waits(register(client, "carl"))


@pytest.mark.parametrize("email", [ANNA, "nobody@phresh.example"])
@pytest.mark.parametrize(
    "written",
    [
        [str.lower] * 4,
        [str.lower, str.upper, str.title, str.swapcase],
        [str.upper, str.lower, str.upper, str.lower],
    ],
)
def test_the_limit_does_not_tell_who_has_an_account(client, anna, email, written):
    answers = [log_in(client, change(email)) for change in written]
    assert [answer.status_code for answer in answers] == [401, 401, 401, 429]
    assert waits(answers[-1]) in about(900)


def test_unknown_emails_are_counted_each_by_itself(client, anna):
    fail(client, 3, "nobody@phresh.example")
    waits(log_in(client, "nobody@phresh.example"))
    fail(client, 1, "other@phresh.example")
    assert log_in(client, password=PASSWORD).status_code == 200


def test_an_email_is_in_no_key(client, anna, sql):
    fail(client, 1, "nobody@phresh.example")
    fail(client, 1)
    keys = {key for (key,) in sql("SELECT key FROM attempts")}
    assert len(keys) == 3
    assert not any("@" in key or "nobody" in key for key in keys)


def test_a_disabled_account_is_counted_with_the_right_password_too(client, anna, sql):
    sql("UPDATE users SET is_active = false")
    fail(client, 3, password=PASSWORD)
    waits(log_in(client, password=PASSWORD))


def test_wrong_old_passwords_count_as_failed_logins_do(client, anna, ben):
    assert change(anna, WRONG, client).status_code == 403
    fail(client, 2)
    waits(change(anna, PASSWORD, client))
    waits(log_in(client, password=PASSWORD))
    assert change(ben, PASSWORD, client).status_code == 200


# Where it comes from


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
def test_an_address_is_one_of_ipv4_or_64_bits_of_ipv6(client, app, first, second, same):
    for username in ("carl", "dora"):
        assert register(client, username, address=first).status_code == 201
    waits(register(client, "emil", address=first))
    expected = 429 if same else 201
    assert register(client, "emil", address=second).status_code == expected


@pytest.mark.parametrize(
    ("proxies", "same"),
    [
        (0, ("192.0.2.1", "192.0.2.2")),
        (1, ("192.0.2.1, 192.0.2.9", "192.0.2.2, 192.0.2.9")),
        (2, ("192.0.2.1, 192.0.2.9, 192.0.2.7", "192.0.2.2, 192.0.2.9, 192.0.2.8")),
    ],
)
def test_what_no_trusted_proxy_wrote_is_not_believed(make_client, app, proxies, same):
    client = make_client(TRUSTED_PROXIES=proxies)
    for number in range(5):
        email = f"user-{number}@phresh.example"
        fail(client, 1, email, **{"X-Forwarded-For": same[number % 2]})
    for forwarded in same:
        waits(log_in(client, "other@phresh.example", **{"X-Forwarded-For": forwarded}))


@pytest.mark.parametrize("proxies", [1, 2])
def test_clients_behind_trusted_proxies_are_apart(make_client, app, proxies):
    client = make_client(TRUSTED_PROXIES=proxies)
    rest = ", 192.0.2.9" * (proxies - 1)
    for number in range(5):
        headers = {"X-Forwarded-For": "192.0.2.1" + rest}
        fail(client, 1, f"user-{number}@phresh.example", **headers)
    waits(log_in(client, **headers))
    fail(client, 1, **{"X-Forwarded-For": "192.0.2.2" + rest})


@pytest.mark.parametrize(
    ("one", "same", "other"),
    [
        ("192.0.2.1:1234", "192.0.2.1:99", "192.0.2.2:1234"),
        ("192.0.2.1:1234", "192.0.2.1", "192.0.2.2"),
        ("[2001:db8::1]:1234", "[2001:db8::1]:99", "[2001:db8:0:1::1]:1234"),
        ("[2001:db8::1]", "2001:db8::1", "[2001:db8:0:1::1]"),
    ],
)
def test_the_port_that_a_proxy_writes_is_no_part_of_the_address(make_client, app, one, same, other):
    client = make_client(TRUSTED_PROXIES=1)
    for number in range(5):
        fail(client, 1, f"user-{number}@phresh.example", **{"X-Forwarded-For": one})
    waits(log_in(client, **{"X-Forwarded-For": same}))
    fail(client, 1, **{"X-Forwarded-For": other})


# When it may be tried again


def test_it_can_be_tried_again_after_the_seconds_that_were_told(client, anna, sql):
    fail(client, 3)
    seconds = waits(log_in(client))
    age(sql, seconds - 60)
    assert waits(log_in(client, password=PASSWORD)) in about(60)
    age(sql, 60)
    assert log_in(client, password=PASSWORD).status_code == 200


@pytest.mark.parametrize(("ages", "left"), [((500, 300, 100), 400), ((840, 800, 700), 60)])
def test_the_window_slides(client, anna, sql, ages, left):
    for before, after in zip(ages, (*ages[1:], 0), strict=True):
        fail(client, 1)
        age(sql, before - after)
    assert waits(log_in(client)) in about(left)
    age(sql, left)
    fail(client, 1)
    assert waits(log_in(client)) in about(900 - ages[1] - left)


def test_of_several_tries_too_many_the_wait_is_for_all(make_client, anna, sql):
    fail(make_client(), 3)
    age(sql, 300)
    fail(make_client(LOGIN_FAILURES_PER_ACCOUNT=5), 2)
    assert waits(log_in(make_client(LOGIN_FAILURES_PER_ACCOUNT=2))) in about(900)
    assert waits(log_in(make_client(LOGIN_FAILURES_PER_ACCOUNT=4))) in about(600)


def test_of_several_limits_the_longest_wait_is_told(client, anna, sql):
    fail(client, 2)
    age(sql, 300)
    fail(client, 1, "a@phresh.example")
    fail(client, 1, "b@phresh.example")
    age(sql, 300)
    fail(client, 1, address="127.0.0.2")
    fail(client, 1, "c@phresh.example")
    assert waits(log_in(client, "d@phresh.example")) in about(300)
    assert waits(log_in(client, address="127.0.0.3")) in about(300)
    age(sql, 301)
    assert log_in(client).status_code == 401


@pytest.mark.parametrize("seconds", [1, 60, 3600])
def test_the_windows_are_settings(make_client, anna, sql, seconds):
    client = make_client(LOGIN_WINDOW=seconds, REGISTRATION_WINDOW=seconds)
    sql(
        "INSERT INTO attempts (key, at) SELECT key, now() + interval '1 minute' FROM"
        " generate_series(1, 3), (VALUES ('registration from 127.0.0.1'), (:key)) AS k (key)",
        key=f"login to user {anna.id}",
    )
    assert waits(log_in(client)) in about(seconds + 60)
    assert waits(register(client, "carl")) in about(seconds + 60)
    age(sql, seconds + 60)
    fail(client, 1)
    assert register(client, "carl").status_code == 201


# All at once, and turned off


def test_many_at_once_are_not_more_than_the_limit(make_client, anna):
    app = make_client().application
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: log_in(app.test_client()).status_code, range(12)))
    assert sorted(answers) == [401] * 3 + [429] * 9


def test_many_registrations_at_once_are_not_more_than_the_limit(make_client, app, sql):
    served = make_client().application

    def attempt(number):
        return register(served.test_client(), f"user-{number}").status_code

    with ThreadPoolExecutor(12) as pool:
        assert sorted(pool.map(attempt, range(12))) == [201] * 2 + [429] * 10
    assert sql("SELECT count(*) FROM users") == [(2,)]


def test_turned_off_nothing_is_counted_nor_refused(make_client, anna, sql):
    client = make_client(RATELIMIT_ENABLED=False)
    fail(client, 6)
    for number in range(3):
        assert register(client, f"user-{number}").status_code == 201
    assert sql("SELECT count(*) FROM attempts") == [(0,)]
    fail(make_client(), 3)
    assert log_in(client, password=PASSWORD).status_code == 200


@pytest.mark.parametrize(("given", "enabled"), [("false", False), ("0", False), ("true", True)])
def test_the_environment_turns_them_off(monkeypatch, given, enabled):
    monkeypatch.setenv("RATELIMIT_ENABLED", given)
    assert read_settings()["RATELIMIT_ENABLED"] is enabled


def test_a_429_is_in_the_document(client, app):
    paths = client.get("/openapi.json").json["paths"]
    for path, method in ((USERS, "post"), (LOGIN, "post"), (ME, "patch")):
        assert "429" in paths[path][method]["responses"]


# Over several workers


@pytest.fixture
def served(tmp_path, database_url, app):
    checkout = copy_checkout(tmp_path / "checkout")
    cheap = {"ARGON2_TIME_COST": "1", "ARGON2_MEMORY_COST": "8"}
    limits = {name: str(times) for name, times in LIMITS.items()}
    served = Phresh(checkout, database_url, WORKERS="2", **cheap, **limits)
    yield served
    assert served.stop() == 0


@contextmanager
def stopped(process):
    """Have a process not run."""
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


@pytest.mark.slow
def test_a_limit_holds_over_two_workers(served, anna):
    def attempt(password=WRONG):
        form = urlencode({"username": ANNA, "password": password})
        connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=25)
        with closing(connection):
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            connection.request("POST", LOGIN, form, headers)
            return connection.getresponse().status

    first, second = served.workers()
    with stopped(second):
        assert attempt(PASSWORD) == 200
        assert [attempt(), attempt()] == [401, 401]
    with stopped(first):
        assert attempt(PASSWORD) == 200
        assert [attempt(), attempt()] == [401, 429]
    with stopped(second):
        assert attempt(PASSWORD) == 429
