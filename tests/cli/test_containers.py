"""docker-compose.yml and deploy/roles.sql: what can be tried of them without containers."""

import os
import re
import shutil
import subprocess

import pytest
import yaml
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import ProgrammingError

from phresh import create_app
from phresh.config import ROOT
from phresh.database import embedded
from phresh.database.base import db
from tests.contract.test_story import (
    test_a_cleaning_can_be_posted_taken_cancelled_and_rated as story,
)
from tests.tools.processes import environment

COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
DENIED = [
    "CREATE TABLE mine (id integer)",
    "CREATE TEMPORARY TABLE mine (id integer)",
    "CREATE SCHEMA mine",
    "CREATE FUNCTION mine() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
    "CREATE ROLE mine",
    "ALTER TABLE users ADD mine text",
    "DROP TABLE tokens",
    "DROP FUNCTION follow_offer CASCADE",
    "ALTER TABLE offers DISABLE TRIGGER ALL",
    "CREATE INDEX mine ON users (id)",
    "TRUNCATE users CASCADE",
    "COPY users TO PROGRAM 'cat'",
    "COPY users FROM '/etc/passwd'",
    "SELECT pg_read_file('/etc/passwd')",
    "SET session_replication_role = replica",
    "SET ROLE {owner}",
]


@pytest.fixture
def roles(make_database):
    """Make both roles in an empty database by deploy/roles.sql, which runs twice.

    Return the names, and the settings of migrate and web.
    """
    url = make_url(make_database("compose"))
    names = {name: f"phresh_{name}_{os.getpid()}" for name in ("owner", "app")}
    admin = create_engine(url, isolation_level="AUTOCOMMIT")

    def run():
        found = embedded.Server(ROOT / "instance").programs / "bin"
        psql = shutil.which("psql", path=f"{found}:{os.environ['PATH']}")
        database = url.set(drivername="postgresql").render_as_string(hide_password=False)
        variables = {**names, "owner_password": "o'ne", "app_password": "t\\wo"}
        options = [f"--set={name}={value}" for name, value in variables.items()]
        command = [psql, "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", *options]
        command += [f"--file={ROOT / 'deploy' / 'roles.sql'}", database]
        done = subprocess.run(command, capture_output=True, text=True, env=environment())
        assert (done.returncode, done.stderr) == (0, "")

    def url_of(name, password):
        return url.set(username=names[name], password=password).render_as_string(False)

    run()
    run()
    settings = {
        "DATABASE_URL": url_of("app", "t\\wo"),
        "MIGRATION_DATABASE_URL": url_of("owner", "o'ne"),
        "ARGON2_TIME_COST": 1,
        "ARGON2_MEMORY_COST": 8,
    }
    yield names, settings, run, admin
    with admin.connect() as connection:
        name = url.database
        connection.execute(text(f"ALTER DATABASE {name} OWNER TO CURRENT_USER"))
        for role in names.values():
            connection.execute(text(f"DROP OWNED BY {role} CASCADE"))
            connection.execute(text(f"DROP ROLE {role}"))
    admin.dispose()


def invoke(app, *arguments):
    result = app.test_cli_runner().invoke(args=arguments)
    return result.exit_code, result.output


def test_one_role_migrates_and_the_other_serves(roles, caplog):
    names, settings, _, _ = roles
    app = create_app({**settings, "TESTING": True})
    with app.app_context():
        assert invoke(app, "db", "upgrade")[0] == 0
        assert invoke(app, "db", "check")[0] == 0
    story(app, app.test_client())
    assert app.test_client().get("/readyz").status_code == 200
    with app.app_context():
        assert invoke(app, "demo")[0] == 0
        assert invoke(app, "demo", "--count", "10")[0] == 0
        assert invoke(app, "remove-expired")[0] == 0
        assert invoke(app, "disable-account", "demo-ben")[0] == 0
        assert invoke(app, "change-cleaning", "3", '{"price": 3}')[0] == 0
        assert invoke(app, "delete-cleaning", "2")[0] == 0
        for statement in DENIED:
            with db.engine.connect() as connection, pytest.raises(ProgrammingError) as raised:
                connection.execute(text(statement.format(**names)))
            assert "InsufficientPrivilege" in str(raised.value), statement
        db.engine.dispose()
    without = create_app({"DATABASE_URL": settings["DATABASE_URL"]})
    with without.app_context():
        assert invoke(without, "db", "upgrade")[0] == 0, "there is nothing to do"
        assert invoke(without, "db", "downgrade")[0] == 1
        db.engine.dispose()
    assert f"The role {names['app']} needs the privilege CREATE on the schema" in caplog.text


