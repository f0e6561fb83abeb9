"""The token endpoint as clients of OAuth 2 see it (RFC 6749), beside what holds for every login."""

import re
from base64 import b64encode
from urllib.parse import urlencode

import psycopg2
import pytest

from phresh.accounts import queries
from phresh.accounts.oauth import complete_problem
from tests.tools.users import PASSWORD

LOGIN = "/api/users/login/token/"
ANNA = "anna@phresh.example"
FORM = {"username": ANNA, "password": PASSWORD}
# What RFC 6749 5.2 allows in a description.
DESCRIPTION = re.compile(r"[ !#-\[\]-~]+")


def assert_error(response, status, code):
    """Assert that a response is an error of OAuth 2 and a problem document."""
    found = response.json
    assert (response.status_code, found["error"]) == (status, code)
    assert response.content_type == "application/problem+json"
    assert {"type", "title", "status", "detail", "request_id"} <= found.keys()
    assert found["status"] == status
    assert DESCRIPTION.fullmatch(found["error_description"])
    assert response.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("form", "code", "description"),
    [
        ({"password": "wrong"}, "invalid_grant", "Wrong email or password."),
        ({"username": "nobody"}, "invalid_grant", "Wrong email or password."),
        ({"grant_type": "Password"}, "unsupported_grant_type", "grant_type: Only the grant type "),
        ({"grant_type": "refresh_token", "password": ""}, "unsupported_grant_type", "grant_type: "),
        ({"password": ""}, "invalid_request", "password: Missing data for required field."),
        ({"password": "a" * 129}, "invalid_request", "password: Length must be "),
        ({"username": "a\0"}, "invalid_request", "username: "),
    ],
)
def test_a_login_that_is_not_valid_is_400_with_a_code(client, anna, form, code, description):
    response = client.post(LOGIN, data={**FORM, **form})
    assert_error(response, 400, code)
    assert response.json["error_description"].startswith(description)
    assert response.json["title"] == "Bad Request"


@pytest.mark.parametrize("grant_type", ["password", "client_credentials", ""])
def test_a_grant_without_anything_else_is_400(client, grant_type):
    is_other = grant_type == "client_credentials"
    response = client.post(LOGIN, data={"grant_type": grant_type})
    assert_error(response, 400, "unsupported_grant_type" if is_other else "invalid_request")


@pytest.mark.parametrize(
    "extra",
    [
        {"grant_type": "", "scope": "", "client_id": "", "client_secret": ""},
        {"audience": "x", "resource": ["https://a.example", "https://b.example"], "x": ["", "y"]},
        {"username": ["", ANNA], "password": [PASSWORD, ""], "grant_type": ["", "", "password"]},
    ],
    ids=["without a value", "unknown", "repeated without a value"],
)
def test_parameters_without_a_value_and_unknown_ones_do_not_count(client, anna, extra):
    for kind in ("application/x-www-form-urlencoded", "multipart/form-data"):
        response = client.post(LOGIN, data={**FORM, **extra}, content_type=kind)
        assert response.status_code == 200, response.json


@pytest.mark.parametrize(
    "name", ["grant_type", "username", "password", "scope", "client_id", "client_secret"]
)
@pytest.mark.parametrize("values", [["password", "password"], [ANNA, "other"]])
def test_a_repeated_parameter_is_an_invalid_request(client, anna, name, values):
    response = client.post(LOGIN, data={**FORM, name: values})
    assert_error(response, 400, "invalid_request")
    assert response.json["errors"] == [
        {"parameter": name, "in": "form", "detail": "Given more than once."}
    ]


BASIC = {"Authorization": f"Basic {b64encode(b'id:secret').decode()}"}


@pytest.mark.parametrize(
    ("more", "headers"),
    [
        ({}, {}),
        ({"client_id": "any"}, {}),
        ({"client_id": "id", "client_secret": "secret"}, {}),
        ({}, BASIC),
        ({"client_id": "id"}, BASIC),
        ({}, {"Authorization": "Bearer anything"}),
        ({"client_assertion": "a.b.c", "client_assertion_type": "urn:x", "client_id": "id"}, {}),
    ],
)
def test_clients_may_authenticate_in_any_way(client, anna, more, headers):
    form = {**FORM, "grant_type": "password", **more}
    response = client.post(LOGIN, data=form, headers=headers)
    assert response.status_code == 200
    assert response.json.keys() == {"access_token", "token_type", "expires_in"}
    wrong = client.post(LOGIN, data={**form, "password": "wrong"}, headers=headers)
    assert_error(wrong, 400, "invalid_grant")


def test_other_errors_keep_their_status_and_have_a_code(make_app, anna, monkeypatch):
    client = make_app(LOGINS_PER_ACCOUNT=1).test_client()
    assert_error(client.post(LOGIN, json=FORM), 415, "invalid_request")
    big = urlencode(FORM) + "&x=" + "a" * 16 * 1024
    kind = "application/x-www-form-urlencoded"
    assert_error(client.post(LOGIN, data=big, content_type=kind), 413, "invalid_request")
    assert client.post(LOGIN, data=FORM).status_code == 200
    limited = client.post(LOGIN, data=FORM)
    assert_error(limited, 429, "temporarily_unavailable")
    assert int(limited.headers["Retry-After"]) > 0


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (psycopg2.OperationalError("gone"), 503, "temporarily_unavailable"),
        (ValueError("broken"), 500, "server_error"),
    ],
)
def test_a_failure_has_a_code_too(make_app, anna, monkeypatch, error, status, code):
    app = make_app()
    app.testing = False

    def fail(**_):
        raise error

    monkeypatch.setattr(queries, "credentials_by_email", fail)
    assert_error(app.test_client().post(LOGIN, data=FORM), status, code)


def test_other_endpoints_have_problem_documents_only(client):
    assert "error" not in client.post("/api/users/", json={}).json
    assert "error" not in client.get(LOGIN).json


def test_a_description_has_only_characters_that_rfc_6749_allows():
    detail = 'Not \\ "ü" \n\x7f'
    problem = {"status": 422, "detail": "x", "errors": [{"parameter": "é", "detail": detail}]}
    complete_problem(problem, {})
    assert problem["error_description"] == "?: Not ? '?' ??"
