"""The same app under every server that the documentation names.

All limits hold under each. What differs is said here: ``sync`` serves one request at a time, so one
that waits holds up the others; ``flask run`` drops what it serves when it is told to end.
"""

import fcntl
import itertools
import json
import os
import shutil
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from flask_migrate import upgrade

from phresh import create_app
from phresh.database.base import db
from tests.tools.cluster import (
    ACCOUNT,
    SHIPPED,
    TOKEN,
    Client,
    Cluster,
    Phresh,
    Proxy,
    are_running,
    make_folder,
)
from tests.tools.processes import copy_checkout, wait_until
from tests.tools.users import PASSWORD

pytestmark = pytest.mark.slow

PATH = "/api/cleanings/"
GTHREAD = ("-k", "gthread", "--threads", "4")
SERVERS = {
    "ours": SHIPPED,
    "gevent": (*SHIPPED, "-k", "gevent"),
    "gthread": (*SHIPPED, *GTHREAD),
    "sync": (*SHIPPED, "-k", "sync"),
    "flask run": ("flask", "--app", "{app}", "run", "--port", "{port}"),
    "no config": (
        *("gunicorn", "-c", "/dev/null", "--no-control-socket", "-b", "127.0.0.1:{port}"),
        *(*GTHREAD, "{app}"),
    ),
}
LOGS_REQUESTS = {name for name, server in SERVERS.items() if server[: len(SHIPPED)] == SHIPPED}
# A cleaning with such a name takes so many seconds to be stored.
SLEEP = """
    CREATE FUNCTION sleep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.name LIKE 'sleep %' THEN
            PERFORM pg_sleep(split_part(NEW.name, ' ', 2)::float);
        END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER sleep BEFORE INSERT ON cleanings FOR EACH ROW EXECUTE FUNCTION sleep();
"""
SLEEPERS = "FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
# Seconds. The first two are sent to the database; the rest holds also where they are not.
LOCK, STATEMENT, DATABASE, POOL = 0.4, 0.8, 1.5, 0.3
LIMITS = {
    "LOCK_TIMEOUT": str(LOCK),
    "STATEMENT_TIMEOUT": str(STATEMENT),
    "DATABASE_TIMEOUT": str(DATABASE),
    "POOL_TIMEOUT": str(POOL),
    "CONNECT_TIMEOUT": "1",
    "WORKERS": "1",
    "TRUSTED_PROXIES": "1",  # so that a request can have an id by which its response is known
}
SLOW_HASHES = {"ARGON2_TIME_COST": "20"}
NO_LIMITS = {"DATABASE_LIMITS": "false", "POOL_SIZE": "2"}
SLACK = 1.0  # seconds that a busy machine may add


@pytest.fixture(scope="module")
def ground():
    """A folder with a checkout, and a database that has the tables."""
    folder = make_folder()
    cluster = Cluster(folder / "data").make().start()
    with create_app({"DATABASE_URL": cluster.url}).app_context():
        upgrade()
        db.engine.dispose()
    cluster.sql(ACCOUNT, SLEEP)
    copy_checkout(folder / "checkout")
    yield folder / "checkout", cluster
    cluster.stop()
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def cluster(ground):
    return ground[1]


@pytest.fixture(scope="module", params=SERVERS)
def server(request):
    return request.param


@pytest.fixture(scope="module")
def at_once(server):
    """Whether it serves several requests at once."""
    return server != "sync"


def end(served):
    served.stop()
    log = served.log.read_text()
    for sign in ("Traceback", '"ERROR"', '"CRITICAL"', "[ERROR]", "[CRITICAL]"):
        assert sign not in log


@pytest.fixture(scope="module")
def proxy(cluster):
    proxy = Proxy(cluster.port)
    yield proxy
    proxy.close()


@pytest.fixture(scope="module")
def served(ground, proxy, server):
    """The app twice, see below; started and stopped at once, which takes time."""
    checkout, cluster = ground

    def start(url, settings):
        return Phresh(checkout, url, token=TOKEN, server=SERVERS[server], **LIMITS, **settings)

    urls = cluster.url, f"postgresql://postgres@127.0.0.1:{proxy.port}/postgres"
    with ThreadPoolExecutor() as pool:
        both = list(pool.map(start, urls, (SLOW_HASHES, NO_LIMITS)))
        yield both
        codes = list(pool.map(Phresh.stop, both))
    assert codes == 2 * [-signal.SIGTERM if server == "flask run" else 0]
    for log in (served.log.read_text() for served in both):
        for sign in ("Traceback", '"ERROR"', '"CRITICAL"', "[ERROR]", "[CRITICAL]"):
            assert sign not in log


@pytest.fixture
def limited(served):
    """The app, with a database that knows the limits."""
    return served[0]


@pytest.fixture
def unlimited(served):
    """The app, with a database that knows no limits and a network that may fall silent."""
    return served[1]


@pytest.fixture
def name():
    """A name of each cleaning that a test posts."""
    number = itertools.count()
    test = time.monotonic_ns()
    return lambda prefix="Job": f"{prefix} {test}-{next(number)}"