def test_the_table_of_a_later_migration_can_be_used_at_once(roles):
    _, settings, _, _ = roles
    owner = create_engine(settings["MIGRATION_DATABASE_URL"])
    served = create_engine(settings["DATABASE_URL"])
    with owner.begin() as connection:
        connection.execute(
            text(
                "CREATE TABLE notes (id integer GENERATED ALWAYS AS IDENTITY, at serial, text text)"
            )
        )
    with served.begin() as connection:
        connection.execute(text("INSERT INTO notes (text) VALUES ('x')"))
        connection.execute(text("UPDATE notes SET text = 'y'"))
        assert connection.scalar(text("SELECT text FROM notes")) == "y"
        connection.execute(text("DELETE FROM notes"))
    owner.dispose()
    served.dispose()


def test_the_tables_of_a_superuser_change_their_owner(roles):
    """As those of a database of Phresh 1.0 in compose."""
    _, settings, run, admin = roles
    url = admin.url.render_as_string(hide_password=False)
    before = create_app({"DATABASE_URL": url})
    with before.app_context():
        assert invoke(before, "db", "upgrade")[0] == 0
        assert invoke(before, "demo")[0] == 0
        db.engine.dispose()
    run()
    app = create_app({**settings, "TESTING": True})
    assert app.test_client().get("/api/cleanings/").status_code == 200
    with app.app_context():
        assert invoke(app, "db", "downgrade", "base")[0] == 0
        assert invoke(app, "db", "upgrade")[0] == 0
        db.engine.dispose()


@pytest.mark.parametrize("name", SERVICES)
def test_each_service_may_do_little(name):
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service.get("cap_add", []) == (["CHOWN"] if name == "secrets" else [])
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    assert service["pids_limit"]


def test_only_the_api_is_published_and_no_password_is_known():
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["web", "mail"]
    assert SERVICES["mail"]["profiles"] == ["mail"]  # not started unless it is named
    assert SERVICES["mail"]["ports"][0]["host_ip"] == "127.0.0.1"
    lines = (ROOT / "docker-compose.yml").read_text().splitlines()
    known = [line for line in lines if re.search(r"PASSWORD\w*: +[^/\s]|://[^@\s]*:[^@/{]+@", line)]
    assert known == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to others")
def test_the_passwords_are_made_once_and_each_is_for_one_service(tmp_path):
    [script] = SERVICES["secrets"]["command"]
    script = script.replace("$$", "$").replace("cd /secrets", f"cd {tmp_path}")
    found = []
    for _ in range(2):
        subprocess.run(["sh", "-euc", script], check=True)
        found.append({path.name: path.read_text() for path in tmp_path.iterdir()})
    assert found[0] == found[1]
    made = found[0]
    assert len({made["superuser"], made["owner"], made["app"]}) == 3
    for role in ("owner", "app"):
        assert re.fullmatch(r"[0-9a-f]{64}", made[role])
        assert made[f"{role}.pgpass"] == f"db:5432:*:phresh_{role}:{made[role]}\n"
    users = {path.name: path.stat().st_uid for path in tmp_path.iterdir()}
    assert users == {
        **dict.fromkeys(("superuser", "owner", "app"), 70),
        "app.pgpass": 10001,
        "owner.pgpass": 10002,
        "made": 0,
    }
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert "USER 10001\n" in dockerfile
    assert SERVICES["migrate"]["user"] == "10002:10002"
