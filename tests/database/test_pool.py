"""The connection pool: first come, first served, and never more connections than its size."""

import os
import socket
import threading
import time
from contextlib import suppress

import gevent
import psycopg2
import pytest
from flask import current_app
from gevent.socket import wait_write
from psycopg2 import extensions

from phresh import create_app
from phresh.database.deadlines import Waker, _deadline, _wait_in_loop
from phresh.database.pool import CHECK_AFTER, IDLE_RECYCLE, RECYCLE, Pool
from phresh.database.transactions import fetch_autocommit
from tests.tools.helpers import sql_text
from tests.tools.processes import wait_until


class FakeDriver:
    """A connection; once a test has set ``failure``, each statement raises that."""

    failure = None

    def __init__(self):
        self.closed = False
        self.sent = []

    def cursor(self):
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    statusmessage = "SELECT 1"

    def execute(self, statement):
        self.sent.append(statement)
        if self.failure is not None:
            raise self.failure

    def close(self):
        self.closed = True


def make_pool(size=1, seconds=5.0, connect=FakeDriver):
    return Pool(connect, size=size, seconds=seconds, prepares=True)


def start_waiting(pool, acquired_by, name):
    """Start a thread that waits for a connection, records its name and releases it."""

    def acquire_and_release():
        connection = pool.acquire(60)
        acquired_by.append(name)
        pool.release(connection)

    thread = threading.Thread(target=acquire_and_release)
    before = len(pool._waiting)
    thread.start()
    assert wait_until(lambda: len(pool._waiting) == before + 1)
    return thread


def test_the_longest_waiting_request_gets_the_next_connection():
    pool, acquired_by = make_pool(), []
    first_connection = pool.acquire(1)
    threads = [start_waiting(pool, acquired_by, name) for name in "abcdef"]
    pool.release(first_connection)
    last_connection = pool.acquire(60)  # waits last, before the first thread has continued
    acquired_by.append("last")
    pool.release(last_connection)
    for thread in threads:
        thread.join()
    assert acquired_by == [*"abcdef", "last"]


def test_the_most_recently_used_connection_is_acquired_first():
    pool = make_pool(size=3)
    first, second = pool.acquire(1), pool.acquire(1)
    pool.release(first)
    pool.release(second)
    assert pool.acquire(1) is second
    assert pool.acquire(1) is first


def test_the_pool_opens_no_more_than_its_size_and_replaces_a_lost_connection():
    opened = []
    pool = make_pool(
        size=2, seconds=0.05, connect=lambda: opened.append(FakeDriver()) or opened[-1]
    )
    acquired = [pool.acquire(1), pool.acquire(1)]
    with pytest.raises(psycopg2.OperationalError, match="No connection was free"):
        pool.acquire(1)
    pool.release(None)
    assert pool.acquire(1) not in acquired
    assert len(opened) == 3


def test_acquire_waits_for_the_shorter_of_both_timeouts():
    pool = make_pool(seconds=60)
    pool.acquire(1)
    with pytest.raises(psycopg2.OperationalError):
        pool.acquire(0.01)
    with pytest.raises(psycopg2.OperationalError):
        pool.acquire(-1)  # the deadline of the request has passed


def test_a_waiter_that_timed_out_is_skipped():
    pool, acquired_by = make_pool(), []
    first_connection = pool.acquire(1)
    with pytest.raises(psycopg2.OperationalError):
        pool.acquire(0.01)
    thread = start_waiting(pool, acquired_by, "a")
    pool.release(first_connection)
    thread.join()
    assert pool.acquire(1) is first_connection


def test_a_failed_connection_attempt_does_not_use_up_the_pool():
    results = iter([psycopg2.OperationalError("down"), None])

    def connect():
        if error := next(results):
            raise error
        return FakeDriver()

    pool = make_pool(connect=connect)
    with pytest.raises(psycopg2.OperationalError, match="down"):
        pool.acquire(1)
    assert pool.acquire(1)


def test_an_old_connection_is_closed_and_replaced(monkeypatch):
    pool = make_pool()
    old = pool.acquire(1)
    pool.release(old)
    later = time.monotonic() + RECYCLE
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert pool.acquire(1) is not old
    assert old.driver.closed


@pytest.fixture
def clock(monkeypatch):
    """A function that sets the clock forward."""
    now = time.monotonic()

    def advance(seconds):
        nonlocal now
        now += seconds

    monkeypatch.setattr(time, "monotonic", lambda: now)
    return advance


