"""The contenders: start, measure and stop their servers."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any

from sqlalchemy import URL

from benchmarks.workloads import Call
from phresh.config import ROOT, SettingsSchema

WORKERS = 2
START_TIMEOUT = 30
STOP_TIMEOUT = 20


class FailedError(Exception):
    """The benchmark failed, and its figures are worthless; the message says why."""


@dataclass(frozen=True)
class Contender:
    """A contender, and the command that serves it."""

    name: str
    module: str
    arguments: str
    folder: Path = Path(__file__).parent / "contenders"
    only_workload: str = ""  # the only workload that it can serve


# Phresh is served as in its image: port and workers come from the environment. The others run in
# another folder, so that gunicorn does not read Phresh's gunicorn.conf.py.
LISTEN = f"--workers {WORKERS} --bind 127.0.0.1:{{port}} --no-control-socket"
GTHREAD = f"{LISTEN} --worker-class gthread --threads 8"
OURS = f"{LISTEN} --worker-class phresh.serving.worker.Worker --keep-alive 5"
UVICORN = (
    f"--workers {WORKERS} --port {{port}} --loop uvloop --http httptools --no-proxy-headers "
    "fastapi_asyncpg:app"
)
CONTENDERS = (
    Contender("phresh", "gunicorn", "--config gunicorn.conf.py wsgi:app", ROOT),
    Contender("fastapi", "uvicorn", f"{UVICORN} --no-access-log"),
    Contender("fastapi-log", "uvicorn", UVICORN),
    Contender("flask-orm", "gunicorn", f"{GTHREAD} flask_orm:app"),
    Contender("drf", "gunicorn", f"{GTHREAD} drf:app"),
    Contender("empty", "gunicorn", f"{OURS} empty:app", only_workload="read one"),
)


class Server:
    """A running contender, in a separate session, by which its processes are found."""

    def __init__(self, contender: Contender, url: URL, pool: int, log: Path, **more: str) -> None:
        self.port, self.log = _free_port(), log
        known = SettingsSchema().fields
        inherited = {name: value for name, value in os.environ.items() if name not in known}
        database = url.set(drivername="postgresql").render_as_string(hide_password=False)
        settings = {
            "DATABASE_URL": database,
            "PORT": str(self.port),
            "WORKERS": str(WORKERS),
            "POOL": str(pool),
            "RATELIMIT_ENABLED": "false",  # all requests come from one address
            "PYTHONPATH": str(ROOT),  # the contender "empty" uses Phresh's worker
            **more,
        }
        arguments = contender.arguments.format(port=self.port).split()
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", contender.module, *arguments],
                cwd=contender.folder,
                env={**inherited, **settings},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def wait(self, call: Call) -> None:
        """Wait until it responds, and then until it is idle, because all workers have started."""
        deadline = time.monotonic() + START_TIMEOUT
        while not self._is_ready(call):
            self._sleep(deadline, 0.05)
        used = -1.0
        while (now := self.cpu_seconds()) > used:
            used = now
            self._sleep(deadline, 0.5)

    def _sleep(self, deadline: float, seconds: float) -> None:
        if self.process.poll() is not None or time.monotonic() > deadline:
            raise self.failure(f"{' '.join(self.process.args)} did not start")
        time.sleep(seconds)

    def _is_ready(self, call: Call) -> bool:
        try:
            return self.send(call)[0] == 200
        except OSError:
            return False

    def send(self, call: Call) -> tuple[int, Message, bytes]:
        """Send a request and return the status, headers and body of the response."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(call.method, call.path, call.text, call.headers)
            response = connection.getresponse()
            return response.status, response.headers, response.read()
        finally:
            connection.close()

    def cpu_seconds(self) -> float:
        """Return the processor time that its processes have used, including ended ones."""
        ticks = 0
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                # After the name in parentheses: state, parent, group, session, ... (proc(5)).
                fields = path.read_text().rpartition(")")[2].split()
            except OSError:  # the process has just ended
                continue
            if int(fields[3]) == self.process.pid:
                ticks += sum(map(int, fields[11:15]))
        return ticks / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        """Stop it; kill it if it does not end in time."""
        self.process.terminate()
        try:
            self.process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def failure(self, reason: str) -> FailedError:
        """Return an error to raise, with the last lines of the log."""
        lines = self.log.read_text(errors="replace").splitlines()[-15:]
        return FailedError("\n".join([reason, *lines]))


@contextmanager
def served(contender: Contender, call: Call, *arguments: Any, **more: str) -> Iterator[Server]:
    """Run the contender; it is ready when it responds to the call."""
    server = Server(contender, *arguments, **more)
    try:
        server.wait(call)
        yield server
    finally:
        server.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
