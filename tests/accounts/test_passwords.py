"""Passwords: validation and hashing; neither responses nor logs reveal them."""

import hashlib
import json
import re
import secrets
import threading
import time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, as_completed, wait
from contextlib import suppress
from itertools import islice
from types import SimpleNamespace

import psycopg2
import pytest
from argon2 import PasswordHasher, Type, extract_parameters
from argon2.exceptions import HashingError
from werkzeug.exceptions import ServiceUnavailable
from zxcvbn.frequency_lists import FREQUENCY_LISTS

import phresh.accounts.passwords
from phresh import create_app
from phresh.database.pool import Pool
from phresh.database.transactions import UnitOfWork
from phresh.web.turns import Turns
from tests.tools.users import PASSWORD

USERS = "/api/users/"
LOGIN = f"{USERS}login/token/"
ME = f"{USERS}me/"
LIST = "/api/cleanings/"
ANNA = "anna@phresh.example"
OTHER_PASSWORD = "four cats on a roof"


@pytest.fixture
def client(make_app, app):
    return make_app().test_client()


@pytest.fixture
def hashed(monkeypatch):
    """Record each password that is hashed or verified."""
    recorded = []
    for name in ("hash", "verify"):
        monkeypatch.setattr(
            PasswordHasher, name, _recording(getattr(PasswordHasher, name), recorded)
        )
    return recorded


def _recording(method, recorded):
    def record_and_call(self, *arguments):
        recorded.append(arguments[-1])
        return method(self, *arguments)

    return record_and_call


def register(client, password=PASSWORD, **values):
    new = {"email": "carl@phresh.io", "username": "carl", "password": password, **values}
    return client.post(USERS, json={"new_user": new})


def log_in(client, email=ANNA, password=PASSWORD, **headers):
    return client.post(LOGIN, data={"username": email, "password": password}, headers=headers)


def patch(client, someone, **changes):
    headers = {"Authorization": f"Bearer {someone.token}"}
    return client.patch(ME, json={"user_update": changes}, headers=headers)


def password_error(response):
    """Return the error of the password, which must be the only error of the response."""
    assert response.status_code == 422, response.data
    ((pointer, detail),) = {(e["pointer"], e["detail"]) for e in response.json["errors"]}
    assert pointer.rpartition("/")[2] == "password"
    return detail


def stored_hash(sql):
    [(password_hash,)] = sql("SELECT password_hash FROM users")
    return password_hash


# Validation

VALID_PASSWORDS = [
    *(
        "a" * 8,
        "a" * 128,
        "        ",
        "\t\r\n\x01\x7f \n\t",
        "pass word",
        "ÄÖÜäöüß€",
        "密码密码密码密码",
    ),
    *("🔑" * 8, "🔑" * 128, "a\u0308" * 4, "\ufeff\u200b\u202e\ufffd\ue000\U0010fffd  "),
    *("'; DROP TABLE users; --", "%s%(x)s{}", '"quoted"\\', "+&=%20;\\", "carl-phresh.io"),
]


@pytest.mark.parametrize("password", VALID_PASSWORDS)
def test_registration_accepts_any_8_to_128_characters(client, password):
    assert register(client, password).status_code == 201
    assert log_in(client, "carl@phresh.io", password).status_code == 200


@pytest.mark.parametrize("password", VALID_PASSWORDS)
def test_a_password_change_accepts_any_8_to_128_characters(client, anna, password):
    assert patch(client, anna, password=password, old_password=PASSWORD).status_code == 200
    assert log_in(client, ANNA, password).status_code == 200
    assert patch(client, anna, password=PASSWORD, old_password=password).status_code == 200


