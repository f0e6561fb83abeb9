"""Phresh through PgBouncer in transaction mode, set up as docs/many-machines.md says."""

import os
import shutil
import subprocess
import sys
from contextlib import closing

import psycopg2
import pytest
from flask_migrate import upgrade

from phresh import create_app
from phresh.config import ROOT
from phresh.database import embedded
from phresh.database.base import db
from tests.tools.cluster import ACCOUNT, TOKEN, Cluster, Phresh, make_folder
from tests.tools.processes import copy_checkout, environment, free_port, wait_until

pytestmark = pytest.mark.slow

PATH = "/api/cleanings/"
POOL_SIZE = 5


@pytest.fixture(scope="module")
def folder():
    folder = make_folder()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def cluster(folder):
    """A server with the tables, and with the limits set where docs/many-machines.md says."""
    cluster = Cluster(folder / "data").make().start()
    with create_app({"DATABASE_URL": cluster.url}).app_context():
        upgrade()
        db.engine.dispose()
    cluster.sql(
        ACCOUNT,
        "ALTER ROLE postgres SET statement_timeout = '3s'",
        "ALTER ROLE postgres SET lock_timeout = '1.5s'",
        "ALTER ROLE postgres SET idle_in_transaction_session_timeout = '10s'",
    )
    yield cluster
    cluster.stop()


class PgBouncer:
    """PgBouncer in front of a server, with few connections, which all clients share."""

    def __init__(self, folder, cluster):
        program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
        if program is None:
            pytest.skip("No PgBouncer: on Debian, apt-get install pgbouncer")
        self.port = free_port()
        self.url = cluster.url.replace(str(cluster.port), str(self.port))
        self.log = folder / "pgbouncer.log"
        settings = folder / "pgbouncer.ini"
        settings.write_text(
            f"""
            [databases]
            * = host=127.0.0.1 port={cluster.port} user=postgres
            [pgbouncer]
            listen_addr = 127.0.0.1
            listen_port = {self.port}
            unix_socket_dir =
            auth_type = any
            admin_users = postgres
            pool_mode = transaction
            default_pool_size = {POOL_SIZE}
            server_round_robin = 1
            log_connections = 0
            log_disconnections = 0
            """.replace("            ", "")
        )
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [program, settings],
                stdout=log,
                stderr=log,
                **embedded.run_as(embedded.Server(ROOT / "instance").user),
            )
        ready = wait_until(lambda: self._process.poll() is not None or self.is_ready())
        if not ready or self._process.poll() is not None:
            self.stop()
            pytest.fail(self.log.read_text())

    def is_ready(self):
        try:
            self.sql("SELECT 1")
        except psycopg2.OperationalError:
            return False
        return True

    def sql(self, statement, database="postgres"):
        connection = psycopg2.connect(
            host="127.0.0.1", port=self.port, user="postgres", dbname=database
        )
        connection.autocommit = True  # PgBouncer's console does not support BEGIN
        with closing(connection), connection.cursor() as cursor:
            cursor.execute(statement)
            names = [column.name for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor]

    def stop(self):
        self._process.terminate()
        self._process.wait(20)


@pytest.fixture(scope="module")
def pgbouncer(folder, cluster):
    pgbouncer = PgBouncer(folder, cluster)
    yield pgbouncer
    pgbouncer.stop()


@pytest.fixture(scope="module")
def checkout(folder):
    return copy_checkout(folder / "checkout")


@pytest.fixture
def serve(checkout, pgbouncer):
    served = []

    def start(**settings):
        served.append(Phresh(checkout, pgbouncer.url, token=TOKEN, **settings))
        return served[-1]

    yield start
    for each in served:
        each.stop()


