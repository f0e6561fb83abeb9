"""Accounts over HTTP: register, log in, read, change, delete, log out, and each error."""

import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from phresh.accounts.tokens import fetch_autocommit
from tests.tools.contract import TIME
from tests.tools.users import PASSWORD

USERS = "/api/users/"
LOGIN = f"{USERS}login/token/"
LOGOUT = f"{USERS}logout/"
ME = f"{USERS}me/"
LIST = "/api/cleanings/"
OTHER_PASSWORD = "four cats on a roof"


@pytest.fixture
def send(client):
    """Send a request with a token."""

    def send_request(token, method, path, **options):
        headers = {"Authorization": f"Bearer {token}"}
        return client.open(path, method=method, headers=headers, **options)

    return send_request


@pytest.fixture
def patch(send):
    return lambda token, **changes: send(token, "PATCH", ME, json={"user_update": changes})


def register(client, **values):
    new = {"email": "anna@phresh.io", "username": "anna", "password": PASSWORD, **values}
    new = {name: value for name, value in new.items() if value is not ...}
    return client.post(USERS, json={"new_user": new})


def log_in(client, email="anna@phresh.example", password=PASSWORD, **form):
    return client.post(LOGIN, data={"username": email, "password": password, **form})


def token_of(response):
    assert response.status_code == 200, response.data
    return response.json["access_token"]


def errors(response):
    assert response.status_code == 422, response.data
    assert response.content_type == "application/problem+json"
    return {
        error.get("pointer", error.get("parameter")): error["detail"]
        for error in response.json["errors"]
    }


# Register


def test_registration_returns_the_account_and_a_token(client, send):
    response = register(client)
    assert response.status_code == 201
    assert response.content_type == "application/json"
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["Location"] == ME
    user = response.json
    token = user.pop("access_token")
    assert list(user) == [
        "id",
        "email",
        "email_verified",
        "username",
        "language",
        "profile",
        "has_two_factor",
        "is_superuser",
        "created_at",
        "updated_at",
    ]
    assert (user["email"], user["username"]) == ("anna@phresh.io", "anna")
    assert TIME.fullmatch(user["created_at"])
    assert user["updated_at"] == user["created_at"]
    assert list(token) == ["access_token", "token_type", "expires_in"]
    assert (token["token_type"], token["expires_in"]) == ("bearer", 7 * 24 * 3600)
    assert re.fullmatch(r"[\w-]{43}", token["access_token"])
    assert send(token["access_token"], "GET", ME).json == user


def test_responses_contain_neither_the_password_nor_its_hash(client, send):
    response = register(client)
    token = response.json["access_token"]["access_token"]
    for each in (response, send(token, "GET", ME)):
        assert PASSWORD.encode() not in each.data
        assert b"argon2" not in each.data


@pytest.mark.parametrize(
    ("email", "stored"),
    [
        ("a@phresh.io", "a@phresh.io"),
        ("Anna.B+c@Mail.PHRESH.io", "Anna.B+c@mail.phresh.io"),
        ("o'neil!#$%@phresh.io", "o'neil!#$%@phresh.io"),
        ("änna@phresh.io", "änna@phresh.io"),
        ("a\u0308nna@phresh.io", "änna@phresh.io"),
        ("anna@müller.example", "anna@müller.example"),
        ("anna@xn--mller-kva.example", "anna@müller.example"),
        (f"{'a' * 64}@{'b' * 60}.{'c' * 60}.{'d' * 60}.io", ...),
    ],
)
def test_login_works_with_the_email_as_sent_and_as_stored(client, email, stored):
    response = register(client, email=email)
    assert response.status_code == 201, response.data
    assert response.json["email"] == (email if stored is ... else stored)
    assert log_in(client, email).status_code == 200
    assert log_in(client, response.json["email"]).status_code == 200


