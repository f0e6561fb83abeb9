"""Rate limits on logins and registrations: what counts, what comes back, several workers."""

import http.client
import os
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from urllib.parse import urlencode

import pytest

from phresh.config import read_settings
from phresh.web.converters import CONVERTERS
from tests.tools.cluster import Phresh
from tests.tools.features import routes
from tests.tools.processes import copy_checkout
from tests.tools.users import PASSWORD

USERS = "/api/users/"
ME = f"{USERS}me/"
LOGIN = f"{USERS}login/token/"
ANNA = "anna@phresh.example"
LIST = "/api/cleanings/"
WRONG = "wrong"
OTHER_PASSWORD = "four cats on a roof"
LIMITS = {
    "LOGIN_FAILURES_PER_ACCOUNT": 3,
    "LOGIN_FAILURES_PER_ADDRESS": 5,
    "REGISTRATIONS_PER_ADDRESS": 2,
}

WRITING = [route for _, route in routes() if route.method not in ("GET", "HEAD", "OPTIONS")]


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
        assert log_in(client, email, **options).status_code == 400


def register(client, username, address="127.0.0.1", **values):
    new = {"email": f"{username}@phresh.io", "username": username, "password": PASSWORD, **values}
    environ = {"REMOTE_ADDR": address}
    return client.post(USERS, json={"new_user": new}, environ_base=environ)


def change(token, client, **changes):
    headers = {"Authorization": f"Bearer {token}"}
    return client.patch(ME, json={"user_update": changes}, headers=headers)


def change_password(token, client, old_password=PASSWORD):
    return change(token, client, old_password=old_password, password=OTHER_PASSWORD)


def age_attempts(sql, seconds):
    """Make the attempts so far so many seconds older."""
    sql("UPDATE quotas SET full_at = full_at - :seconds * interval '1 second'", seconds=seconds)


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
    assert settings["LOGINS_PER_ACCOUNT"] == 60
    assert settings["LOGIN_FAILURES_PER_ACCOUNT"] == 10
    assert settings["LOGIN_FAILURES_PER_ADDRESS"] == 50
    assert settings["LOGIN_WINDOW"] == 15 * 60
    assert settings["REGISTRATIONS_PER_ADDRESS"] == 20
    assert settings["REGISTRATION_WINDOW"] == 60 * 60


