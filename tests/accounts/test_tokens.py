"""Tokens: which are valid, how they are stored, and that invalid ones are rejected with 401."""

import base64
import hashlib
import json
import secrets
from datetime import timedelta

import pytest

from phresh import create_app
from phresh.config import read_settings
from phresh.database.base import db
from tests.tools.users import PASSWORD

USERS = "/api/users/"
ME = f"{USERS}me/"
LOGIN = f"{USERS}login/token/"
LIST = "/api/cleanings/"
CLEANING = {"new_cleaning": {"name": "Job", "price": 20}}
REGISTRATION = {"email": "carl@phresh.io", "username": "carl", "password": PASSWORD}
INVALID_TOKEN = 'Bearer error="invalid_token"'


def get_me(client, authorization):
    return client.get(ME, headers={"Authorization": authorization})


def post(client, authorization):
    return client.post(LIST, json=CLEANING, headers={"Authorization": authorization})


def assert_unauthorized(response, challenge=INVALID_TOKEN):
    assert response.status_code == 401
    assert response.content_type == "application/problem+json"
    assert response.headers.getlist("WWW-Authenticate") == [challenge]


def with_changed_letter(text, position):
    """Return the text with another letter at that position."""
    letters = list(text)
    letters[position] = "A" if letters[position] != "A" else "B"
    return "".join(letters)


def jwt(user, algorithm="none", signature=""):
    claims = {"sub": str(user.id), "email": user.email, "exp": 2**31}
    parts = ({"alg": algorithm, "typ": "JWT"}, claims)
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts]
    return f"{b'.'.join(encoded).decode()}.{signature}"


def basic(user, password):
    return base64.b64encode(f"{user.email}:{password}".encode()).decode()


INVALID_AUTHORIZATIONS = {
    "an empty header": lambda _: "",
    "blanks": lambda _: "  ",
    "a scheme without a token": lambda _: "Bearer",
    "a scheme and a blank": lambda _: "Bearer ",
    "a token without a scheme": lambda user: user.token,
    "the first letter changed": lambda user: f"Bearer {with_changed_letter(user.token, 0)}",
    "a letter changed": lambda user: f"Bearer {with_changed_letter(user.token, 20)}",
    "the last letter changed": lambda user: f"Bearer {with_changed_letter(user.token, -1)}",
    "too short": lambda user: f"Bearer {user.token[:-1]}",
    "too long": lambda user: f"Bearer {user.token}A",
    "padded": lambda user: f"Bearer {user.token}=",
    "in lower case": lambda user: f"Bearer {user.token.lower()}x",
    "quoted": lambda user: f'Bearer "{user.token}"',
    "as a parameter": lambda user: f'Bearer token="{user.token}"',
    "two tokens": lambda user: f"Bearer {user.token} {user.token}",
    "two headers": lambda user: f"Bearer {user.token}, Bearer {user.token}",
    "unknown": lambda _: f"Bearer {secrets.token_urlsafe(32)}",
    "the hash of the token": lambda user: (
        f"Bearer {hashlib.sha256(user.token.encode()).hexdigest()}"
    ),
    "the user id": lambda user: f"Bearer {user.id}",
    "a JWT without a signature": lambda user: f"Bearer {jwt(user)}",
    "a JWT with algorithm None": lambda user: f"Bearer {jwt(user, 'None')}",
    "a signed JWT": lambda user: f"Bearer {jwt(user, 'HS256', 'c2lnbmF0dXJl')}",
    "not ASCII": lambda _: "Bearer \u00e4\u00f6\u00fc",
    "control characters": lambda _: "Bearer a\tb\x7f",
    "very long": lambda user: f"Bearer {user.token * 100}",
    "Basic": lambda user: f"Basic {basic(user, PASSWORD)}",
    "Basic with a token": lambda user: f"Basic {user.token}",
    "broken Basic": lambda _: "Basic %",
    "Digest": lambda user: f'Digest username="{user.email}", response="0"',
    "Token": lambda user: f"Token {user.token}",
    "DPoP": lambda user: f"DPoP {user.token}",
    "an unknown scheme": lambda user: f"BearerX {user.token}",
    "a colon after the scheme": lambda user: f"Bearer: {user.token}",
    "a tab after the scheme": lambda user: f"Bearer\t{user.token}",
}