@pytest.mark.parametrize(
    "email",
    [
        *("", "anna", "@phresh.io", "anna@", "anna@phresh", "anna@localhost", "a@b@phresh.io"),
        *(" anna@phresh.io", "anna@phresh.io ", "an na@phresh.io", "anna@phresh.io\n"),
        *("Anna <anna@phresh.io>", '"anna"@phresh.io', "anna@[127.0.0.1]", "a..b@phresh.io"),
        *("anna@phresh..io", "anna@-phresh.io", "an\0na@phresh.io", "\ud800@phresh.io"),
        *("anna@phresh.test", f"a@{'b.' * 126}io"),
        *(None, 1, True, ["anna@phresh.io"], {}, ...),
    ],
)
def test_an_invalid_email_is_rejected(client, email):
    assert set(errors(register(client, email=email))) == {"/new_user/email"}


@pytest.mark.parametrize("username", ["abc", "A-b_9", "___", "-0-", "a" * 30])
def test_a_valid_username_is_stored_unchanged(client, username):
    response = register(client, username=username)
    assert response.status_code == 201
    assert response.json["username"] == username


@pytest.mark.parametrize(
    "username",
    [
        *("", "ab", "a" * 31, "an na", "anna ", "anna\n", "ann.a", "ann@", "änna", "аnna", "anna٣"),
        *("an\0na", "\ud800anna", None, 1, True, ["anna"], ...),
    ],
)
def test_an_invalid_username_is_rejected(client, username):
    assert set(errors(register(client, username=username))) == {"/new_user/username"}


@pytest.mark.parametrize("password", [None, 12345678, True, ["a password"], {}, ...])
def test_a_password_that_is_missing_or_not_a_string_is_rejected(client, password):
    assert set(errors(register(client, password=password))) == {"/new_user/password"}


@pytest.mark.parametrize(
    "extra",
    [{"id": 1}, {"is_active": True}, {"password_hash": "x"}, {"created_at": "2020-01-01"}],
)
def test_unknown_account_fields_are_rejected(client, anna, patch, extra):
    (name,) = extra
    assert errors(register(client, **extra)) == {f"/new_user/{name}": "Unknown field."}
    assert errors(patch(anna.token, **extra)) == {f"/user_update/{name}": "Unknown field."}


@pytest.mark.parametrize("body", [{}, [], 1, "null", {"new_user": None}, {"user": {}}, {"x": 1}])
def test_an_account_body_without_its_envelope_is_rejected(client, anna, send, body):
    assert client.post(USERS, json=body).status_code == 422
    assert send(anna.token, "PATCH", ME, json=body).status_code == 422


EMAIL_TAKEN = "An account with this email already exists."
USERNAME_TAKEN = "An account with this username already exists."


@pytest.mark.parametrize(
    ("values", "detail"),
    [
        ({"username": "ben"}, EMAIL_TAKEN),
        ({"username": "ben", "email": "ANNA@Phresh.IO"}, EMAIL_TAKEN),
        ({"email": "ben@phresh.io"}, USERNAME_TAKEN),
        ({"email": "ben@phresh.io", "username": "ANNA"}, USERNAME_TAKEN),
    ],
)
def test_registering_a_taken_email_or_username_returns_409_and_says_which(
    client, sql, values, detail
):
    assert register(client).status_code == 201
    response = register(client, **values)
    assert response.status_code == 409
    assert response.content_type == "application/problem+json"
    assert response.json["detail"] == detail
    assert "access_token" not in response.json
    assert sql("SELECT count(*) FROM users") == [(1,)]
    assert sql("SELECT count(*) FROM tokens") == [(1,)]


def test_a_non_ascii_email_is_unique_regardless_of_case(client):
    assert register(client, email="ÄNNA@phresh.io").status_code == 201
    response = register(client, email="änna@phresh.io", username="ben")
    assert (response.status_code, response.json["detail"]) == (409, EMAIL_TAKEN)


