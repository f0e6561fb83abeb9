"""Passwords: which are taken, how they are hashed, and that nothing tells of them."""

import hashlib
import json
import secrets
import threading
import time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, as_completed, wait
from itertools import islice
from types import SimpleNamespace

import psycopg2
import pytest
from argon2 import PasswordHasher, Type, extract_parameters
from argon2.exceptions import HashingError
from zxcvbn.frequency_lists import FREQUENCY_LISTS

import phresh.accounts.passwords
from phresh import create_app
from phresh.config import read_settings
from phresh.database.pool import Pool
from phresh.database.transactions import UnitOfWork
from tests.tools.users import PASSWORD

USERS = "/api/users/"
LOGIN = f"{USERS}login/token/"
ME = f"{USERS}me/"
LIST = "/api/cleanings/"
ANNA = "anna@phresh.example"
OTHER = "four cats on a roof"


@pytest.fixture
def client(make_app, app):
    return make_app().test_client()


@pytest.fixture
def hashed(monkeypatch):
    """The passwords that were hashed, each time."""
    seen = []
    for name in ("hash", "verify"):
        monkeypatch.setattr(PasswordHasher, name, _noted(getattr(PasswordHasher, name), seen))
    return seen


def _noted(method, seen):
    def noted(self, *arguments):
        seen.append(arguments[-1])
        return method(self, *arguments)

    return noted


def register(client, password=PASSWORD, **values):
    new = {"email": "carl@phresh.io", "username": "carl", "password": password, **values}
    return client.post(USERS, json={"new_user": new})


def log_in(client, email=ANNA, password=PASSWORD, **headers):
    return client.post(LOGIN, data={"username": email, "password": password}, headers=headers)


def patch(client, someone, **changes):
    headers = {"Authorization": f"Bearer {someone.token}"}
    return client.patch(ME, json={"user_update": changes}, headers=headers)


def why(response):
    """Give why the password was refused, and only that."""
    assert response.status_code == 422, response.data
    ((pointer, detail),) = {(e["pointer"], e["detail"]) for e in response.json["errors"]}
    assert pointer.rpartition("/")[2] == "password"
    return detail


def stored(sql):
    [(password_hash,)] = sql("SELECT password_hash FROM users")
    return password_hash


# Which are taken