def test_a_login_after_10_failures_for_an_account_returns_429(make_app, anna):
    client = make_app().test_client()
    fail_to_log_in(client, 10)
    assert expect_429(log_in(client)) in about(15 * 60 // 10)


def test_a_login_after_50_failures_from_an_address_returns_429(make_app, app):
    client = make_app().test_client()
    for number in range(50):
        fail_to_log_in(client, 1, f"user-{number}@phresh.example")
    assert expect_429(log_in(client, "other@phresh.example")) in about(15 * 60 // 50)


def test_a_registration_after_20_from_an_address_returns_429(make_app, app):
    client = make_app().test_client()
    for number in range(20):
        assert register(client, f"user-{number}").status_code == 201
    assert expect_429(register(client, "other")) in about(60 * 60 // 20)


def test_a_login_after_60_to_an_account_from_an_address_returns_429(make_app, anna, sql):
    client = make_app().test_client()
    for _ in range(60):
        assert log_in(client, password=PASSWORD).status_code == 200
    assert expect_429(log_in(client, password=PASSWORD)) in about(15)
    assert log_in(client, password=PASSWORD, address="192.0.2.1").status_code == 200
    assert sql("SELECT count(*) FROM tokens") == [(62,)]


def test_below_the_limit_the_right_password_logs_in(client, anna):
    fail_to_log_in(client, 2)
    assert log_in(client, password=PASSWORD).status_code == 200
    fail_to_log_in(client, 1)


def test_at_the_limit_the_right_password_returns_429_and_is_not_verified(client, anna, monkeypatch):
    fail_to_log_in(client, 3)
    monkeypatch.delattr("phresh.accounts.passwords.Passwords.verify")
    assert expect_429(log_in(client, password=PASSWORD)) in about(300)


def fail_from_many_addresses(client, email=ANNA):
    """Fail as often as an account allows for all addresses together."""
    for number in range(10):
        fail_to_log_in(client, 3, email, address=f"192.0.2.{number}")


def test_a_stranger_does_not_lock_the_login_of_an_account_elsewhere(client, anna):
    fail_to_log_in(client, 3)
    for _ in range(3):
        expect_429(log_in(client))
        assert log_in(client, password=PASSWORD, address="192.0.2.1").status_code == 200


@pytest.mark.parametrize("email", [ANNA, "nobody@phresh.example"])
def test_the_account_limit_for_all_addresses_is_ten_times_that_for_one(client, anna, ben, email):
    fail_from_many_addresses(client, email)
    assert expect_429(log_in(client, email, PASSWORD, "192.0.2.99")) in about(30)
    assert log_in(client, ben.email, PASSWORD, "192.0.2.99").status_code == 200


def test_the_account_limit_for_all_addresses_spares_those_of_earlier_logins(make_client, anna, sql):
    client = make_client(REGISTRATIONS_PER_ADDRESS=9)
    assert log_in(client, password=PASSWORD, address="198.51.100.1").status_code == 200
    assert register(client, "carl", "198.51.100.2").status_code == 201
    for email in (ANNA, "carl@phresh.io"):
        fail_from_many_addresses(make_client(LOGIN_FAILURES_PER_ADDRESS=99), email)
        expect_429(log_in(client, email, PASSWORD, "198.51.100.3"))
    for _ in range(2):
        assert log_in(client, ANNA, PASSWORD, "198.51.100.1").status_code == 200
        assert log_in(client, "carl@phresh.io", PASSWORD, "198.51.100.2").status_code == 200
    fail_to_log_in(client, 3, address="198.51.100.1")
    expect_429(log_in(client, password=PASSWORD, address="198.51.100.1"))
    age_attempts(sql, 31 * 24 * 3600)
    fail_from_many_addresses(make_client(LOGIN_FAILURES_PER_ADDRESS=99))
    expect_429(log_in(client, password=PASSWORD, address="198.51.100.1"))


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


def test_a_successful_login_is_no_failure_and_resets_nothing(client, anna):
    for _ in range(6):
        assert log_in(client, password=PASSWORD).status_code == 200
    fail_to_log_in(client, 2)
    assert log_in(client, password=PASSWORD).status_code == 200
    fail_to_log_in(client, 1)
    expect_429(log_in(client, password=PASSWORD))


def test_a_rate_limited_login_prolongs_no_wait(client, anna):
    fail_to_log_in(client, 3)
    first = expect_429(log_in(client))
    for _ in range(3):
        assert expect_429(log_in(client)) <= first


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
    assert [response.status_code for response in responses] == [400, 400, 400, 429]
    assert expect_429(responses[-1]) in about(300)


def test_unknown_emails_are_counted_separately(client, anna):
    fail_to_log_in(client, 3, "nobody@phresh.example")
    expect_429(log_in(client, "nobody@phresh.example"))
    fail_to_log_in(client, 1, "other@phresh.example")
    assert log_in(client, password=PASSWORD).status_code == 200


SPELLINGS = [
    (
        "victim@x.com",
        ["VICTIM@X.COM", "\uff56ictim@x.com", "victim@\uff58.com", "victim@x\u3002com"],
    ),
    (
        "\u03c3\u03af\u03c3\u03c5\u03c6\u03bf\u03c2@x.com",
        ["\u03a3\u038a\u03a3\u03a5\u03a6\u039f\u03a3@x.com"],
    ),
    ("stra\u00dfe@x.com", ["STRASSE@x.com", "STRA\u1e9eE@x.com"]),
    ("caf\u00e9@x.com", ["cafe\u0301@x.com", "CAFE\u0301@x.com"]),
    ("\ufb01g@x.com", ["fig@x.com", "FIG@x.com"]),
    ("a@b\u00fccher.example", ["A@XN--BCHER-KVA.example", "a@BU\u0308CHER.example"]),
    ("v\u0130ctim@x.com", ["vi\u0307ctim@x.com", "VI\u0307CTIM@x.com"]),
]


@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize(("email", "others"), SPELLINGS)
def test_all_spellings_of_an_email_are_one_for_every_purpose(
    make_client, app, exists, email, others
):
    """Counting, finding and refusing, whether or not there is an account."""
    client = make_client(REGISTRATIONS_PER_ADDRESS=99)
    if exists:
        new = {"email": email, "address": "192.0.2.1"}
        assert register(client, "carl", **new).status_code == 201
        for number, other in enumerate(others):
            assert log_in(client, other, PASSWORD, "192.0.2.2").status_code == 200
            response = register(client, f"user-{number}", email=other, address="192.0.2.1")
            assert response.json["detail"] == "An account with this email already exists."
    spellings = [email, *others]
    for number in range(3):
        fail_to_log_in(client, 1, spellings[number % len(spellings)])
    for spelling in spellings:
        expect_429(log_in(client, spelling, PASSWORD))


@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize(
    ("email", "other"),
    [
        ("victim@x.com", "v\u0130ctim@x.com"),  # lower() of PostgreSQL makes the same of both
        ("victim@x.com", "v\u0131ctim@x.com"),
        ("a@strasse.de", "a@stra\u00dfe.de"),
        ("anna@x.com", "\u0430nna@x.com"),  # Cyrillic
    ],
)
def test_emails_that_look_alike_are_two_for_every_purpose(client, app, exists, email, other):
    if exists:
        assert register(client, "carl", email=email, address="192.0.2.1").status_code == 201
        assert register(client, "dora", email=other, address="192.0.2.1").status_code == 201
    fail_to_log_in(client, 3, email)
    fail_to_log_in(client, 1, other)
    expect_429(log_in(client, email))


def test_the_keys_of_attempts_contain_no_email(client, anna, sql):
    fail_to_log_in(client, 1, "nobody@phresh.example")
    fail_to_log_in(client, 1)
    keys = {key for (key,) in sql("SELECT key FROM quotas")}
    assert len(keys) == 8
    assert not any("@" in key or "nobody" in key for key in keys)


def test_logins_to_a_disabled_account_count_even_with_the_right_password(client, anna, sql):
    sql("UPDATE users SET is_active = false")
    fail_to_log_in(client, 3, password=PASSWORD)
    expect_429(log_in(client, password=PASSWORD))


def test_strangers_do_not_keep_the_owner_of_a_token_from_changing_the_password(client, anna):
    """Neither those who log in, also from the same address, nor a thief who has another token."""
    stolen = log_in(client, password=PASSWORD).json["access_token"]
    fail_from_many_addresses(client)
    fail_to_log_in(client, 3)
    fail_to_log_in(client, 2, "nobody@phresh.example")
    expect_429(log_in(client, password=PASSWORD))
    for _ in range(3):
        assert change_password(stolen, client, WRONG).status_code == 403
    expect_429(change_password(stolen, client))
    assert change_password(anna.token, client).status_code == 200
    assert change_password(stolen, client).status_code == 401


def test_wrong_old_passwords_are_limited_and_do_not_lock_the_login(client, anna, ben):
    for _ in range(3):
        assert change_password(anna.token, client, WRONG).status_code == 403
    expect_429(change_password(anna.token, client))
    assert log_in(client, password=PASSWORD).status_code == 200
    assert change_password(ben.token, client).status_code == 200


def test_a_new_username_is_compared_with_the_password_within_the_same_limit(make_client, anna):
    client = make_client(REGISTRATIONS_PER_ADDRESS=99)
    for name in ("a-guess", "b-guess"):
        assert change(anna.token, client, username=name).status_code == 200
    assert change_password(anna.token, client, WRONG).status_code == 403
    expect_429(change(anna.token, client, username="c-guess"))
    # Not where it says nothing.
    assert change(anna.token, client, username="B-Guess").status_code == 200


@pytest.mark.parametrize(
    "changes",
    [
        {"email": ANNA, "old_password": PASSWORD},
        {"email": ANNA, "username": "ANNA", "old_password": PASSWORD},
        {"email": "nobody@phresh.io", "username": "anna", "old_password": PASSWORD},
        {"username": "anna"},
    ],
)
def test_a_change_of_the_email_or_username_counts_like_a_registration(client, anna, ben, changes):
    """Its response says whether they are taken."""
    for _ in range(2):
        assert change(ben.token, client, **changes).status_code == 409
    expect_429(change(ben.token, client, **changes))
    expect_429(change(anna.token, client, email="x@phresh.io", old_password=PASSWORD))
    expect_429(register(client, "carl"))
    assert change_password(ben.token, client).status_code == 200


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


@pytest.mark.parametrize(("seconds", "failures"), [(300, 1), (650, 2), (900, 3), (9000, 3)])
def test_attempts_come_back_one_by_one(client, anna, sql, seconds, failures):
    fail_to_log_in(client, 3)
    age_attempts(sql, seconds)
    fail_to_log_in(client, failures)
    assert expect_429(log_in(client)) in about(300)


def test_what_is_left_counts_in_seconds_when_a_limit_is_changed(make_client, anna):
    fail_to_log_in(make_client(LOGIN_FAILURES_PER_ACCOUNT=6), 3)
    assert expect_429(log_in(make_client(LOGIN_FAILURES_PER_ACCOUNT=1))) in about(450)
    fail_to_log_in(make_client(LOGIN_FAILURES_PER_ACCOUNT=4), 2)
    assert expect_429(log_in(make_client(LOGIN_FAILURES_PER_ACCOUNT=4))) in about(225)


def test_retry_after_is_the_longest_wait_of_several_limits(client, anna, sql):
    fail_to_log_in(client, 3)  # one each 300 seconds
    fail_to_log_in(client, 2, "other@phresh.example")  # all from an address: one each 180
    assert expect_429(log_in(client, "a@phresh.example")) in range(170, 181)
    assert expect_429(log_in(client)) in range(290, 301)


@pytest.mark.parametrize("seconds", [60, 3600])
def test_the_windows_follow_their_settings(make_client, anna, sql, seconds):
    client = make_client(LOGIN_WINDOW=seconds, REGISTRATION_WINDOW=seconds)
    fail_to_log_in(client, 3)
    assert expect_429(log_in(client)) in range(seconds // 3 - 15, seconds // 3 + 1)
    for username in ("carl", "dora"):
        assert register(client, username).status_code == 201
    assert expect_429(register(client, "emil")) in range(seconds // 2 - 15, seconds // 2 + 1)
    age_attempts(sql, seconds)
    fail_to_log_in(client, 3)
    assert register(client, "emil").status_code == 201


# Writes

JOB = {"new_cleaning": {"name": "Job", "price": 20}}
FEW_WRITES = {"WRITES_PER_ACCOUNT": 3, "WRITES_PER_ADDRESS": 5, "GUEST_WRITES_PER_ADDRESS": 2}


def post(client, someone=None, address="127.0.0.1", **options):
    headers = {"Authorization": f"Bearer {someone.token}"} if someone else {}
    environ = {"REMOTE_ADDR": address}
    return client.post(LIST, json=JOB, headers=headers, environ_base=environ, **options)


def test_the_limits_on_writes_have_the_expected_defaults():
    settings = read_settings({})
    assert settings["WRITES_PER_ACCOUNT"] == 600
    assert settings["WRITES_PER_ADDRESS"] == 2000
    assert settings["GUEST_WRITES_PER_ADDRESS"] == 60
    assert settings["WRITE_WINDOW"] == 60 * 60


def test_guests_write_a_few_times_from_an_address(make_app, anna):
    client = make_app(**FEW_WRITES).test_client()
    first = post(client)
    assert headers_of(first) == ('"guest-writes";q=2;w=3600', '"guest-writes";r=1;t=1800')
    assert post(client).status_code == 201
    assert expect_429(post(client)) in about(1800)
    assert post(client, anna).status_code == 201
    assert post(client, address="192.0.2.1").status_code == 201
    assert client.get(LIST).status_code == 200


def test_an_account_writes_so_many_times_wherever_it_is(make_app, anna, ben, sql):
    client = make_app(**FEW_WRITES).test_client()
    first = post(client, anna)
    assert headers_of(first) == (
        '"writes";q=3;w=3600, "writes-by-address";q=5;w=3600',
        '"writes";r=2;t=1200, "writes-by-address";r=4;t=720',
    )
    assert post(client, anna, "192.0.2.1").status_code == 201
    assert post(client, anna, "192.0.2.2").status_code == 201
    rejected = post(client, anna)
    assert f'"writes";r=0;t={expect_429(rejected)}, ' in rejected.headers["RateLimit"]
    # What is rejected counts neither for the account nor for the address.
    assert [post(client, ben).status_code for _ in range(3)] == [201] * 3
    age_attempts(sql, 1200)
    assert post(client, anna).status_code == 201
    expect_429(post(client, anna))


def test_all_accounts_at_an_address_write_so_many_times(make_app, make_user):
    client = make_app(**FEW_WRITES).test_client()
    for _ in range(5):
        assert post(client, make_user()).status_code == 201
    assert expect_429(post(client, late := make_user())) in about(720)
    assert post(client, late, "192.0.2.1").status_code == 201
    expect_429(log_in(client))
    expect_429(register(client, "carl"))


def test_concurrent_writes_do_not_exceed_the_limit(make_app, anna, sql):
    app = make_app(**FEW_WRITES)
    with ThreadPoolExecutor(12) as pool:
        statuses = list(pool.map(lambda _: post(app.test_client(), anna).status_code, range(12)))
    assert sorted(statuses) == [201] * 3 + [429] * 9
    assert sql("SELECT count(*) FROM cleanings") == [(3,)]


def test_a_write_that_is_rejected_for_another_reason_counts(make_app, anna):
    """Otherwise one could try without end what the responses reveal."""
    client = make_app(**FEW_WRITES).test_client()
    for _ in range(3):
        response = client.delete(f"{LIST}1/", headers={"Authorization": f"Bearer {anna.token}"})
        assert response.status_code == 404
        assert '"writes";' in response.headers["RateLimit"]
    expect_429(post(client, anna))


def test_an_invalid_token_counts_nothing(make_app, anna, sql):
    client = make_app(**FEW_WRITES).test_client()
    headers = {"Authorization": "Bearer x"}
    for _ in range(6):
        assert client.post(LIST, json=JOB, headers=headers).status_code == 401
    assert sql("SELECT count(*) FROM quotas") == [(0,)]


def test_counting_a_write_of_an_account_takes_no_statement_more(make_app, anna, statements):
    counts = []
    for enabled in (False, True):
        client = make_app(RATELIMIT_ENABLED=enabled).test_client()
        statements.clear()
        assert post(client, anna).status_code == 201
        counts.append(len(statements))
    assert counts[0] == counts[1]


def example_of(converter):
    """Return a value for a variable of a path."""
    return str(CONVERTERS[converter].parameter["example"])


@pytest.mark.parametrize("route", WRITING, ids=str)
def test_every_route_that_writes_is_limited(make_app, anna, sql, route):
    """Those of a new feature too, since the decorators that say who may use a view count."""
    keys = [f"write of user {anna.id}", "write from 192.0.2.1", "guest's write from 192.0.2.1"]
    for key in keys:
        sql("INSERT INTO quotas VALUES (:key, now() + interval '1 hour')", key=key)
    path = re.sub(r"<(\w+):[^>]+>", lambda rule: example_of(rule[1]), route.rule)
    environ = {"REMOTE_ADDR": "192.0.2.1"}
    client = make_app().test_client()
    if route.statuses[0] != 401:
        expect_429(client.open(path, method=route.method, environ_base=environ))
    environ |= {"HTTP_AUTHORIZATION": f"Bearer {anna.token}"}
    expect_429(client.open(path, method=route.method, environ_base=environ))


def test_writes_without_limits_say_nothing(make_app, anna, sql):
    client = make_app(**FEW_WRITES, RATELIMIT_ENABLED=False).test_client()
    for _ in range(6):
        assert headers_of(post(client, anna)) == (None, None)
    assert post(client).status_code == 201
    assert sql("SELECT count(*) FROM quotas") == [(0,)]


# The headers of the response


def headers_of(response):
    return response.headers.get("RateLimit-Policy"), response.headers.get("RateLimit")


def test_limited_responses_say_what_is_left(client, anna):
    assert headers_of(register(client, "carl")) == (
        '"writes-by-address";q=2000;w=3600, "registrations";q=2;w=3600',
        '"writes-by-address";r=1999;t=2, "registrations";r=1;t=1800',
    )
    policy = (
        '"logins";q=60;w=900, "login-failures";q=3;w=900, "login-failures-by-address";q=5;w=900'
    )
    policy = f'"writes-by-address";q=2000;w=3600, {policy}'
    first = log_in(client, password=PASSWORD)
    assert headers_of(first)[0] == policy
    assert headers_of(first)[1].endswith(
        ', "logins";r=59;t=15, "login-failures";r=3;t=0, "login-failures-by-address";r=5;t=0'
    )
    fail_to_log_in(client, 2)
    third = log_in(client)
    assert headers_of(third)[0] == policy
    assert re.sub("t=[0-9]+|199[56]", "?", headers_of(third)[1]) == (
        '"writes-by-address";r=?;?, "logins";r=56;?, "login-failures";r=0;?, '
        '"login-failures-by-address";r=2;?'
    )
    rejected = log_in(client)
    seconds = expect_429(rejected)
    assert f'"login-failures";r=0;t={seconds},' in rejected.headers["RateLimit"]


def test_the_headers_do_not_say_what_others_have_used(client, anna):
    fail_from_many_addresses(client)
    rejected = log_in(client, address="192.0.2.99")
    expect_429(rejected)
    assert rejected.headers["RateLimit"].endswith(
        ', "logins";r=59;t=15, "login-failures";r=3;t=0, "login-failures-by-address";r=5;t=0'
    )


# Concurrent requests; disabled limits


def test_concurrent_logins_do_not_exceed_the_limit(make_client, anna):
    app = make_client().application
    with ThreadPoolExecutor(12) as pool:
        statuses = list(pool.map(lambda _: log_in(app.test_client()).status_code, range(12)))
    assert sorted(statuses) == [400] * 3 + [429] * 9


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
    known = "[0-9a-f]{64}"  # a network from which an account has logged in: no limit
    assert sql("SELECT count(*) FROM quotas WHERE key !~ :known", known=known) == [(0,)]
    assert headers_of(log_in(client)) == (None, None)
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
    server = Phresh(
        checkout, database_url, WORKERS="2", RATELIMIT_ENABLED="true", **cheap, **limits
    )
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
        assert [attempt(), attempt()] == [400, 400]
    with suspended(first):
        assert attempt(PASSWORD) == 200
        assert [attempt(), attempt()] == [400, 429]
    with suspended(second):
        assert attempt(PASSWORD) == 429