@pytest.mark.parametrize(
    ("values", "detail"),
    [
        (lambda i: {"email": ["anna@phresh.io", "ANNA@PHRESH.IO"][i % 2]}, EMAIL_TAKEN),
        (lambda i: {"username": ["anna", "ANNA"][i % 2]}, USERNAME_TAKEN),
    ],
    ids=["email", "username"],
)
def test_20_concurrent_registrations_create_one_account(app, sql, values, detail):
    def attempt(number):
        unique = {"email": f"user-{number}@phresh.io", "username": f"user-{number}"}
        return register(app.test_client(), **{**unique, **values(number)})

    with ThreadPoolExecutor(20) as pool:
        responses = list(pool.map(attempt, range(20)))
    assert sorted(response.status_code for response in responses) == [201] + [409] * 19
    rejected = [response for response in responses if response.status_code == 409]
    assert {response.json["detail"] for response in rejected} == {detail}
    assert sql("SELECT count(*) FROM users") == [(1,)]
    assert sql("SELECT count(*) FROM tokens") == [(1,)]


def test_a_registration_whose_token_fails_creates_no_account(client, anna, sql, monkeypatch):
    monkeypatch.setattr("phresh.accounts.tokens.secrets.token_urlsafe", lambda _: anna.token)
    response = register(client, username="ben", email="ben@phresh.io")
    assert response.status_code >= 400
    assert "access_token" not in response.json
    assert sql("SELECT username FROM users") == [("anna",)]


# Log in


def test_login_returns_a_token(client, anna, send):
    response = log_in(client)
    assert response.status_code == 200
    assert response.content_type == "application/json"
    assert response.headers["Cache-Control"] == "no-store"
    body = response.json
    assert list(body) == ["access_token", "token_type", "expires_in"]
    assert (body["token_type"], body["expires_in"]) == ("bearer", 7 * 24 * 3600)
    assert send(body["access_token"], "GET", ME).json["username"] == "anna"
    assert body["access_token"] != token_of(log_in(client))
    assert send(anna.token, "GET", ME).status_code == 200


@pytest.mark.parametrize("email", ["ANNA@phresh.example", "anna@PHRESH.Example"])
def test_login_ignores_the_case_of_the_email(client, anna, email):
    assert log_in(client, email).status_code == 200


@pytest.mark.parametrize(
    ("email", "password"),
    [
        ("anna@phresh.example", PASSWORD.upper()),
        ("anna@phresh.example", PASSWORD + " "),
        ("anna@phresh.example", PASSWORD[:-1]),
        ("anna@phresh.example", "x"),
        ("anna", PASSWORD),
        ("anna@phresh.example ", PASSWORD),
        ("ben@phresh.example", PASSWORD),
        ("%", PASSWORD),
        ("' OR true --", PASSWORD),
    ],
)
def test_login_with_a_wrong_email_or_password_is_an_invalid_grant(client, anna, email, password):
    response = log_in(client, email, password)
    assert response.status_code == 400
    assert response.content_type == "application/problem+json"
    assert response.json["detail"] == "Wrong email or password."
    assert response.json["error"] == "invalid_grant"
    assert response.headers["Cache-Control"] == "no-store"
    assert "WWW-Authenticate" not in response.headers  # RFC 6749 5.2: of invalid_client


def test_login_with_the_password_of_another_account_is_rejected(
    client, anna, ben, sql, send, patch
):
    assert patch(ben.token, password=OTHER_PASSWORD, old_password=PASSWORD).status_code == 200
    assert log_in(client, anna.email, OTHER_PASSWORD).status_code == 400
    assert log_in(client, ben.email, OTHER_PASSWORD).status_code == 200


@pytest.mark.parametrize(
    "extra", [{"grant_type": "password"}, {"scope": "", "client_id": "x", "client_secret": "y"}]
)
def test_login_accepts_the_extra_fields_of_swagger_ui(client, anna, extra):
    assert log_in(client, **extra).status_code == 200


