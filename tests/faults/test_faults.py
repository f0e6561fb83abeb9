"""What Phresh promises when the database, the network or the server fails: docs/reliability.md."""

import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from flask_migrate import upgrade

from phresh import create_app
from phresh.database.base import db
from phresh.database.transactions import UnitOfWork, fetch
from phresh.web.blueprint import Blueprint
from tests.tools.cluster import ACCOUNT, TOKEN, Client, Cluster, Phresh, Proxy, make_folder
from tests.tools.helpers import sql_text
from tests.tools.processes import copy_checkout, wait_until

PATH = "/api/cleanings/"
OK = (200, 201)


@pytest.fixture(scope="module")
def ground():
    """A folder with a checkout, and a stopped cluster that has the tables."""
    folder = make_folder()
    template = Cluster(folder / "template").make().start()
    with create_app({"DATABASE_URL": template.url}).app_context():
        upgrade()
        db.engine.dispose()
    template.sql(ACCOUNT)
    template.stop()
    copy_checkout(folder / "checkout")
    yield folder, template
    shutil.rmtree(folder)


@pytest.fixture
def put_away():
    """Stop, at the end of the test, what it started: the last first."""
    started = []
    yield started.append
    for stop in reversed(started):
        stop()


@pytest.fixture
def make_cluster(ground, put_away):
    folder, template = ground

    def make():
        cluster = template.copy(folder / f"data-{time.monotonic_ns()}")
        put_away(lambda: shutil.rmtree(cluster.data))
        put_away(cluster.stop)
        return cluster

    return make


@pytest.fixture
def cluster(make_cluster):
    """A server that runs and has the tables, all empty."""
    return make_cluster().start()


@pytest.fixture
def proxy(cluster, put_away):
    proxy = Proxy(cluster.port)
    put_away(proxy.close)
    return proxy


@pytest.fixture
def serve(ground, put_away):
    def start(url, app="wsgi:app", **settings):
        served = Phresh(ground[0] / "checkout", url, app, token=TOKEN, **settings)
        put_away(served.stop)
        return served

    return start


def new(name):
    return {"new_cleaning": {"name": name, "price": 20}}


def post(name):
    return "POST", PATH, new(name)


def writer(client):
    """A job that posts one cleaning after the other, each by a name of its own."""
    return lambda number: post(f"{client}-{number}")


def reader(_):
    return "GET", PATH


WRITERS = [writer(client) for client in range(6)]
READERS = [reader] * 3


def assert_away(answer):
    assert answer.status == 503, answer
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert int(answer.headers["Retry-After"]) > 0
    assert answer.json["status"] == 503
    assert answer.seconds < 6


def statuses(answers):
    return {answer.status for answer in answers}


def acknowledged(answers):
    return {answer.json["name"] for answer in answers if answer.status == 201}


def stored(cluster):
    return {name for (name,) in cluster.sql("SELECT name FROM cleanings")}


def enough(answers, more=150):
    """Wait until the clients got so many more writes acknowledged."""
    had = len(acknowledged(list(answers)))
    assert wait_until(lambda: len(acknowledged(list(answers))) >= had + more, 30), answers[-3:]


# The database is away


@pytest.mark.slow
def test_the_database_is_away_at_start(make_cluster, serve):
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
    for answer in served.send_all(*requests * 3):
        assert_away(answer)

    cluster.start()
    assert served.send(*post("One")).status == 201
    assert [found["name"] for found in served.send("GET", PATH).json] == ["One"]
    assert served.send("GET", "/readyz").status == 200


@pytest.mark.slow
def test_the_database_is_restarted_under_load(cluster, serve):
    served = serve(cluster.url)
    with served.load(*WRITERS[:3], *READERS) as answers:
        enough(answers, 50)
        stopping = time.monotonic()
        cluster.stop()
        time.sleep(0.5)  # for some to come in vain
        cluster.start()
        back = time.monotonic()
        enough(answers, 50)
    refused = [answer for answer in answers if answer.status not in OK]
    assert statuses(refused) == {503}
    for answer in refused:
        assert_away(answer)
        assert answer.ended > stopping
        assert answer.began < back
    assert acknowledged(answers) <= stored(cluster)


@pytest.mark.slow
def test_a_restart_that_no_request_saw_makes_none_fail(cluster, serve):
    served = serve(cluster.url)
    requests = [reader(0), post("One")] * 6
    assert statuses(served.send_all(*requests)) == {200, 201}
    cluster.stop()
    cluster.start()
    assert statuses(served.send_all(*requests)) == {200, 201}


