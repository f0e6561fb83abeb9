"""Tests of docs/reliability.md: the database, the network or the server fails."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from phresh import create_app
from phresh.database.base import db
from phresh.database.transactions import UnitOfWork, fetch
from phresh.web.blueprint import Blueprint
from tests.tools.cluster import Client, Phresh, Proxy
from tests.tools.helpers import sql_text
from tests.tools.processes import wait_until

PATH = "/api/cleanings/"
OK = (200, 201)


def create_body(name):
    return {"new_cleaning": {"name": name, "price": 20}}


def post(name):
    return "POST", PATH, create_body(name)


def writer(client):
    """Return a function that makes the requests of one client: each creates another cleaning."""
    return lambda number: post(f"{client}-{number}")


def reader(_):
    return "GET", PATH


WRITERS = [writer(client) for client in range(6)]
READERS = [reader] * 3


def assert_unavailable(response):
    assert response.status == 503, response
    assert response.headers["Content-Type"] == "application/problem+json"
    assert int(response.headers["Retry-After"]) > 0
    assert response.json["status"] == 503
    assert response.seconds < 6


def statuses(responses):
    return {response.status for response in responses}


def acknowledged_names(responses):
    return {response.json["name"] for response in responses if response.status == 201}


def stored_names(cluster):
    return {name for (name,) in cluster.sql("SELECT name FROM cleanings")}


def wait_for_writes(responses, count=150):
    """Wait until that many more writes are acknowledged."""
    before = len(acknowledged_names(list(responses)))
    assert wait_until(lambda: len(acknowledged_names(list(responses))) >= before + count, 30), (
        responses[-3:]
    )


# The database is down


@pytest.mark.slow
def test_requests_get_503_until_the_database_starts(make_cluster, serve):
    cluster = make_cluster()
    served = serve(cluster.url)
    assert served.send("GET", "/healthz").status == 200
    change = {"cleaning_update": {"name": "Other"}}
    requests = [
        ("GET", "/readyz"),
        ("GET", PATH),
        post("One"),
        ("GET", f"{PATH}1/"),
        ("PATCH", f"{PATH}1/", change),
        ("PUT", f"{PATH}1/", change),
        ("DELETE", f"{PATH}1/"),
    ]
    for response in served.send_all(*requests * 3):
        assert_unavailable(response)

    cluster.start()
    assert served.send(*post("One")).status == 201
    assert [found["name"] for found in served.send("GET", PATH).json] == ["One"]
    assert served.send("GET", "/readyz").status == 200


@pytest.mark.slow
def test_requests_get_503_during_a_database_restart_and_no_write_is_lost(cluster, serve):
    served = serve(cluster.url)
    with served.load(*WRITERS[:3], *READERS) as responses:
        wait_for_writes(responses, 50)
        stopped_at = time.monotonic()
        cluster.stop()
        time.sleep(0.5)  # some requests arrive while it is down
        cluster.start()
        started_at = time.monotonic()
        wait_for_writes(responses, 50)
    failed = [response for response in responses if response.status not in OK]
    assert statuses(failed) == {503}
    for response in failed:
        assert_unavailable(response)
        assert response.ended > stopped_at
        assert response.began < started_at
    assert acknowledged_names(responses) <= stored_names(cluster)


@pytest.mark.slow
def test_a_database_restart_between_requests_causes_no_error(cluster, serve):
    served = serve(cluster.url)
    requests = [reader(0), post("One")] * 6
    assert statuses(served.send_all(*requests)) == {200, 201}
    cluster.stop()
    cluster.start()
    assert statuses(served.send_all(*requests)) == {200, 201}


def test_a_connection_lost_after_a_read_is_released_to_the_pool(settings, sql, monkeypatch):
    """Lose the connection after the rows have arrived, before it is back in the pool."""
    run = UnitOfWork.run

    def run_and_disconnect(session, query):
        rows = run(session, query)
        backend = session._connection.driver.info.backend_pid
        sql(f"SELECT pg_terminate_backend({backend}, 5000)")
        return rows

    client = create_app({**settings, "POOL_SIZE": 1}).test_client()
    client.get(PATH)
    with monkeypatch.context() as patch:
        patch.setattr(UnitOfWork, "run", run_and_disconnect)
        assert client.get(PATH).status_code == 200
    assert client.get(PATH).status_code == 200


@pytest.mark.slow
def test_no_acknowledged_write_is_lost_when_postgresql_is_killed(cluster, serve):
    served = serve(cluster.url)
    with served.load(*WRITERS) as responses:
        for _ in range(2):
            wait_for_writes(responses)
            cluster.kill()
            time.sleep(0.3)
            cluster.start()
        wait_for_writes(responses, 50)
    assert statuses(responses) == {201, 503}
    assert acknowledged_names(responses) <= stored_names(cluster)


@pytest.mark.slow
def test_the_durability_test_detects_lost_writes(cluster, serve):
    """The same, but PostgreSQL acknowledges commits before they are on the disk."""
    cluster.stop()
    unsafe_settings = {
        "synchronous_commit": "off",
        "wal_writer_delay": "10s",
        "wal_writer_flush_after": "64MB",
    }
    cluster.start(**unsafe_settings)
    served = serve(cluster.url)
    with served.load(*WRITERS) as responses:
        wait_for_writes(responses)
        cluster.kill()
    cluster.start()
    assert len(acknowledged_names(responses) - stored_names(cluster)) > 0


@pytest.mark.slow
def test_writes_continue_on_the_standby_after_the_primary_is_killed(
    cluster, workspace, serve, add_cleanup
):
    standby = cluster.standby(workspace[0] / f"standby-{time.monotonic_ns()}")
    add_cleanup(standby.stop)
    hosts = f"{cluster.host},{standby.host}"
    served = serve(f"postgresql://postgres@{hosts}/postgres?target_session_attrs=read-write")
    with served.load(*WRITERS) as responses:
        wait_for_writes(responses)
        cluster.kill()
        standby.promote()
        promoted_at = time.monotonic()
        wait_for_writes(responses)
    assert statuses(responses) == {201, 503}
    assert {response.status for response in responses if response.began > promoted_at} == {201}
    assert acknowledged_names(responses) <= stored_names(standby)


@pytest.mark.slow
def test_connections_to_a_demoted_primary_are_closed(cluster, serve):
    served = serve(cluster.url, WORKERS="1", POOL_SIZE="1")
    own_backends = "SELECT pid FROM pg_stat_activity WHERE application_name = 'phresh'"
    assert served.send(*post("Before")).status == 201
    before = cluster.sql(own_backends)
    demote = "ALTER SYSTEM SET default_transaction_read_only = on"
    cluster.sql(demote, "SELECT pg_reload_conf()")
    assert wait_until(lambda: cluster.sql("SHOW transaction_read_only") == [("on",)])

    # Phresh's session may see the change a moment later than the one of this test.
    assert wait_until(lambda: served.send(*post("Then")).status != 201)
    assert wait_until(lambda: cluster.sql(own_backends) != before)
    assert_unavailable(served.send(*post("Then")))
    cluster.sql("ALTER SYSTEM RESET ALL", "SELECT pg_reload_conf()")
    assert wait_until(lambda: served.send(*post("After")).status == 201)


# The network is silent or cut


@pytest.mark.slow
def test_requests_get_503_while_the_network_is_silent_and_succeed_afterwards(proxy, serve):
    pool = {"WORKERS": "1", "POOL_SIZE": "5"}
    served = serve(f"postgresql://postgres@127.0.0.1:{proxy.port}/postgres", **pool)
    requests = [reader(0), post("One"), ("GET", f"{PATH}1/")] * 5  # 3 times the pool
    assert statuses(served.send_all(*requests)) <= {*OK, 404}
    assert proxy.seen >= 2
    for _ in range(2):
        proxy.mode = "hole"
        for response in served.send_all(*requests):
            assert_unavailable(response)
        proxy.mode = "pass"
        assert statuses(served.send_all(*[reader(0), post("One")] * 7)) == {200, 201}


@pytest.mark.slow
@pytest.mark.parametrize("hosts", [1, 2])
def test_the_first_connection_times_out_on_a_silent_network(cluster, serve, add_cleanup, hosts):
    proxies = [Proxy(cluster.port) for _ in range(hosts)]
    for proxy in proxies:
        add_cleanup(proxy.close)
        proxy.mode = "hole"
    url = ",".join(f"127.0.0.1:{proxy.port}" for proxy in proxies)
    url = f"postgresql://postgres@{url}/postgres?target_session_attrs=read-write"
    served = serve(url, WORKERS="1", POOL_SIZE="30")
    for response in served.send_all(*[reader(0), post("One"), ("GET", "/readyz")] * 10):
        assert_unavailable(response)
    for proxy in proxies:
        proxy.mode = "pass"
    assert statuses(served.send_all(*[reader(0), post("One")] * 5)) == {200, 201}


@pytest.mark.slow
def test_a_silent_host_is_skipped(cluster, proxy, serve):
    proxy.mode = "hole"
    hosts = f"127.0.0.1:{proxy.port},{cluster.host}"
    served = serve(f"postgresql://postgres@{hosts}/postgres?target_session_attrs=read-write")
    assert statuses(served.send_all(*[reader(0), post("One")] * 3)) == {200, 201}


@pytest.mark.slow
def test_requests_get_503_while_the_network_is_cut_and_succeed_afterwards(proxy, serve):
    served = serve(f"postgresql://postgres@127.0.0.1:{proxy.port}/postgres")
    with served.load(*WRITERS[:3], *READERS) as responses:
        wait_for_writes(responses, 50)
        proxy.reset()
        time.sleep(0.5)
        proxy.mode = "pass"
        restored_at = time.monotonic()
        wait_for_writes(responses, 50)
    assert statuses(responses) == {200, 201, 503}
    assert {response.status for response in responses if response.began > restored_at} == {200, 201}


# Limits

SLEEP = """
    CREATE FUNCTION sleep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.name LIKE 'sleep %' THEN PERFORM pg_sleep(substr(NEW.name, 7)::float); END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER sleep BEFORE INSERT ON cleanings FOR EACH ROW EXECUTE FUNCTION sleep();