TAKEN = [
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


@pytest.mark.parametrize("password", TAKEN)
def test_any_8_to_128_characters_are_taken_as_they_are(client, password):
    assert register(client, password).status_code == 201
    assert log_in(client, "carl@phresh.io", password).status_code == 200


@pytest.mark.parametrize("password", TAKEN)
def test_a_new_password_may_be_any_of_these_too(client, anna, password):
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
def test_no_other_password_is_taken(client, anna, hashed, password, detail):
    assert why(register(client, password)) == detail
    assert why(patch(client, anna, password=password, old_password=PASSWORD)) == detail
    assert hashed == []


@pytest.mark.parametrize("password", ["a" * 127 + "b", "🔑" * 127 + "b", "a" * 72 + "b" * 56])
def test_a_password_counts_to_its_last_character(client, password):
    register(client, password)
    for wrong in (password[:-1], password[:-1] + "c", password[:72], "x" + password[1:]):
        assert log_in(client, "carl@phresh.io", wrong).status_code == 401
    assert log_in(client, "carl@phresh.io", password).status_code == 200


def test_a_password_is_not_composed_or_trimmed(client):
    register(client, " a\u0308nna-anna ")
    for wrong in (" änna-anna ", "a\u0308nna-anna", " A\u0308nna-anna "):
        assert log_in(client, "carl@phresh.io", wrong).status_code == 401


@pytest.mark.parametrize("write", [str, str.upper, str.title])
def test_the_3000_most_common_are_refused_in_any_case(make_app, anna, write):
    client = make_app(MAX_CONTENT_LENGTH=10**6).test_client()
    listed = [text for text in FREQUENCY_LISTS["passwords"] if len(text) >= 8]
    for password in listed[:3000]:
        assert why(register(client, write(password))) == "This password is too common."


@pytest.mark.parametrize(
    "password", ["password", "PASSWORD", "12345678", "123456789", "qwertyuiop", "iloveyou"]
)
def test_a_common_password_is_refused(client, anna, password):
    common = "This password is too common."
    assert why(register(client, password)) == common
    assert why(patch(client, anna, password=password, old_password=PASSWORD)) == common


def test_common_is_what_the_first_3000_are():
    listed = [text for text in FREQUENCY_LISTS["passwords"] if len(text) >= 8]
    assert len(listed) > 3000
    assert {"password", "12345678", "iloveyou"} <= set(listed[:100])


def test_the_next_most_common_are_taken(client):
    listed = [text for text in FREQUENCY_LISTS["passwords"] if len(text) >= 8]
    assert register(client, listed[3000]).status_code == 201


IS_NAME = "Must not be the username or the email."


@pytest.mark.parametrize(
    "password",
    ["long-username", "LONG-username", "carl@phresh.io", "CARL@Phresh.io", "carl@PHRESH.IO"],
)
def test_a_password_is_not_the_username_or_the_email(client, password):
    assert why(register(client, password, username="long-username")) == IS_NAME
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
def test_nor_after_a_change(client, make_user, changes):
    old_password = changes.get("old_password", PASSWORD)
    cheap = PasswordHasher(1, 8, 1)
    anna = make_user("old-username", email=ANNA, password_hash=cheap.hash(old_password))
    before = client.get(ME, headers={"Authorization": f"Bearer {anna.token}"}).json
    assert why(patch(client, anna, **{"old_password": old_password, **changes})) == IS_NAME
    assert client.get(ME, headers={"Authorization": f"Bearer {anna.token}"}).json == before


# How they are hashed


def test_they_are_hashed_with_argon2id_as_owasp_has_it(app):
    settings = read_settings({})
    names = ("TIME_COST", "MEMORY_COST", "PARALLELISM")
    assert [settings[f"ARGON2_{name}"] for name in names] == [2, 19456, 1]
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


def test_the_costs_are_settings(make_app, app, sql):
    client = make_app(**COSTS).test_client()
    assert register(client).status_code == 201
    assert stored(sql).startswith("$argon2id$v=19$m=32,t=3,p=2$")
    assert log_in(client, "carl@phresh.io").status_code == 200


def test_the_same_password_has_another_hash_each_time(client, sql):
    register(client)
    register(client, email="dora@phresh.io", username="dora")
    hashes = {password_hash for (password_hash,) in sql("SELECT password_hash FROM users")}
    assert len(hashes) == 2


@pytest.mark.parametrize("name", COSTS)
def test_a_hash_of_other_costs_is_made_anew_when_one_logs_in(make_app, anna, sql, name):
    client = make_app(**{"ARGON2_MEMORY_COST": 16, name: COSTS[name]}).test_client()
    before = stored(sql)
    assert log_in(client, password=OTHER).status_code == 401
    assert stored(sql) == before
    assert log_in(client).status_code == 200
    after = stored(sql)
    assert costs_of(after) != costs_of(before)
    assert log_in(client).status_code == 200
    assert stored(sql) == after
    assert log_in(client, password=OTHER).status_code == 401


def test_a_hash_of_the_same_costs_stays(client, anna, sql):
    before = stored(sql)
    assert log_in(client).status_code == 200
    assert stored(sql) == before


# A password that is changed while the old one is checked


@pytest.fixture
def changes_meanwhile(make_app, anna, monkeypatch):
    """An app in which anna changes her password as soon as the old one was found right."""
    served = make_app(HASHES_AT_ONCE=2, ARGON2_MEMORY_COST=16)
    verify = PasswordHasher.verify

    def verified(self, *arguments):
        monkeypatch.setattr(PasswordHasher, "verify", verify)
        is_right = verify(self, *arguments)
        new = {"password": OTHER, "old_password": PASSWORD}
        with ThreadPoolExecutor(1) as pool:  # another request has a context of its own
            answer = pool.submit(patch, served.test_client(), anna, **new).result()
        assert answer.status_code == 200
        return is_right

    monkeypatch.setattr(PasswordHasher, "verify", verified)
    return served.test_client()


def test_no_token_of_the_old_password_stays(changes_meanwhile, anna):
    response = log_in(changes_meanwhile)
    token = response.json.get("access_token")
    headers = {"Authorization": f"Bearer {token}"}
    assert changes_meanwhile.get(ME, headers=headers).status_code == 401


def test_the_new_password_stays_though_the_old_one_is_hashed_anew(changes_meanwhile, anna):
    log_in(changes_meanwhile)
    assert log_in(changes_meanwhile, password=OTHER).status_code == 200
    assert log_in(changes_meanwhile).status_code == 401


@pytest.mark.parametrize("changes", [{"password": "a third password"}, {"email": "x@phresh.io"}])
def test_the_old_password_changes_nothing_any_more(changes_meanwhile, anna, sql, changes):
    """Whoever else has a token and the old password has lost both."""
    token = secrets.token_urlsafe(32)
    digest = hashlib.sha256(token.encode()).digest()
    insert = "INSERT INTO tokens (hash, user_id, expires_at) VALUES (:hash, :id, 'infinity')"
    sql(insert, hash=digest, id=anna.id)
    thief = SimpleNamespace(token=token)
    response = patch(changes_meanwhile, thief, **changes, old_password=PASSWORD)
    assert response.status_code in (401, 403)
    assert log_in(changes_meanwhile, password=OTHER).status_code == 200
    assert sql("SELECT count(*) FROM tokens WHERE hash = :hash", hash=digest) == [(0,)]


# The same for an unknown email, a wrong password and a disabled account


def asked(client, hashed, email, password=OTHER):
    """Log in; give all that could tell one refusal from another."""
    hashed.clear()
    response = log_in(client, email, password, **{"X-Request-Id": "same"})
    headers = [pair for pair in response.headers if pair[0] not in ("Date", "Retry-After")]
    return response.status_code, headers, response.data, list(hashed)


def test_nothing_tells_whether_there_is_an_account(client, make_user, hashed):
    for name in ("anna", "dora"):
        make_user(name)
    disabled = make_user("emil", is_active=False)
    wrong = asked(client, hashed, ANNA)
    assert (wrong[0], wrong[3]) == (401, [OTHER])
    assert asked(client, hashed, "nobody@phresh.example") == wrong
    assert asked(client, hashed, disabled.email) == wrong
    assert asked(client, hashed, disabled.email, PASSWORD)[:3] == wrong[:3]
    assert hashed == [PASSWORD]


def test_nor_when_there_were_too_many_tries(make_app, anna, hashed):
    client = make_app(LOGIN_FAILURES_PER_ACCOUNT=2).test_client()
    known = [asked(client, hashed, ANNA) for _ in range(4)]
    unknown = [asked(client, hashed, "nobody@phresh.example") for _ in range(4)]
    assert known == unknown
    assert [answer[0] for answer in known] == [401, 401, 429, 429]
    assert [answer[3] for answer in known] == [[OTHER], [OTHER], [], []]


def test_the_same_statements_are_sent_for_both(client, anna, statements):
    sent = []
    for email in (ANNA, "nobody@phresh.example"):
        statements.clear()
        assert log_in(client, email, OTHER).status_code == 401
        sent.append(list(statements))
    assert sent[0] == sent[1]


# Some at once


class Hasher:
    """Takes the place of argon2-cffi's; each hash waits for ``go``."""

    def __init__(self):
        self.lock = threading.Lock()
        self.go = threading.Event()
        self.came = threading.Semaphore(0)
        self.running = self.most = 0

    def hash(self, _):
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
        self.came.release()
        assert self.go.wait(60)
        with self.lock:
            self.running -= 1
        return "hash"

    def verify(self, *_):
        return self.hash("") == "hash"

    def check_needs_rehash(self, _):
        return False


def cannot_hash(*_):
    raise HashingError("Memory allocation error")


def with_hasher(app, hasher):
    app.extensions["passwords"]._hasher = hasher
    return app


@pytest.mark.parametrize("at_once", [1, 3])
def test_so_many_are_hashed_at_once_and_who_gets_no_turn_is_503(make_app, anna, at_once):
    hasher = Hasher()
    served = with_hasher(make_app(HASHES_AT_ONCE=at_once, HASH_TIMEOUT=0.05), hasher)

    def attempt(number):
        client = served.test_client()
        if number % 2:
            return register(client, email=f"u{number}@phresh.io", username=f"user-{number}")
        return log_in(client)

    with ThreadPoolExecutor(at_once + 4) as pool:
        answers = [pool.submit(attempt, number) for number in range(at_once + 4)]
        refused = [answer.result() for answer in islice(as_completed(answers), 4)]
        assert served.test_client().get(LIST).status_code == 200
        hasher.go.set()
    assert hasher.most == at_once
    for answer in refused:
        assert answer.status_code == 503
        assert answer.content_type == "application/problem+json"
        assert answer.json["detail"] == "Too many passwords to check. Try again soon."
        assert int(answer.headers["Retry-After"]) > 0
    statuses = sorted(answer.result().status_code for answer in answers)
    assert set(statuses[:at_once]) <= {200, 201}
    assert statuses[at_once:] == [503] * 4
    assert log_in(served.test_client()).status_code == 200


def test_who_waits_for_a_turn_gets_it(make_app, anna):
    hasher = Hasher()
    served = with_hasher(make_app(HASHES_AT_ONCE=1, HASH_TIMEOUT=60), hasher)
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(log_in, served.test_client()) for _ in range(4)]
        assert hasher.came.acquire(timeout=60)
        done, _ = wait(answers, timeout=0, return_when=FIRST_COMPLETED)
        assert not done
        hasher.go.set()
    assert [answer.result().status_code for answer in answers] == [200] * 4
    assert hasher.most == 1


