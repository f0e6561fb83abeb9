"""Which databases and roles are rejected: by commands, at the start, on the first connection."""

import os
import socket

import pytest
from flask_migrate import current, downgrade, upgrade
from sqlalchemy import create_engine, make_url, text

from phresh import create_app
from phresh.database import checks
from phresh.database.base import db
from phresh.database.transactions import fetch_autocommit
from tests.tools.helpers import sql_text

EVERYTHING = "SELECT, INSERT, UPDATE, DELETE"


@pytest.fixture
def execute(make_database):
    """Run statements as the superuser in a database, each by itself."""

    def run(url, *statements):
        engine = create_engine(url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            for statement in statements:
                connection.execute(text(statement))
        engine.dispose()

    return run


@pytest.fixture
def recreate(make_database, execute):
    """Make a database with these options and return its URL."""

    def make(options):
        url = make_url(make_database("checks"))
        server = make_url(str(url)).set(database="postgres", password=url.password)
        create = f"CREATE DATABASE {url.database} TEMPLATE template0 {options}"
        execute(server, f"DROP DATABASE {url.database}", create)
        return url.render_as_string(hide_password=False)

    return make


@pytest.fixture
def role(make_database, execute):
    """A role without privileges in a database of its own; returns the URLs of both roles."""
    name = f"phresh_role_{os.getpid()}"
    url = make_database("role")
    execute(url, f"CREATE ROLE {name} LOGIN PASSWORD 'secret'", "CREATE SCHEMA app")
    yield url, make_url(url).set(username=name, password="secret")
    execute(url, f"DROP OWNED BY {name} CASCADE", f"DROP ROLE {name}")


def app_on(url):
    if not isinstance(url, str):
        url = url.render_as_string(hide_password=False)
    return create_app({"DATABASE_URL": url, "TESTING": True})


def faults(url, caplog):
    """Return what a request logs and a command prints about a database; None for nothing."""
    caplog.clear()
    app = app_on(url)
    response = app.test_client().get("/readyz")
    request = None
    if response.status_code != 200:
        assert response.status_code == 503
        [request] = [line for line in caplog.messages if "UnsuitableError" in line]
    with app.app_context():
        result = app.test_cli_runner().invoke(args=["remove-expired"])
        db.engine.dispose()
    command = None if result.exit_code == 0 else result.output
    return request, command


def fault_of_upgrade(url, caplog, work=upgrade):
    caplog.clear()
    with app_on(url).app_context():
        try:
            work()
        except SystemExit:
            [message] = [line for line in caplog.messages if line.startswith("Error: ")]
            return message
        finally:
            db.engine.dispose()
    return None


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ("ENCODING 'SQL_ASCII' LOCALE 'C'", "The encoding of the database is SQL_ASCII."),
        ("ENCODING 'LATIN1' LOCALE 'C'", "The encoding of the database is LATIN1."),
        ("ENCODING 'UTF8' LOCALE 'C'", "The locale of the database does not map all letters"),
    ],
)
def test_a_database_of_another_encoding_or_locale_is_rejected(recreate, caplog, options, fault):
    url = recreate(options)
    for message in (*faults(url, caplog), fault_of_upgrade(url, caplog)):
        assert fault in message
        assert "ENCODING 'UTF8' LOCALE 'C.UTF-8'." in message
        assert len(message.splitlines()) == 1
    assert "DATABASE_URL: postgresql" in fault_of_upgrade(url, caplog)
    assert checks.fault_at_start(make_url(url).set(drivername="postgresql+psycopg2"), 30)[0] is True


def test_an_old_server_is_rejected(database_url, caplog, monkeypatch):
    monkeypatch.setattr(checks, "OLDEST", 99)
    for message in (*faults(database_url, caplog), fault_of_upgrade(database_url, caplog)):
        assert "Phresh needs 99 or newer." in message


def test_text_in_another_encoding_than_utf_8_is_rejected(make_database, execute, caplog):
    url = make_database("encoding")
    name = make_url(url).database
    execute(url, f"ALTER DATABASE {name} SET client_encoding = 'LATIN1'")
    assert "client_encoding is LATIN1" in fault_of_upgrade(url, caplog)


