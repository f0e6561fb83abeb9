"""What all operations share: the error format, the body parser, the order of checks and CORS."""

import gzip
import json
import socket
import threading

import marshmallow as ma
import pytest
from flask import Blueprint
from werkzeug.serving import make_server

from phresh import create_app
from phresh.database.base import db
from phresh.database.transactions import fetch
from phresh.serving.logs import JSONFormatter
from phresh.web import blueprint
from tests.tools.helpers import sql_text

LIST = "/api/cleanings/"
LOGIN = "/api/users/login/token/"
JSON = "application/json"


def send(client, body, content_type=JSON, query=""):
    return client.post(LIST + query, data=body, content_type=content_type)


def problem_detail(response, status):
    assert response.status_code == status
    assert response.content_type == "application/problem+json"
    body = json.loads(response.data)
    members = {"type", "title", "status", "detail", "request_id"}
    if response.request.path == LOGIN and response.request.method == "POST":
        members |= {"error", "error_description"}  # of OAuth 2
    assert set(body) - {"errors"} == members
    assert body["request_id"] == response.headers["X-Request-Id"]
    assert (body["type"], body["status"]) == ("about:blank", status)
    assert response.status.split(" ", 1)[1] == body["title"].upper()
    return body["detail"]


@pytest.mark.parametrize(
    "path", ["/nothing", "/api/", "/api//cleanings/", "/API/cleanings/", "/docs/x"]
)
def test_an_unknown_url_is_404(client, path):
    assert problem_detail(client.get(path), 404) == "Not Found"


BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


def test_a_browser_is_redirected_to_the_docs_page(client):
    response = client.get("/", headers={"Accept": BROWSER})
    assert (response.status_code, response.headers["Location"]) == (302, "/docs/")
    assert "Accept" in response.headers.getlist("Vary")


@pytest.mark.parametrize("accept", [None, "*/*", JSON, "application/json, text/html;q=0.9"])
def test_other_clients_get_an_index_whose_links_work(client, accept):
    response = client.get("/", headers={} if accept is None else {"Accept": accept})
    assert (response.status_code, response.content_type) == (200, JSON)
    assert "Accept" in response.headers.getlist("Vary")
    index = response.json
    assert set(index) == {"docs", "health", "openapi", "redoc"}
    for path in index.values():
        assert client.get(path).status_code == 200


def test_an_unsupported_method_is_405_with_an_allow_header(client):
    response = client.delete(LIST)
    assert problem_detail(response, 405) == "Method Not Allowed"
    assert set(response.headers["Allow"].split(", ")) == {"GET", "HEAD", "OPTIONS", "POST"}
    assert client.open(LIST, method="TRACE").status_code == 405


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"{} {}", b"{'a': 1}", b'{"a": NaN}', b'{"a": -Infinity}', b"\xef\xbb\xbf{}"),
        *(b'{"a": "\xff"}', b'{"a": 1, "a": 2}', b'{"a": {"b": 1, "b": 1}}', b"[" * 60_000),
        *(b'{"a": %s}' % (b"9" * 5000), b'{"a": 1e99999999999999999999}', b'{"a": 01}', b"\0"),
    ],
    ids=repr,
)
def test_a_malformed_json_body_is_400(client, body):
    assert problem_detail(send(client, body), 400)


def test_an_empty_body_is_400_with_its_own_detail(client):
    assert problem_detail(send(client, b""), 400) == "The body is empty."


@pytest.mark.parametrize(
    "content_type", [None, "", "text/plain", "application/x-www-form-urlencoded", "json"]
)
def test_a_content_type_other_than_json_is_415(client, content_type):
    assert (
        problem_detail(send(client, b"{}", content_type), 415)
        == "The body must be JSON: send Content-Type application/json."
    )


@pytest.mark.parametrize(
    "content_type", [f"{JSON}; charset=utf-8", "Application/JSON", "application/vnd.x+json"]
)
def test_every_json_content_type_is_accepted(client, content_type):
    body = json.dumps({"new_cleaning": {"name": "A job", "price": 20}})
    assert send(client, body, content_type).status_code == 201


@pytest.mark.parametrize("coding", ["gzip", "br", "x-unknown", "identity, gzip", "gzip,identity"])
@pytest.mark.parametrize("path", [LIST, "/api/users/login/token/"])
def test_a_body_with_a_content_coding_is_415(client, coding, path):
    response = client.post(
        path,
        data=gzip.compress(b'{"new_cleaning": {"name": "a", "price": 1}}'),
        content_type=JSON if path == LIST else "application/x-www-form-urlencoded",
        headers={"Content-Encoding": coding},
    )
    assert "Content-Encoding" in problem_detail(response, 415)
    assert response.headers["Accept-Encoding"] == "identity"


