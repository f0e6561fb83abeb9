"""Accounts over HTTP: register, log in, see, change, delete, log out; each refusal."""

import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from phresh.accounts.tokens import fetch_autocommit
from tests.tools.users import PASSWORD

USERS = "/api/users/"
LOGIN = f"{USERS}login/token/"
LOGOUT = f"{USERS}logout/"
ME = f"{USERS}me/"
LIST = "/api/cleanings/"
OTHER = "four cats on a roof"
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?\+00:00")


@pytest.fixture
def app_of_users(make_app):
    return make_app()


@pytest.fixture
def client(app_of_users):
    return app_of_users.test_client()


@pytest.fixture
def ask(client):
    """Send a request with a token."""

    def send(token, method, path, **options):
        headers = {"Authorization": f"Bearer {token}"}
        return client.open(path, method=method, headers=headers, **options)

    return send


@pytest.fixture
def patch(ask):
    return lambda token, **changes: ask(token, "PATCH", ME, json={"user_update": changes})


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


def test_who_registers_gets_the_account_and_a_token(client, ask):
    response = register(client)
    assert response.status_code == 201
    assert response.content_type == "application/json"
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["Location"] == ME
    user = response.json
    token = user.pop("access_token")
    assert list(user) == ["id", "email", "username", "created_at", "updated_at"]
    assert (user["email"], user["username"]) == ("anna@phresh.io", "anna")
    assert TIME.fullmatch(user["created_at"])
    assert user["updated_at"] == user["created_at"]
    assert list(token) == ["access_token", "token_type", "expires_in"]
    assert (token["token_type"], token["expires_in"]) == ("bearer", 7 * 24 * 3600)
    assert re.fullmatch(r"[\w-]{43}", token["access_token"])
    assert ask(token["access_token"], "GET", ME).json == user


def test_nothing_of_the_password_is_answered(client, ask):
    response = register(client)
    token = response.json["access_token"]["access_token"]
    for answer in (response, ask(token, "GET", ME)):
        assert PASSWORD.encode() not in answer.data
        assert b"argon2" not in answer.data


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
def test_who_registered_logs_in_with_the_email_as_it_was_given(client, email, stored):
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
def test_what_is_no_email_is_refused(client, email):
    assert set(errors(register(client, email=email))) == {"/new_user/email"}


@pytest.mark.parametrize("username", ["abc", "A-b_9", "___", "-0-", "a" * 30])
def test_a_username_is_taken_as_given(client, username):
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
def test_what_is_no_username_is_refused(client, username):
    assert set(errors(register(client, username=username))) == {"/new_user/username"}


@pytest.mark.parametrize("password", [None, 12345678, True, ["a password"], {}, ...])
def test_what_is_no_password_is_refused(client, password):
    assert set(errors(register(client, password=password))) == {"/new_user/password"}


@pytest.mark.parametrize(
    "more",
    [{"id": 1}, {"is_active": True}, {"password_hash": "x"}, {"created_at": "2020-01-01"}],
)
def test_nothing_else_can_be_set(client, anna, patch, more):
    (name,) = more
    assert errors(register(client, **more)) == {f"/new_user/{name}": "Unknown field."}
    assert errors(patch(anna.token, **more)) == {f"/user_update/{name}": "Unknown field."}


@pytest.mark.parametrize("body", [{}, [], 1, "null", {"new_user": None}, {"user": {}}, {"x": 1}])
def test_a_body_without_its_envelope_is_refused(client, anna, ask, body):
    assert client.post(USERS, json=body).status_code == 422
    assert ask(anna.token, "PATCH", ME, json=body).status_code == 422


EMAIL_TAKEN = "An account with this email already exists."
USERNAME_TAKEN = "An account with this username already exists."


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"username": "ben"}, EMAIL_TAKEN),
        ({"username": "ben", "email": "ANNA@Phresh.IO"}, EMAIL_TAKEN),
        ({"email": "ben@phresh.io"}, USERNAME_TAKEN),
        ({"email": "ben@phresh.io", "username": "ANNA"}, USERNAME_TAKEN),
    ],
)
def test_what_is_taken_is_409_that_says_which(client, sql, values, why):
    assert register(client).status_code == 201
    response = register(client, **values)
    assert response.status_code == 409
    assert response.content_type == "application/problem+json"
    assert response.json["detail"] == why
    assert "access_token" not in response.json
    assert sql("SELECT count(*) FROM users") == [(1,)]
    assert sql("SELECT count(*) FROM tokens") == [(1,)]