def test_a_role_needs_every_privilege_that_serving_takes(role, execute, caplog):
    owner, served = role
    assert fault_of_upgrade(owner, caplog) is None
    request, command = faults(served, caplog)
    needed = f"The role {served.username} needs the privilege {EVERYTHING} on the table "
    assert needed in request
    assert needed in command
    assert "secret" not in request + command
    execute(owner, f"GRANT {EVERYTHING} ON ALL TABLES IN SCHEMA public TO {served.username}")
    missing = "needs the privilege USAGE on the sequence public.procrastinate_"
    assert all(missing in message for message in faults(served, caplog))
    execute(owner, f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {served.username}")
    assert faults(served, caplog) == (None, None)
    execute(owner, f"REVOKE INSERT, DELETE ON offers FROM {served.username}")
    missing = f"{served.username} needs the privilege INSERT, DELETE on the table offers."
    assert all(missing in message for message in faults(served, caplog))


def test_a_role_needs_to_use_the_schema(role, execute, caplog):
    owner, served = role
    name = make_url(owner).database
    execute(owner, f"ALTER DATABASE {name} SET search_path = app")
    assert fault_of_upgrade(owner, caplog) is None
    execute(owner, f"GRANT {EVERYTHING} ON ALL TABLES IN SCHEMA app TO {served.username}")
    execute(owner, f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA app TO {served.username}")
    missing = f"{served.username} needs the privilege USAGE on the schema app."
    assert all(missing in message for message in faults(served, caplog))
    execute(owner, f"GRANT USAGE ON SCHEMA app TO {served.username}")
    assert faults(served, caplog) == (None, None)


def test_a_role_needs_what_migrations_take(role, execute, caplog):
    owner, migrating = role
    name = migrating.username
    database = make_url(owner).database

    def fault():
        return fault_of_upgrade(migrating, caplog)

    assert fault().endswith(f"The role {name} needs the privilege CREATE on the schema public.")
    execute(owner, f"ALTER DATABASE {database} SET search_path = nowhere")
    assert fault().endswith(f"No schema in the search_path of the role {name} exists.")
    execute(owner, f"ALTER DATABASE {database} SET search_path = app")
    execute(owner, f"GRANT CREATE, USAGE ON SCHEMA app TO {name}")
    assert f"needs the privilege CREATE on the database {database}" in fault()
    execute(owner, "CREATE EXTENSION pg_trgm SCHEMA public")
    hidden = "The extension pg_trgm is in the schema public: add it to the search_path of the role"
    assert hidden in fault()
    execute(owner, f"ALTER DATABASE {database} SET search_path = app, public")
    assert fault() is None
    execute(owner, "ALTER TABLE app.tokens OWNER TO CURRENT_USER")
    assert fault() is None, "nothing is to be changed"
    message = fault_of_upgrade(migrating, caplog, downgrade)
    assert f"The role {name} must own the table tokens, or be a member of its owner." in message
    assert fault_of_upgrade(migrating, caplog, current) is None


def test_one_connection_of_a_process_is_checked_and_the_next_ones_are_not(settings, monkeypatch):
    checked = []
    fault = checks.serving_fault
    monkeypatch.setattr(checks, "serving_fault", lambda driver: checked.append(driver))
    app = create_app({**settings, "TESTING": True})
    with app.app_context():
        first, second = (app.extensions["pool"].acquire(5) for _ in range(2))
        assert checked == [first.driver]
        assert fault(second.driver) is None
        for connection in (first, second):
            app.extensions["pool"].release(connection)
        assert fetch_autocommit(sql_text("SELECT 1")) == [(1,)]
        db.engine.dispose()
    assert len(checked) == 1


def test_the_start_goes_on_without_a_database_that_is_away():
    url = make_url("postgresql+psycopg2://anna:secret@127.0.0.1:1/none")
    is_reached, fault = checks.fault_at_start(url, 30)
    assert not is_reached
    assert "Connection refused" in fault
    assert "secret" not in fault


def test_the_start_does_not_wait_for_a_silent_database():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = make_url(f"postgresql+psycopg2://127.0.0.1:{silent.getsockname()[1]}/none")
        assert checks.fault_at_start(url, 0.2) == (False, "No response within 0.2 seconds.")