def test_a_turn_is_given_back_whatever_happens(make_app, anna, monkeypatch):
    served = make_app(HASHES_AT_ONCE=1, HASH_TIMEOUT=0.01, LOGIN_FAILURES_PER_ACCOUNT=2)
    client = served.test_client()
    served.testing = False
    hasher = served.extensions["passwords"]._hasher
    with_hasher(served, SimpleNamespace(hash=cannot_hash, verify=cannot_hash))
    assert log_in(client).status_code == 500
    with_hasher(served, hasher)
    assert log_in(client).status_code == 200
    statuses = [log_in(client, password=OTHER).status_code for _ in range(3)]
    assert statuses == [401, 401, 429]
    assert register(client).status_code == 201


# Nothing is held while they are hashed


@pytest.fixture
def meanwhile(make_app, anna, monkeypatch):
    """An app with one connection that serves another request during each hash; its answers."""
    served = make_app(POOL_SIZE=1, POOL_TIMEOUT=0.5, ARGON2_MEMORY_COST=16)
    answers = []
    apply = phresh.accounts.passwords._apply

    def ask(function, *arguments):
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(served.test_client().get, LIST).result()
        answers.append(answer.status_code)
        return apply(function, *arguments)

    monkeypatch.setattr("phresh.accounts.passwords._apply", ask)
    return served.test_client(), answers