def test_an_email_with_other_letters_than_ours_is_taken_in_any_case(client):
    assert register(client, email="ÄNNA@phresh.io").status_code == 201
    response = register(client, email="änna@phresh.io", username="ben")
    assert (response.status_code, response.json["detail"]) == (409, EMAIL_TAKEN)


@pytest.mark.parametrize(
    ("values", "why"),
    [
        (lambda i: {"email": ["anna@phresh.io", "ANNA@PHRESH.IO"][i % 2]}, EMAIL_TAKEN),
        (lambda i: {"username": ["anna", "ANNA"][i % 2]}, USERNAME_TAKEN),
    ],
    ids=["email", "username"],
)
def test_20_at_once_make_one_user(app_of_users, sql, values, why):
    def attempt(number):
        own = {"email": f"user-{number}@phresh.io", "username": f"user-{number}"}
        return register(app_of_users.test_client(), **{**own, **values(number)})

    with ThreadPoolExecutor(20) as pool:
        responses = list(pool.map(attempt, range(20)))
    assert sorted(response.status_code for response in responses) == [201] + [409] * 19
    refused = [response for response in responses if response.status_code == 409]
    assert {response.json["detail"] for response in refused} == {why}
    assert sql("SELECT count(*) FROM users") == [(1,)]
    assert sql("SELECT count(*) FROM tokens") == [(1,)]


def test_there_is_no_account_if_its_token_cannot_be_made(client, anna, sql, monkeypatch):
    monkeypatch.setattr("phresh.accounts.tokens.secrets.token_urlsafe", lambda _: anna.token)
    response = register(client, username="ben", email="ben@phresh.io")
    assert response.status_code >= 400
    assert "access_token" not in response.json
    assert sql("SELECT username FROM users") == [("anna",)]


# Log in


def test_who_logs_in_gets_a_token(client, anna, ask):
    response = log_in(client)
    assert response.status_code == 200
    assert response.content_type == "application/json"
    assert response.headers["Cache-Control"] == "no-store"
    body = response.json
    assert list(body) == ["access_token", "token_type", "expires_in"]
    assert (body["token_type"], body["expires_in"]) == ("bearer", 7 * 24 * 3600)
    assert ask(body["access_token"], "GET", ME).json["username"] == "anna"
    assert body["access_token"] != token_of(log_in(client))
    assert ask(anna.token, "GET", ME).status_code == 200


@pytest.mark.parametrize("email", ["ANNA@phresh.example", "anna@PHRESH.Example"])
def test_one_logs_in_with_the_email_in_any_case(client, anna, email):
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
def test_no_other_email_or_password_lets_in(client, anna, email, password):
    response = log_in(client, email, password)
    assert response.status_code == 401
    assert response.content_type == "application/problem+json"
    assert response.json["detail"] == "Wrong email or password."
    assert response.headers["WWW-Authenticate"] == "Bearer"


def test_another_s_password_does_not_let_in(client, anna, ben, sql, ask, patch):
    assert patch(ben.token, password=OTHER, old_password=PASSWORD).status_code == 200
    assert log_in(client, anna.email, OTHER).status_code == 401
    assert log_in(client, ben.email, OTHER).status_code == 200


@pytest.mark.parametrize(
    "more", [{"grant_type": "password"}, {"scope": "", "client_id": "x", "client_secret": "y"}]
)
def test_what_swagger_ui_sends_too_is_taken(client, anna, more):
    assert log_in(client, **more).status_code == 200


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
def test_a_form_with_bad_fields_is_refused(client, anna, sql, form, names):
    assert set(errors(client.post(LOGIN, data=form))) == names
    assert sql("SELECT count(*) FROM attempts") == [(0,)]


def test_what_is_no_form_is_415(client, anna):
    form = {"username": anna.email, "password": PASSWORD}
    assert client.post(LOGIN, json=form).status_code == 415
    assert client.post(LOGIN).status_code == 415
    assert client.post(LOGIN, data=form, content_type="multipart/form-data").status_code == 200


def test_credentials_in_the_query_are_refused(client, anna):
    form = {"username": anna.email, "password": PASSWORD}
    assert client.post(LOGIN, query_string=form, data=form).status_code == 422


# Me