"""
LIMITS = ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout")
RECORD_LIMITS = f"""
    CREATE TABLE recorded_limits (name text, value text);
    CREATE FUNCTION record() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO recorded_limits SELECT name, current_setting(name)
            FROM pg_settings WHERE name IN {LIMITS};
        RETURN NEW;
    END $$;
    CREATE TRIGGER record BEFORE INSERT ON cleanings FOR EACH ROW EXECUTE FUNCTION record();
"""
SESSIONS = "SELECT query FROM pg_stat_activity WHERE application_name = 'phresh'"
ACTIVE = f"{SESSIONS} AND state = 'active'"
IDLE = f"{SESSIONS} AND state = 'idle in transaction'"
# A module that adds a view whose transaction is idle for two seconds.
PAUSING = """
import time

from sqlalchemy import text

from phresh import create_app
from phresh.web.blueprint import Blueprint
from phresh.database.transactions import fetch
from phresh.database.statements import query

blp = Blueprint("pausing", __name__)


@query
def touched():
    return text("UPDATE cleanings SET description = 'touched' RETURNING id::text")


@blp.route("/pause/", methods=["POST"])
@blp.response(201)
def pause():
    fetch(touched())
    time.sleep(2)
    return fetch(touched())[0][0]


app = create_app()
app.register_blueprint(blp)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "values"),
    [
        ({}, ("1500ms", "3s", "10s")),
        ({"LOCK_TIMEOUT": "0.5", "STATEMENT_TIMEOUT": "1.5"}, ("500ms", "1500ms", "10s")),
        ({"DATABASE_LIMITS": "false"}, ("0", "0", "0")),
    ],
)
def test_the_limits_are_set_in_the_database_session(cluster, serve, settings, values):
    cluster.sql(RECORD_LIMITS)
    assert serve(cluster.url, **settings).send(*post("One")).status == 201
    assert dict(cluster.sql("SELECT * FROM recorded_limits")) == dict(
        zip(LIMITS, values, strict=True)
    )


