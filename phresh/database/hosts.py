"""Connecting to the first host that accepts: the last good one first, names looked up in time.

libpq could try several hosts itself. But under a wait callback it leaves ``connect_timeout`` to us,
and it looks names up in the thread of the event loop
(https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PQCONNECTSTARTPARAMS).
"""

import math
import socket
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

import gevent
import psycopg2
from gevent import monkey
from gevent.event import AsyncResult

from phresh.database.deadlines import LONGEST_POLL, earlier_deadline, time_left

Found = list[str] | OSError


class Hosts:
    """The hosts of a database, and which of them accepted the last connection."""

    def __init__(self) -> None:
        self._good: tuple[int, str] = (0, "")  # the number of the host, and its address
        self._lookups: dict[str, AsyncResult[Found]] = {}  # by name: those that run, or ran last

    def connect(self, connect: Callable[[dict[str, Any]], Any], parameters: dict[str, Any]) -> Any:
        """Connect to the first host that accepts, and return the connection.

        :param connect: connects with libpq's parameters
        :param parameters: with hosts, addresses and ports separated by commas, as libpq takes them;
            ``connect_timeout`` holds for the lookup of a name, and for each attempt to connect
        :raises psycopg2.OperationalError: when all fail, or at the deadline
        """
        hosts, seconds = _split(parameters), float(parameters.get("connect_timeout") or 0)
        seconds = seconds if seconds > 0 else math.inf  # as libpq
        last_number, last_address = self._good
        failure = psycopg2.OperationalError("No host.")
        for number in sorted(range(len(hosts)), key=lambda number: number != last_number):
            host = hosts[number]
            try:
                addresses = self._addresses(host, seconds)
            except psycopg2.OperationalError as error:
                failure = error.with_traceback(None)
                continue
            for address in sorted(addresses, key=lambda address: address != last_address):
                # "host" stays: TLS verifies the certificate by it.
                chosen = {**host, "hostaddr": address} if address else host
                try:
                    with earlier_deadline(seconds):
                        made = connect({**parameters, **chosen})
                except psycopg2.OperationalError as error:
                    # Without its frames, which keep the failed connection.
                    failure = error.with_traceback(None)
                    if time_left() <= 0:
                        raise failure from None
                else:
                    self._good = number, address
                    return made
        raise failure

    def _addresses(self, host: dict[str, str], seconds: float) -> list[str]:
        """Return the addresses of a host; one that is empty where libpq needs none.

        :raises psycopg2.OperationalError: when its name is not found, or not in time
        """
        name = host.get("host", "")
        if host.get("hostaddr") or not _is_name(name):
            return [""]
        found = self._look_up(name, seconds)
        if isinstance(found, OSError):
            raise psycopg2.OperationalError(f'Host name "{name}" not found: {found.strerror}.')
        return found

    def _look_up(self, name: str, seconds: float) -> Found:
        """Look a name up; under gevent in a thread beside the event loop.

        One thread for each name at most: when the name server is silent, a lookup takes longer than
        any request waits for it.
        """
        if not monkey.is_module_patched("socket"):
            return _addresses_of(name)
        lookup = self._lookups.get(name)
        if lookup is None or lookup.ready():
            lookup = gevent.get_hub().threadpool.spawn(_addresses_of, name)
            self._lookups[name] = lookup
        try:
            found: Found = lookup.get(timeout=max(min(seconds, time_left(), LONGEST_POLL), 0))
        except gevent.Timeout:
            return TimeoutError(0, "the name server did not respond in time")
        return found


def _split(parameters: dict[str, Any]) -> list[dict[str, str]]:
    """Return the host, address and port of each host."""
    lists = {
        name: str(parameters[name]).split(",")
        for name in ("host", "hostaddr", "port")
        if parameters.get(name)
    }
    counts = {len(values) for name, values in lists.items() if name != "port" or len(values) > 1}
    if len(counts) != 1:  # none is given, or libpq says that they do not match
        return [{}]
    return [
        {name: values[number] if len(values) > 1 else values[0] for name, values in lists.items()}
        for number in range(counts.pop())
    ]


def _is_name(host: str) -> bool:
    """Return whether a host is neither an address nor the folder of a Unix socket."""
    if not host or host.startswith(("/", "@")):
        return False
    try:
        ip_address(host)
    except ValueError:
        return True
    return False


def _addresses_of(name: str) -> Found:
    """Return the addresses of a name in the order of the system, or why there are none.

    Not raised: gevent prints what is raised in its threads.
    """
    getaddrinfo = monkey.get_original("socket", "getaddrinfo")
    try:
        found = getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError as error:
        return error
    except UnicodeError:  # a label is too long or empty
        return OSError(0, "not a valid name")
    return list(dict.fromkeys(address[0] for *_, address in found))