def post(name):
    return "POST", PATH, {"new_cleaning": {"name": name, "price": 20}}


LIST = ("GET", PATH)


def assert_unavailable(response, *, after=0.0, before):
    assert response.status == 503, response
    assert response.headers["Content-Type"] == "application/problem+json"
    assert int(response.headers["Retry-After"]) > 0
    assert response.json["status"] == 503
    assert after <= response.seconds < before + SLACK, response


def assert_served_within(others, response):
    """That others were responded to while one waited."""
    assert [other.status for other in others] == [200] * len(others)
    assert all(response.began < other.began for other in others)
    assert all(other.ended < response.ended for other in others)


def wait_for_sleepers(cluster, count):
    assert wait_until(lambda: cluster.sql(f"SELECT count(*) {SLEEPERS}") == [(count,)])


CLIENTS, ROUNDS = 8, 10


def test_reads_and_writes_at_once(cluster, limited, server, name):
    sent = []  # ids of requests

    def send(client, status, *request):
        request_id = name("id").replace(" ", "-")
        sent.append(request_id)
        response = client.send(*request, **{"X-Request-Id": request_id})
        assert response.status == status, response
        assert response.headers["X-Request-Id"] == request_id
        return response

    def work(_):
        names = {}
        with closing(Client(limited.port, TOKEN)) as client:
            for _ in range(ROUNDS):
                first, second = name(), name()
                posted = send(client, 201, *post(first))
                assert posted.json["name"] == first
                path = f"{PATH}{posted.json['id']}/"
                assert send(client, 200, "GET", path).json == posted.json
                changed = send(client, 200, "PATCH", path, {"cleaning_update": {"name": second}})
                assert changed.json["name"] == second
                assert len(send(client, 200, *LIST).json) > 0
                names[posted.json["id"]] = second
        return names

    with ThreadPoolExecutor(CLIENTS) as pool:
        acknowledged = dict(itertools.chain(*(done.items() for done in pool.map(work, range(8)))))
    assert len(acknowledged) == CLIENTS * ROUNDS
    stored = dict(cluster.sql("SELECT id, name FROM cleanings WHERE name LIKE 'Job %'"))
    assert acknowledged.items() <= stored.items()
    if server in LOGS_REQUESTS:

        def logged():
            lines = [json.loads(line) for line in limited.log.read_text().splitlines()]
            ids = Counter(line["request_id"] for line in lines if line["logger"] == "phresh.access")
            return [ids[request_id] for request_id in sent]

        # A line may be written after its response.
        assert wait_until(lambda: logged() == [1] * len(sent), 5), logged()


def test_a_row_lock_is_waited_for_as_long_as_the_limit_says(cluster, limited, at_once, name):
    path = f"{PATH}{limited.send(*post(name())).json['id']}/"
    change = ("PATCH", path, {"cleaning_update": {"price": 30}})
    with closing(cluster.connect()) as other, ThreadPoolExecutor() as pool:
        other.autocommit = False
        other.cursor().execute("SELECT FROM cleanings FOR UPDATE")
        waiting = pool.submit(limited.send, *change)
        blocked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        assert wait_until(lambda: cluster.sql(blocked) == [(1,)])
        others = limited.send_all(LIST, ("GET", path))
        assert_unavailable(waiting.result(), after=LOCK, before=LOCK)
        if at_once:
            assert_served_within(others, waiting.result())
        assert [response.status for response in others] == [200, 200]
    assert limited.send(*change).status == 200


def test_a_statement_takes_as_long_as_the_limit_says(cluster, limited, at_once, name):
    slow = name("sleep 30")
    with ThreadPoolExecutor() as pool:
        running = pool.submit(limited.send, *post(slow))
        wait_for_sleepers(cluster, 1)
        others = limited.send_all(LIST, LIST)
        assert_unavailable(running.result(), after=STATEMENT, before=STATEMENT)
        if at_once:
            assert_served_within(others, running.result())
    wait_for_sleepers(cluster, 0)
    assert cluster.sql(f"SELECT FROM cleanings WHERE name = '{slow}'") == []
    assert limited.send(*post(name())).status == 201


def test_others_are_served_while_a_password_is_hashed(limited, at_once):
    username = f"user{time.monotonic_ns()}"
    email = f"{username}@phresh.example"
    user = {"email": email, "username": username, "password": PASSWORD}
    form = {"Content-Type": "application/x-www-form-urlencoded"}

    def log_in(password):
        sent = f"username={email}&password={password}".replace(" ", "+").encode()
        return limited.send("POST", "/api/users/login/token/", sent, **form)

    statuses = []
    for hashes in (
        lambda: limited.send("POST", "/api/users/", {"new_user": user}),
        lambda: log_in(PASSWORD),
        lambda: log_in("wrong"),
    ):
        others, done = [], threading.Event()
        with ThreadPoolExecutor() as pool, closing(Client(limited.port)) as client:
            hashed = pool.submit(hashes)
            hashed.add_done_callback(lambda _, done=done: done.set())
            while not done.is_set():
                others.append(client.send("GET", "/healthz"))
        assert {other.status for other in others} <= {200}
        if at_once:
            assert max(other.seconds for other in others) < 0.5 * hashed.result().seconds
        if hashed.result().status != 400:
            token = hashed.result().json
            token = token.get("access_token", token)
            token = token["access_token"] if isinstance(token, dict) else token
            me = limited.send("GET", "/api/users/me/", Authorization=f"Bearer {token}")
            assert me.json["username"] == username
        statuses.append(hashed.result().status)
    assert statuses == [201, 200, 400]