@pytest.mark.parametrize(
    ("form", "names"),
    [
        ({"x": "y"}, {"username", "password"}),
        ({"username": "anna@phresh.example"}, {"password"}),
        ({"password": PASSWORD}, {"username"}),
        ({"username": "", "password": ""}, {"username", "password"}),
        ({"username": "a" * 255, "password": PASSWORD}, {"username"}),
        ({"username": "a\0", "password": PASSWORD}, {"username"}),
        ({"username": "anna@phresh.example", "password": "a" * 129}, {"password"}),
        ({"username": "anna@phresh.example", "password": "a\0aaaaaaa"}, {"password"}),
        ({"username": "a", "password": "b", "grant_type": "client_credentials"}, {"grant_type"}),
    ],
)
def test_a_login_form_with_invalid_fields_is_rejected_and_not_counted(
    client, anna, sql, form, names
):
    response = client.post(LOGIN, data=form)
    assert response.status_code == 400
    assert {error["parameter"] for error in response.json["errors"]} == names
    assert sql("SELECT key FROM quotas") == [("write from 127.0.0.1",)]


def test_login_without_a_form_returns_415(client, anna):
    form = {"username": anna.email, "password": PASSWORD}
    assert client.post(LOGIN, json=form).status_code == 415
    assert client.post(LOGIN).status_code == 415
    assert client.post(LOGIN, data=form, content_type="multipart/form-data").status_code == 200


def test_credentials_in_the_query_string_are_rejected(client, anna):
    form = {"username": anna.email, "password": PASSWORD}
    response = client.post(LOGIN, query_string=form, data=form)
    assert (response.status_code, response.json["error"]) == (400, "invalid_request")


# Read and change the current user


def test_get_me_returns_the_current_user_and_304_for_a_known_etag(client, send):
    registered = register(client).json
    token = registered.pop("access_token")["access_token"]
    response = send(token, "GET", ME)
    assert response.json == registered
    assert response.content_type == "application/json"
    assert send(token, "HEAD", ME).status_code == 200
    headers = {"Authorization": f"Bearer {token}", "If-None-Match": response.headers["ETag"]}
    assert client.get(ME, headers=headers).status_code == 304


def test_changing_the_username_without_the_password_ends_no_token(client, anna, send, patch):
    other = token_of(log_in(client))
    before = send(anna.token, "GET", ME).json
    response = patch(anna.token, username="Anna-2")
    assert response.status_code == 200
    after = response.json
    assert after["updated_at"] > before["updated_at"]
    changed = {"username": "Anna-2", "updated_at": after["updated_at"]}
    assert after == {**before, **changed}
    assert send(other, "GET", ME).json == after


def test_changing_the_email_with_the_password_ends_other_tokens(client, anna, ben, send, patch):
    other = token_of(log_in(client))
    response = patch(anna.token, email="Anna@NEW.example", old_password=PASSWORD)
    assert response.status_code == 200
    assert response.json["email"] == "Anna@new.example"
    assert send(other, "GET", ME).status_code == 401
    assert send(anna.token, "GET", ME).json == response.json
    assert send(ben.token, "GET", ME).status_code == 200
    assert log_in(client).status_code == 400
    assert log_in(client, "anna@new.example").status_code == 200


def test_changing_the_password_with_the_old_one_ends_other_tokens(client, anna, ben, send, patch):
    other = token_of(log_in(client))
    response = patch(anna.token, password=OTHER_PASSWORD, old_password=PASSWORD)
    assert response.status_code == 200
    assert "password" not in response.json
    assert send(other, "GET", ME).status_code == 401
    assert send(anna.token, "GET", ME).status_code == 200
    assert send(ben.token, "GET", ME).status_code == 200
    assert log_in(client).status_code == 400
    assert log_in(client, password=OTHER_PASSWORD).status_code == 200


def test_email_username_and_password_can_be_changed_in_one_request(client, anna, patch):
    new = {"email": "new@phresh.io", "username": "new", "password": OTHER_PASSWORD}
    assert patch(anna.token, **new, old_password=PASSWORD).status_code == 200
    response = log_in(client, "new@phresh.io", OTHER_PASSWORD)
    assert response.status_code == 200