@pytest.mark.parametrize(
    ("password", "detail"),
    [
        ("", "Length must be between 8 and 128."),
        ("abcdefg", "Length must be between 8 and 128."),
        ("🔑" * 7, "Length must be between 8 and 128."),
        ("a" * 129, "Length must be between 8 and 128."),
        ("abcd\0efgh", "Must not contain the character NUL."),
        ("\0" * 8, "Must not contain the character NUL."),
        ("abcdefg\ud800", "Must not contain half of a surrogate pair."),
        ("\udc00abcdefgh", "Must not contain half of a surrogate pair."),
    ],
)
def test_a_password_of_invalid_length_or_characters_is_rejected_unhashed(
    client, anna, hashed, password, detail
):
    assert password_error(register(client, password)) == detail
    assert password_error(patch(client, anna, password=password, old_password=PASSWORD)) == detail
    assert hashed == []


@pytest.mark.parametrize("password", ["a" * 127 + "b", "🔑" * 127 + "b", "a" * 72 + "b" * 56])
def test_a_password_is_compared_up_to_its_last_character(client, password):
    register(client, password)
    for wrong in (password[:-1], password[:-1] + "c", password[:72], "x" + password[1:]):
        assert log_in(client, "carl@phresh.io", wrong).status_code == 400
    assert log_in(client, "carl@phresh.io", password).status_code == 200


def test_a_password_is_neither_normalized_nor_trimmed(client):
    register(client, " a\u0308nna-anna ")
    for wrong in (" änna-anna ", "a\u0308nna-anna", " A\u0308nna-anna "):
        assert log_in(client, "carl@phresh.io", wrong).status_code == 400


@pytest.mark.parametrize("write", [str, str.upper, str.title])
def test_the_3000_most_common_passwords_are_rejected_in_any_case(make_app, anna, write):
    client = make_app(WRITES_PER_ADDRESS=3000).test_client()
    listed = [text for text in FREQUENCY_LISTS["passwords"] if len(text) >= 8]
    for password in listed[:3000]:
        assert password_error(register(client, write(password))) == "This password is too common."


@pytest.mark.parametrize(
    "password", ["password", "PASSWORD", "12345678", "123456789", "qwertyuiop", "iloveyou"]
)
def test_registration_and_password_change_reject_a_common_password(client, anna, password):
    common = "This password is too common."
    assert password_error(register(client, password)) == common
    assert password_error(patch(client, anna, password=password, old_password=PASSWORD)) == common


def test_the_list_of_common_passwords_has_more_than_3000_entries():
    listed = [text for text in FREQUENCY_LISTS["passwords"] if len(text) >= 8]
    assert len(listed) > 3000
    assert {"password", "12345678", "iloveyou"} <= set(listed[:100])


def test_the_3001st_most_common_password_is_accepted(client):
    listed = [text for text in FREQUENCY_LISTS["passwords"] if len(text) >= 8]
    assert register(client, listed[3000]).status_code == 201


EQUALS_NAME = "Must not be the username or the email."


@pytest.mark.parametrize(
    "password",
    ["long-username", "LONG-username", "carl@phresh.io", "CARL@Phresh.io", "carl@PHRESH.IO"],
)
def test_registration_rejects_the_username_or_email_as_password(client, password):
    assert password_error(register(client, password, username="long-username")) == EQUALS_NAME
    assert register(client, password + "!", username="long-username").status_code == 201


@pytest.mark.parametrize(
    "changes",
    [
        {"password": ANNA},
        {"password": "ANNA@Phresh.example"},
        {"password": "new-username", "username": "New-Username"},
        {"password": "new@phresh.io", "email": "New@phresh.io"},
        {"password": "old-username"},
        {"email": "Correct@Horse.example", "old_password": "correct@horse.example"},
        {"username": "new-username", "email": "b@phresh.io", "old_password": "new-username"},
    ],
)
def test_a_change_that_makes_the_password_equal_to_username_or_email_is_rejected(
    client, make_user, changes
):
    old_password = changes.get("old_password", PASSWORD)
    cheap = PasswordHasher(1, 8, 1)
    anna = make_user("old-username", email=ANNA, password_hash=cheap.hash(old_password))
    before = client.get(ME, headers={"Authorization": f"Bearer {anna.token}"}).json
    response = patch(client, anna, **{"old_password": old_password, **changes})
    assert password_error(response) == EQUALS_NAME
    assert client.get(ME, headers={"Authorization": f"Bearer {anna.token}"}).json == before