@pytest.mark.parametrize("header", INVALID_AUTHORIZATIONS)
def test_an_invalid_authorization_header_returns_401_and_creates_no_guest_cleaning(
    client, anna, sql, header
):
    authorization = INVALID_AUTHORIZATIONS[header](anna)
    assert_unauthorized(get_me(client, authorization))
    assert_unauthorized(post(client, authorization))
    assert sql("SELECT count(*) FROM cleanings") == [(0,)]
    assert get_me(client, f"Bearer {anna.token}").status_code == 200


WAYS_TO_END = {
    "expired": "UPDATE tokens SET expires_at = now() WHERE user_id = :id",
    "expired long ago": "UPDATE tokens SET expires_at = '2001-01-01' WHERE user_id = :id",
    "ended": "DELETE FROM tokens WHERE user_id = :id",
    "of a disabled account": "UPDATE users SET is_active = false WHERE id = :id",
    "of a deleted account": "DELETE FROM users WHERE id = :id",
}


@pytest.mark.parametrize("way", WAYS_TO_END)
def test_an_expired_or_ended_token_is_rejected_at_once(client, anna, ben, sql, way):
    authorization = f"Bearer {anna.token}"
    assert get_me(client, authorization).status_code == 200
    sql(WAYS_TO_END[way], id=anna.id)
    assert_unauthorized(get_me(client, authorization))
    assert_unauthorized(post(client, authorization))
    assert sql("SELECT count(*) FROM cleanings") == [(0,)]
    assert get_me(client, f"Bearer {ben.token}").status_code == 200


def test_a_token_is_rejected_after_logout(client, anna, sql):
    assert anna.client.post(f"{USERS}logout/").status_code == 204
    assert_unauthorized(get_me(client, f"Bearer {anna.token}"))
    assert_unauthorized(post(client, f"Bearer {anna.token}"))


def test_a_token_is_valid_until_it_expires(client, anna, sql):
    sql("UPDATE tokens SET expires_at = now() + interval '1 minute'")
    assert get_me(client, f"Bearer {anna.token}").status_code == 200


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR"])
def test_the_bearer_scheme_is_case_insensitive(client, anna, scheme):
    assert get_me(client, f"{scheme} {anna.token}").status_code == 200
    assert post(client, f"{scheme} {anna.token}").json["owner"] == {"username": "anna"}


def test_a_request_without_a_token_returns_401_with_a_bearer_challenge(client):
    assert_unauthorized(client.get(ME), "Bearer")


@pytest.mark.parametrize("location", ["query", "form", "cookie", "header"])
def test_a_token_outside_the_authorization_header_is_ignored(client, anna, location):
    options = {
        "query": {"query_string": {"access_token": anna.token}},
        "form": {"data": {"access_token": anna.token}},
        "cookie": {"headers": {"Cookie": f"access_token={anna.token}"}},
        "header": {"headers": {"X-Access-Token": anna.token}},
    }[location]
    assert_unauthorized(client.open(ME, method="PATCH", **options), "Bearer")


# Guests


def test_posting_without_a_token_creates_a_cleaning_without_an_owner(client):
    response = client.post(LIST, json=CLEANING)
    assert response.status_code == 201
    assert response.json["owner"] is None


def test_posting_requires_a_token_when_guest_posting_is_disabled(make_app, anna, sql):
    client = make_app(GUEST_POSTING=False).test_client()
    assert_unauthorized(client.post(LIST, json=CLEANING), "Bearer")
    assert_unauthorized(post(client, "Bearer x"))
    assert_unauthorized(post(client, ""))
    assert sql("SELECT count(*) FROM cleanings") == [(0,)]
    assert post(client, f"Bearer {anna.token}").json["owner"] == {"username": "anna"}
    assert client.get(LIST).status_code == 200


def test_guest_posting_is_enabled_unless_the_environment_disables_it(monkeypatch):
    monkeypatch.delenv("GUEST_POSTING", raising=False)
    assert read_settings({})["GUEST_POSTING"] is True
    monkeypatch.setenv("GUEST_POSTING", "false")
    assert read_settings()["GUEST_POSTING"] is False


# What is stored of a token


def test_only_the_hash_of_a_token_is_stored(make_app, anna, sql):
    client = make_app().test_client()
    registered = client.post(USERS, json={"new_user": REGISTRATION}).json["access_token"]
    form = {"username": REGISTRATION["email"], "password": PASSWORD}
    logged_in = client.post(LOGIN, data=form).json
    tokens = [registered["access_token"], logged_in["access_token"], anna.token]
    for token in tokens:
        headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": "a"}
        assert client.post(LIST, json=CLEANING, headers=headers).status_code == 201
    hashes = {bytes(digest) for (digest,) in sql("SELECT hash FROM tokens")}
    assert hashes == {hashlib.sha256(token.encode()).digest() for token in tokens}
    stored = [str(sql(f"SELECT t::text FROM {name} t")) for name in db.metadata.tables]
    assert any("argon2id" in text for text in stored)
    for secret in (*tokens, PASSWORD):
        for form in (secret, secret.encode().hex()):
            assert not any(form in text for text in stored)