@pytest.mark.parametrize("changes", [{"email": "new@phresh.io"}, {"password": OTHER_PASSWORD}])
def test_changing_email_or_password_without_the_old_password_is_rejected(
    client, anna, send, patch, changes
):
    before = send(anna.token, "GET", ME).json
    other = token_of(log_in(client))
    assert set(errors(patch(anna.token, **changes))) == {"/user_update/old_password"}
    for wrong in ("wrong", "", PASSWORD.upper()):
        response = patch(anna.token, **changes, old_password=wrong)
        assert response.status_code == 403
        assert response.json["detail"] == "The old password is wrong."
    assert send(anna.token, "GET", ME).json == before
    assert send(other, "GET", ME).status_code == 200
    assert log_in(client).status_code == 200


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"email": "anna"}, {"email"}),
        ({"username": "an na"}, {"username"}),
        ({"password": "short"}, {"password"}),
        ({"password": "password"}, {"password"}),
        ({"email": None, "username": None, "password": None}, {"email", "username", "password"}),
    ],
)
def test_account_changes_are_validated_like_registrations(anna, patch, changes, names):
    rejected = errors(patch(anna.token, **changes, old_password=PASSWORD))
    assert set(rejected) == {f"/user_update/{name}" for name in names}


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"email": "BEN@phresh.example", "old_password": PASSWORD}, EMAIL_TAKEN),
        ({"username": "BEN"}, USERNAME_TAKEN),
    ],
)
def test_changing_to_the_email_or_username_of_another_account_returns_409(
    anna, ben, send, patch, changes, detail
):
    before = send(anna.token, "GET", ME).json
    response = patch(anna.token, **changes)
    assert (response.status_code, response.json["detail"]) == (409, detail)
    assert send(anna.token, "GET", ME).json == before


def test_changing_only_the_case_of_email_and_username_is_allowed(anna, patch):
    changes = {"email": "ANNA@phresh.example", "username": "ANNA"}
    response = patch(anna.token, **changes, old_password=PASSWORD)
    assert response.status_code == 200
    assert {name: response.json[name] for name in changes} == changes


def test_an_empty_account_update_changes_nothing(anna, send, patch):
    before = send(anna.token, "GET", ME)
    assert patch(anna.token).data == before.data
    assert send(anna.token, "GET", ME).data == before.data


def test_cleanings_show_the_changed_username_of_their_owner(client, anna, patch, make_cleaning):
    cleaning_id = make_cleaning(owner_id=anna.id)
    patch(anna.token, username="anna-2")
    assert client.get(f"{LIST}{cleaning_id}/").json["owner"] == {"username": "anna-2"}
    assert [job["id"] for job in client.get(f"{LIST}?owner=anna-2").json] == [cleaning_id]
    assert client.get(f"{LIST}?owner=anna").json == []


# Delete, log out


def test_deleting_an_account_deletes_its_cleanings_and_tokens(
    client, anna, ben, send, make_cleaning, sql
):
    other = token_of(log_in(client))
    make_cleaning(owner_id=anna.id)
    kept = [make_cleaning(owner_id=owner) for owner in (ben.id, None)]
    response = send(anna.token, "DELETE", ME)
    assert (response.status_code, response.data) == (204, b"")
    assert {job["id"] for job in client.get(LIST).json} == set(kept)
    assert client.get(f"{LIST}?owner=anna").json == []
    for token in (anna.token, other):
        assert send(token, "GET", ME).status_code == 401
    assert log_in(client).status_code == 400
    assert send(ben.token, "GET", ME).status_code == 200
    assert sql("SELECT user_id FROM tokens") == [(ben.id,)]


