"""PostgreSQL servers to break, a network to break, the app served, and clients that keep asking."""

import asyncio
import http.client
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import psycopg2

from phresh.config import ROOT
from phresh.database import embedded
from tests.tools.processes import environment, free_port, wait_until

LOCALE = ("--encoding=UTF8", "--locale=C.UTF-8", "--no-sync")


def make_folder() -> Path:
    """Make a folder that the account which runs PostgreSQL can use."""
    folder = Path(tempfile.mkdtemp(prefix="phresh-faults-"))
    folder.chmod(0o755)
    _give_to(embedded.Server(ROOT / "instance").user, folder)
    return folder


def _give_to(user: str | None, *paths: Path) -> None:
    if user is not None:
        for path in paths:
            shutil.chown(path, user)


class Cluster:
    """One PostgreSQL server on a loopback port, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.data = folder
        self.port = free_port()
        self._installed = embedded.Server(ROOT / "instance")
        self._server: subprocess.Popen[bytes] | None = None

    def make(self) -> "Cluster":
        """Make its data."""
        self.run("initdb", "-D", self.data, "-U", "postgres", "--auth=trust", *LOCALE)
        return self

    def copy(self, folder: Path) -> "Cluster":
        """Give another one with a copy of the data; this one has to be stopped."""
        shutil.copytree(self.data, folder)
        _give_to(self._installed.user, folder, *folder.rglob("*"))
        return Cluster(folder)

    @property
    def host(self) -> str:
        """Where it listens, as a URL has it."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """The URL of its database."""
        return f"postgresql://postgres@{self.host}/postgres"

    def _options(self) -> dict[str, Any]:
        log = self.data.with_suffix(".log").open("ab")
        user = embedded.run_as(self._installed.user)
        return {"stdout": log, "stderr": log, "env": {**os.environ, "LC_ALL": "C"}, **user}

    def run(self, program: str, *arguments: str | Path) -> None:
        """Run one of PostgreSQL's programs to its end."""
        options = self._options()
        with options["stdout"]:
            command = [self._installed.programs / "bin" / program, *arguments]
            subprocess.run(command, check=True, **options)

    def start(self, **settings: str) -> "Cluster":
        """Start it and wait until it takes connections."""
        command = [self._installed.programs / "bin" / "postgres", "-D", self.data]
        command += ["-p", str(self.port), "-c", "unix_socket_directories="]
        for name, value in {"listen_addresses": "127.0.0.1", **settings}.items():
            command += ["-c", f"{name}={value}"]
        options = self._options()
        with options["stdout"]:
            self._server = subprocess.Popen(command, **options)
        ready = wait_until(lambda: self._server.poll() is not None or self.is_ready(), 60)
        assert ready, "PostgreSQL did not start in time"
        assert self._server.poll() is None, self.data.with_suffix(".log").read_text()
        return self

    def is_ready(self) -> bool:
        """Whether it takes connections."""
        try:
            self.sql("SELECT 1")
        except psycopg2.OperationalError:
            return False
        return True

    def stop(self) -> None:
        """Stop it by the fast shutdown, where it runs."""
        if self._server is not None:
            self._server.send_signal(signal.SIGINT)
            self._server.wait(60)
            self._server = None

    def kill(self) -> None:
        """Kill all its processes with -9 and wait until they are gone."""
        # First the postmaster, which else would take a killed child for a crash to recover from.
        processes = [self._server.pid, *_children(self._server.pid)]
        for process in processes:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        # A postmaster that is not reaped, or a child that has its memory, forbids the next start.
        self._server.wait(60)
        self._server = None
        assert wait_until(lambda: not any(map(_is_alive, processes)), 60), "still there"

    def connect(self) -> Any:
        """Give a connection in autocommit."""
        connection = psycopg2.connect(f"{self.url}?connect_timeout=5")
        connection.autocommit = True
        return connection

    def sql(self, *statements: str) -> list[Any]:
        """Run statements, each on its own; give the rows of the last."""
        with closing(self.connect()) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def standby(self, folder: Path) -> "Cluster":
        """Make and start a standby; every commit here waits for it from now on."""
        replica = Cluster(folder)
        replica.run(
            "pg_basebackup", "-D", folder, "-R", "-X", "stream", "-c", "fast", "-d", self.url
        )
        replica.start()
        # Only now, and here: a copy of this setting would have the promoted standby wait too.
        self.sql("ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()")
        state = "SELECT sync_state FROM pg_stat_replication"
        assert wait_until(lambda: self.sql(state) == [("sync",)]), self.sql(state)
        return replica

    def promote(self) -> None:
        """Make a primary of a standby, and wait until it is one."""
        assert self.sql("SELECT pg_promote(true, 60)") == [(True,)]


