"""What docs/security.md claims and no test of a feature shows."""

import ast
import re
from datetime import UTC, datetime

import pytest
from flask_migrate import upgrade

from phresh import create_app
from phresh.config import ROOT
from phresh.database.base import db

LIST = "/api/cleanings/"
JSON = "application/json"
MODULES = {
    path: ast.parse(path.read_text())
    for path in [ROOT / "wsgi.py", *sorted((ROOT / "phresh").rglob("*.py"))]
}


@pytest.mark.parametrize(
    ("method", "path", "options", "status"),
    [
        ("GET", LIST, {}, 200),
        ("HEAD", LIST, {}, 200),
        ("POST", LIST, {"json": {"new_cleaning": {"name": "Job", "price": 1}}}, 201),
        ("OPTIONS", LIST, {"headers": {"Origin": "https://shop.example"}}, 200),
        ("GET", "/", {"headers": {"Accept": "text/html"}}, 302),
        ("POST", LIST, {"data": "{", "content_type": JSON}, 400),
        ("GET", "/api/users/me/", {}, 401),
        ("GET", "/nothing", {}, 404),
        ("TRACE", LIST, {}, 405),
        ("POST", LIST, {"data": "x" * 70_000, "content_type": JSON}, 413),
        ("POST", LIST, {"data": "x"}, 415),
        ("GET", f"{LIST}?x=1", {}, 422),
        ("GET", "/docs/", {}, 200),
        ("GET", "/openapi.json", {}, 200),
        ("GET", "/static/docs.js", {}, 200),
        ("GET", "/docs/swagger-ui/swagger-ui.css", {}, 200),
        ("GET", "/docs/swagger-ui/oauth2-redirect.html", {}, 200),
    ],
)
def test_every_response_tells_browsers_to_be_careful_and_sets_no_cookie(
    client, method, path, options, status
):
    with client.open(path, method=method, **options) as response:
        assert response.status_code == status
        policy = response.headers["Content-Security-Policy"].split("; ")
        assert {"default-src 'none'", "base-uri 'none'", "frame-ancestors 'none'"} <= {*policy}
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Referrer-Policy"] == "no-referrer"
        assert "Set-Cookie" not in response.headers
        if response.mimetype and response.mimetype.startswith("text/"):
            assert response.mimetype_params["charset"] == "utf-8"


@pytest.mark.parametrize(
    "path",
    [
        *("/static/", "/docs/swagger-ui/", "/.git/config", "/.env", "/instance/"),
        *("/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2fapp.py", "/static/%00"),
        *("/static//etc/passwd", "/docs/swagger-ui/../__init__.py"),
        "/docs/swagger-ui/..%5c__init__.py",
    ],
)
def test_no_folder_is_listed_and_no_file_of_another_folder_served(client, path):
    assert client.get(path).status_code == 404


def test_no_account_is_there_after_the_migrations(make_database):
    with create_app({"DATABASE_URL": make_database("claims")}).app_context():
        upgrade()
        with db.engine.connect() as connection:
            assert connection.exec_driver_sql("SELECT count(*) FROM users").scalar() == 0
        db.engine.dispose()


def imported(tree):
    """Yield the name of each module that a module imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


# Of the standard library and of well-known packages. What reads code or objects of any type from
# data, and what interprets languages that have injections of their own.
DANGEROUS = {"pickle", "marshal", "shelve", "dill", "yaml", "code", "xml", "lxml", "ldap", "ldap3"}
# What sends requests to other servers.
CLIENTS = {
    *("urllib.request", "http.client", "smtplib", "ftplib", "imaplib", "poplib", "xmlrpc"),
    *("requests", "httpx", "aiohttp", "urllib3", "paramiko"),
}


@pytest.mark.parametrize("names", [DANGEROUS, CLIENTS], ids=["dangerous", "clients"])
def test_no_module_can_fetch_a_url_or_load_objects_of_any_type(names):
    found = {
        (str(path.relative_to(ROOT)), name)
        for path, tree in MODULES.items()
        for name in imported(tree)
        if any(name == each or name.startswith(f"{each}.") for each in names)
    }
    assert found == set()


def test_only_the_commands_and_the_embedded_database_start_programs():
    found = {
        str(path.relative_to(ROOT / "phresh"))
        for path, tree in MODULES.items()
        for node in ast.walk(tree)
        if (isinstance(node, ast.Import) and any(a.name == "subprocess" for a in node.names))
        or (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "os"
            and re.match("system$|popen$|exec|spawn|posix_spawn|fork", node.attr)
        )
    }
    # The second forks, to look at the database before it is served.
    assert found == {"cli/commands.py", "database/checks.py", "database/embedded.py"}


def test_the_image_has_only_what_serving_needs():
    ignored = [
        line
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if not line.startswith("#")
    ]
    assert ignored[0] == "*"
    copied = re.findall("^COPY (?!--from)(.*) \\S+$", (ROOT / "Dockerfile").read_text(), re.M)
    names = {name for line in copied for name in line.split()}
    assert {line.removeprefix("!") for line in ignored if line.startswith("!")} == names
    assert names == {"requirements.txt", "wsgi.py", "gunicorn.conf.py", "migrations", "phresh"}


def test_rejected_requests_are_logged_with_when_who_and_what(anna, ben, client, lines):
    path = anna.client.post(LIST, json={"new_cleaning": {"name": "Job", "price": 1}}).headers[
        "Location"
    ]
    change = {"json": {"cleaning_update": {"price": 2}}}
    expected = [
        (client, path, change, 401, None),
        (ben.client, path, change, 403, ben.id),
        (ben.client, f"{LIST}2147483647/", change, 404, ben.id),
        (anna.client, path, {"json": {"cleaning_update": {"price": -1}}}, 422, anna.id),
        (anna.client, path, {**change, "headers": {"If-Match": '"old"'}}, 412, anna.id),
    ]
    before = len(lines())
    for sender, where, options, status, _ in expected:
        assert sender.patch(where, **options).status_code == status
    logged = lines()[before:]
    assert [
        (line["method"], line["path"], line["status"], line.get("user_id")) for line in logged
    ] == [("PATCH", where, status, who) for _, where, _, status, who in expected]
    for line in logged:
        assert datetime.fromisoformat(line["time"]).tzinfo == UTC
        assert {"level", "logger", "request_id", "remote_addr"} <= set(line)
