"""A client that has gone: its statement is cancelled, and its connection is free for others."""

import json
import socket
import struct
from contextlib import closing

import psycopg2
import pytest

from phresh.database import clients
from phresh.database.clients import KEY, ClientGoneError, has_client_gone, next_look, watch_client
from phresh.database.pool import Pool
from phresh.web.turns import Turns
from tests.tools.cluster import Phresh
from tests.tools.processes import copy_checkout, wait_until
from tests.tools.raw_http import RawConnection, request

PATH = "/api/cleanings/"
# Longer than the test takes: nothing else must end a wait.
LIMITS = {
    "LOCK_TIMEOUT": "50",
    "STATEMENT_TIMEOUT": "51",
    "DATABASE_TIMEOUT": "60",
    "POOL_TIMEOUT": "55",
    "IDLE_TIMEOUT": "60",
}


@pytest.fixture(scope="module")
def served(tmp_path_factory, database_url):
    checkout = copy_checkout(tmp_path_factory.mktemp("clients") / "checkout")
    settings = {"WORKERS": "1", "POOL_SIZE": "1", **LIMITS}
    served = Phresh(checkout, database_url, **settings)
    yield served
    assert served.stop() == 0
    assert "Traceback" not in served.log.read_text()


@pytest.fixture
def own_url(database_url):
    """The URL of the database for libpq."""
    return database_url.replace("+psycopg2", "")


@pytest.fixture
def database(own_url):
    """A connection that locks the table until its transaction ends."""
    with closing(psycopg2.connect(own_url)) as connection, connection.cursor() as cursor:
        cursor.execute("LOCK TABLE cleanings IN ACCESS EXCLUSIVE MODE")
        yield connection


def waiting(database):
    """Return the processes of PostgreSQL that wait for the lock."""
    with closing(psycopg2.connect(database.dsn)) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
            "AND application_name = 'phresh' AND datname = current_database()"
        )
        return {pid for (pid,) in cursor.fetchall()}


def half_close(client):
    client.end_sending()


def reset(client):
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def statuses(served, target):
    lines = [json.loads(line) for line in served.log.read_text().splitlines()]
    return [line["status"] for line in lines if line.get("path") == target]


@pytest.mark.parametrize("leave", [RawConnection.close, half_close, reset])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_statement_of_a_client_that_has_gone_is_cancelled(
    served, database, own_url, method, leave
):
    target = f"{PATH}{len(served.log.read_text())}/"
    client = RawConnection(served.port).send(request(target, method=method))
    assert wait_until(lambda: waiting(database))
    (backend,) = waiting(database)
    leave(client)
    assert wait_until(lambda: not waiting(database))
    assert wait_until(lambda: statuses(served, target)) == [499]
    # The connection is of use for the next request, and is the only one of the pool.
    assert served.send("GET", "/readyz").status == 200
    with closing(psycopg2.connect(own_url)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT pid FROM pg_stat_activity WHERE application_name = 'phresh'")
        assert (backend,) in cursor.fetchall()
    client.close()


def test_a_client_that_has_gone_gives_up_its_turn_in_the_pool(served, database):
    first = RawConnection(served.port).send(request(PATH))
    assert wait_until(lambda: waiting(database))
    target = f"{PATH}123456789/"
    second = RawConnection(served.port).send(request(target))
    assert served.send("GET", "/healthz").status == 200
    second.close()
    assert wait_until(lambda: statuses(served, target)) == [499]
    assert waiting(database)
    database.rollback()
    assert first.read_response().status == 200
    first.close()


def test_more_requests_of_a_client_do_not_count_as_gone(served, database):
    client = RawConnection(served.port).send(request(PATH) + request("/healthz"))
    assert wait_until(lambda: waiting(database))
    client.send(request("/healthz"))
    for _ in range(20):  # more than one look
        assert served.send("GET", "/healthz").status == 200
    assert waiting(database)
    database.rollback()
    assert [client.read_response().status for _ in range(3)] == [200, 200, 200]
    client.close()


def test_a_request_that_writes_is_not_cancelled(served, database):
    body = json.dumps({"new_cleaning": {"name": "Written", "price": 1}}).encode()
    headers = ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    client = RawConnection(served.port)
    client.send(request(PATH, *headers, method="POST", body=body))
    assert wait_until(lambda: waiting(database))
    client.close()
    for _ in range(20):
        assert served.send("GET", "/healthz").status == 200
    assert waiting(database)
    database.rollback()
    assert wait_until(lambda: served.send("GET", f"{PATH}?q=Written").json)


# Without a server


@pytest.fixture
def gone():
    watch_client({"REQUEST_METHOD": "GET", KEY: lambda: False})
    yield
    watch_client({"REQUEST_METHOD": "GET"})


def test_a_wait_for_the_pool_ends_when_the_client_has_gone(gone, monkeypatch):
    monkeypatch.setattr(clients, "LOOK_AFTER", 0)
    connections = Pool(object, size=1, seconds=60, prepares=False)
    taken = connections.acquire(60)
    with pytest.raises(ClientGoneError):
        connections.acquire(60)
    connections.release(taken)
    assert connections.acquire(60) is taken


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_a_client_that_writes_is_not_looked_at(method):
    watch_client({"REQUEST_METHOD": method, KEY: lambda: False})
    assert not has_client_gone()
    assert next_look(0) == float("inf")


def test_a_server_that_cannot_tell_changes_nothing():
    watch_client({"REQUEST_METHOD": "GET"})
    assert not has_client_gone()
    assert next_look(0) == float("inf")


def test_a_turn_is_not_used_for_a_client_that_has_gone_while_it_waited():
    turns = Turns(1, 0, "Too many.")
    watch_client({"REQUEST_METHOD": "GET", KEY: lambda: False})
    try:
        with pytest.raises(ClientGoneError), turns.turn():
            pytest.fail("It has the turn.")
    finally:
        watch_client({"REQUEST_METHOD": "GET"})
    with turns.turn(waits=False):  # it is free again
        pass