def test_an_idle_connection_is_closed_and_replaced(clock):
    pool = make_pool()
    idle = pool.acquire(1)
    clock(IDLE_RECYCLE * 2)  # in use
    pool.release(idle)
    clock(1)
    assert pool.acquire(1) is idle
    pool.release(idle)
    clock(IDLE_RECYCLE)
    assert pool.acquire(1) is not idle
    assert idle.driver.closed


def test_the_server_has_to_respond_on_a_connection_that_was_idle(clock):
    pool = make_pool()
    connection = pool.acquire(1)
    for seconds, sent in ((CHECK_AFTER - 0.1, []), (CHECK_AFTER, ["SELECT 1"])):
        pool.release(connection)
        clock(seconds)
        assert pool.acquire(1) is connection
        assert connection.driver.sent == sent


def test_when_one_does_not_respond_the_other_idle_connections_are_closed(clock):
    pool = make_pool(size=4)
    acquired = [pool.acquire(1) for _ in range(4)]
    for connection in acquired[:3]:
        connection.driver.failure = psycopg2.OperationalError("silence")
        pool.release(connection)
    clock(CHECK_AFTER)
    new = pool.acquire(1)
    assert new not in acquired
    assert [connection.driver.closed for connection in acquired] == [True, True, True, False]
    assert [len(connection.driver.sent) for connection in acquired] == [0, 0, 1, 0]
    assert len({new, *(pool.acquire(1) for _ in range(2))}) == 3  # as many as before
    with pytest.raises(psycopg2.OperationalError, match="No connection was free"):
        pool.acquire(0)


def test_when_one_is_lost_those_that_have_served_since_it_was_acquired_are_kept(clock):
    pool = make_pool(size=3)
    idle, serving, lost = (pool.acquire(1) for _ in range(3))
    pool.release(idle)
    pool.release(lost)
    clock(1)
    assert pool.acquire(1) is lost
    clock(1)
    pool.release(serving)
    lost.driver.close()
    pool.release_lost(lost)
    assert idle.driver.closed
    assert not serving.driver.closed
    assert pool.acquire(1) is serving
    assert len({pool.acquire(1), pool.acquire(1)} - {idle, lost}) == 2


@pytest.fixture
def socket_pair():
    """The two ends of a socket connection."""
    near_end, far_end = socket.socketpair()
    with near_end, far_end:
        yield near_end, far_end


@pytest.fixture
def waker(socket_pair):
    waker = Waker(socket_pair[0].fileno())
    yield waker
    waker.close()


def test_a_waiter_is_woken_when_data_arrives(socket_pair, waker):
    for _ in range(3):
        gevent.spawn(socket_pair[1].send, b"x")
        waker.wait(time.monotonic() + 60)
        assert socket_pair[0].recv(2, socket.MSG_DONTWAIT) == b"x"


def test_a_wait_times_out_after_an_earlier_longer_wait(socket_pair, waker):
    gevent.spawn(socket_pair[1].send, b"x")
    waker.wait(time.monotonic() + 60)
    socket_pair[0].recv(1)
    deadline = time.monotonic() + 0.1
    with gevent.Timeout(30):
        waker.wait(deadline)
    assert time.monotonic() >= deadline - 0.01  # the resolution of the loop's clock


def test_a_wait_is_not_cut_short_by_an_earlier_shorter_wait(socket_pair, waker):
    gevent.spawn(socket_pair[1].send, b"x")
    waker.wait(time.monotonic() + 0.1)
    socket_pair[0].recv(1)
    deadline, wait_count = time.monotonic() + 0.4, 0
    while time.monotonic() < deadline:
        waker.wait(deadline)
        wait_count += 1
    assert wait_count <= 4  # the earlier timer, its own, and two for the resolution of the clock


def test_unread_data_wakes_the_loop_only_once(socket_pair, monkeypatch):
    wakes = []
    wake = Waker._wake
    monkeypatch.setattr(Waker, "_wake", lambda waker: (wakes.append(1), wake(waker)))
    waker = Waker(socket_pair[0].fileno())
    gevent.spawn(socket_pair[1].send, b"x")
    waker.wait(time.monotonic() + 60)
    wakes.clear()
    gevent.sleep(0.05)
    assert len(wakes) == 1
    waker.wait(time.monotonic() + 60)  # the data is still there for the next wait
    waker.close()
    wakes.clear()
    gevent.sleep(0.05)
    assert wakes == []


