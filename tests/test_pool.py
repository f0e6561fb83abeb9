"""The connections that requests share: in turn, and never more than allowed."""

import threading
import time

import psycopg2
import pytest
from processes import wait_until

from phresh.pool import RECYCLE, Pool


class Driver:
    def __init__(self):
        self.closed = False

    def close(self):
        self.closed = True


def make_pool(size=1, seconds=5.0, connect=Driver):
    return Pool(connect, size=size, seconds=seconds, prepares=True)


def waiting(pool, order, name):
    """A thread that waits for a connection, notes its name when it has it, and gives it back."""

    def take():
        connection = pool.take(60)
        order.append(name)
        pool.give_back(connection)

    thread = threading.Thread(target=take)
    before = len(pool._waiting)
    thread.start()
    assert wait_until(lambda: len(pool._waiting) == before + 1)
    return thread


def test_who_waits_longest_is_next():
    pool, order = make_pool(), []
    mine = pool.take(1)
    threads = [waiting(pool, order, name) for name in "abcdef"]
    pool.give_back(mine)
    again = pool.take(60)  # asked for last, when the first has not gone on yet
    order.append("again")
    pool.give_back(again)
    for thread in threads:
        thread.join()
    assert order == [*"abcdef", "again"]


def test_the_one_used_last_is_given_first():
    pool = make_pool(size=3)
    first, second = pool.take(1), pool.take(1)
    pool.give_back(first)
    pool.give_back(second)
    assert pool.take(1) is second
    assert pool.take(1) is first


def test_there_are_no_more_than_allowed_and_a_lost_one_is_replaced():
    opened = []
    pool = make_pool(size=2, seconds=0.05, connect=lambda: opened.append(Driver()) or opened[-1])
    taken = [pool.take(1), pool.take(1)]
    with pytest.raises(psycopg2.OperationalError, match="No connection was free"):
        pool.take(1)
    pool.give_back(None)
    assert pool.take(1) not in taken
    assert len(opened) == 3


def test_the_shorter_time_is_waited():
    pool = make_pool(seconds=60)
    pool.take(1)
    with pytest.raises(psycopg2.OperationalError):
        pool.take(0.01)
    with pytest.raises(psycopg2.OperationalError):
        pool.take(-1)  # a request whose time is up


def test_who_gave_up_is_passed_over():
    pool, order = make_pool(), []
    mine = pool.take(1)
    with pytest.raises(psycopg2.OperationalError):
        pool.take(0.01)
    thread = waiting(pool, order, "a")
    pool.give_back(mine)
    thread.join()
    assert pool.take(1) is mine


def test_a_place_is_free_again_when_none_can_be_opened():
    answers = iter([psycopg2.OperationalError("away"), None])

    def connect():
        if error := next(answers):
            raise error
        return Driver()

    pool = make_pool(connect=connect)
    with pytest.raises(psycopg2.OperationalError, match="away"):
        pool.take(1)
    assert pool.take(1)


def test_an_old_one_is_closed_and_replaced(monkeypatch):
    pool = make_pool()
    old = pool.take(1)
    pool.give_back(old)
    later = time.monotonic() + RECYCLE
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert pool.take(1) is not old
    assert old.driver.closed