def _children(parent: int) -> list[int]:
    found = []
    for process in Path("/proc").iterdir():
        with suppress(OSError, ValueError, IndexError):
            if int((process / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(process.name))
    return found


def are_running(processes: set[int]) -> bool:
    """Return whether any of them runs, zombies aside."""
    return any(map(_is_alive, processes))


def _is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Proxy:
    """A network between the app and a server; ``mode`` says what it does to what passes.

    ``pass``; ``hole`` takes all, acknowledges it and answers nothing; ``reset`` cuts.
    """

    def __init__(self, port: int) -> None:
        """Start to pass what comes on to that port."""
        self.port = free_port()
        self.mode = "pass"
        self.seen = 0  # connections
        self._age = 0  # of those that pass
        self._to = port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._links: set[asyncio.Task[None]] = set()
        self._on_loop(self._listen())

    def _on_loop(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._link, "127.0.0.1", self.port)

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.seen += 1
        task = asyncio.current_task()
        self._links.add(task)
        far = None
        try:
            if self.mode == "hole":
                while await reader.read(65536):
                    pass
            elif self.mode == "pass":
                there, far = await asyncio.open_connection("127.0.0.1", self._to)
                age = self._age
                await asyncio.gather(self._pump(reader, far, age), self._pump(there, writer, age))
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            for end in filter(None, (writer, far)):
                if self.mode == "reset":
                    end.transport.abort()
                end.close()
            self._links.discard(task)

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, age: int
    ) -> None:
        while data := await source.read(65536):
            if self.mode == "pass" and age == self._age:
                sink.write(data)
                await sink.drain()
        sink.close()

    async def _cut(self) -> None:
        for link in self._links:
            link.cancel()

    def forget(self) -> None:
        """Drop what comes on the connections so far, silently; pass on what comes on others."""
        self._age += 1

    def reset(self) -> None:
        """Cut every connection, and those to come."""
        self.mode = "reset"
        self._on_loop(self._cut())

    def close(self) -> None:
        """End it."""

        async def end() -> None:
            self._server.close()
            await self._cut()
            while self._links:
                await asyncio.sleep(0.01)

        self._on_loop(end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Answer(NamedTuple):
    """What came of a request; status 0 where no answer came.

    ``kept`` says whether the connection had answered one before, ``sent`` whether all was written.
    """

    began: float
    ended: float
    status: int
    headers: dict[str, str]
    body: bytes
    kept: bool
    sent: bool
    error: str

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.ended - self.began

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)


TOKEN = "of-the-tests"
ACCOUNT = f"""
    INSERT INTO users (email, username, password_hash) VALUES ('one@phresh.example', 'one', '');
    INSERT INTO tokens (hash, user_id, expires_at)
    SELECT sha256('{TOKEN}'), id, 'infinity' FROM users;
"""