def test_a_change_that_makes_the_username_equal_to_the_password_is_rejected(client, make_user):
    """Also where the password is not sent; then a name can only be compared as it is written."""
    cheap = PasswordHasher(1, 8, 1)
    anna = make_user("anna", email=ANNA, password_hash=cheap.hash("cats-on-a-roof"))
    response = patch(client, anna, username="cats-on-a-roof")
    assert response.status_code == 422
    assert response.json["errors"] == [
        {"pointer": "/user_update/username", "detail": "Must not be your password."}
    ]
    assert patch(client, anna, username="cats-on-a-tree").status_code == 200


# Hashing


def test_passwords_are_hashed_with_argon2id_and_the_costs_that_owasp_recommends(settings):
    app = create_app(settings)
    names = ("TIME_COST", "MEMORY_COST", "PARALLELISM")
    assert [app.config[f"ARGON2_{name}"] for name in names] == [2, 19456, 1]
    parameters = extract_parameters(app.extensions["passwords"].hash(PASSWORD))
    assert parameters.type == Type.ID
    costs = (parameters.time_cost, parameters.memory_cost, parameters.parallelism)
    assert costs == (2, 19456, 1)
    assert parameters.salt_len >= 16
    assert parameters.hash_len >= 32


COSTS = {"ARGON2_TIME_COST": 3, "ARGON2_MEMORY_COST": 32, "ARGON2_PARALLELISM": 2}


def costs_of(password_hash):
    parameters = extract_parameters(password_hash)
    return parameters.time_cost, parameters.memory_cost, parameters.parallelism


def test_the_costs_of_a_hash_follow_the_settings(make_app, app, sql):
    client = make_app(**COSTS).test_client()
    assert register(client).status_code == 201
    assert stored_hash(sql).startswith("$argon2id$v=19$m=32,t=3,p=2$")
    assert log_in(client, "carl@phresh.io").status_code == 200


def test_equal_passwords_have_different_hashes(client, sql):
    register(client)
    register(client, email="dora@phresh.io", username="dora")
    hashes = {password_hash for (password_hash,) in sql("SELECT password_hash FROM users")}
    assert len(hashes) == 2


@pytest.mark.parametrize("name", COSTS)
def test_login_replaces_a_hash_with_outdated_costs(make_app, anna, sql, name):
    client = make_app(**{"ARGON2_MEMORY_COST": 16, name: COSTS[name]}).test_client()
    before = stored_hash(sql)
    assert log_in(client, password=OTHER_PASSWORD).status_code == 400
    assert stored_hash(sql) == before
    assert log_in(client).status_code == 200
    after = stored_hash(sql)
    assert costs_of(after) != costs_of(before)
    assert log_in(client).status_code == 200
    assert stored_hash(sql) == after
    assert log_in(client, password=OTHER_PASSWORD).status_code == 400


def test_login_keeps_a_hash_with_current_costs(client, anna, sql):
    before = stored_hash(sql)
    assert log_in(client).status_code == 200
    assert stored_hash(sql) == before


# A password that is changed while a request verifies the old one


@pytest.fixture
def client_with_concurrent_change(make_app, anna, monkeypatch):
    """Change anna's password right after a request verified it; return a client of the app."""
    return change_meanwhile(make_app, anna, monkeypatch, password=OTHER_PASSWORD)


def change_meanwhile(make_app, anna, monkeypatch, **new):
    """By another worker, since one hashes for one account at a time."""
    app, worker = (make_app(ARGON2_MEMORY_COST=16) for _ in range(2))
    verify = PasswordHasher.verify

    def verify_then_change(self, *arguments):
        monkeypatch.setattr(PasswordHasher, "verify", verify)
        is_right = verify(self, *arguments)
        with ThreadPoolExecutor(1) as pool:  # another request has a context of its own
            changing = pool.submit(patch, worker.test_client(), anna, old_password=PASSWORD, **new)
            response = changing.result()
        assert response.status_code == 200
        return is_right

    monkeypatch.setattr(PasswordHasher, "verify", verify_then_change)
    return app.test_client()


