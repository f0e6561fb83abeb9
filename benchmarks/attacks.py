"""Measure what a second client notices while clients attack the server.

Run it with ``make bench-attacks``. It serves a database of sample cleanings with the default
settings, and runs one attack after the other for a few seconds each. All the time, a second client
opens connections for ``GET /healthz`` and for reading one cleaning. For each attack it prints the
slowest of these responses, how many of them failed, the statuses that the attackers got, and the
most memory that the processes of the server had. The attackers run on the same processors, with a
lower priority.
"""

# ruff: noqa: S311 (no secrets are made of these random numbers)

import argparse
import json
import os
import random
import signal
import socket
import string
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.queues import Queue
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread
from urllib.parse import quote, urlencode

import click
from flask_migrate import upgrade
from sqlalchemy import URL, text, update

from benchmarks.samples import add_owned_samples, token, username
from benchmarks.serving import CONTENDERS, Server, served
from benchmarks.workloads import Call
from phresh import create_app
from phresh.accounts.models import User
from phresh.accounts.passwords import passwords
from phresh.database.base import db

PASSWORD = "six mice in the cellar"  # noqa: S105
PROBE_INTERVAL = 0.02  # seconds between two requests of the second client
ATTACKER_NICENESS = 10
TIMEOUT = 40  # seconds, after which a probe or an attacker's request has failed
ATTACKER = 1  # the id of its account
LONG_ROWS = 300  # cleanings with the longest description that the API accepts
MIB = 2**20
NEXT_USER = text("SELECT setval(pg_get_serial_sequence('users', 'id'), max(id)) FROM users")
COLUMNS = ("attack", "clients", "/healthz, ms", "one cleaning, ms", "failed", "MiB", "got")


@dataclass
class Target:
    """The server under attack, as an attacker sees it; statuses are counted in ``statuses``."""

    port: int
    stop_at: float
    statuses: Counter[str] = field(default_factory=Counter)

    @property
    def is_over(self) -> bool:
        """Whether the attack's time is over."""
        return time.monotonic() > self.stop_at

    def connect(self, receive_buffer: int | None = None) -> socket.socket:
        """Return a new connection, with a receive buffer of that many bytes."""
        connection = socket.socket()
        connection.settimeout(TIMEOUT)
        if receive_buffer is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.connect(("127.0.0.1", self.port))
        return connection

    def send(self, request: bytes) -> None:
        """Send a request on a new connection, read the whole response, count its status."""
        try:
            with self.connect() as connection:
                connection.sendall(request)
                first = connection.recv(65536)
                while connection.recv(65536):
                    pass
            self.statuses[first[9:12].decode("latin-1") or "closed"] += 1
        except OSError as error:
            self.statuses[type(error).__name__] += 1


def request(
    method: str, path: str, body: bytes = b"", content_type: str = "application/json", **more: str
) -> bytes:
    """Return a request that asks to close the connection after the response."""
    headers = {"Host": "localhost", "Connection": "close", **more}
    if body:
        headers |= {"Content-Type": content_type, "Content-Length": str(len(body))}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body


def posted(path: str, value: object) -> bytes:
    """Return a POST with a JSON body."""
    return request("POST", path, json.dumps(value, ensure_ascii=False).encode())


Run = Callable[[Target], None]


def repeat(make: Callable[[Target], bytes]) -> Run:
    """Return an attack that sends requests, one after the other."""

    def run(target: Target) -> None:
        while not target.is_over:
            target.send(make(target))

    return run


def hang_up(make: Callable[[Target], bytes]) -> Run:
    """Return an attack that sends requests and closes the connection without waiting."""

    def run(target: Target) -> None:
        while not target.is_over:
            with suppress(OSError), target.connect() as connection:
                connection.sendall(make(target))
                time.sleep(0.02)
            target.statuses["hung up"] += 1

    return run