def test_a_new_connection_can_reuse_the_descriptor_of_a_closed_one(waker, socket_pair):
    gevent.spawn(socket_pair[1].send, b"x")
    waker.wait(time.monotonic() + 60)
    descriptor = socket_pair[0].fileno()
    socket_pair[0].close()  # as psycopg2 does, before the waker is closed
    waker.close()
    near_end, far_end = socket.socketpair()
    with near_end, far_end:
        assert near_end.fileno() == descriptor
        other = Waker(descriptor)
        gevent.spawn(far_end.send, b"y")
        other.wait(time.monotonic() + 60)
        assert near_end.recv(2, socket.MSG_DONTWAIT) == b"y"
        other.close()


@pytest.fixture
def wakers(monkeypatch, app):
    """The wakers that were made and those that were closed, with the wait callback of a worker."""
    made, closed = [], []
    make, close = Waker.__init__, Waker.close
    monkeypatch.setattr(
        Waker, "__init__", lambda waker, *a: (made.append(waker), make(waker, *a))[1]
    )
    monkeypatch.setattr(Waker, "close", lambda waker: (closed.append(waker), close(waker)))
    with app.app_context():
        before = extensions.get_wait_callback()
        extensions.set_wait_callback(_wait_in_loop)
        yield made, closed
        extensions.set_wait_callback(before)


def test_a_connection_has_one_waker_until_it_is_closed(wakers):
    made, closed = wakers
    for _ in range(3):
        fetch_autocommit(sql_text("SELECT pg_sleep(0.01)"))
    assert (len(made), closed) == (1, [])
    pool = current_app.extensions["pool"]
    connection = pool.acquire(1)
    connection.driver.close()
    assert closed == made
    pool.release(None)


def test_the_waker_of_a_connection_closed_by_psycopg2_is_closed(wakers):
    made, closed = wakers
    before = _deadline.set(time.monotonic() + 0.05)
    with pytest.raises(psycopg2.OperationalError, match="in time"):
        fetch_autocommit(sql_text("SELECT pg_sleep(60)"))
    _deadline.reset(before)
    assert len(made) == 1
    assert closed == made


AUTHENTICATED = b"R\0\0\0\x08\0\0\0\0"
ENCODING = b"S\0\0\0\x19client_encoding\0UTF8\0"
READY = b"Z\0\0\0\x05I"


class FakeServer:
    """A server that sends some messages on each connection, and then is silent or hangs up.

    :param stages: what it sends after each message of the client
    """

    def __init__(self, stages, *, hangs_up):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._stages, self._hangs_up = stages, hangs_up
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        self.port = self._listener.getsockname()[1]

    def _serve(self):
        try:
            while True:
                self._connection = self._listener.accept()[0]
                with self._connection as connection:
                    for message in self._stages:
                        connection.recv(1000)
                        connection.sendall(message)
                    connection.recv(1000)
                    if not self._hangs_up:
                        connection.recv(1000)  # until the client hangs up
        except OSError:
            pass

    def close(self):
        for end in (self._listener, self._connection):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()


@pytest.mark.parametrize("hangs_up", [False, True])
@pytest.mark.parametrize(
    "stages",
    [
        [],
        [AUTHENTICATED],
        [AUTHENTICATED + ENCODING + READY],  # then psycopg2 sets the style of dates
        [AUTHENTICATED + ENCODING + READY, b"C\0\0\0\x08SET\0" + READY],
    ],
    ids=["connecting", "authenticated", "setting up", "ready"],
)
def test_no_waker_is_left_of_a_connection_that_fails_in_any_state(wakers, stages, hangs_up):
    made, closed = wakers
    server = FakeServer(stages, hangs_up=hangs_up)
    app = create_app({"DATABASE_URL": f"postgresql://u@127.0.0.1:{server.port}/d?sslmode=disable"})
    before = _deadline.set(time.monotonic() + 0.2)
    with app.app_context(), pytest.raises(psycopg2.OperationalError):
        fetch_autocommit(sql_text("SELECT 1"))
    _deadline.reset(before)
    server.close()
    assert closed == made
    assert len(made) == (len(stages[0]) > len(AUTHENTICATED) if stages else 0)


def test_a_waker_does_not_watch_a_descriptor_that_others_may_close(socket_pair, waker):
    """Otherwise libev aborts the process when it is told about that descriptor again."""
    gevent.spawn(socket_pair[1].send, b"x")
    waker.wait(time.monotonic() + 60)
    descriptor = socket_pair[0].detach()
    os.close(descriptor)  # as libpq does when the connection is lost
    with suppress(OSError), gevent.Timeout(0.1, False):
        wait_write(descriptor)
    near_end, far_end = socket.socketpair()
    with near_end, far_end:
        assert near_end.fileno() == descriptor
        wait_write(descriptor)
    gevent.sleep(0.01)