def test_login_with_a_concurrently_changed_password_leaves_no_valid_token(
    client_with_concurrent_change, anna
):
    response = log_in(client_with_concurrent_change)
    token = response.json.get("access_token")
    headers = {"Authorization": f"Bearer {token}"}
    assert client_with_concurrent_change.get(ME, headers=headers).status_code == 401


def test_login_with_a_concurrently_changed_email_returns_no_token(make_app, anna, monkeypatch, sql):
    client = change_meanwhile(make_app, anna, monkeypatch, email="new@phresh.io")
    assert log_in(client).status_code == 400
    assert sql("SELECT count(*) FROM tokens") == [(1,)]
    assert log_in(client, "new@phresh.io").status_code == 200


def test_replacing_a_hash_does_not_undo_a_concurrent_password_change(
    client_with_concurrent_change, anna
):
    log_in(client_with_concurrent_change)
    assert log_in(client_with_concurrent_change, password=OTHER_PASSWORD).status_code == 200
    assert log_in(client_with_concurrent_change).status_code == 400


@pytest.mark.parametrize("changes", [{"password": "a third password"}, {"email": "x@phresh.io"}])
def test_a_concurrently_changed_password_cannot_change_the_account(
    client_with_concurrent_change, anna, sql, changes
):
    """Somebody else who has the old password and a token can no longer use either."""
    token = secrets.token_urlsafe(32)
    digest = hashlib.sha256(token.encode()).digest()
    insert = "INSERT INTO tokens (hash, user_id, expires_at) VALUES (:hash, :id, 'infinity')"
    sql(insert, hash=digest, id=anna.id)
    thief = SimpleNamespace(token=token)
    response = patch(client_with_concurrent_change, thief, **changes, old_password=PASSWORD)
    assert response.status_code in (401, 403)
    assert log_in(client_with_concurrent_change, password=OTHER_PASSWORD).status_code == 200
    assert sql("SELECT count(*) FROM tokens WHERE hash = :hash", hash=digest) == [(0,)]


# Equal responses for an unknown email, a wrong password and a disabled account


def login_outcome(client, hashed, email, password=OTHER_PASSWORD):
    """Log in; return the parts of the response that could differ, and the hashed passwords."""
    hashed.clear()
    response = log_in(client, email, password)
    own = ("Date", "Retry-After", "X-Request-Id", "RateLimit")
    headers = [pair for pair in response.headers if pair[0] not in own]
    body = response.data.replace(response.headers["X-Request-Id"].encode(), b"id")
    return response.status_code, headers, body, list(hashed)


def test_failed_logins_do_not_reveal_whether_an_account_exists(client, make_user, hashed):
    for name in ("anna", "dora"):
        make_user(name)
    disabled = make_user("emil", is_active=False)
    wrong = login_outcome(client, hashed, ANNA)
    assert (wrong[0], wrong[3]) == (400, [OTHER_PASSWORD])
    assert login_outcome(client, hashed, "nobody@phresh.example") == wrong
    assert login_outcome(client, hashed, disabled.email) == wrong
    assert login_outcome(client, hashed, disabled.email, PASSWORD)[:3] == wrong[:3]
    assert hashed == [PASSWORD]


def test_rate_limited_logins_do_not_reveal_whether_an_account_exists(make_app, anna, hashed):
    client = make_app(LOGIN_FAILURES_PER_ACCOUNT=2).test_client()
    known = [login_outcome(client, hashed, ANNA) for _ in range(4)]
    unknown = [login_outcome(client, hashed, "nobody@phresh.example") for _ in range(4)]
    assert known == unknown
    assert [outcome[0] for outcome in known] == [400, 400, 429, 429]
    assert [outcome[3] for outcome in known] == [[OTHER_PASSWORD], [OTHER_PASSWORD], [], []]


def test_failed_logins_send_the_same_statements_for_known_and_unknown_emails(
    client, anna, statements
):
    sent = []
    for email in (ANNA, "nobody@phresh.example"):
        statements.clear()
        assert log_in(client, email, OTHER_PASSWORD).status_code == 400
        sent.append(list(statements))
    assert sent[0] == sent[1]


