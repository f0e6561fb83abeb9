"""What docs/security.md and docs/asvs.md claim and no test of a feature shows."""

import ast
import re
from datetime import UTC, datetime

import pytest
from flask_migrate import upgrade

from phresh import create_app
from phresh.config import ROOT
from phresh.database.base import db
from phresh.serving.responses import rejection
from phresh.web.app import Response

LIST = "/api/cleanings/"
JSON = "application/json"
PAGE = (ROOT / "docs" / "asvs.md").read_text()
# The requirements of OWASP ASVS 5.0.0 that are of level 1 or 2: 70 and 183.
REQUIREMENTS = """
    1.1.1-2 1.2.1-9 1.3.1-11 1.4.1-3 1.5.1-2
    2.1.1-3 2.2.1-3 2.3.1-4 2.4.1-1
    3.2.1-2 3.3.1-4 3.4.1-6 3.5.1-5 3.7.1-2
    4.1.1-3 4.2.1-1 4.3.1-2 4.4.1-4
    5.1.1-1 5.2.1-3 5.3.1-2 5.4.1-3
    6.1.1-3 6.2.1-12 6.3.1-4 6.4.1-4 6.5.1-5 6.6.1-3 6.8.1-4
    7.1.1-3 7.2.1-4 7.3.1-2 7.4.1-5 7.5.1-2 7.6.1-2
    8.1.1-2 8.2.1-3 8.3.1-1 8.4.1-1
    9.1.1-3 9.2.1-4
    10.1.1-2 10.2.1-2 10.3.1-4 10.4.1-11 10.5.1-5 10.6.1-2 10.7.1-3
    11.1.1-2 11.2.1-3 11.3.1-3 11.4.1-4 11.5.1-1 11.6.1-1
    12.1.1-3 12.2.1-2 12.3.1-4
    13.1.1-1 13.2.1-5 13.3.1-2 13.4.1-5
    14.1.1-2 14.2.1-4 14.3.1-3
    15.1.1-3 15.2.1-3 15.3.1-7
    16.1.1-1 16.2.1-5 16.3.1-4 16.4.1-3 16.5.1-3
    17.1.1-1 17.2.1-4 17.3.1-2
"""
# With further ones of level 3.
LEVEL_3 = {"4.1.4", "6.3.8", "7.5.3", "8.3.2"}
NUMBER = r"(\d+\.\d+)\.(\d+)"
LINE = re.compile(rf"^\| ((?:{NUMBER}(?:, | to |(?= )))+)(.*) \|$", re.MULTILINE)


def numbers(text, to):
    """Yield the number of each requirement in a text with ranges like ``1.1.1 to 1.1.3``."""
    for section, first, last in re.findall(rf"{NUMBER}(?:{to}(\d+))?", text):
        yield from (f"{section}.{each}" for each in range(int(first), int(last or first) + 1))


def test_each_requirement_of_level_1_and_2_has_one_line():
    required = [*numbers(REQUIREMENTS, "-"), *LEVEL_3]
    assert len(required) == 70 + 183 + len(LEVEL_3)
    found = [each for match in LINE.finditer(PAGE) for each in numbers(match[1], r" to [\d.]+\.")]
    assert sorted(found) == sorted(required)


def test_each_line_says_whether_it_is_met_and_names_a_test_if_so():
    for match in LINE.finditer(PAGE):
        requirement, met, what, test = re.split(r" *\| *", match[4])
        assert met in ("Yes", "No", "Operator", "–"), requirement
        assert test or met != "Yes", requirement
        assert what or met in ("Yes", "No", "Operator"), requirement


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
        ("GET", "/redoc/", {}, 200),
        ("GET", "/openapi.json", {}, 200),
        ("GET", "/static/docs.js", {}, 200),
        ("GET", "/static/redoc/redoc.standalone.js", {}, 200),
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


def test_so_does_a_rejection_by_the_worker():
    head, _ = rejection(400)
    headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:] if line)
    policy = headers["Content-Security-Policy"].split("; ")
    assert {"default-src 'none'", "base-uri 'none'", "frame-ancestors 'none'"} <= {*policy}
    assert headers["Content-Security-Policy"] == Response.policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store"


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


@pytest.mark.parametrize("text", ["a\r\nSet-Cookie: b", "a\nb", "a\rb"])
def test_a_header_with_a_line_break_is_never_made(text):
    for headers in ({"X-Header": text}, [("X-Header", text)]):
        with pytest.raises(ValueError, match="newline"):
            Response(None, 200, headers)


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
    # The mail server is the operator's: no request says which one.
    assert found - {("phresh/mail/sending.py", "smtplib")} == set()


def test_only_what_runs_the_server_starts_programs():
    found = {
        str(path.relative_to(ROOT / "phresh"))
        for path, tree in MODULES.items()
        for node in ast.walk(tree)
        if (isinstance(node, ast.Import) and any(a.name == "subprocess" for a in node.names))
        or (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "os"
            and re.match("system$|popen$|exec|spawn|posix_spawn", node.attr)
        )
    }
    # The last one lets a new process try the new code on SIGHUP.
    assert found == {
        *("cli/commands.py", "database/embedded.py", "jobs/supervisor.py", "serving/hooks.py"),
    }


# Where docs/asvs.md says what for.
CRYPTOGRAPHY = {
    "accounts/limits.py": {"hashlib"},
    "accounts/mails.py": {"secrets"},
    "accounts/second_factor.py": {"hmac", "secrets"},
    "mail/sending.py": {"ssl"},
    "accounts/passwords.py": {"argon2", "argon2.exceptions"},
    "accounts/tokens.py": {"hashlib", "secrets"},
    "export/services.py": {"hashlib"},
    "web/idempotency.py": {"hashlib"},
    "database/embedded.py": {"hashlib"},
    "database/statements.py": {"hashlib"},
    "cli/demo.py": {"secrets"},
}


def test_cryptography_is_used_by_these_modules_only():
    modules = {"argon2", "hashlib", "hmac", "secrets", "cryptography", "ssl", "jwt", "itsdangerous"}
    found = {
        str(path.relative_to(ROOT / "phresh")): names
        for path, tree in MODULES.items()
        if (names := {name for name in imported(tree) if name.partition(".")[0] in modules})
    }
    assert found.items() <= CRYPTOGRAPHY.items()


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
    program = {"requirements.txt", "wsgi.py", "gunicorn.conf.py", "migrations", "phresh"}
    assert names == program | {"LICENSE"}


def test_what_a_disabled_account_has_posted_stays(run, client, anna, ben):
    new = {"json": {"new_cleaning": {"name": "Job", "price": 1}}}
    anna_s = anna.client.post(LIST, **new).headers["Location"]
    ben_s = ben.client.post(LIST, **new).headers["Location"]
    assert ben.client.post(f"{anna_s}offers/").status_code == 201
    assert run("disable-account", "ben")[0] == 0
    assert ben.client.get("/api/users/me/").status_code == 401
    assert client.get(ben_s).json["owner"] == {"username": "ben"}
    assert client.get("/api/profiles/ben/").status_code == 200
    assert anna.client.put(f"{anna_s}offers/ben/").status_code == 200


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