def test_one_sees_oneself(client, ask):
    registered = register(client).json
    token = registered.pop("access_token")["access_token"]
    response = ask(token, "GET", ME)
    assert response.json == registered
    assert response.content_type == "application/json"
    assert ask(token, "HEAD", ME).status_code == 200
    headers = {"Authorization": f"Bearer {token}", "If-None-Match": response.headers["ETag"]}
    assert client.get(ME, headers=headers).status_code == 304


def test_a_username_is_changed_without_the_password_and_ends_no_token(client, anna, ask, patch):
    other = token_of(log_in(client))
    before = ask(anna.token, "GET", ME).json
    response = patch(anna.token, username="Anna-2")
    assert response.status_code == 200
    after = response.json
    assert after["updated_at"] > before["updated_at"]
    changed = {"username": "Anna-2", "updated_at": after["updated_at"]}
    assert after == {**before, **changed}
    assert ask(other, "GET", ME).json == after


def test_an_email_is_changed_with_the_password_and_ends_other_tokens(client, anna, ben, ask, patch):
    other = token_of(log_in(client))
    response = patch(anna.token, email="Anna@NEW.example", old_password=PASSWORD)
    assert response.status_code == 200
    assert response.json["email"] == "Anna@new.example"
    assert ask(other, "GET", ME).status_code == 401
    assert ask(anna.token, "GET", ME).json == response.json
    assert ask(ben.token, "GET", ME).status_code == 200
    assert log_in(client).status_code == 401
    assert log_in(client, "anna@new.example").status_code == 200


def test_a_password_is_changed_with_the_old_one_and_ends_other_tokens(
    client, anna, ben, ask, patch
):
    other = token_of(log_in(client))
    response = patch(anna.token, password=OTHER, old_password=PASSWORD)
    assert response.status_code == 200
    assert "password" not in response.json
    assert ask(other, "GET", ME).status_code == 401
    assert ask(anna.token, "GET", ME).status_code == 200
    assert ask(ben.token, "GET", ME).status_code == 200
    assert log_in(client).status_code == 401
    assert log_in(client, password=OTHER).status_code == 200


def test_everything_is_changed_at_once(client, anna, patch):
    new = {"email": "new@phresh.io", "username": "new", "password": OTHER}
    assert patch(anna.token, **new, old_password=PASSWORD).status_code == 200
    response = log_in(client, "new@phresh.io", OTHER)
    assert response.status_code == 200


@pytest.mark.parametrize("changes", [{"email": "new@phresh.io"}, {"password": OTHER}])
def test_email_and_password_are_not_changed_without_the_old_one(client, anna, ask, patch, changes):
    before = ask(anna.token, "GET", ME).json
    other = token_of(log_in(client))
    assert set(errors(patch(anna.token, **changes))) == {"/user_update/old_password"}
    for wrong in ("wrong", "", PASSWORD.upper()):
        response = patch(anna.token, **changes, old_password=wrong)
        assert response.status_code == 403
        assert response.json["detail"] == "The old password is wrong."
    assert ask(anna.token, "GET", ME).json == before
    assert ask(other, "GET", ME).status_code == 200
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
def test_the_rules_hold_for_changes(anna, patch, changes, names):
    refused = errors(patch(anna.token, **changes, old_password=PASSWORD))
    assert set(refused) == {f"/user_update/{name}" for name in names}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"email": "BEN@phresh.example", "old_password": PASSWORD}, EMAIL_TAKEN),
        ({"username": "BEN"}, USERNAME_TAKEN),
    ],
)
def test_one_cannot_take_what_another_has(anna, ben, ask, patch, changes, why):
    before = ask(anna.token, "GET", ME).json
    response = patch(anna.token, **changes)
    assert (response.status_code, response.json["detail"]) == (409, why)
    assert ask(anna.token, "GET", ME).json == before


def test_one_may_write_one_s_own_in_another_case(anna, patch):
    changes = {"email": "ANNA@phresh.example", "username": "ANNA"}
    response = patch(anna.token, **changes, old_password=PASSWORD)
    assert response.status_code == 200
    assert {name: response.json[name] for name in changes} == changes


def test_without_changes_nothing_changes(anna, ask, patch):
    before = ask(anna.token, "GET", ME)
    assert patch(anna.token).data == before.data
    assert ask(anna.token, "GET", ME).data == before.data


