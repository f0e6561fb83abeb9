"""Connecting to one of several hosts, by names and addresses."""

import time

import gevent
import psycopg2
import pytest
from gevent import monkey

from phresh.database import hosts
from phresh.database.deadlines import _deadline, time_left
from phresh.database.hosts import Hosts

AWAY = psycopg2.OperationalError("away")


class Network:
    """What hosts and addresses accept connections, and the attempts to connect."""

    def __init__(self, *accepting):
        self.accepting = set(accepting)
        self.attempts = []

    def connect(self, parameters):
        place = tuple(
            parameters[name] for name in ("host", "hostaddr", "port") if parameters.get(name)
        )
        self.attempts.append(place)
        if not self.accepting & set(place):
            raise psycopg2.OperationalError(f"{place} is away")
        return place

    def attempts_of(self, hosts, **parameters):
        """Connect, and return the attempts."""
        self.attempts = []
        try:
            hosts.connect(self.connect, parameters)
        except psycopg2.OperationalError:
            self.attempts.append("failed")
        return self.attempts


@pytest.fixture
def names(monkeypatch):
    """The addresses of names; looking up another one fails."""
    names = {"db": ["10.0.0.1"], "two": ["10.0.0.2", "fd00::2"]}
    monkeypatch.setattr(
        hosts, "_addresses_of", lambda name: names.get(name, OSError(-2, "Name not known"))
    )
    return names


def test_the_host_that_accepted_last_is_tried_first():
    network, several = Network("c"), {"host": "/a,/b,/c", "port": "1,2,3"}
    network.accepting = {"/c"}
    hosts = Hosts()
    assert network.attempts_of(hosts, **several) == [("/a", "1"), ("/b", "2"), ("/c", "3")]
    assert network.attempts_of(hosts, **several) == [("/c", "3")]
    network.accepting = {"/b"}
    assert network.attempts_of(hosts, **several) == [("/c", "3"), ("/a", "1"), ("/b", "2")]
    network.accepting = set()
    failed = [("/b", "2"), ("/a", "1"), ("/c", "3"), "failed"]
    assert network.attempts_of(hosts, **several) == failed
    assert network.attempts_of(hosts, **several) == failed


def test_each_address_of_a_name_is_tried_and_the_name_stays_for_tls(names):
    hosts, network = Hosts(), Network("fd00::2")
    both = [("two", "10.0.0.2", "5"), ("two", "fd00::2", "5")]
    assert network.attempts_of(hosts, host="two", port="5") == both
    assert network.attempts_of(hosts, host="two", port="5") == both[1:]  # the good one first
    network.accepting = {"10.0.0.1"}
    assert network.attempts_of(hosts, host="two,db", port="5") == [
        *reversed(both),
        ("db", "10.0.0.1", "5"),
    ]


def test_a_name_that_is_not_found_is_skipped(names):
    network = Network("db")
    assert network.attempts_of(Hosts(), host="nowhere,db") == [("db", "10.0.0.1")]
    with pytest.raises(psycopg2.OperationalError, match='"nowhere" not found: Name not known'):
        Hosts().connect(network.connect, {"host": "nowhere"})


@pytest.mark.parametrize(
    ("given", "attempts"),
    [
        ({}, [()]),
        ({"host": "/run/db", "port": "5"}, [("/run/db", "5")]),
        ({"host": "@abstract"}, [("@abstract",)]),
        ({"host": "192.0.2.1"}, [("192.0.2.1",)]),
        ({"host": "fe80::1%eth0"}, [("fe80::1%eth0",)]),
        ({"hostaddr": "192.0.2.1"}, [("192.0.2.1",)]),
        ({"host": "db", "hostaddr": "192.0.2.1"}, [("db", "192.0.2.1")]),
        (
            {"host": "db,db", "hostaddr": "192.0.2.1,", "port": "5,6"},
            [("db", "192.0.2.1", "5"), ("db", "10.0.0.1", "6")],
        ),
        ({"host": "x,y", "hostaddr": "1.1.1.1"}, [("x,y", "1.1.1.1")]),  # libpq rejects it
    ],
)
def test_what_needs_no_lookup_is_left_to_libpq(names, given, attempts):
    assert Network().attempts_of(Hosts(), **given) == [*attempts, "failed"]


def test_no_attempt_is_made_after_the_deadline():
    network = Network()
    before = _deadline.set(time.monotonic() - 1)
    assert network.attempts_of(Hosts(), host="/a,/b,/c") == [("/a",), "failed"]
    _deadline.reset(before)


def test_each_attempt_has_its_own_seconds():
    seen = []

    def connect(_):
        seen.append(round(time_left()))
        raise AWAY

    before = _deadline.set(time.monotonic() + 5)
    with pytest.raises(psycopg2.OperationalError, match="away"):
        Hosts().connect(connect, {"host": "/a,/b", "connect_timeout": "2"})
    with pytest.raises(psycopg2.OperationalError, match="away"):
        Hosts().connect(connect, {"host": "/a", "connect_timeout": "0"})  # no limit of its own
    _deadline.reset(before)
    assert seen == [2, 2, 5]


def test_a_silent_name_server_holds_up_neither_the_loop_nor_more_than_one_thread(monkeypatch):
    lookups, ends = [], []

    def look_up(name):
        lookups.append(name)
        while not ends:
            monkey.get_original("time", "sleep")(0.01)
        return ["10.0.0.1"]

    monkeypatch.setattr(hosts, "_addresses_of", look_up)
    monkeypatch.setattr(monkey, "is_module_patched", lambda _: True)
    network, several = Network("10.0.0.1"), Hosts()
    given = {"host": "db", "connect_timeout": "0.1"}
    with pytest.raises(psycopg2.OperationalError, match="did not respond in time"):
        several.connect(network.connect, given)
    waiting = [
        gevent.spawn(network.attempts_of, several, host="db", connect_timeout="0.1")
        for _ in range(20)
    ]
    gevent.joinall(waiting, timeout=10, raise_error=True)
    assert lookups == ["db"]
    assert set(network.attempts) == {"failed"}
    ends.append(True)
    gevent.sleep(0.1)
    assert several.connect(network.connect, {"host": "db"}) == ("db", "10.0.0.1")
    assert lookups == ["db", "db"]


def test_names_are_looked_up_by_the_system():
    found = hosts._addresses_of("localhost")
    assert set(found) <= {"127.0.0.1", "::1"}
    assert found
    assert isinstance(hosts._addresses_of("name.invalid"), OSError)
    assert isinstance(hosts._addresses_of("." * 70), OSError)