def never_read(make: Callable[[Target], bytes]) -> Run:
    """Return an attack that sends a request and reads nothing of the response."""

    def run(target: Target) -> None:
        while not target.is_over:
            with suppress(OSError), target.connect(receive_buffer=4096) as connection:
                connection.settimeout(1)
                with suppress(TimeoutError):
                    connection.sendall(make(target))
                while not target.is_over:
                    time.sleep(0.2)
            target.statuses["unread"] += 1

    return run


def stream(head: bytes, piece: bytes, pause: float = 0) -> Run:
    """Return an attack that sends a head and then pieces, as long as the server takes them."""

    def run(target: Target) -> None:
        while not target.is_over:
            with suppress(OSError), target.connect() as connection:
                connection.sendall(head)
                while not target.is_over:
                    connection.sendall(piece)
                    time.sleep(pause)
            target.statuses["cut off" if not target.is_over else "to the end"] += 1

    return run


def words(count: int) -> str:
    """Return that many random words of one or two letters."""
    return "+".join(
        "".join(random.choices(string.ascii_lowercase, k=random.choice((1, 2))))
        for _ in range(count)
    )


def new_shape(_: Target) -> bytes:
    """Return a search that differs in everything that a client can choose."""
    query = {
        "limit": random.randint(1, 100),
        "price_min": 9999999,
        "sort": random.choice(("price", "-price", "id", "-id")),
    }
    kinds = random.sample(("dust_up", "spot_clean", "full_clean"), random.randint(0, 3))
    parameters = [f"cleaning_type={kind}" for kind in kinds] + [urlencode(query)]
    return request("GET", f"/api/cleanings/?{'&'.join(parameters)}&q={words(8)}")


def search(text_: str) -> Callable[[Target], bytes]:
    """Return a function that returns a search for a text."""
    sent = request("GET", f"/api/cleanings/?q={quote(text_)}")
    return lambda _: sent


def same(sent: bytes) -> Callable[[Target], bytes]:
    """Return a function that returns the same request each time."""
    return lambda _: sent


def authorized(method: str, path: str, value: object) -> Callable[[Target], bytes]:
    """Return a function that returns a request with the attacker's token."""
    body = json.dumps(value).encode()
    return same(request(method, path, body, Authorization=f"Bearer {token(ATTACKER)}"))


# Combining marks of two classes, of which normalization sorts each run.
MARKS = "a" + "\u0300" * 15000 + "\u0316" * 15000
NEW_USER = {"email": f"{MARKS}@example.com", "username": "u-xx", "password": "x"}
LOGIN = urlencode(
    {"username": f"{username(ATTACKER)}@phresh.example", "password": PASSWORD}
).encode()
WRONG = urlencode({"username": f"{MARKS}@example.com", "password": "x"}).encode()
LONG = {"name": "Long", "price": 1, "description": "é" * 10_000}
CHUNKED = b"POST /api/cleanings/ HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
CHUNKED += b"Transfer-Encoding: chunked\r\n\r\n"
FORM = "application/x-www-form-urlencoded"
PIPELINE = request("GET", "/docs/swagger-ui/swagger-ui.css").replace(b"Connection: close\r\n", b"")
PIPELINE += b"GET / HTTP/1.1\r\nHost:a\r\n\r\n" * 2500
PAGE = request("GET", "/api/cleanings/?limit=100").replace(b"Connection: close\r\n", b"")
HALF_HEAD = b"GET / HTTP/1.1\r\nHost: a\r\n"
PREFLIGHT = request(
    "OPTIONS",
    "/api/cleanings/",
    **{
        "Origin": "https://a.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "," * 60_000,
    },
)

