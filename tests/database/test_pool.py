"""The connection pool: first come, first served, and never more connections than its size."""

import socket
import threading
import time

import gevent
import psycopg2
import pytest
from flask import current_app
from psycopg2 import extensions

from phresh.database.deadlines import Waker, _deadline, _wait_in_loop
from phresh.database.pool import RECYCLE, Pool
from phresh.database.transactions import fetch_autocommit
from tests.tools.helpers import sql_text
from tests.tools.processes import wait_until


class FakeDriver:
    def __init__(self):
        self.closed = False

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