def test_registering_the_names_of_a_deleted_account_creates_an_empty_account(
    client, anna, send, sql
):
    job = {"new_cleaning": {"name": "Job", "price": 20}}
    headers = {"Authorization": f"Bearer {anna.token}", "Idempotency-Key": "one"}
    client.post(LIST, json=job, headers=headers)
    send(anna.token, "DELETE", ME)
    sql("UPDATE released_usernames SET released_at = now() - interval '90 days'")
    response = register(client, email=anna.email, username="anna")
    assert response.status_code == 201
    assert client.get(f"{LIST}?owner=anna").json == []
    assert send(anna.token, "GET", ME).status_code == 401


def test_logout_ends_only_the_token_of_the_request(client, anna, ben, send):
    other = token_of(log_in(client))
    response = send(anna.token, "POST", LOGOUT)
    assert (response.status_code, response.data) == (204, b"")
    assert send(anna.token, "GET", ME).status_code == 401
    assert send(anna.token, "POST", LOGOUT).status_code == 401
    assert send(other, "GET", ME).status_code == 200
    assert send(ben.token, "GET", ME).status_code == 200


# Accounts that are deleted during a request


@pytest.fixture
def accounts_deleted_after_lookup(monkeypatch, sql):
    """Delete every account right after a request looked it up, as a concurrent request would."""

    def fetch_then_delete(query):
        rows = fetch_autocommit(query)
        sql("DELETE FROM users")
        return rows

    for module in ("tokens", "limits", "services"):
        monkeypatch.setattr(f"phresh.accounts.{module}.fetch_autocommit", fetch_then_delete)


CLEANING = {"new_cleaning": {"name": "Job", "price": 20}}


@pytest.mark.parametrize(
    ("method", "path", "body", "statuses"),
    [
        ("GET", ME, None, {401}),
        ("PATCH", ME, {"user_update": {}}, {401}),
        ("PATCH", ME, {"user_update": {"username": "new"}}, {401}),
        (
            "PATCH",
            ME,
            {"user_update": {"password": OTHER_PASSWORD, "old_password": PASSWORD}},
            {401},
        ),
        ("DELETE", ME, None, {204, 401}),
        ("POST", LOGOUT, None, {204, 401}),
        ("POST", LIST, CLEANING, {401}),
    ],
)
def test_a_request_of_a_concurrently_deleted_account_has_no_effect(
    anna, send, sql, accounts_deleted_after_lookup, method, path, body, statuses
):
    response = send(anna.token, method, path, **({} if body is None else {"json": body}))
    assert response.status_code in statuses
    assert sql("SELECT count(*) FROM cleanings") == [(0,)]


def test_changing_an_account_that_is_deleted_during_hashing_returns_401(
    anna, patch, sql, monkeypatch
):
    monkeypatch.setattr(
        "phresh.accounts.passwords.Passwords.hash", lambda *_: sql("DELETE FROM users") or "hash"
    )
    assert patch(anna.token, password=OTHER_PASSWORD, old_password=PASSWORD).status_code == 401


def test_login_to_a_concurrently_deleted_account_is_rejected_and_creates_no_token(
    client, anna, sql, accounts_deleted_after_lookup
):
    response = log_in(client)
    assert response.status_code == 400
    assert sql("SELECT count(*) FROM tokens") == [(0,)]


def test_an_account_has_its_profile(client, anna, send):
    empty = {**dict.fromkeys(("full_name", "phone_number", "bio", "image")), "is_hidden": False}
    new = {"email": "carl@phresh.example", "username": "carl", "password": PASSWORD}
    assert client.post("/api/users/", json={"new_user": new}).json["profile"] == empty
    before = anna.client.get(ME)
    assert before.json["profile"] == empty
    change = {"profile_update": {"bio": "Quick.", "phone_number": "+49 30 1"}}
    assert anna.client.patch("/api/profiles/me/", json=change).status_code == 200
    after = anna.client.get(ME, headers={"If-None-Match": before.headers["ETag"]})
    assert after.json["profile"] == {**empty, "bio": "Quick.", "phone_number": "+49 30 1"}