# Name, number of connections at once, what each does.
ATTACKS: dict[str, tuple[int, Run]] = {
    "nothing": (0, repeat(same(b""))),
    "registrations with 60 KB of combining marks": (4, repeat(same(
        posted("/api/users/", {"new_user": NEW_USER})))),
    "logins with 60 KB of combining marks": (4, repeat(same(
        request("POST", "/api/users/login/token/", WRONG[:60_000], FORM)))),
    "logins with the right password": (50, repeat(same(
        request("POST", "/api/users/login/token/", LOGIN, FORM)))),
    "registrations": (20, repeat(lambda _: posted("/api/users/", {"new_user": {
        "email": f"{random.random()}@example.com",
        "username": f"u{random.randrange(10**9)}", "password": PASSWORD}}))),
    "searches, each of another form": (4, repeat(new_shape)),
    "searches for one letter found nowhere near": (40, repeat(search("z"))),
    "searches for two letters": (40, repeat(search("zz"))),
    "searches for 99 percent signs": (40, repeat(search("%" * 99 + "a"))),
    "searches whose clients hang up": (40, hang_up(search("zq"))),
    "pages of long descriptions": (20, repeat(same(request("GET", "/api/cleanings/?limit=100")))),
    "pages of long descriptions, never read": (300, never_read(same(PAGE))),
    "pipelined requests, never read": (400, never_read(same(PIPELINE))),
    "chunk extensions without end": (3, stream(CHUNKED, b"1;" + b"a" * 60_000 + b"\r\nx\r\n")),
    "heads, a line each half second": (500, stream(HALF_HEAD, b"A: b\r\n", 0.5)),
    "heads without end": (3, stream(HALF_HEAD, b"A: " + b"b" * 8000 + b"\r\n")),
    "60 KB of unknown query parameters": (4, repeat(same(
        request("GET", "/api/cleanings/?" + "&".join(f"k{n}=" for n in range(9000)))))),
    "60 KB of commas in a preflight": (4, repeat(same(PREFLIGHT))),
    "numbers of 60,000 digits": (4, repeat(same(
        request("POST", "/api/cleanings/", b'{"new_cleaning":{"name":"x","price":'
                + b"1" * 60_000 + b"}}")))),
    "60 KB of a multipart boundary": (4, repeat(same(
        request("POST", "/api/users/login/token/", b"-" * 1000,
                "multipart/form-data; boundary=" + "1" * 60_000)))),
    "the OpenAPI document": (20, repeat(same(request("GET", "/openapi.json")))),
    "posts by guests": (8, repeat(same(posted("/api/cleanings/", {"new_cleaning": LONG})))),
    "posts by an account": (8, repeat(authorized(
        "POST", "/api/cleanings/", {"new_cleaning": LONG}))),
}  # fmt: skip