def test_a_read_that_loses_its_connection_gives_it_back(settings, sql, monkeypatch):
    """Lost after the answer came, and before the connection is back in the pool."""
    run = UnitOfWork.run

    def run_and_lose(session, query):
        rows = run(session, query)
        backend = session._connection.driver.info.backend_pid
        sql(f"SELECT pg_terminate_backend({backend}, 5000)")
        return rows

    client = create_app({**settings, "POOL_SIZE": 1}).test_client()
    client.get(PATH)
    with monkeypatch.context() as patch:
        patch.setattr(UnitOfWork, "run", run_and_lose)
        assert client.get(PATH).status_code == 200
    assert client.get(PATH).status_code == 200


@pytest.mark.slow
def test_no_acknowledged_write_is_lost_when_postgresql_is_killed(cluster, serve):
    served = serve(cluster.url)
    with served.load(*WRITERS) as answers:
        for _ in range(2):
            enough(answers)
            cluster.kill()
            time.sleep(0.3)
            cluster.start()
        enough(answers, 50)
    assert statuses(answers) == {201, 503}
    assert acknowledged(answers) <= stored(cluster)


@pytest.mark.slow
def test_that_test_can_see_a_loss(cluster, serve):
    """The same with commits that are acknowledged before they are on the disk."""
    cluster.stop()
    lazy = {
        "synchronous_commit": "off",
        "wal_writer_delay": "10s",
        "wal_writer_flush_after": "64MB",
    }
    cluster.start(**lazy)
    served = serve(cluster.url)
    with served.load(*WRITERS) as answers:
        enough(answers)
        cluster.kill()
    cluster.start()
    assert len(acknowledged(answers) - stored(cluster)) > 0


@pytest.mark.slow
def test_writes_go_on_at_the_standby_when_the_primary_is_killed(cluster, ground, serve, put_away):
    standby = cluster.standby(ground[0] / f"standby-{time.monotonic_ns()}")
    put_away(standby.stop)
    hosts = f"{cluster.host},{standby.host}"
    served = serve(f"postgresql://postgres@{hosts}/postgres?target_session_attrs=read-write")
    with served.load(*WRITERS) as answers:
        enough(answers)
        cluster.kill()
        standby.promote()
        promoted = time.monotonic()
        enough(answers)
    assert statuses(answers) == {201, 503}
    assert {answer.status for answer in answers if answer.began > promoted} == {201}
    assert acknowledged(answers) <= stored(standby)


@pytest.mark.slow
def test_a_demoted_primary_is_let_go(cluster, serve):
    served = serve(cluster.url, WORKERS="1", POOL_SIZE="1")
    mine = "SELECT pid FROM pg_stat_activity WHERE application_name = 'phresh'"
    assert served.send(*post("Before")).status == 201
    before = cluster.sql(mine)
    demote = "ALTER SYSTEM SET default_transaction_read_only = on"
    cluster.sql(demote, "SELECT pg_reload_conf()")
    assert wait_until(lambda: cluster.sql("SHOW transaction_read_only") == [("on",)])

    # The session may hear of it a moment later than ours.
    assert wait_until(lambda: served.send(*post("Then")).status != 201)
    assert wait_until(lambda: cluster.sql(mine) != before)
    assert_away(served.send(*post("Then")))
    cluster.sql("ALTER SYSTEM RESET ALL", "SELECT pg_reload_conf()")
    assert wait_until(lambda: served.send(*post("After")).status == 201)


# The network is silent, or cuts


@pytest.mark.slow
def test_a_silent_network_is_answered_and_recovered_from(proxy, serve):
    pool = {"WORKERS": "1", "POOL_SIZE": "5"}
    served = serve(f"postgresql://postgres@127.0.0.1:{proxy.port}/postgres", **pool)
    requests = [reader(0), post("One"), ("GET", f"{PATH}1/")] * 5  # thrice the pool
    assert statuses(served.send_all(*requests)) <= {*OK, 404}
    assert proxy.seen >= 2
    for _ in range(2):
        proxy.mode = "hole"
        for answer in served.send_all(*requests):
            assert_away(answer)
        proxy.mode = "pass"
        assert statuses(served.send_all(*[reader(0), post("One")] * 7)) == {200, 201}