@pytest.fixture
def work(monkeypatch):
    """Record what each hash costs: passes times memory for each lane."""
    recorded = []
    made, verified = PasswordHasher.hash, PasswordHasher.verify

    def record(passes, memory, lanes):
        recorded.append(passes * memory / lanes)

    def hash_(self, password):
        record(self.time_cost, self.memory_cost, self.parallelism)
        return made(self, password)

    def verify(self, password_hash, password):
        record(*costs_of(password_hash))
        return verified(self, password_hash, password)

    monkeypatch.setattr(PasswordHasher, "hash", hash_)
    monkeypatch.setattr(PasswordHasher, "verify", verify)
    return recorded


COSTS_OF_OLD_HASHES = [(1, 8, 1), (1, 64, 1), (2, 64, 1), (4, 64, 2), (3, 128, 1)]


@pytest.mark.parametrize("current", COSTS_OF_OLD_HASHES)
def test_a_failed_login_costs_the_same_whatever_the_account_and_its_hash(
    make_app, make_user, work, current
):
    """None at all, one without a password, a disabled one, and hashes with former costs."""
    names = ("ARGON2_TIME_COST", "ARGON2_MEMORY_COST", "ARGON2_PARALLELISM")
    client = make_app(
        **dict(zip(names, current, strict=True)),
        LOGIN_FAILURES_PER_ADDRESS=99,
    ).test_client()
    hashes = [PasswordHasher(*costs).hash(PASSWORD) for costs in COSTS_OF_OLD_HASHES]
    emails = [make_user(password_hash=one).email for one in hashes]
    emails += [
        make_user(password_hash="!").email,
        make_user(password_hash=hashes[0], is_active=False).email,
        "nobody@phresh.example",
    ]
    log_in(client, emails[-4], OTHER_PASSWORD)  # the most expensive hash is known once seen
    spent = []
    for email in emails:
        work.clear()
        assert log_in(client, email, OTHER_PASSWORD).status_code == 400
        spent.append(round(sum(work), -1))
    work.clear()
    assert log_in(client, emails[-2], PASSWORD).status_code == 400
    assert {*spent, round(sum(work), -1)} == {380}


# Concurrent hashing


def test_one_client_and_one_account_have_one_turn_to_hash_at_a_time(app):
    """However many requests they send: others do not wait behind them."""
    turns = Turns(9, 0.01, "Too many.")

    def has_turn(*names):
        with app.test_request_context(), suppress(ServiceUnavailable), turns.turn(*names):
            return True
        return False

    with app.test_request_context(), turns.turn("network", "account"):
        assert not has_turn("network", "other")
        assert not has_turn("elsewhere", "account")
        assert not has_turn("network")
        assert has_turn("elsewhere", "other")
        assert has_turn("elsewhere")
    assert has_turn("network", "account")
    assert not turns._queues


def test_a_flood_of_logins_to_one_account_lets_others_log_in(make_app, anna, ben):
    """All but one of them wait for that one, and not for the turns of the worker."""
    hasher = Hasher()
    app = with_hasher(make_app(HASHES_AT_ONCE=2, HASH_TIMEOUT=60), hasher)

    def attempt(number):
        client = app.test_client()
        client.environ_base["REMOTE_ADDR"] = f"192.0.2.{number}"
        return log_in(client, ANNA if number else ben.email).status_code

    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(attempt, number) for number in range(1, 8)]
        assert hasher.started.acquire(timeout=60)
        others = pool.submit(attempt, 0)
        assert hasher.started.acquire(timeout=60)
        hasher.may_finish.set()
        assert others.result() == 200
    assert [future.result() for future in futures] == [200] * 7
    assert hasher.peak == 2