def test_a_login_holds_no_connection_while_it_hashes(meanwhile):
    client, answers = meanwhile
    assert log_in(client).status_code == 200
    assert answers == [200, 200], "one to verify, one to hash anew"
    assert log_in(client, "nobody@phresh.example").status_code == 401
    assert answers == [200] * 3


def test_a_registration_holds_no_connection_while_it_hashes(meanwhile):
    client, answers = meanwhile
    assert register(client).status_code == 201
    assert answers == [200]


def test_a_change_holds_no_connection_while_it_hashes(meanwhile, anna):
    client, answers = meanwhile
    assert patch(client, anna, password=OTHER, old_password=PASSWORD).status_code == 200
    assert answers == [200, 200]
    assert patch(client, anna, email="new@phresh.io", old_password=PASSWORD).status_code == 403
    assert answers == [200] * 3


def test_hashing_is_not_waiting_for_the_database(make_app, anna, monkeypatch):
    served = make_app(ARGON2_MEMORY_COST=16)
    now = [0.0]
    monkeypatch.setattr(
        "phresh.database.deadlines.time", SimpleNamespace(**{**vars(time), "monotonic": clock(now)})
    )
    left = []
    take = Pool.acquire
    monkeypatch.setattr(
        Pool, "acquire", lambda pool, seconds: left.append(seconds) or take(pool, 9)
    )
    passwords = served.extensions["passwords"]
    hasher = passwords._hasher
    passwords._hasher = SimpleNamespace(
        hash=lambda password: advance(now) or hasher.hash(password),
        verify=lambda *arguments: advance(now) or hasher.verify(*arguments),
        check_needs_rehash=hasher.check_needs_rehash,
    )
    passwords._turns = SimpleNamespace(
        acquire=lambda timeout: advance(now) or True, release=lambda: None
    )
    client = served.test_client()
    assert log_in(client).status_code == 200
    assert register(client).status_code == 201
    assert patch(client, anna, password=OTHER, old_password=PASSWORD).status_code == 200
    assert now[0] >= 1000
    assert set(left) == {served.config["DATABASE_TIMEOUT"]}


def clock(now):
    return lambda: now[0]


def advance(now):
    now[0] += 100


# Nothing in the log