@pytest.mark.parametrize("seconds", [1, 3600])
def test_the_token_lifetime_follows_its_setting(make_app, sql, seconds):
    client = make_app(TOKEN_LIFETIME=seconds).test_client()
    token = client.post(USERS, json={"new_user": REGISTRATION}).json["access_token"]
    assert token["expires_in"] == seconds
    assert sql("SELECT expires_at - created_at FROM tokens") == [(timedelta(seconds=seconds),)]


def test_a_token_has_32_random_bytes(make_app, anna, monkeypatch):
    sizes = []
    monkeypatch.setattr(
        "phresh.accounts.tokens.secrets.token_urlsafe", lambda size: sizes.append(size) or "token"
    )
    form = {"username": anna.email, "password": PASSWORD}
    assert make_app().test_client().post(LOGIN, data=form).json["access_token"] == "token"
    assert sizes == [32]


def test_a_token_is_checked_with_one_index_lookup(client, anna, statements, sql):
    get_me(client, f"Bearer {anna.token}")
    check, _ = statements
    assert check.startswith("SELECT")
    assert "tokens.hash = " in check
    key = "SELECT indexdef FROM pg_indexes WHERE indexname = 'pk_tokens'"
    assert "UNIQUE INDEX pk_tokens ON public.tokens USING btree (hash)" in sql(key)[0][0]


def test_a_token_returns_503_and_not_401_when_the_database_is_unavailable(anna):
    client = create_app({"DATABASE_URL": "postgresql://127.0.0.1:1/none"}).test_client()
    for response in (get_me(client, f"Bearer {anna.token}"), post(client, f"Bearer {anna.token}")):
        assert response.status_code == 503
    assert_unauthorized(get_me(client, "Basic x"))
    assert_unauthorized(client.get(ME), "Bearer")


# Authentication comes before all other checks

BODIES = {
    413: {"data": b" " * 70_000, "content_type": "application/json"},
    415: {"data": b"{}", "content_type": "text/plain"},
    400: {"data": b"{", "content_type": "application/json"},
    422: {"json": {"x": 1}},
}
UNKNOWN = f"{LIST}2147483647/"
ERRORS = [
    *(("PATCH", ME, status, body) for status, body in BODIES.items()),
    *(("POST", LIST, status, body) for status, body in BODIES.items()),
    *(("PATCH", UNKNOWN, status, body) for status, body in BODIES.items()),
    *(("PUT", UNKNOWN, status, body) for status, body in BODIES.items()),
    ("PATCH", UNKNOWN, 404, {"json": {"cleaning_update": {}}}),
    ("PUT", UNKNOWN, 404, {"json": {"cleaning_update": {}}}),
    ("DELETE", UNKNOWN, 404, {}),
    ("POST", LIST, 422, {"json": CLEANING, "headers": {"Idempotency-Key": "a b"}}),
    ("POST", LIST, 422, {"json": CLEANING, "query_string": {"x": "y"}}),
    ("GET", ME, 422, {"query_string": {"x": "y"}}),
    ("DELETE", ME, 422, {"query_string": {"x": "y"}}),
    ("POST", f"{USERS}logout/", 422, {"query_string": {"x": "y"}}),
    ("DELETE", UNKNOWN, 422, {"query_string": {"x": "y"}}),
]


@pytest.mark.parametrize(("method", "path", "status", "options"), ERRORS)
def test_401_comes_before_every_other_error(client, anna, method, path, status, options):
    extra_headers = options.get("headers", {})
    for authorization, expected in ((f"Bearer {anna.token}", status), ("Bearer x", 401)):
        headers = {"Authorization": authorization, **extra_headers}
        response = client.open(path, method=method, **{**options, "headers": headers})
        assert response.status_code == expected
    if path != LIST:
        assert_unauthorized(client.open(path, method=method, **options), "Bearer")


def test_a_request_rejected_with_401_stores_no_idempotency_key(client, anna, sql):
    headers = {"Authorization": "Bearer x", "Idempotency-Key": "one"}
    assert_unauthorized(client.post(LIST, json=CLEANING, headers=headers))
    assert sql("SELECT count(*) FROM idempotency_keys") == [(0,)]