@pytest.mark.slow
def test_waiting_for_a_row_lock_ends_at_the_lock_timeout(cluster, serve):
    served = serve(cluster.url)
    job = served.send(*post("One")).json["id"]
    change = ("PATCH", f"{PATH}{job}/", {"cleaning_update": {"name": "Other"}})
    other = cluster.connect()
    other.autocommit = False
    other.cursor().execute("SELECT FROM cleanings FOR UPDATE")
    response = served.send(*change)
    other.close()
    assert_unavailable(response)
    assert 1.5 <= response.seconds < 3
    assert served.send(*change).status == 200


@pytest.mark.slow
def test_a_statement_is_cancelled_after_three_seconds(cluster, serve):
    cluster.sql(SLEEP)
    served = serve(cluster.url)
    response = served.send(*post("sleep 30"))
    assert_unavailable(response)
    assert 3 <= response.seconds < 5
    assert cluster.sql(ACTIVE) == []
    assert served.send(*post("One")).status == 201
    assert stored_names(cluster) == {"One"}


@pytest.mark.slow
def test_a_request_gets_503_after_waiting_five_seconds_for_the_database(cluster, serve):
    """Without limits in the database, only the deadline of the request ends the wait."""
    cluster.sql(SLEEP)
    served = serve(cluster.url, DATABASE_LIMITS="false")
    response = served.send(*post("sleep 30"))
    assert_unavailable(response)
    assert response.seconds >= 5
    assert len(cluster.sql(ACTIVE)) == 1  # it runs on, hence the limits in the database
    assert served.send(*post("One")).status == 201