class Hasher:
    """A substitute for argon2-cffi's hasher. Each hash blocks until ``may_finish`` is set."""

    def __init__(self):
        self.lock = threading.Lock()
        self.may_finish = threading.Event()
        self.started = threading.Semaphore(0)
        self.running = self.peak = 0

    def hash(self, _):
        with self.lock:
            self.running += 1
            self.peak = max(self.peak, self.running)
        self.started.release()
        assert self.may_finish.wait(60)
        with self.lock:
            self.running -= 1
        return "hash"

    def verify(self, *_):
        return self.hash("") == "hash"

    def check_needs_rehash(self, _):
        return False


def fail_to_hash(*_):
    raise HashingError("Memory allocation error")


def with_hasher(app, hasher):
    app.extensions["passwords"]._hasher = hasher
    return app


@pytest.mark.parametrize("at_once", [1, 3])
def test_concurrent_hashes_are_limited_and_requests_without_a_turn_return_503(
    make_app, make_user, at_once
):
    """Each from another address and to another account, since both have one turn at a time."""
    users = [make_user() for _ in range(at_once + 4)]
    hasher = Hasher()
    app = with_hasher(make_app(HASHES_AT_ONCE=at_once, HASH_TIMEOUT=0.05), hasher)

    def attempt(number):
        client = app.test_client()
        client.environ_base["REMOTE_ADDR"] = f"192.0.2.{number}"
        if number % 2:
            return register(client, email=f"u{number}@phresh.io", username=f"name-{number}")
        return log_in(client, users[number].email)

    with ThreadPoolExecutor(at_once + 4) as pool:
        futures = [pool.submit(attempt, number) for number in range(at_once + 4)]
        rejected = [future.result() for future in islice(as_completed(futures), 4)]
        assert app.test_client().get(LIST).status_code == 200
        # A login has its turn before it reads the database and hashes.
        assert all(hasher.started.acquire(timeout=60) for _ in range(at_once))
        hasher.may_finish.set()
    assert hasher.peak == at_once
    for response in rejected:
        assert response.status_code == 503
        assert response.content_type == "application/problem+json"
        assert response.json["detail"] == "Too many passwords to check. Try again soon."
        assert int(response.headers["Retry-After"]) > 0
    statuses = sorted(future.result().status_code for future in futures)
    assert set(statuses[:at_once]) <= {200, 201}
    assert statuses[at_once:] == [503] * 4
    assert log_in(app.test_client(), users[0].email).status_code == 200


def test_a_login_that_waits_for_its_turn_to_hash_succeeds(make_app, anna):
    hasher = Hasher()
    app = with_hasher(make_app(HASHES_AT_ONCE=1, HASH_TIMEOUT=60), hasher)
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(log_in, app.test_client()) for _ in range(4)]
        assert hasher.started.acquire(timeout=60)
        done, _ = wait(futures, timeout=0, return_when=FIRST_COMPLETED)
        assert not done
        hasher.may_finish.set()
    assert [future.result().status_code for future in futures] == [200] * 4
    assert hasher.peak == 1


def test_the_turn_to_hash_is_released_after_every_outcome(make_app, anna, monkeypatch):
    app = make_app(HASHES_AT_ONCE=1, HASH_TIMEOUT=0.01, LOGIN_FAILURES_PER_ACCOUNT=2)
    client = app.test_client()
    app.testing = False
    hasher = app.extensions["passwords"]._hasher
    with_hasher(app, SimpleNamespace(hash=fail_to_hash, verify=fail_to_hash))
    assert log_in(client).status_code == 500
    with_hasher(app, hasher)
    assert log_in(client).status_code == 200
    statuses = [log_in(client, password=OTHER_PASSWORD).status_code for _ in range(3)]
    assert statuses == [400, 400, 429]
    assert register(client).status_code == 201


# While a password is hashed, no connection is held and the database timeout is paused


