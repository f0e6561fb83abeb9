"""The commands, run as child processes in a copy of the checkout."""

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from phresh.cli import commands
from tests.tools.processes import (
    Address,
    Served,
    copy_checkout,
    environment,
    flask,
    free_port,
    open_folder,
    running_in,
    wait_until,
)

ROWS = ("psql", "-c", "SELECT name, cleaning_type, price FROM cleanings", "-At")
BODY = b'{"new_cleaning": {"name": "Clean my house", "price": 29.99}}'


@pytest.fixture
def folder():
    with open_folder() as folder:
        yield folder


@pytest.fixture
def checkout(folder):
    return copy_checkout(folder / "checkout")


@pytest.mark.slow
def test_make_run_serves_stops_and_keeps_the_data(checkout):
    served = Served(checkout).wait()
    status, created = served.request("POST", "/api/cleanings/", BODY)
    assert status == 201
    index = json.loads(served.request("GET", "/")[1])
    assert index["docs"] == f"http://localhost:{served.port}/docs/"

    # A second server on the same data is rejected; commands work beside the first one.
    code, output = Served(checkout).end(0)
    assert code != 0
    assert "Another process runs serve on the data in" in output
    assert "Traceback" not in output
    assert "Clean my house" in flask(checkout, *ROWS).stdout
    assert flask(checkout, "db", "check").returncode == 0
    test_run = flask(
        checkout, "test", "-q", "-k", "prepared_once", "tests/database/test_statements.py"
    )
    assert "1 passed" in test_run.stdout, test_run.stdout
    assert served.answers()

    code, output = served.end(signal.SIGTERM)
    assert f"http://localhost:{served.port}/api/cleanings/" in output
    assert f"http://localhost:{served.port}/docs" in output
    assert "Applied: Create cleanings" in output
    assert "Warning" not in output
    assert "Traceback" not in output
    assert wait_until(lambda: not running_in(checkout)), running_in(checkout)

    served = Served(checkout).wait()
    assert served.request("GET", "/api/cleanings/") == (200, f"[{created}]")
    served.end(signal.SIGINT, group=True)


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ({}, "http://localhost:8000"),
        ({"PORT": 8001}, "http://localhost:8001"),
        ({"HOST": "192.0.2.1"}, "http://192.0.2.1:8000"),
        ({"HOST": "phresh.example", "PORT": 80}, "http://phresh.example:80"),
        ({"HOST": "::1"}, "http://[::1]:8000"),
        # It does not say how clients reach it, nor which address they use.
        ({"HOST": "0.0.0.0"}, None),  # noqa: S104
        ({"HOST": "::"}, None),
        ({"PUBLIC_URL": "https://phresh.example"}, None),
    ],
)
def test_serve_takes_its_own_address_for_the_public_url(make_app, monkeypatch, given, url):
    monkeypatch.setenv("PUBLIC_URL", "")
    monkeypatch.setattr(commands, "upgrade", lambda: None)
    monkeypatch.setattr(commands, "_require_free_port", lambda *_: None)
    monkeypatch.setattr(commands.supervisor, "start", lambda: None)
    monkeypatch.setattr(os, "chdir", lambda _: None)
    monkeypatch.setattr(os, "execvp", lambda *_: None)
    app = make_app(**given)
    with app.app_context():
        result = app.test_cli_runner().invoke(args=["serve"])
    assert result.exit_code == 0, result.output
    assert os.environ["PUBLIC_URL"] == (url or "")


@pytest.mark.slow
def test_acknowledged_writes_survive_when_every_process_is_killed(checkout):
    served = Served(checkout).wait()
    assert served.request("POST", "/api/cleanings/", BODY)[0] == 201
    for process in running_in(checkout):
        os.kill(int(process.split()[0]), signal.SIGKILL)
    served.process.communicate()
    served = Served(checkout).wait()
    assert len(json.loads(served.request("GET", "/api/cleanings/")[1])) == 1

    served.end(signal.SIGINT, group=True)


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6, 2.0])
def test_a_signal_during_startup_stops_every_process(checkout, seconds):
    served = Served(checkout)
    time.sleep(seconds)
    started_at = time.monotonic()
    served.end(signal.SIGTERM)
    assert wait_until(lambda: not running_in(checkout)), running_in(checkout)
    # A worker that missed the signal would take gunicorn's graceful timeout of 15 s.
    assert time.monotonic() - started_at < 10


@pytest.mark.slow
def test_a_signal_right_after_the_first_response_stops_every_process(checkout):
    served = Served(checkout).wait()
    started_at = time.monotonic()
    served.end(signal.SIGINT, group=True)
    assert wait_until(lambda: not running_in(checkout)), running_in(checkout)
    assert time.monotonic() - started_at < 10


@pytest.mark.slow
def test_a_killed_server_leaves_no_process_behind(checkout):
    """No signal handler runs: the kernel drops the lock, and the keeper process notices that."""
    served = Served(checkout).wait()
    masters = [p for p in running_in(checkout) if "gunicorn" in p]
    os.kill(min(int(p.split()[0]) for p in masters), signal.SIGKILL)
    assert wait_until(lambda: not running_in(checkout)), running_in(checkout)
    served.process.communicate()