@pytest.mark.slow
def test_requests_get_503_while_the_pool_is_exhausted(cluster, serve):
    cluster.sql(SLEEP)
    one = {"WORKERS": "1", "POOL_SIZE": "1", "POOL_TIMEOUT": "1"}
    served = serve(cluster.url, **one, STATEMENT_TIMEOUT="9", DATABASE_TIMEOUT="10")
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(served.send, *post("sleep 6"))
        assert wait_until(lambda: cluster.sql(ACTIVE))
        for response in served.send_all(*[reader(0), post("One")] * 2):
            assert_unavailable(response)
            assert response.seconds >= 1
        assert slow.result().status == 201
    assert statuses(served.send_all(*[reader(0)] * 4)) == {200}


@pytest.mark.slow
def test_an_idle_transaction_is_terminated(cluster, workspace, serve):
    (workspace[0] / "checkout" / "pausing.py").write_text(PAUSING)
    served = serve(cluster.url, "pausing:app", WORKERS="1", IDLE_TIMEOUT="1")
    cluster.sql("INSERT INTO cleanings (name, price, owner_id) SELECT 'One', 1, id FROM users")
    change = ("PATCH", f"{PATH}1/", {"cleaning_update": {"name": "Other"}})
    for _ in range(2):  # on a new connection, then on one that has been used
        with ThreadPoolExecutor() as pool:
            paused = pool.submit(served.send, "POST", "/pause/")
            assert wait_until(lambda: cluster.sql(IDLE))
            changed = served.send(*change)
            assert changed.status == 200
            assert changed.ended < paused.result().ended
            assert_unavailable(paused.result())
        assert cluster.sql("SELECT name, description FROM cleanings") == [("Other", None)]
    assert served.send("GET", PATH).status == 200


# Conflicting transactions


@pytest.fixture
def failing_view(settings):
    """A client of an app whose view raises SQL errors, and the list of its calls."""
    app = create_app(settings)
    attempts = []
    blp = Blueprint("failing", __name__)

    @blp.route("/fail/<int:times>/<sqlstate>/", methods=["POST"])
    @blp.response(201)
    def fail(times, sqlstate):
        attempts.append(sqlstate)
        insert = "INSERT INTO cleanings (name, price) VALUES ('One', 1) RETURNING id::text"
        written = fetch(sql_text(insert))[0][0]
        if len(attempts) <= times:
            fetch(sql_text(f"DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{sqlstate}'; END $$"))
        return written

    app.register_blueprint(blp)
    yield app.test_client(), attempts
    with app.app_context():
        db.engine.dispose()


@pytest.mark.parametrize("sqlstate", ["40001", "40P01"])
def test_a_serialization_failure_or_deadlock_is_retried(failing_view, sql, sqlstate):
    client, attempts = failing_view
    assert client.post(f"/fail/2/{sqlstate}/").status_code == 201
    assert len(attempts) == 3
    assert sql("SELECT count(*) FROM cleanings") == [(1,)]


@pytest.mark.parametrize("sqlstate", ["40001", "40P01"])
def test_a_serialization_failure_or_deadlock_returns_503_after_three_attempts(
    failing_view, sql, sqlstate
):
    client, attempts = failing_view
    response = client.post(f"/fail/100/{sqlstate}/")
    assert response.status_code == 503
    assert response.headers["Retry-After"]
    assert len(attempts) == 3
    assert sql("SELECT count(*) FROM cleanings") == [(0,)]


@pytest.mark.parametrize("sqlstate", ["55P03", "57014", "23505"])
def test_other_database_errors_are_not_retried(failing_view, sql, sqlstate):
    client, attempts = failing_view
    assert client.post(f"/fail/1/{sqlstate}/").status_code in (409, 503)
    assert len(attempts) == 1
    assert sql("SELECT count(*) FROM cleanings") == [(0,)]


@pytest.mark.slow
def test_a_real_serialization_failure_is_retried(cluster, serve):
    cluster.sql("ALTER DATABASE postgres SET default_transaction_isolation = 'repeatable read'")
    served = serve(cluster.url)
    job = served.send(*post("One")).json["id"]
    other = cluster.connect()
    other.autocommit = False
    other.cursor().execute("UPDATE cleanings SET description = 'theirs'")
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    change = ("PATCH", f"{PATH}{job}/", {"cleaning_update": {"name": "ours"}})
    with ThreadPoolExecutor() as pool:
        response = pool.submit(served.send, *change)
        assert wait_until(lambda: cluster.sql(waiting) == [(1,)])
        other.commit()
        assert response.result().status == 200
    other.close()
    assert cluster.sql("SELECT name, description FROM cleanings") == [("ours", "theirs")]
    failures = "SELECT xact_rollback FROM pg_stat_database WHERE datname = 'postgres'"
    assert wait_until(lambda: cluster.sql(failures) >= [(1,)])