def test_a_new_username_is_that_of_the_cleanings_too(client, anna, patch, make_cleaning):
    cleaning_id = make_cleaning(owner_id=anna.id)
    patch(anna.token, username="anna-2")
    assert client.get(f"{LIST}{cleaning_id}/").json["owner"] == {"username": "anna-2"}
    assert [job["id"] for job in client.get(f"{LIST}?owner=anna-2").json] == [cleaning_id]
    assert client.get(f"{LIST}?owner=anna").json == []


# Delete, log out


def test_who_deletes_their_account_takes_their_cleanings_and_tokens(
    client, anna, ben, ask, make_cleaning, sql
):
    other = token_of(log_in(client))
    make_cleaning(owner_id=anna.id)
    kept = [make_cleaning(owner_id=owner) for owner in (ben.id, None)]
    response = ask(anna.token, "DELETE", ME)
    assert (response.status_code, response.data) == (204, b"")
    assert {job["id"] for job in client.get(LIST).json} == set(kept)
    assert client.get(f"{LIST}?owner=anna").json == []
    for token in (anna.token, other):
        assert ask(token, "GET", ME).status_code == 401
    assert log_in(client).status_code == 401
    assert ask(ben.token, "GET", ME).status_code == 200
    assert sql("SELECT user_id FROM tokens") == [(ben.id,)]


def test_the_names_of_a_deleted_account_are_free_and_the_new_one_has_nothing_of_it(
    client, anna, ask
):
    job = {"new_cleaning": {"name": "Job", "price": 20}}
    headers = {"Authorization": f"Bearer {anna.token}", "Idempotency-Key": "one"}
    client.post(LIST, json=job, headers=headers)
    ask(anna.token, "DELETE", ME)
    response = register(client, email=anna.email, username="anna")
    assert response.status_code == 201
    assert client.get(f"{LIST}?owner=anna").json == []
    assert ask(anna.token, "GET", ME).status_code == 401


def test_who_logs_out_ends_this_token_and_no_other(client, anna, ben, ask):
    other = token_of(log_in(client))
    response = ask(anna.token, "POST", LOGOUT)
    assert (response.status_code, response.data) == (204, b"")
    assert ask(anna.token, "GET", ME).status_code == 401
    assert ask(anna.token, "POST", LOGOUT).status_code == 401
    assert ask(other, "GET", ME).status_code == 200
    assert ask(ben.token, "GET", ME).status_code == 200


# An account that is deleted while it is used


@pytest.fixture
def deleted_meanwhile(monkeypatch, sql):
    """Every account is deleted as soon as it was found."""

    def found(query):
        rows = fetch_autocommit(query)
        sql("DELETE FROM users")
        return rows

    monkeypatch.setattr("phresh.accounts.tokens.fetch_autocommit", found)


NEW = {"new_cleaning": {"name": "Job", "price": 20}}
CHANGE = {"cleaning_update": {"name": "Other"}}


@pytest.mark.parametrize(
    ("method", "path", "body", "statuses"),
    [
        ("GET", ME, None, {401}),
        ("PATCH", ME, {"user_update": {}}, {401}),
        ("PATCH", ME, {"user_update": {"username": "new"}}, {401}),
        ("PATCH", ME, {"user_update": {"password": OTHER, "old_password": PASSWORD}}, {401}),
        ("DELETE", ME, None, {204, 401}),
        ("POST", LOGOUT, None, {204, 401}),
        ("POST", LIST, NEW, {401}),
    ],
)
def test_an_account_deleted_meanwhile_is_out(
    anna, ask, sql, deleted_meanwhile, method, path, body, statuses
):
    response = ask(anna.token, method, path, **({} if body is None else {"json": body}))
    assert response.status_code in statuses
    assert sql("SELECT count(*) FROM cleanings") == [(0,)]


def test_an_account_deleted_while_it_is_changed_is_out(anna, patch, sql, monkeypatch):
    monkeypatch.setattr(
        "phresh.accounts.passwords.Passwords.hash", lambda *_: sql("DELETE FROM users") or "hash"
    )
    assert patch(anna.token, password=OTHER, old_password=PASSWORD).status_code == 401


def test_nobody_logs_in_to_an_account_deleted_meanwhile(client, anna, sql, deleted_meanwhile):
    response = log_in(client)
    assert response.status_code == 401
    assert sql("SELECT count(*) FROM tokens") == [(0,)]