@pytest.mark.slow
@pytest.mark.parametrize("hosts", [1, 2])
def test_the_first_connection_meets_a_silent_network(cluster, serve, put_away, hosts):
    proxies = [Proxy(cluster.port) for _ in range(hosts)]
    for proxy in proxies:
        put_away(proxy.close)
        proxy.mode = "hole"
    where = ",".join(f"127.0.0.1:{proxy.port}" for proxy in proxies)
    where = f"postgresql://postgres@{where}/postgres?target_session_attrs=read-write"
    served = serve(where, WORKERS="1", POOL_SIZE="30")
    for answer in served.send_all(*[reader(0), post("One"), ("GET", "/readyz")] * 10):
        assert_away(answer)
    for proxy in proxies:
        proxy.mode = "pass"
    assert statuses(served.send_all(*[reader(0), post("One")] * 5)) == {200, 201}


@pytest.mark.slow
def test_a_silent_host_is_passed_over(cluster, proxy, serve):
    proxy.mode = "hole"
    hosts = f"127.0.0.1:{proxy.port},{cluster.host}"
    served = serve(f"postgresql://postgres@{hosts}/postgres?target_session_attrs=read-write")
    assert statuses(served.send_all(*[reader(0), post("One")] * 3)) == {200, 201}


@pytest.mark.slow
def test_a_cut_network_is_answered_and_recovered_from(proxy, serve):
    served = serve(f"postgresql://postgres@127.0.0.1:{proxy.port}/postgres")
    with served.load(*WRITERS[:3], *READERS) as answers:
        enough(answers, 50)
        proxy.reset()
        time.sleep(0.5)
        proxy.mode = "pass"
        mended = time.monotonic()
        enough(answers, 50)
    assert statuses(answers) == {200, 201, 503}
    assert {answer.status for answer in answers if answer.began > mended} == {200, 201}


# Limits

SLEEP = """
    CREATE FUNCTION sleep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.name LIKE 'sleep %' THEN PERFORM pg_sleep(substr(NEW.name, 7)::float); END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER sleep BEFORE INSERT ON cleanings FOR EACH ROW EXECUTE FUNCTION sleep();
"""
LIMITS = ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout")
NOTE = f"""
    CREATE TABLE noted (name text, value text);
    CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO noted SELECT name, current_setting(name)
            FROM pg_settings WHERE name IN {LIMITS};
        RETURN NEW;
    END $$;
    CREATE TRIGGER note BEFORE INSERT ON cleanings FOR EACH ROW EXECUTE FUNCTION note();
"""
SESSIONS = "SELECT query FROM pg_stat_activity WHERE application_name = 'phresh'"
ACTIVE = f"{SESSIONS} AND state = 'active'"
IDLE = f"{SESSIONS} AND state = 'idle in transaction'"
# A module that serves one more view, which leaves its transaction idle for two seconds.
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
def test_the_database_is_told_the_limits(cluster, serve, settings, values):
    cluster.sql(NOTE)
    assert serve(cluster.url, **settings).send(*post("One")).status == 201
    assert dict(cluster.sql("SELECT * FROM noted")) == dict(zip(LIMITS, values, strict=True))


@pytest.mark.slow
def test_a_lock_is_waited_for_a_moment(cluster, serve):
    served = serve(cluster.url)
    job = served.send(*post("One")).json["id"]
    change = ("PATCH", f"{PATH}{job}/", {"cleaning_update": {"name": "Other"}})
    other = cluster.connect()
    other.autocommit = False
    other.cursor().execute("SELECT FROM cleanings FOR UPDATE")
    answer = served.send(*change)
    other.close()
    assert_away(answer)
    assert 1.5 <= answer.seconds < 3
    assert served.send(*change).status == 200


@pytest.mark.slow
def test_a_statement_takes_three_seconds_at_most(cluster, serve):
    cluster.sql(SLEEP)
    served = serve(cluster.url)
    answer = served.send(*post("sleep 30"))
    assert_away(answer)
    assert 3 <= answer.seconds < 5
    assert cluster.sql(ACTIVE) == []
    assert served.send(*post("One")).status == 201
    assert stored(cluster) == {"One"}


@pytest.mark.slow
def test_a_request_waits_for_the_database_five_seconds_at_most(cluster, serve):
    """Where nothing but its deadline ends it."""
    cluster.sql(SLEEP)
    served = serve(cluster.url, DATABASE_LIMITS="false")
    answer = served.send(*post("sleep 30"))
    assert_away(answer)
    assert answer.seconds >= 5
    assert len(cluster.sql(ACTIVE)) == 1  # so the limits have to be set there
    assert served.send(*post("One")).status == 201