class Client:
    """One connection to the app, kept and made anew when it was closed.

    :param token: which it sends along
    """

    def __init__(self, port: int, token: str | None = None) -> None:
        self.port = port
        self._token = token
        self._connection: http.client.HTTPConnection | None = None

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Send one request, once, and give what came of it."""
        began, kept, sent, error = time.monotonic(), self._connection is not None, False, ""
        status, given, text = 0, {}, b""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        try:
            if self._connection is None:
                self._connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
                self._connection.connect()
            headers.setdefault("Content-Type", "application/json")
            if self._token is not None:
                headers.setdefault("Authorization", f"Bearer {self._token}")
            self._connection.request(method, path, data, headers)
            sent = True
            response = self._connection.getresponse()
            text = response.read()
            status, given = response.status, dict(response.headers)
            if response.will_close:
                self.close()
        except (OSError, http.client.HTTPException) as raised:
            error = repr(raised)
            self.close()
        return Answer(began, time.monotonic(), status, given, text, kept, sent, error)

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


SHIPPED = ("gunicorn", "-c", "gunicorn.conf.py", "{app}")


class Phresh:
    """The app, served from a copy of the checkout by gunicorn or another server."""

    def __init__(
        self,
        checkout: Path,
        database_url: str,
        app: str = "wsgi:app",
        *,
        token: str | None = None,
        server: Sequence[str] = SHIPPED,
        output: int | None = None,
        **settings: str,
    ) -> None:
        """Start it and wait until it answers.

        :param server: a module to run and its arguments, in which ``{app}`` and ``{port}`` stand
            for those
        :param output: the file descriptor that it prints to, instead of the file ``log``
        """
        self.port = free_port()
        self.token = token
        self.log = checkout.parent / f"gunicorn-{self.port}.log"
        # Tests write more than the limits allow, and some of them without a database.
        defaults = {"WORKERS": "2", "RATELIMIT_ENABLED": "false"}
        settings = {**defaults, "DATABASE_URL": database_url, **settings}
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *(part.format(app=app, port=self.port) for part in server)],
                cwd=checkout,
                env=environment(PORT=str(self.port), **settings),
                stdout=log if output is None else output,
                stderr=log if output is None else output,
            )
        self.pid = self._process.pid
        ended = self._process.poll
        answers = wait_until(lambda: ended() is not None or self.send("GET", "/healthz").status, 60)
        assert answers == 200, self.log.read_text()

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Send one request on a connection of its own."""
        with closing(Client(self.port, self.token)) as client:
            return client.send(method, path, body, **headers)

    def send_all(self, *requests: tuple[Any, ...]) -> list[Answer]:
        """Send requests at the same time; return the responses in their order."""
        with ThreadPoolExecutor(len(requests)) as pool:
            return list(pool.map(lambda request: self.send(*request), requests))

    @contextmanager
    def load(
        self, *jobs: Callable[[int], tuple[Any, ...]], seconds: float = 60, **headers: str
    ) -> Iterator[Any]:
        """Have a client each send one request of its job after the other, on a kept connection.

        Yield the list that the responses go to. Ends with the block, and after those seconds.
        With ``Connection="close"`` each request has a connection of its own.
        """
        answers: list[Answer] = []
        end = threading.Event()
        until = time.monotonic() + seconds

        def ask(job: Callable[[int], tuple[Any, ...]]) -> None:
            with closing(Client(self.port, self.token)) as client:
                for number in itertools.count():
                    if end.is_set() or time.monotonic() > until:
                        return
                    answer = client.send(*job(number), **headers)
                    answers.append(answer)
                    if answer.status not in (200, 201):
                        end.wait(0.05)

        threads = [threading.Thread(target=ask, args=(job,)) for job in jobs]
        for thread in threads:
            thread.start()
        try:
            yield answers
        finally:
            end.set()
            for thread in threads:
                thread.join()

    def terminate(self) -> None:
        """Tell it to end, as an orchestrator does."""
        self._process.terminate()

    def workers(self) -> set[int]:
        """Give the processes that answer."""
        return set(_children(self._process.pid))

    def processes(self) -> set[int]:
        """Return all its processes."""
        return {self._process.pid, *self.workers()}

    def end_worker(self) -> set[int]:
        """Tell one worker to end, and give it."""
        worker = min(self.workers())
        os.kill(worker, signal.SIGTERM)
        return {worker}

    def reload(self) -> set[int]:
        """Tell it to replace all its workers, and give these."""
        workers = self.workers()
        self._process.send_signal(signal.SIGHUP)
        return workers

    def stop(self) -> int:
        """End it, and give the exit code."""
        self.terminate()
        return self._process.wait(40)


class SilentHost:
    """A port on which no connection is ever established, as of a host without power."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=0)
        self.port = self._listener.getsockname()[1]
        # Linux drops requests for connections while the queue of those to accept is full.
        self._queued = [socket.socket() for _ in range(3)]
        for client in self._queued:
            client.setblocking(False)
            client.connect_ex(("127.0.0.1", self.port))

    def close(self) -> None:
        """End it."""
        for end in (*self._queued, self._listener):
            end.close()