def test_the_test_suite_passes_through_pgbouncer(pgbouncer):
    """Leave out the tests that start servers, end connections, or change roles and databases."""
    names = ("cli/test_commands", "cli/test_pages", "faults/test_faults", "serving/test_worker")
    # PgBouncer keeps sessions that began before a setting of the database was changed.
    names += ("database/test_checks", "database/test_migrating", "test_language")
    names += ("database/test_clients", "cli/test_containers")
    ignored = [f"--ignore=tests/{name}.py" for name in names]
    # What is in these does not concern the database.
    ignored += [f"--ignore=tests/{folder}" for folder in ("clients", "serving", "settings")]
    # More writes at once than PgBouncer has connections: some get 503, as the page says.
    concurrent = "web/test_conditional.py::test_"
    for name in (
        "one_of_20_concurrent_writes_with_the_same_etag_succeeds",
        "no_update_is_lost_whatever_resource_it_is",
        "a_put_that_creates_is_412_with_if_none_match_where_there_is_one",
    ):
        ignored.append(f"--deselect=tests/{concurrent}{name}")
    settings = {"PREPARED_STATEMENTS": "false", "DATABASE_LIMITS": "false"}
    completed = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider", *ignored],
        cwd=ROOT,
        env=environment(DATABASE_URL=pgbouncer.url, **settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
    )
    assert completed.returncode == 0, completed.stdout + pgbouncer.log.read_text()
    stats = pgbouncer.sql("SHOW STATS", "pgbouncer")
    transactions = [
        row["total_xact_count"] for row in stats if row["database"].startswith("postgres_test_")
    ]
    assert sum(transactions) > 1000


def test_several_migrations_at_once_work_one_after_the_other(pgbouncer, cluster):
    cluster.sql("CREATE DATABASE several")
    url = f"{pgbouncer.url.rpartition('/')[0]}/several"
    command = [sys.executable, "-m", "flask", "db", "upgrade"]
    runs = [
        subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment(DATABASE_URL=url),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    printed = [run.communicate(timeout=120) for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0], printed
    assert sorted(out.count("Applied: ") for out, _ in printed)[:2] == [0, 0], printed
    held = "SELECT count(*) AS locks FROM pg_locks WHERE locktype = 'advisory'"
    assert pgbouncer.sql(held, "several") == [{"locks": 0}]


def test_requests_share_the_server_connections(serve, pgbouncer):
    served = serve(DATABASE_LIMITS="false", PREPARED_STATEMENTS="false")
    created = served.send_all(
        *(("POST", PATH, {"new_cleaning": {"name": f"Job {n}", "price": n}}) for n in range(40))
    )
    assert {response.status for response in created} == {201}
    locations = [response.headers["Location"] for response in created]
    changed = served.send_all(
        *(
            ("PATCH", location, {"cleaning_update": {"description": location}})
            for location in locations
        )
    )
    assert [response.json["description"] for response in changed] == locations
    read = served.send_all(*(("GET", location) for location in locations))
    assert [response.json for response in read] == [response.json for response in changed]
    page = served.send("GET", f"{PATH}?limit=100").json
    assert {cleaning["name"] for cleaning in page} >= {f"Job {n}" for n in range(40)}

    pools = pgbouncer.sql("SHOW POOLS", "pgbouncer")
    [pool] = [pool for pool in pools if pool["database"] == "postgres"]
    servers = sum(pool[f"sv_{state}"] for state in ("active", "idle", "used", "tested", "login"))
    assert servers <= POOL_SIZE < pool["cl_active"] + pool["cl_waiting"], pool


def test_the_limits_of_the_role_apply(serve, cluster):
    served = serve(DATABASE_LIMITS="false", PREPARED_STATEMENTS="false")
    created = served.send("POST", PATH, {"new_cleaning": {"name": "Locked", "price": 1}})
    location = created.headers["Location"]
    with closing(cluster.connect()) as other, other.cursor() as cursor:
        cursor.execute("BEGIN; LOCK TABLE cleanings")
        response = served.send("PATCH", location, {"cleaning_update": {"price": 2}})
    assert response.status == 503
    assert 1.4 < response.seconds < 3


def test_pgbouncer_rejects_limits_sent_as_startup_parameters(serve, pgbouncer):
    served = serve(DATABASE_LIMITS="true")
    assert served.send("GET", "/healthz").status == 200
    for request in (("GET", "/readyz"), ("GET", PATH)):
        response = served.send(*request)
        assert response.status == 503
        assert response.headers["Content-Type"] == "application/problem+json"
        assert response.seconds < 5
    assert "unsupported startup parameter" in served.log.read_text()