@pytest.mark.slow
def test_an_exhausted_pool_is_answered(cluster, serve):
    cluster.sql(SLEEP)
    one = {"WORKERS": "1", "POOL_SIZE": "1", "POOL_TIMEOUT": "1"}
    served = serve(cluster.url, **one, STATEMENT_TIMEOUT="9", DATABASE_TIMEOUT="10")
    with ThreadPoolExecutor() as pool:
        slow = pool.submit(served.send, *post("sleep 6"))
        assert wait_until(lambda: cluster.sql(ACTIVE))
        for answer in served.send_all(*[reader(0), post("One")] * 2):
            assert_away(answer)
            assert answer.seconds >= 1
        assert slow.result().status == 201
    assert statuses(served.send_all(*[reader(0)] * 4)) == {200}


@pytest.mark.slow
def test_an_idle_transaction_is_ended(cluster, ground, serve):
    (ground[0] / "checkout" / "pausing.py").write_text(PAUSING)
    served = serve(cluster.url, "pausing:app", WORKERS="1", IDLE_TIMEOUT="1")
    cluster.sql("INSERT INTO cleanings (name, price, owner_id) SELECT 'One', 1, id FROM users")
    change = ("PATCH", f"{PATH}1/", {"cleaning_update": {"name": "Other"}})
    for _ in range(2):  # on a new connection, then on one that has served
        with ThreadPoolExecutor() as pool:
            paused = pool.submit(served.send, "POST", "/pause/")
            assert wait_until(lambda: cluster.sql(IDLE))
            changed = served.send(*change)
            assert changed.status == 200
            assert changed.ended < paused.result().ended
            assert_away(paused.result())
        assert cluster.sql("SELECT name, description FROM cleanings") == [("Other", None)]
    assert served.send("GET", PATH).status == 200


# Transactions that collide


@pytest.fixture
def colliding(settings):
    """An app with a view that fails so often as its query says, of what its query says."""
    app = create_app(settings)
    tries = []
    blp = Blueprint("colliding", __name__)

    @blp.route("/collide/<int:times>/<state>/", methods=["POST"])
    @blp.response(201)
    def collide(times, state):
        tries.append(state)
        insert = "INSERT INTO cleanings (name, price) VALUES ('One', 1) RETURNING id::text"
        written = fetch(sql_text(insert))[0][0]
        if len(tries) <= times:
            fetch(sql_text(f"DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{state}'; END $$"))
        return written

    app.register_blueprint(blp)
    yield app.test_client(), tries
    with app.app_context():
        db.engine.dispose()


@pytest.mark.parametrize("state", ["40001", "40P01"])
def test_a_collision_is_tried_again(colliding, sql, state):
    client, tries = colliding
    assert client.post(f"/collide/2/{state}/").status_code == 201
    assert len(tries) == 3
    assert sql("SELECT count(*) FROM cleanings") == [(1,)]


@pytest.mark.parametrize("state", ["40001", "40P01"])
def test_a_collision_is_given_up_after_three_tries(colliding, sql, state):
    client, tries = colliding
    response = client.post(f"/collide/100/{state}/")
    assert response.status_code == 503
    assert response.headers["Retry-After"]
    assert len(tries) == 3
    assert sql("SELECT count(*) FROM cleanings") == [(0,)]


@pytest.mark.parametrize("state", ["55P03", "57014", "23505"])
def test_other_failures_are_not_tried_again(colliding, sql, state):
    client, tries = colliding
    assert client.post(f"/collide/1/{state}/").status_code in (409, 503)
    assert len(tries) == 1
    assert sql("SELECT count(*) FROM cleanings") == [(0,)]


@pytest.mark.slow
def test_a_real_serialization_failure_is_tried_again(cluster, serve):
    cluster.sql("ALTER DATABASE postgres SET default_transaction_isolation = 'repeatable read'")
    served = serve(cluster.url)
    job = served.send(*post("One")).json["id"]
    other = cluster.connect()
    other.autocommit = False
    other.cursor().execute("UPDATE cleanings SET description = 'theirs'")
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    change = ("PATCH", f"{PATH}{job}/", {"cleaning_update": {"name": "ours"}})
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(served.send, *change)
        assert wait_until(lambda: cluster.sql(waiting) == [(1,)])
        other.commit()
        assert answer.result().status == 200
    other.close()
    assert cluster.sql("SELECT name, description FROM cleanings") == [("ours", "theirs")]
    failures = "SELECT xact_rollback FROM pg_stat_database WHERE datname = 'postgres'"
    assert wait_until(lambda: cluster.sql(failures) >= [(1,)])


