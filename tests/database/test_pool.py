"""The connections that requests share: in turn, and never more than allowed."""

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


def waiting(pool, order, name):
    """A thread that waits for a connection, notes its name when it has it, and gives it back."""

    def take():
        connection = pool.acquire(60)
        order.append(name)
        pool.release(connection)

    thread = threading.Thread(target=take)
    before = len(pool._waiting)
    thread.start()
    assert wait_until(lambda: len(pool._waiting) == before + 1)
    return thread


def test_who_waits_longest_is_next():
    pool, order = make_pool(), []
    mine = pool.acquire(1)
    threads = [waiting(pool, order, name) for name in "abcdef"]
    pool.release(mine)
    again = pool.acquire(60)  # asked for last, when the first has not gone on yet
    order.append("again")
    pool.release(again)
    for thread in threads:
        thread.join()
    assert order == [*"abcdef", "again"]


def test_the_one_used_last_is_given_first():
    pool = make_pool(size=3)
    first, second = pool.acquire(1), pool.acquire(1)
    pool.release(first)
    pool.release(second)
    assert pool.acquire(1) is second
    assert pool.acquire(1) is first


def test_there_are_no_more_than_allowed_and_a_lost_one_is_replaced():
    opened = []
    pool = make_pool(
        size=2, seconds=0.05, connect=lambda: opened.append(FakeDriver()) or opened[-1]
    )
    taken = [pool.acquire(1), pool.acquire(1)]
    with pytest.raises(psycopg2.OperationalError, match="No connection was free"):
        pool.acquire(1)
    pool.release(None)
    assert pool.acquire(1) not in taken
    assert len(opened) == 3


def test_the_shorter_time_is_waited():
    pool = make_pool(seconds=60)
    pool.acquire(1)
    with pytest.raises(psycopg2.OperationalError):
        pool.acquire(0.01)
    with pytest.raises(psycopg2.OperationalError):
        pool.acquire(-1)  # a request whose time is up


def test_who_gave_up_is_passed_over():
    pool, order = make_pool(), []
    mine = pool.acquire(1)
    with pytest.raises(psycopg2.OperationalError):
        pool.acquire(0.01)
    thread = waiting(pool, order, "a")
    pool.release(mine)
    thread.join()
    assert pool.acquire(1) is mine


def test_a_place_is_free_again_when_none_can_be_opened():
    answers = iter([psycopg2.OperationalError("away"), None])

    def connect():
        if error := next(answers):
            raise error
        return FakeDriver()

    pool = make_pool(connect=connect)
    with pytest.raises(psycopg2.OperationalError, match="away"):
        pool.acquire(1)
    assert pool.acquire(1)


def test_an_old_one_is_closed_and_replaced(monkeypatch):
    pool = make_pool()
    old = pool.acquire(1)
    pool.release(old)
    later = time.monotonic() + RECYCLE
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert pool.acquire(1) is not old
    assert old.driver.closed


@pytest.fixture
def ends():
    """The two ends of a connection."""
    here, there = socket.socketpair()
    with here, there:
        yield here, there


@pytest.fixture
def waker(ends):
    waker = Waker(ends[0].fileno())
    yield waker
    waker.close()


def test_who_waits_is_woken_when_there_is_something_to_read(ends, waker):
    for _ in range(3):
        gevent.spawn(ends[1].send, b"x")
        waker.wait(time.monotonic() + 60)
        assert ends[0].recv(2, socket.MSG_DONTWAIT) == b"x"


def test_a_wait_ends_at_its_time_though_one_before_had_longer(ends, waker):
    gevent.spawn(ends[1].send, b"x")
    waker.wait(time.monotonic() + 60)
    ends[0].recv(1)
    until = time.monotonic() + 0.1
    with gevent.Timeout(30):
        waker.wait(until)
    assert time.monotonic() >= until - 0.01  # the loop's clock is that coarse


def test_a_wait_goes_on_though_one_before_had_less(ends, waker):
    gevent.spawn(ends[1].send, b"x")
    waker.wait(time.monotonic() + 0.1)
    ends[0].recv(1)
    until, times = time.monotonic() + 0.4, 0
    while time.monotonic() < until:
        waker.wait(until)
        times += 1
    assert times <= 4  # once for the time before, once for its own, and what the clock is coarse


def test_what_nobody_waits_for_wakes_nobody_again_and_again(ends, monkeypatch):
    wakes = []
    wake = Waker._wake
    monkeypatch.setattr(Waker, "_wake", lambda waker: (wakes.append(1), wake(waker)))
    waker = Waker(ends[0].fileno())
    gevent.spawn(ends[1].send, b"x")
    waker.wait(time.monotonic() + 60)
    wakes.clear()
    gevent.sleep(0.05)
    assert len(wakes) == 1
    waker.wait(time.monotonic() + 60)  # it is still there for who asks next
    waker.close()
    wakes.clear()
    gevent.sleep(0.05)
    assert wakes == []


def test_another_connection_may_have_the_number_of_one_that_was_closed(waker, ends):
    gevent.spawn(ends[1].send, b"x")
    waker.wait(time.monotonic() + 60)
    number = ends[0].fileno()
    ends[0].close()  # as psycopg2 does, before we know
    waker.close()
    here, there = socket.socketpair()
    with here, there:
        assert here.fileno() == number
        other = Waker(number)
        gevent.spawn(there.send, b"y")
        other.wait(time.monotonic() + 60)
        assert here.recv(2, socket.MSG_DONTWAIT) == b"y"
        other.close()


@pytest.fixture
def wakers(monkeypatch, app):
    """Those that were made, and those that were closed, while all is waited for as in a worker."""
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


def test_a_connection_is_watched_until_it_is_closed(wakers):
    made, closed = wakers
    for _ in range(3):
        fetch_autocommit(sql_text("SELECT pg_sleep(0.01)"))
    assert (len(made), closed) == (1, [])
    pool = current_app.extensions["pool"]
    connection = pool.acquire(1)
    connection.driver.close()
    assert closed == made
    pool.release(None)


def test_one_that_psycopg2_closed_is_watched_no_more(wakers):
    made, closed = wakers
    before = _deadline.set(time.monotonic() + 0.05)
    with pytest.raises(psycopg2.OperationalError, match="in time"):
        fetch_autocommit(sql_text("SELECT pg_sleep(60)"))
    _deadline.reset(before)
    assert len(made) == 1
    assert closed == made