DEADLOCK_TRIGGER = """
    CREATE FUNCTION lock_other() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF pg_trigger_depth() > 1 THEN RETURN NEW; END IF;
        PERFORM pg_sleep(0.5);
        UPDATE cleanings SET description = 'touched' WHERE id <> NEW.id;
        RETURN NEW;
    END $$;
    CREATE TRIGGER lock_other AFTER UPDATE ON cleanings FOR EACH ROW EXECUTE FUNCTION lock_other();
"""


@pytest.mark.slow
def test_a_real_deadlock_is_retried(cluster, serve):
    """Each of two requests has locked the row that the other one waits for."""
    served = serve(cluster.url)
    jobs = [served.send(*post(name)).json["id"] for name in ("One", "Two")]
    cluster.sql(DEADLOCK_TRIGGER)
    change = {"cleaning_update": {"price": 30}}
    responses = served.send_all(*[("PATCH", f"{PATH}{job}/", change) for job in jobs])
    assert [response.status for response in responses] == [200, 200]
    assert cluster.sql("SELECT deadlocks FROM pg_stat_database WHERE datname = 'postgres'") == [
        (1,)
    ]


# Shutdown and reload


@pytest.mark.slow
def test_a_request_in_flight_at_shutdown_is_completed(cluster, serve):
    cluster.sql(SLEEP)
    served = serve(cluster.url)
    with ThreadPoolExecutor() as pool:
        response = pool.submit(served.send, *post("sleep 2.5"))
        assert wait_until(lambda: cluster.sql(ACTIVE))
        served.terminate()
        assert response.result().status == 201
    assert served.stop() == 0
    assert stored_names(cluster) == {"sleep 2.5"}


@pytest.mark.slow
def test_a_request_that_outlasts_the_shutdown_timeout_is_rolled_back(cluster, serve):
    cluster.sql(SLEEP)
    served = serve(cluster.url, DATABASE_LIMITS="false", DATABASE_TIMEOUT="60")
    with ThreadPoolExecutor() as pool:
        response = pool.submit(served.send, *post("sleep 20"))
        assert wait_until(lambda: cluster.sql(ACTIVE))
        began = time.monotonic()
        served.stop()
        assert 14 <= time.monotonic() - began < 18
        assert response.result().sent
        assert response.result().status == 0
    assert cluster.sql(ACTIVE)
    assert wait_until(lambda: not cluster.sql(SESSIONS))
    assert stored_names(cluster) == set()


@pytest.mark.slow
def test_no_request_on_a_kept_alive_connection_is_dropped_at_shutdown(cluster, serve, add_cleanup):
    served = serve(cluster.url)
    idle = [Client(served.port) for _ in range(4)]
    for client in idle:
        add_cleanup(client.close)
        assert client.send("GET", PATH).status == 200
    with served.load(*WRITERS, *[reader] * 4) as responses:
        wait_for_writes(responses)
        served.terminate()
        last_responses = [client.send("GET", PATH) for client in idle]
        assert served.stop() == 0
    assert statuses(last_responses) == {200}
    assert all(response.kept for response in last_responses)
    assert statuses(responses) == {200, 201, 0}
    assert [response for response in responses if response.sent and not response.status] == []
    assert acknowledged_names(responses) <= stored_names(cluster)


@pytest.mark.slow
def test_no_request_on_a_new_connection_is_dropped_at_shutdown(cluster, serve):
    served = serve(cluster.url)
    with served.load(*WRITERS, *[reader] * 4, Connection="close") as responses:
        wait_for_writes(responses)
        served.terminate()
        assert served.stop() == 0
    assert statuses(responses) == {200, 201, 0}
    assert [response for response in responses if response.sent and not response.status] == []
    assert acknowledged_names(responses) <= stored_names(cluster)


@pytest.mark.slow
@pytest.mark.parametrize("replace", [Phresh.end_worker, Phresh.reload])
def test_new_connections_are_served_while_workers_are_replaced(cluster, serve, replace):
    served = serve(cluster.url)
    with served.load(*WRITERS, *[reader] * 4, Connection="close") as responses:
        wait_for_writes(responses)
        replaced = replace(served)
        assert wait_until(lambda: not replaced & served.workers())
        wait_for_writes(responses)
    assert statuses(responses) == {200, 201}
    assert max(response.seconds for response in responses) < 3.5