def test_a_request_waits_for_the_database_as_long_as_its_deadline_says(
    cluster, unlimited, at_once, name
):
    """Where nothing else ends it: the database goes on."""
    with ThreadPoolExecutor() as pool:
        running = pool.submit(unlimited.send, *post(name("sleep 30")))
        wait_for_sleepers(cluster, 1)
        others = unlimited.send_all(LIST, LIST)
        assert_unavailable(running.result(), after=DATABASE, before=DATABASE)
        if at_once:
            assert_served_within(others, running.result())
    wait_for_sleepers(cluster, 1)
    cluster.sql(f"SELECT pg_terminate_backend(pid, 5000) {SLEEPERS}")
    assert unlimited.send(*post(name())).status == 201


def test_an_exhausted_pool_is_waited_for_as_long_as_the_limit_says(
    cluster, unlimited, at_once, name
):
    """Not possible where requests are served one at a time: there they wait for each other."""
    slow = [post(name("sleep 1")) for _ in range(2 if at_once else 1)]
    with ThreadPoolExecutor() as pool:
        running = [pool.submit(unlimited.send, *request) for request in slow]
        wait_for_sleepers(cluster, len(slow))
        others = unlimited.send_all(LIST, post(name()))
        for other in others:
            if at_once:
                assert_unavailable(other, after=POOL, before=POOL)
            else:
                assert other.status in (200, 201)
        assert [done.result().status for done in running] == [201] * len(slow)
    assert {response.status for response in unlimited.send_all(*[LIST] * 4)} == {200}


def test_a_silent_database_is_waited_for_and_recovered_from(proxy, unlimited, at_once, name):
    requests = [LIST, post(name())] if at_once else [LIST]
    # On the connections of the pool; then on new ones.
    assert {response.status for response in unlimited.send_all(*[LIST] * 4)} == {200}
    for limit in (DATABASE, 1):
        proxy.mode = "hole"
        with ThreadPoolExecutor() as pool:
            waiting = [pool.submit(unlimited.send, *request) for request in requests]
            time.sleep(0.1)
            alive = unlimited.send("GET", "/healthz")
            for response in waiting:
                assert_unavailable(response.result(), before=limit)
            if at_once:
                assert alive.ended < min(response.result().ended for response in waiting)
            assert alive.status == 200
    proxy.mode = "pass"
    assert [unlimited.send(*request).status for request in (LIST, post(name()))] == [200, 201]


def test_a_request_in_flight_at_sigterm_is_responded_to(ground, cluster, server, name):
    slow = name("sleep 0.6")
    served = Phresh(ground[0], cluster.url, token=TOKEN, server=SERVERS[server], **LIMITS)
    processes = served.processes()
    with ThreadPoolExecutor() as pool:
        running = pool.submit(served.send, *post(slow), **{"X-Request-Id": "in-flight"})
        wait_for_sleepers(cluster, 1)
        code = served.stop()
        response = running.result()
    assert not are_running(processes)
    log = served.log.read_text()
    assert "Traceback" not in log
    assert "Error" not in log
    if server == "flask run":
        assert code == -signal.SIGTERM
        return
    assert code == 0
    assert response.status == 201
    assert cluster.sql(f"SELECT count(*) FROM cleanings WHERE name = '{slow}'") == [(1,)]
    if server in LOGS_REQUESTS:
        lines = map(json.loads, log.splitlines())
        assert [line["status"] for line in lines if line.get("request_id") == "in-flight"] == [201]


@pytest.mark.parametrize("worker", ["ours", "gevent", "gthread"])
def test_lines_of_several_workers_are_whole_in_a_pipe(ground, cluster, worker):
    """Also when it is full most of the time, and a line may have to wait in the middle."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    printed = bytearray()

    def read():
        while data := os.read(reading, 1000):
            printed.extend(data)
            time.sleep(0.0002)

    thread = threading.Thread(target=read)
    thread.start()
    served = Phresh(ground[0], cluster.url, server=SERVERS[worker], WORKERS="2", output=writing)
    os.close(writing)
    long = "/" + 2500 * "x"  # not found; two such lines are more than a pipe takes at once

    def ask(number):
        with closing(Client(served.port)) as client:
            return [client.send("GET", f"{long}{number}-{time}").status for time in range(10)]

    with ThreadPoolExecutor(24) as pool:
        assert set(itertools.chain(*pool.map(ask, range(24)))) == {404}
    served.stop()
    thread.join()
    os.close(reading)
    lines = map(json.loads, printed.decode().splitlines())
    paths = Counter(line["path"] for line in lines if line["logger"] == "phresh.access")
    assert {paths[f"{long}{number}-{time}"] for number in range(24) for time in range(10)} == {1}