def test_a_port_in_use_is_reported_in_one_line(checkout):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        result = flask(checkout, "serve", PORT=str(port))
    assert result.returncode != 0
    assert (
        result.stderr
        == f"Error: HOST, PORT: Can't listen on 127.0.0.1, port {port}: Address already in use.\n"
    )


@pytest.mark.parametrize(
    "url",
    [
        *("nonsense", "mysql://h/n", "postgresql://127.0.0.1:1/n"),
        *("postgresql://u:topsecret@127.0.0.1:1/n?nonsense=1", "postgresql://h:port/n"),
    ],
)
def test_an_invalid_database_url_is_reported_in_one_line(checkout, url):
    result = flask(checkout, "serve", DATABASE_URL=url, PORT=str(free_port()))
    assert result.returncode != 0
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("Error: ")
    assert "topsecret" not in result.stderr


@pytest.mark.slow
def test_commands_that_need_no_database_do_not_start_one(checkout):
    assert "cleanings.create_cleaning" in flask(checkout, "routes").stdout
    assert json.loads(flask(checkout, "openapi", "print").stdout)["info"]["title"] == "Phresh"
    assert "serve" in flask(checkout, "--help").stdout
    assert not (checkout / "instance").exists()


@pytest.mark.slow
def test_commands_start_and_stop_the_database(checkout):
    assert "Applied: Create cleanings" in flask(checkout, "db", "upgrade").stdout
    assert wait_until(lambda: not running_in(checkout)), running_in(checkout)
    assert flask(checkout, "db", "check").returncode == 0
    assert "nothing to write" in flask(checkout, "db", "migrate", "-m", "x").stdout
    assert "Reverted: " in flask(checkout, "db", "downgrade").stdout
    sql = flask(checkout, "db", "upgrade", "--sql")
    assert "CREATE TABLE cleanings" in sql.stdout, sql.stderr
    assert wait_until(lambda: not running_in(checkout)), running_in(checkout)


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        *("demo", "remove-expired", "change-cleaning 1 {}", "delete-cleaning 1"),
        *("disable-account anna", "delete-account anna"),
    ],
)
def test_missing_tables_are_reported_in_one_line(checkout, command):
    result = flask(checkout, *command.split())
    assert result.returncode != 0
    assert result.stderr == "Error: The tables are missing: run flask db upgrade.\n"


@pytest.mark.slow
def test_demo_fills_the_database(checkout):
    flask(checkout, "db", "upgrade")
    added = flask(checkout, "demo").stdout
    assert added.startswith("Added 10 cleanings, 9 offers, 2 evaluations.\n")
    assert "demo-anna@phresh.example" in added
    assert flask(checkout, "demo").stdout.count("\n") == 1
    rows = flask(checkout, *ROWS).stdout.splitlines()
    assert len(rows) == 20
    assert {"My house|full_clean|29.99", "Someone else's house|spot_clean|19.99"} < set(rows)
    added = flask(checkout, "demo", "--count", "12345").stdout
    assert "Added 12345 cleanings, with users, offers and evaluations." in added
    count = flask(checkout, "psql", "-Atc", "SELECT count(*), count(DISTINCT name) FROM cleanings")
    assert count.stdout == "12365|12355\n"
    for table in ("users", "profiles", "offers", "evaluations"):
        count = flask(checkout, "psql", "-Atc", f"SELECT count(*) > 100 FROM {table}")
        assert count.stdout == "t\n", table


@pytest.mark.slow
def test_flask_run_serves_and_leaves_no_process_behind(checkout):
    port = free_port()
    flask(checkout, "db", "upgrade")
    server = subprocess.Popen(
        ["flask", "run", "--debug", "--port", str(port)],
        cwd=checkout,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    served = Address(port)
    assert wait_until(served.answers)
    assert served.request("GET", "/api/cleanings/") == (200, "[]")
    os.killpg(server.pid, signal.SIGTERM)
    server.wait()
    assert wait_until(lambda: not running_in(checkout)), running_in(checkout)


@pytest.mark.slow
def test_gunicorn_alone_starts_and_stops_the_database(checkout):
    """In a gevent worker, waiting for the database to start must not block the worker itself."""
    flask(checkout, "db", "upgrade")
    assert wait_until(lambda: not running_in(checkout)), running_in(checkout)
    served = Address(free_port())
    server = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "--config", "gunicorn.conf.py", "wsgi:app"],
        cwd=checkout,
        env=environment(PORT=str(served.port)),
        stderr=subprocess.DEVNULL,
    )
    try:
        assert wait_until(served.answers)
        assert served.request("GET", "/api/cleanings/") == (200, "[]")
    finally:
        server.terminate()
        server.wait(20)