SECRETS = {name: f"secret {name} password" for name in ("old", "new", "wrong")}


def use(client, token=None):
    """Do with passwords and tokens all that can be done; give the tokens, and the statuses."""
    old, new, wrong = SECRETS.values()
    answers = [
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
    login = answers[6].json.get("access_token") if token is None else token
    first = answers[0].json.get("access_token", {}).get("access_token", login)
    headers = {"Authorization": f"Bearer {login}"}
    job = {"new_cleaning": {"name": "Job", "price": 20}}
    change = {"password": new, "old_password": old}
    answers += [
        client.patch(ME, json={"user_update": {**change, "old_password": wrong}}, headers=headers),
        client.patch(ME, json={"user_update": {**change, "email": "x"}}, headers=headers),
        client.patch(ME, json={"user_update": change}, headers=headers),
        client.post(LIST, json=job, headers={**headers, "Idempotency-Key": "one"}),
        client.get(ME, headers={"Authorization": f"Bearer {first}"}),
        client.get(ME, headers={"Authorization": f"Basic {login}"}),
        client.post(f"{USERS}logout/", headers=headers),
        client.delete(ME, headers=headers),
    ]
    return {login, first}, [answer.status_code for answer in answers]


def assert_in_no_line(lines, secrets):
    written = json.dumps(lines, ensure_ascii=False)
    assert not any(secret in written for secret in (*secrets, *SECRETS.values(), "argon2id"))


def test_no_password_or_token_is_in_a_line(client, app, lines):
    tokens, statuses = use(client)
    expected = [201, 409, 422, 422, 415, 400, 200, 401, 401, 422]
    assert statuses == [*expected, 403, 422, 200, 201, 401, 401, 204, 401]
    assert [line["status"] for line in lines() if line["logger"] == "phresh.access"] == statuses
    assert len(tokens) == 2
    assert_in_no_line(lines(), tokens)


def test_nor_when_the_database_is_away(lines):
    app = create_app({"DATABASE_URL": "postgresql://127.0.0.1:1/none"})
    tokens, statuses = use(app.test_client(), "secret-token")
    assert statuses.count(503) >= 8
    assert any("is away" in line["message"] for line in lines())
    assert_in_no_line(lines(), tokens)


def test_nor_when_the_tables_are_missing(make_database, lines):
    app = create_app({"DATABASE_URL": make_database("bare")})
    tokens, statuses = use(app.test_client(), "secret-token")
    assert statuses.count(500) >= 8
    assert any("traceback" in line for line in lines())
    assert_in_no_line(lines(), tokens)


@pytest.mark.parametrize("table", ["users", "tokens", "attempts", "cleanings"])
@pytest.mark.parametrize(
    "error", [psycopg2.errors.NotNullViolation, psycopg2.errors.CheckViolation, RuntimeError]
)
def test_nor_when_a_write_fails(make_app, app, lines, monkeypatch, table, error):
    run = UnitOfWork.run

    def fails(session, query):
        writes = query.statement.text.startswith((f"INSERT INTO {table}", f"UPDATE {table}"))
        if writes:
            raise error
        return run(session, query)

    monkeypatch.setattr(UnitOfWork, "run", fails)
    served = make_app()
    served.testing = False
    served.config["PROPAGATE_EXCEPTIONS"] = False
    tokens, statuses = use(served.test_client())
    assert 500 in statuses
    assert_in_no_line(lines(), tokens - {None})


def test_nor_when_the_server_refuses_a_value(make_app, app, sql, lines):
    """PostgreSQL's message of a failed CHECK quotes the row."""
    sql("ALTER TABLE users ADD CONSTRAINT never CHECK (false) NOT VALID")
    try:
        assert register(make_app().test_client(), SECRETS["new"]).status_code >= 400
    finally:
        sql("ALTER TABLE users DROP CONSTRAINT never")
    assert any("never" in line["message"] for line in lines())
    assert_in_no_line(lines(), {"carl@phresh.io"})


def test_nor_when_a_hash_cannot_be_made(make_app, anna, lines):
    served = make_app()
    served.testing = False
    with_hasher(served, SimpleNamespace(hash=cannot_hash, verify=cannot_hash))
    client = served.test_client()
    assert register(client, SECRETS["new"]).status_code == 500
    assert log_in(client, password=SECRETS["wrong"]).status_code == 500
    assert any("HashingError" in line.get("exception", "") for line in lines())
    assert_in_no_line(lines(), set())