@pytest.fixture
def client_and_concurrent_statuses(make_app, anna, monkeypatch):
    """Send a concurrent request during each hash, to an app with one database connection.

    Return a client of the app and the list of the statuses of the concurrent requests.
    """
    app = make_app(POOL_SIZE=1, POOL_TIMEOUT=0.5, ARGON2_MEMORY_COST=16)
    statuses = []
    apply = phresh.accounts.passwords._apply

    def get_then_apply(function, *arguments):
        with ThreadPoolExecutor(1) as pool:
            response = pool.submit(app.test_client().get, LIST).result()
        statuses.append(response.status_code)
        return apply(function, *arguments)

    monkeypatch.setattr("phresh.accounts.passwords._apply", get_then_apply)
    return app.test_client(), statuses


def test_a_login_holds_no_connection_while_it_hashes(client_and_concurrent_statuses):
    client, statuses = client_and_concurrent_statuses
    assert log_in(client).status_code == 200
    assert statuses == [200, 200], "one to verify, one to replace the hash"
    assert log_in(client, "nobody@phresh.example").status_code == 400
    assert statuses == [200] * 3


def test_a_registration_holds_no_connection_while_it_hashes(client_and_concurrent_statuses):
    client, statuses = client_and_concurrent_statuses
    assert register(client).status_code == 201
    assert statuses == [200]


def test_an_account_update_holds_no_connection_while_it_hashes(
    client_and_concurrent_statuses, anna
):
    client, statuses = client_and_concurrent_statuses
    assert patch(client, anna, password=OTHER_PASSWORD, old_password=PASSWORD).status_code == 200
    assert statuses == [200, 200]
    assert patch(client, anna, email="new@phresh.io", old_password=PASSWORD).status_code == 403
    assert statuses == [200] * 3


def test_time_spent_hashing_does_not_count_towards_the_database_timeout(
    make_app, anna, monkeypatch
):
    app = make_app(ARGON2_MEMORY_COST=16)
    now = [0.0]
    monkeypatch.setattr(
        "phresh.database.deadlines.time", SimpleNamespace(**{**vars(time), "monotonic": clock(now)})
    )
    timeouts = []
    acquire = Pool.acquire
    monkeypatch.setattr(
        Pool, "acquire", lambda pool, seconds: timeouts.append(seconds) or acquire(pool, 9)
    )
    passwords = app.extensions["passwords"]
    hasher = passwords._hasher
    passwords._hasher = SimpleNamespace(
        hash=lambda password: advance(now) or hasher.hash(password),
        verify=lambda *arguments: advance(now) or hasher.verify(*arguments),
        check_needs_rehash=hasher.check_needs_rehash,
    )
    passwords.turns._free = SimpleNamespace(
        acquire=lambda timeout: advance(now) or True, release=lambda: None
    )
    client = app.test_client()
    assert log_in(client).status_code == 200
    assert register(client).status_code == 201
    assert patch(client, anna, password=OTHER_PASSWORD, old_password=PASSWORD).status_code == 200
    assert now[0] >= 1000
    assert set(timeouts) == {app.config["DATABASE_TIMEOUT"]}


def clock(now):
    return lambda: now[0]


def advance(now):
    now[0] += 100


# No secrets in the log


SECRETS = {name: f"secret {name} password" for name in ("old", "new", "wrong")}


def send_secrets(client, token=None):
    """Send passwords and tokens in every way; return the tokens and all response statuses."""
    old, new, wrong = SECRETS.values()
    responses = [
        register(client, old),
        register(client, old),
        register(client, wrong, email="x"),
        register(client, f"{wrong}\ud800"),
        client.post(USERS, data=f'{{"new_user": {{"password": "{wrong}"'.encode()),
        client.post(USERS, data=f'"{wrong}'.encode(), content_type="application/json"),
        log_in(client, "carl@phresh.io", old),
        log_in(client, "carl@phresh.io", wrong),
        log_in(client, "nobody@phresh.io", wrong),
        log_in(client, "carl@phresh.io", f"{wrong}\0"),
    ]
    login = responses[6].json.get("access_token") if token is None else token
    first = responses[0].json.get("access_token", {}).get("access_token", login)
    headers = {"Authorization": f"Bearer {login}"}
    job = {"new_cleaning": {"name": "Job", "price": 20}}
    change = {"password": new, "old_password": old}
    responses += [
        client.patch(ME, json={"user_update": {**change, "old_password": wrong}}, headers=headers),
        client.patch(ME, json={"user_update": {**change, "email": "x"}}, headers=headers),
        client.patch(ME, json={"user_update": change}, headers=headers),
        client.post(LIST, json=job, headers={**headers, "Idempotency-Key": "one"}),
        client.get(ME, headers={"Authorization": f"Bearer {first}"}),
        client.get(ME, headers={"Authorization": f"Basic {login}"}),
        client.post(f"{USERS}logout/", headers=headers),
        client.delete(ME, headers=headers),
    ]
    return {login, first}, [response.status_code for response in responses]