@pytest.mark.slow
def test_flask_shell_works(checkout):
    flask(checkout, "db", "upgrade")
    code = "from phresh.database.base import db\nfrom sqlalchemy import text\n"
    code += "print(db.session.scalar(text('SELECT 6 * 7')))\n"
    shell = subprocess.run(
        ["flask", "shell"],
        cwd=checkout,
        env=environment(),
        input=code,
        capture_output=True,
        text=True,
    )
    assert "42" in shell.stdout


@pytest.mark.slow
def test_a_path_too_long_for_a_socket_works(folder):
    long_path = folder / ("x" * 60) / ("y" * 60)
    long_path.parent.mkdir()
    checkout = copy_checkout(long_path)
    assert "Applied" in flask(checkout, "db", "upgrade").stdout


@pytest.mark.slow
def test_a_path_with_special_characters_works(folder):
    checkout = copy_checkout(folder / 'it\'s "a", $HOME % é')
    result = flask(checkout, "db", "upgrade")
    assert "Applied" in result.stdout, result.stderr


@pytest.mark.slow
@pytest.mark.skipif(
    os.geteuid() != 0, reason="run by an ordinary user, every other test covers this"
)
@pytest.mark.skipif(
    not Path("/usr/bin/python3").exists(), reason="no Python that every user can run"
)
def test_make_run_installs_and_serves_as_an_ordinary_user(checkout):
    for path in [checkout, *checkout.rglob("*")]:
        shutil.chown(path, "nobody")
    served = Served(checkout, "PYTHON=/usr/bin/python3", user="nobody").wait(300)
    assert served.request("POST", "/api/cleanings/", BODY)[0] == 201
    assert (checkout / "instance" / "postgres" / "data").owner() == "nobody"
    served.end(signal.SIGINT, group=True)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root must run PostgreSQL as another user")
def test_root_follows_no_link_that_the_account_of_the_database_has_made(checkout, folder):
    """The account can change the folder of the data; root has its locks and its log elsewhere."""
    select = ("psql", "-Atc", "SELECT 1")
    assert flask(checkout, *select).stdout == "1\n"
    assert wait_until(lambda: not running_in(checkout)), running_in(checkout)
    data = checkout / "instance" / "postgres"
    control = checkout / "instance" / "postgres-control"
    assert {path.name for path in data.iterdir()} == {"data"}
    assert (control.owner(), control.stat().st_mode & 0o777) == ("root", 0o755)
    assert data.owner() != "root"

    targets = folder / "targets"
    targets.mkdir(mode=0o755)
    (targets / "kept").mkdir()
    names = ("log", "use.lock", "start.lock", "keeper.lock", "serve.lock", "test.lock")
    for name in (*names, "data.part"):
        (data / name).symlink_to(targets / ("kept" if name == "data.part" else name))
    assert flask(checkout, *select).stdout == "1\n"
    Served(checkout).wait(60).end()
    assert [path.name for path in targets.iterdir()] == ["kept"]
    assert list((targets / "kept").iterdir()) == []
    for name in names:
        assert (data / name).is_symlink()


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root must run PostgreSQL as another user")
def test_root_uses_the_data_of_1_0_but_not_beside_it(checkout):
    assert flask(checkout, "psql", "-c", "CREATE TABLE mine ()").returncode == 0
    assert wait_until(lambda: not running_in(checkout)), running_in(checkout)
    data = checkout / "instance" / "postgres"
    shutil.rmtree(checkout / "instance" / "postgres-control")
    for name in ("log", "use.lock", "start.lock", "keeper.lock"):
        (data / name).touch()
    with (data / "keeper.lock").open("ab") as lock:  # as the keeper of 1.0 has it
        fcntl.flock(lock, fcntl.LOCK_EX)
        refused = flask(checkout, "psql", "-Atc", "SELECT FROM mine")
        assert refused.returncode == 1
        assert "Phresh 1.0 still runs on the data in" in refused.stderr
    assert flask(checkout, "psql", "-Atc", "SELECT FROM mine").returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root must run PostgreSQL as another user")
def test_root_in_a_private_folder_stores_the_data_elsewhere_and_keeps_its_permissions(folder):
    private = folder / "private"
    private.mkdir(mode=0o700)
    checkout = copy_checkout(private / "checkout")
    served = Served(checkout).wait()
    _, output = served.end()
    assert f"can't reach {checkout}" in output
    data_folder = Path(output.partition("Data ")[2].split()[0])
    try:
        assert data_folder.parent == Path("/var/lib/phresh")
        assert (data_folder / "data" / "PG_VERSION").exists()
        assert private.stat().st_mode & 0o777 == 0o700
        assert not (checkout / "instance" / "postgres").exists()
        assert flask(checkout, "db", "check").returncode == 0
        assert wait_until(lambda: not running_in(data_folder)), running_in(data_folder)
        control = data_folder.with_name(f"{data_folder.name}-control")
        assert {path.owner() for path in (control, *control.rglob("*"))} == {"root"}
        assert not list(data_folder.glob("programs-*"))
    finally:
        shutil.rmtree(data_folder)
        shutil.rmtree(data_folder.with_name(f"{data_folder.name}-control"))