def test_a_body_with_the_coding_identity_is_accepted(client):
    body = '{"new_cleaning": {"name": "a", "price": 1}}'
    for coding in ("identity", "Identity", ""):
        response = client.post(
            LIST, data=body, content_type=JSON, headers={"Content-Encoding": coding}
        )
        assert response.status_code == 201
    assert client.get(LIST, headers={"Content-Encoding": "gzip"}).status_code == 200


def test_a_body_that_is_too_large_is_413_whatever_its_coding(client):
    response = client.post(
        LIST, data=b"x" * (64 * 1024 + 1), content_type=JSON, headers={"Content-Encoding": "gzip"}
    )
    assert response.status_code == 413


def test_a_body_over_64_kib_is_413(client):
    body = json.dumps({"new_cleaning": {"name": "A job", "price": 20}}).encode()
    assert send(client, body.ljust(64 * 1024)).status_code == 201
    assert problem_detail(send(client, body.ljust(64 * 1024 + 1)), 413)


def send_raw(app, header_lines, body):
    """Send a POST with these header lines and body bytes over a socket; return the status code."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.handle_request)
    thread.start()
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(
            f"POST {LIST} HTTP/1.1\r\nHost: x\r\n{header_lines}\r\n\r\n".encode() + body
        )
        connection.shutdown(socket.SHUT_WR)
        status = connection.makefile("rb").readline()
    thread.join()
    server.server_close()
    with app.app_context():
        db.engine.dispose()
    return int(status.split()[1])


@pytest.mark.parametrize(
    ("length", "extra", "status"),
    [(64 * 1024, b"", 201), (64 * 1024, b" ", 413), (70_000, b"x", 413)],
)
def test_a_chunked_body_has_the_same_limit(app, sql, length, extra, status):
    body = (
        json.dumps({"new_cleaning": {"name": "A job", "price": 20}}).encode().ljust(length) + extra
    )
    chunks = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    header_lines = f"Content-Type: {JSON}\r\nTransfer-Encoding: chunked"
    assert send_raw(app, header_lines, chunks) == status
    assert len(sql("SELECT * FROM cleanings")) == (status == 201)


def test_a_truncated_body_is_400(app, sql):
    body = json.dumps({"new_cleaning": {"name": "A job", "price": 20}}).encode()
    assert send_raw(app, f"Content-Type: {JSON}\r\nContent-Length: {len(body) + 1}", body) == 400
    assert send_raw(app, f"Content-Type: {JSON}\r\nContent-Length: {len(body)}", body) == 201
    assert len(sql("SELECT * FROM cleanings")) == 1


def test_the_first_failed_check_decides_the_status(anna):
    client = anna.client
    too_large = b"{".ljust(70_000)
    assert send(client, too_large, "text/plain", "?x=1").status_code == 413
    assert send(client, b"{", "text/plain", "?x=1").status_code == 415
    assert send(client, b"{", JSON, "?x=1").status_code == 400
    missing = f"{LIST}2147483647/"
    assert client.patch(f"{missing}?x=1", json={"cleaning_update": {}}).status_code == 422
    assert client.patch(missing, json={}).status_code == 422
    assert client.patch(missing, json={"cleaning_update": {}}).status_code == 404


def test_cors_allows_every_origin_without_credentials(client):
    origin = {"Origin": "https://shop.example"}
    for response in (client.get(LIST, headers=origin), client.get("/nothing", headers=origin)):
        assert response.headers["Access-Control-Allow-Origin"] == "*"
        assert "Access-Control-Allow-Credentials" not in response.headers
        exposed = set(response.headers["Access-Control-Expose-Headers"].split(", "))
        limits = {"RateLimit", "RateLimit-Policy", "Retry-After"}
        ends = {"Deprecation", "Sunset"}
        assert exposed == {"ETag", "Link", "Location", "X-Request-Id", *limits, *ends}


def test_a_preflight_allows_the_headers_that_clients_send(client):
    allowed = "Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match"
    headers = {"Origin": "https://shop.example", "Access-Control-Request-Method": "PATCH"}
    headers["Access-Control-Request-Headers"] = allowed
    response = client.options(f"{LIST}1/", headers=headers)
    assert response.status_code == 200
    assert response.headers["Access-Control-Allow-Headers"] == allowed
    assert "PATCH" in response.headers["Access-Control-Allow-Methods"]


def test_cors_can_be_limited_to_one_origin(settings):
    app = create_app({**settings, "CORS_ORIGINS": "https://a.example"})
    allowed, other = ({"Origin": f"https://{name}.example"} for name in "ab")
    client = app.test_client()
    assert (
        client.get("/healthz", headers=allowed).headers["Access-Control-Allow-Origin"]
        == allowed["Origin"]
    )
    assert "Access-Control-Allow-Origin" not in client.get("/healthz", headers=other).headers


def test_healthz_is_200_without_a_database():
    client = create_app({"DATABASE_URL": "postgresql://127.0.0.1:1/none"}).test_client()
    response = client.get("/healthz")
    assert (response.status_code, response.json) == (200, {"status": "ok"})


def test_an_unavailable_database_is_503():
    client = create_app({"DATABASE_URL": "postgresql://127.0.0.1:1/none"}).test_client()
    for response in (
        client.get(LIST),
        send(client, b'{"new_cleaning": {"name": "x", "price": 1}}'),
    ):
        assert problem_detail(response, 503) == "The database is not available. Try again soon."
        assert response.headers["Retry-After"] == "1"


def test_a_query_schema_without_pages_rejects_a_cursor(settings):
    class WordSchema(ma.Schema):
        word = ma.fields.String()

    blp = blueprint.Blueprint("words", __name__)

    @blp.get("/words/")
    @blp.arguments(WordSchema, location="query")
    @blp.response(200)
    def show_word(query):
        return json.dumps(query)

    app = create_app(settings)
    app.register_blueprint(blp)
    client = app.test_client()
    assert client.get("/words/?word=x").json == {"word": "x"}
    response = client.get("/words/?word=x&after=LWlkIDU")
    assert response.status_code == 422
    assert response.json["errors"][0]["parameter"] == "after"


@pytest.fixture
def failing_client(settings):
    """Yield a client of an app whose views fail with an exception or with a given SQLSTATE."""
    app = create_app(settings)
    views = Blueprint("broken", __name__)

    @views.get("/sqlstate/<state>")
    def raise_sqlstate(state):
        fetch(sql_text(f"DO $$ BEGIN RAISE EXCEPTION 'secret' USING ERRCODE = '{state}'; END $$"))

    @views.get("/sql/<statement>")
    def run(statement):
        fetch(sql_text(statement))

    @views.get("/error")
    def raise_error():
        raise RuntimeError("secret")

    app.register_blueprint(views)
    yield app.test_client()
    with app.app_context():
        db.engine.dispose()


@pytest.mark.parametrize(
    ("state", "status"),
    [
        *(("23505", 409), ("23503", 409), ("23514", 422), ("22003", 422), ("22021", 422)),
        *(("22P02", 422), ("54000", 422), ("08006", 503), ("53300", 503), ("57P01", 503)),
        *(
            ("0A000", 503),
            ("25006", 503),
            ("40001", 503),
            ("40P01", 503),
            ("55P03", 503),
            ("57014", 503),
        ),
        *(("42P01", 500), ("XX000", 500)),
    ],
)
def test_a_database_error_has_the_status_of_its_sqlstate(failing_client, state, status, caplog):
    response = failing_client.get(f"/sqlstate/{state}")
    assert "secret" not in problem_detail(response, status)
    assert ("Retry-After" in response.headers) == (status == 503)
    assert caplog.records[0].levelname == ("WARNING" if status == 503 else "ERROR")


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO cleanings (name, price) VALUES ('secret', -1)",
        "SELECT CAST('secret' AS integer)",
        "SELECT nothing FROM cleanings WHERE name = 'secret'",
    ],
)
def test_a_database_error_is_logged_without_values(failing_client, statement, caplog):
    assert "secret" not in failing_client.get(f"/sql/{statement}").text
    assert "secret" not in "".join(map(JSONFormatter().format, caplog.records))
    assert len(caplog.records) == 1


def test_an_unexpected_exception_is_500_without_details(failing_client, caplog):
    assert problem_detail(failing_client.get("/error"), 500) == "Internal Server Error"
    assert "secret" in caplog.text


def test_an_exception_rolls_back_the_transaction(app, sql):
    from phresh.database.transactions import transaction

    @transaction
    def write_and_fail():
        fetch(sql_text("INSERT INTO cleanings (name, price) VALUES ('x', 1) RETURNING id"))
        raise RuntimeError

    with app.app_context(), pytest.raises(RuntimeError):
        write_and_fail()
    assert sql("SELECT * FROM cleanings") == []