def assert_not_logged(lines, secrets):
    text = json.dumps(lines, ensure_ascii=False)
    assert not any(secret in text for secret in (*secrets, *SECRETS.values(), "argon2id"))


def test_no_log_line_contains_a_password_or_token(client, app, lines):
    tokens, statuses = send_secrets(client)
    expected = [201, 409, 422, 422, 415, 400, 200, 400, 400, 400]
    assert statuses == [*expected, 403, 422, 200, 201, 401, 401, 204, 401]
    assert [line["status"] for line in lines() if line["logger"] == "phresh.access"] == statuses
    assert len(tokens) == 2
    assert_not_logged(lines(), tokens)


def test_no_log_line_contains_secrets_when_the_database_is_unavailable(lines):
    app = create_app({"DATABASE_URL": "postgresql://127.0.0.1:1/none"})
    tokens, statuses = send_secrets(app.test_client(), "secret-token")
    assert statuses.count(503) >= 8
    assert any("is not available" in line["message"] for line in lines())
    assert_not_logged(lines(), tokens)


def test_no_log_line_contains_secrets_when_the_tables_are_missing(make_database, settings, lines):
    app = create_app({**settings, "DATABASE_URL": make_database("bare")})
    tokens, statuses = send_secrets(app.test_client(), "secret-token")
    assert statuses.count(500) >= 8
    assert any("traceback" in line for line in lines())
    assert_not_logged(lines(), tokens)


@pytest.mark.parametrize("table", ["users", "tokens", "quotas", "cleanings"])
@pytest.mark.parametrize(
    "error", [psycopg2.errors.NotNullViolation, psycopg2.errors.CheckViolation, RuntimeError]
)
def test_no_log_line_contains_secrets_when_a_write_fails(
    make_app, app, lines, monkeypatch, table, error
):
    run = UnitOfWork.run

    def run_or_fail(session, query):
        if re.search(rf"(INSERT INTO|UPDATE) {table} ", query.statement.text):
            raise error
        return run(session, query)

    monkeypatch.setattr(UnitOfWork, "run", run_or_fail)
    failing_app = make_app()
    failing_app.testing = False
    failing_app.config["PROPAGATE_EXCEPTIONS"] = False
    tokens, statuses = send_secrets(failing_app.test_client())
    assert 500 in statuses
    assert_not_logged(lines(), tokens - {None})


def test_no_log_line_contains_secrets_when_a_check_constraint_fails(make_app, app, sql, lines):
    """PostgreSQL's message of a failed CHECK quotes the row."""
    sql("ALTER TABLE users ADD CONSTRAINT never CHECK (false) NOT VALID")
    try:
        assert register(make_app().test_client(), SECRETS["new"]).status_code >= 400
    finally:
        sql("ALTER TABLE users DROP CONSTRAINT never")
    assert any("never" in line["message"] for line in lines())
    assert_not_logged(lines(), {"carl@phresh.io"})


def test_no_log_line_contains_secrets_when_hashing_fails(make_app, anna, lines):
    app = make_app()
    app.testing = False
    with_hasher(app, SimpleNamespace(hash=fail_to_hash, verify=fail_to_hash))
    client = app.test_client()
    assert register(client, SECRETS["new"]).status_code == 500
    assert log_in(client, password=SECRETS["wrong"]).status_code == 500
    assert any("HashingError" in line.get("exception", "") for line in lines())
    assert_not_logged(lines(), set())