ENTANGLED = """
    CREATE FUNCTION entangle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF pg_trigger_depth() > 1 THEN RETURN NEW; END IF;
        PERFORM pg_sleep(0.5);
        UPDATE cleanings SET description = 'touched' WHERE id <> NEW.id;
        RETURN NEW;
    END $$;
    CREATE TRIGGER entangle AFTER UPDATE ON cleanings FOR EACH ROW EXECUTE FUNCTION entangle();
"""


@pytest.mark.slow
def test_a_real_deadlock_is_tried_again(cluster, serve):
    """Each of two requests holds the row that the other wants."""
    served = serve(cluster.url)
    jobs = [served.send(*post(name)).json["id"] for name in ("One", "Two")]
    cluster.sql(ENTANGLED)
    change = {"cleaning_update": {"price": 30}}
    answers = served.send_all(*[("PATCH", f"{PATH}{job}/", change) for job in jobs])
    assert [answer.status for answer in answers] == [200, 200]
    assert cluster.sql("SELECT deadlocks FROM pg_stat_database WHERE datname = 'postgres'") == [
        (1,)
    ]


# The app is told to end


@pytest.mark.slow
def test_a_request_in_flight_at_the_end_is_answered(cluster, serve):
    cluster.sql(SLEEP)
    served = serve(cluster.url)
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(served.send, *post("sleep 2.5"))
        assert wait_until(lambda: cluster.sql(ACTIVE))
        served.terminate()
        assert answer.result().status == 201
    assert served.stop() == 0
    assert stored(cluster) == {"sleep 2.5"}


@pytest.mark.slow
def test_a_request_in_flight_for_too_long_at_the_end_leaves_nothing(cluster, serve):
    cluster.sql(SLEEP)
    served = serve(cluster.url, DATABASE_LIMITS="false", DATABASE_TIMEOUT="60")
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(served.send, *post("sleep 20"))
        assert wait_until(lambda: cluster.sql(ACTIVE))
        told = time.monotonic()
        served.stop()
        assert 14 <= time.monotonic() - told < 18
        assert answer.result().sent
        assert answer.result().status == 0
    assert cluster.sql(ACTIVE)
    assert wait_until(lambda: not cluster.sql(SESSIONS))
    assert stored(cluster) == set()


@pytest.mark.slow
def test_nothing_sent_on_a_kept_connection_is_dropped_at_the_end(cluster, serve, put_away):
    served = serve(cluster.url)
    idle = [Client(served.port) for _ in range(4)]
    for client in idle:
        put_away(client.close)
        assert client.send("GET", PATH).status == 200
    with served.load(*WRITERS, *[reader] * 4) as answers:
        enough(answers)
        served.terminate()
        late = [client.send("GET", PATH) for client in idle]
        assert served.stop() == 0
    assert statuses(late) == {200}
    assert all(answer.kept for answer in late)
    assert statuses(answers) == {200, 201, 0}
    assert [answer for answer in answers if answer.sent and not answer.status] == []
    assert acknowledged(answers) <= stored(cluster)


@pytest.mark.slow
def test_nothing_sent_on_a_new_connection_is_dropped_at_the_end(cluster, serve):
    served = serve(cluster.url)
    with served.load(*WRITERS, *[reader] * 4, Connection="close") as answers:
        enough(answers)
        served.terminate()
        assert served.stop() == 0
    assert statuses(answers) == {200, 201, 0}
    assert [answer for answer in answers if answer.sent and not answer.status] == []
    assert acknowledged(answers) <= stored(cluster)


@pytest.mark.slow
@pytest.mark.parametrize("replace", [Phresh.end_worker, Phresh.reload])
def test_new_connections_are_served_while_workers_are_replaced(cluster, serve, replace):
    served = serve(cluster.url)
    with served.load(*WRITERS, *[reader] * 4, Connection="close") as answers:
        enough(answers)
        replaced = replace(served)
        assert wait_until(lambda: not replaced & served.workers())
        enough(answers)
    assert statuses(answers) == {200, 201}
    assert max(answer.seconds for answer in answers) < 3.5
