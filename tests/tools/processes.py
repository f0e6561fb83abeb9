"""Real processes on a copy of the checkout, with data of its own."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

from phresh.config import ROOT, SettingsSchema

LEFT_OUT = (
    *(".git", ".venv", ".env", "instance", "__pycache__", ".*_cache"),
    *("node_modules", "build"),
)


def copy_checkout(folder: Path) -> Path:
    """Copy what a clone would have."""
    return shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*LEFT_OUT))


@contextmanager
def open_folder() -> Iterator[Path]:
    """Make a folder that every user can enter; only the current user can enter those of pytest.

    At the end no process may be left that works in it.
    """
    folder = Path(tempfile.mkdtemp(prefix="phresh-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        assert wait_until(lambda: not running_in(folder)), running_in(folder)
        shutil.rmtree(folder)


def environment(**settings: str) -> dict[str, str]:
    """Our environment with these settings and no others."""
    known = SettingsSchema().fields
    inherited = {name: value for name, value in os.environ.items() if name not in known}
    path = f"{Path(sys.executable).parent}:{inherited['PATH']}"
    return {**inherited, "PATH": path, **settings}


def flask(checkout: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a flask command there to its end."""
    return subprocess.run(
        ["flask", *arguments],
        cwd=checkout,
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=60,
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def running_in(folder: Path) -> list[str]:
    """The processes that work in that folder or name it, zombies aside."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            command = (
                (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            )
            state = (process / "stat").read_text().rpartition(")")[2].split()[0]
            place = str((process / "cwd").readlink())
        except (OSError, ValueError):
            continue
        if (
            process.name.isdigit()
            and state != "Z"
            and (str(folder) in command or place == str(folder))
        ):
            found.append(f"{process.name} {command}")
    return found


def wait_until(condition, seconds=20.0):
    """Wait until it gives something true, and give that; give the last answer when time is up."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return answer


class Address:
    """Where the API is served."""

    def __init__(self, port: int) -> None:
        self.port = port

    def answers(self) -> bool:
        try:
            return self.request("GET", "/healthz")[0] == 200
        except (URLError, ConnectionError):
            return False

    def request(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, str]:
        headers["Content-Type"] = "application/json"
        request = Request(f"http://127.0.0.1:{self.port}{path}", body, headers, method=method)
        with urlopen(request, timeout=10) as response:
            return response.status, response.read().decode()


class Served(Address):
    """``make run`` in a copy of the checkout, in a process group of its own."""

    def __init__(self, checkout: Path, *make: str, user: str | None = None) -> None:
        super().__init__(free_port())
        self.checkout = checkout
        venv = Path(sys.prefix)
        self.process = subprocess.Popen(
            [
                "make",
                "run",
                *(make or ("--old-file", f"{venv}/.installed-serving", f"VENV={venv}")),
            ],
            cwd=checkout,
            env=environment(PORT=str(self.port), HOME=str(checkout)),
            user=user,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def wait(self, seconds: float = 20) -> "Served":
        """Wait until it answers."""
        ended = self.process.poll
        assert wait_until(lambda: ended() is not None or self.answers(), seconds), "no answer"
        assert self.process.poll() is None, self.process.communicate()[0]
        return self

    def end(self, number: int = signal.SIGTERM, *, group: bool = False) -> tuple[int, str]:
        """Send a signal, to make or to all of it, and give the exit code and what it printed."""
        (os.killpg if group else os.kill)(self.process.pid, number)
        output, _ = self.process.communicate(timeout=25)
        return self.process.returncode, output


@contextmanager
def serving() -> Iterator[Served]:
    """Serve a copy of the checkout, on a database that has the samples."""
    with open_folder() as folder:
        checkout = copy_checkout(folder / "checkout")
        served = Served(checkout)
        try:
            served.wait(60)
            flask(checkout, "demo")
            yield served
        finally:
            served.end(signal.SIGINT, group=True)