def main() -> None:
    """Run the attacks and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=8, help="for each attack (%(default)s)")
    parser.add_argument(
        "--rows", type=int, default=200_000, help="number of cleanings (%(default)s)"
    )
    parser.add_argument("--only", nargs="+", default=[""], help="attacks with such a part in them")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the server is stopped
    with filled(options.rows) as url, TemporaryDirectory() as folder:
        click.echo(f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|")
        for name in ATTACKS:
            if any(part in name for part in options.only):
                click.echo(measure(name, url, Path(folder), options.seconds))


@contextmanager
def filled(rows: int) -> Iterator[URL]:
    """Yield the URL of a database with that many sample cleanings, and drop it at the end."""
    with create_app().app_context():
        server = db.engine.execution_options(isolation_level="AUTOCOMMIT")
        name = f"{server.url.database}_attacks"
        with server.connect() as connection:
            connection.execute(text(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
            locale = "TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C.UTF-8'"
            connection.execute(text(f"CREATE DATABASE {name} {locale}"))
        try:
            url = server.url.set(database=name)
            app = create_app({"DATABASE_URL": url.render_as_string(hide_password=False)})
            with app.app_context():
                upgrade()
                add_owned_samples(rows)
                with db.engine.begin() as connection:
                    connection.execute(
                        text(
                            "INSERT INTO cleanings (name, description, price) "
                            "SELECT 'Long', repeat('é', 10000), 1 FROM generate_series(1, :count)"
                        ),
                        {"count": LONG_ROWS},
                    )
                    connection.execute(
                        update(User)
                        .where(User.id == ATTACKER)
                        .values(password_hash=passwords().hash(PASSWORD))
                    )
                    connection.execute(NEXT_USER)  # the samples have ids of their own
                autocommit = db.engine.execution_options(isolation_level="AUTOCOMMIT")
                with autocommit.connect() as connection:
                    connection.execute(text("VACUUM ANALYZE"))
                db.engine.dispose()
            yield url
        finally:
            with server.connect() as connection:
                connection.execute(text(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
            server.dispose()


def measure(name: str, url: URL, folder: Path, seconds: int) -> str:
    """Run one attack on a new server and return its line of the table."""
    connections, run = ATTACKS[name]
    ready = Call("GET", "/readyz")
    settings = {"RATELIMIT_ENABLED": "true"}
    with served(CONTENDERS[0], ready, url, 10, folder / "log", **settings) as server:
        probes = [Probe(server.port, path) for path in ("/healthz", "/api/cleanings/1/")]
        memory = Memory(server)
        for thread in (*probes, memory):
            thread.start()
        processes = get_context("fork")
        results: Queue[Counter[str]] = processes.Queue()
        stop_at = time.monotonic() + seconds
        attackers = processes.Process(
            target=attack, args=(server.port, stop_at, connections, run, results)
        )
        attackers.start()
        statuses = results.get(timeout=seconds + 2 * TIMEOUT)
        attackers.join()
        for thread in (*probes, memory):
            thread.stop()
    times = [f"{1000 * max(probe.times):.0f}" for probe in probes]
    failed = sum(probe.failed for probe in probes)
    got = ", ".join(f"{count} × {status}" for status, count in statuses.most_common(4))
    cells = [name, connections, *times, failed, f"{memory.most / MIB:.0f}", got]
    return f"| {' | '.join(map(str, cells))} |"


def attack(port: int, stop_at: float, connections: int, run: Run, results: "Queue[object]") -> None:
    """Attack until the time is over; to be run in a process of its own."""
    os.nice(ATTACKER_NICENESS)
    target = Target(port, stop_at)
    threads = [Thread(target=run, args=(target,), daemon=True) for _ in range(connections)]
    for thread in threads:
        thread.start()
    while not target.is_over:
        time.sleep(0.1)
    for thread in threads:
        thread.join(1)
    results.put(Counter(target.statuses))


class Probe(Thread):
    """A client that reads a path again and again, on new connections, and takes the time."""

    def __init__(self, port: int, path: str) -> None:
        super().__init__(daemon=True)
        self.target = Target(port, float("inf"))
        self.request = request("GET", path)
        self.times: list[float] = []
        self.ended = Event()

    @property
    def failed(self) -> int:
        """The number of requests that were not responded to with 200."""
        return self.target.statuses.total() - self.target.statuses["200"]

    def run(self) -> None:
        """Read until it is stopped."""
        while not self.ended.wait(PROBE_INTERVAL):
            started_at = time.monotonic()
            self.target.send(self.request)
            self.times.append(time.monotonic() - started_at)

    def stop(self) -> None:
        """Stop after the current request."""
        self.ended.set()
        self.join()


class Memory(Thread):
    """Observes how much memory the processes of a server have: what is shared counts once."""

    def __init__(self, server: Server) -> None:
        super().__init__(daemon=True)
        self.session, self.most = server.process.pid, 0
        self.ended = Event()

    def run(self) -> None:
        """Look a few times a second until it is stopped."""
        while not self.ended.wait(0.25):
            self.most = max(self.most, sum(map(self._bytes, Path("/proc").glob("[0-9]*"))))

    def _bytes(self, process: Path) -> int:
        try:
            fields = (process / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) != self.session:
                return 0
            for line in (process / "smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    return int(line.split()[1]) * 1024
        except OSError:  # the process has just ended
            pass
        return 0

    def stop(self) -> None:
        """Stop."""
        self.ended.set()
        self.join()


if __name__ == "__main__":
    main()
