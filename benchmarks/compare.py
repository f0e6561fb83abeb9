"""This API and its peers, side by side: requests per second, latency, processor time.

Run it with ``make bench``. Each contender is started on a copy of the same database, on the
server that the app would use, and answers the same requests of wrk; one contender at a time, in
rounds, so that a slow machine slows all alike. Before that, all have to answer alike.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.message import Message
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import click
from flask_migrate import upgrade
from psycopg2.extensions import make_dsn
from sqlalchemy import URL, func, select, text

from benchmarks import report
from benchmarks.samples import add_owned_samples
from benchmarks.serving import CONTENDERS, Contender, FailedError, Server, served
from benchmarks.workloads import (
    MANY,
    Call,
    checks,
    make_workloads,
    pgbench_scripts,
    read,
    wrk_script,
)
from phresh import create_app
from phresh.cleanings.models import Cleaning
from phresh.database.base import db
from phresh.web.pages import write_cursor

CONNECTIONS = (16, 64)
PGBENCH = "pgbench"
NAMES = [*(contender.name for contender in CONTENDERS), PGBENCH]
RESULTS = Path(__file__).parent / "results"
IN_UTC = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)"


def main() -> None:
    """Compare, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="a second each, nothing is kept")
    parser.add_argument("--rounds", type=int, default=3, help="(%(default)s)")
    parser.add_argument("--seconds", type=int, default=3, help="of each measurement (%(default)s)")
    parser.add_argument("--rows", type=int, default=100_000, help="(%(default)s)")
    parser.add_argument("--only", nargs="+", default=NAMES, choices=NAMES, help="contenders")
    parser.add_argument("--workloads", nargs="+", default=[""], help="parts of their names")
    parser.add_argument("--output", type=Path, default=RESULTS, help="(%(default)s)")
    options = parser.parse_args()
    if options.smoke:
        options.rounds, options.seconds, options.rows = 1, 1, 10_000
    if shutil.which("wrk") is None:
        sys.exit("wrk is not installed. On Debian: apt-get install wrk")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started is ended
    with TemporaryDirectory() as folder, Bench(options, Path(folder)).ready() as bench:
        try:
            bench.check()
            results = bench.measure()
        except FailedError as failure:
            sys.exit(f"Failed: {failure}")
        output = Path(folder) if options.smoke else options.output
        output.mkdir(exist_ok=True)
        click.echo(report.save(output, bench.facts(), results))


class Bench:
    """The databases, and what is done with them.

    :param options: of the command line
    :param folder: for wrk's and pgbench's scripts, and for what the contenders print
    """

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options, self.folder = options, folder
        self.contenders = [each for each in CONTENDERS if each.name in options.only]
        self.connections = CONNECTIONS[-1:] if options.smoke else CONNECTIONS

    @contextmanager
    def ready(self) -> Iterator["Bench"]:
        """Have a filled database that others are copied from, and drop all at the end."""
        app = create_app()
        with app.app_context():
            self.pool = app.config["POOL_SIZE"]
            embedded = app.extensions["embedded"]
            self.pgbench = PGBENCH if embedded is None else embedded.programs / "bin" / PGBENCH
            server = db.engine.execution_options(isolation_level="AUTOCOMMIT")
            self.template = f"{server.url.database}_bench"
            self.url = server.url.set(database=f"{self.template}_run")
            with server.connect() as self.connection:
                self._drop(self.template)
                locale = "TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C.UTF-8'"
                self._sql(f"CREATE DATABASE {self.template} {locale}")
                try:
                    self._fill(server.url.set(database=self.template))
                    yield self
                finally:
                    self._drop(f"{self.template}_run")
                    self._drop(self.template)
            server.dispose()

    def _sql(self, statement: str) -> Any:
        return self.connection.execute(text(statement))

    def _drop(self, database: str) -> None:
        self._sql(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")

    def _fill(self, url: URL) -> None:
        """Fill the database, and write the scripts, which name what is in it."""
        rows = self.options.rows
        app = create_app({"DATABASE_URL": url.render_as_string(hide_password=False)})
        with app.app_context():
            upgrade()
            add_owned_samples(rows)
            engine = db.engine.execution_options(isolation_level="AUTOCOMMIT")
            with engine.connect() as connection:
                connection.execute(text("VACUUM (FREEZE, ANALYZE)"))
                # Among those that FILTERS gives, some deep in the list and some less.
                wanted = (Cleaning.cleaning_type == "full_clean", Cleaning.price >= 40)
                places = select(Cleaning.price, Cleaning.id).where(*wanted)
                shuffled = places.order_by(func.md5(Cleaning.name)).limit(MANY)
                cursors = [write_cursor("price", place) for place in connection.execute(shuffled)]
                events = select(Cleaning.created_at, Cleaning.id).order_by(func.md5(Cleaning.name))
                times = [write_cursor("-time", at) for at in connection.execute(events.limit(MANY))]
            db.engine.dispose()
        asked = self.options.workloads
        workloads = make_workloads(rows, cursors, times)
        self.workloads = [name for name in workloads if any(part in name for part in asked)]
        for name in self.workloads:
            self._file(name, "lua").write_text(wrk_script(workloads[name]))
        self.limits = [name for name in pgbench_scripts(rows) if name in self.workloads]
        for name in self.limits:
            self._file(name, "sql").write_text(pgbench_scripts(rows)[name])

    def _file(self, name: str, kind: str) -> Path:
        plain = re.sub(r"\W+", "-", name)
        return self.folder / f"{plain}.{kind}"

    @contextmanager
    def _served(self, contender: Contender) -> Iterator[Server]:
        """Have the contender running on a fresh copy of the database."""
        self._copy()
        log = self._file(contender.name, "log")
        with served(contender, read(1), self.url, self.pool, log) as server:
            yield server

    def _copy(self) -> None:
        self._drop(f"{self.template}_run")
        self._sql(f"CREATE DATABASE {self.template}_run TEMPLATE {self.template}")

    def check(self) -> None:
        """Check that all contenders answer alike.

        :raises FailedError: when two do not
        """
        calls = checks(self.options.rows)
        first: tuple[str, list[Any]] | None = None
        for contender in self.contenders:
            if contender.answers_only:
                continue
            with self._served(contender) as server:
                answers = [list(_pages(server, call)) for call in calls]
            first = first or (contender.name, answers)
            for call, expected, answer in zip(calls, first[1], answers, strict=True):
                if answer != expected:
                    what = f"{call.method} {call.path} {call.text or ''}"[:300]
                    given = f"{first[0]}: {expected!s:.500}\n{contender.name}: {answer!s:.500}"
                    raise FailedError(f"{what}\n{given}")
            click.echo(f"{contender.name}: {len(calls)} answers as expected")

    def measure(self) -> list[dict[str, Any]]:
        """Give the figures of each workload, number of connections and contender, by round.

        :raises FailedError: when a request fails
        """
        results: dict[tuple[str, int, str], list[dict[str, float | None]]] = {}
        for number in range(self.options.rounds):
            # Another begins each round, lest one always follows the same other.
            shift = number % max(len(self.contenders), 1)
            for contender in [*self.contenders[shift:], *self.contenders[:shift]]:
                with self._served(contender) as server:
                    for workload in self.workloads:
                        if contender.answers_only in ("", workload):
                            for connections, figures in self._loads(server, workload):
                                key = (workload, connections, contender.name)
                                results.setdefault(key, []).append(figures)
                                _tell(number, *key, figures)
            if PGBENCH in self.options.only:
                self._copy()
                for workload in self.limits:
                    for connections in self.connections:
                        key = (workload, connections, PGBENCH)
                        figures = self._limit(workload, connections)
                        results.setdefault(key, []).append(figures)
                        _tell(number, *key, figures)
        return [
            {"workload": workload, "connections": connections, "contender": name, "rounds": rounds}
            for (workload, connections, name), rounds in results.items()
        ]

    def _loads(self, server: Server, workload: str) -> Iterator[tuple[int, dict[str, Any]]]:
        """Give the figures under each number of connections, after a second to get warm."""
        if not self.options.smoke:
            self._load(server, workload, max(self.connections), 1)
        for connections in self.connections:
            yield connections, self._load(server, workload, connections, self.options.seconds)

    def _load(
        self, server: Server, workload: str, connections: int, seconds: int
    ) -> dict[str, float]:
        script = self._file(workload, "lua")
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout=10s"]
        before = server.cpu_seconds()
        output = _run([*command, "-s", script, f"http://127.0.0.1:{server.port}"], seconds)
        spent = server.cpu_seconds() - before
        counted = json.loads(output.splitlines()[-1])
        if bad := {key: counted[key] for key in ("refused", "lost", "late") if counted[key]}:
            raise server.failure(f"{workload}, {connections} connections: {bad}")
        return {
            "rate": counted["requests"] / counted["seconds"],
            "p50": counted["p50"],
            "p99": counted["p99"],
            "cpu": spent / counted["requests"] * 1000,
        }

    def _limit(self, workload: str, connections: int) -> dict[str, float | None]:
        seconds = self.options.seconds
        _, parameters = db.engine.dialect.create_connect_args(self.url)
        password = {"PGPASSWORD": parameters.pop("password", "")}
        command = [self.pgbench, "-n", "-Mprepared", "-j1", f"-c{connections}", f"-T{seconds}"]
        script = self._file(workload, "sql")
        output = _run([*command, "-f", script, make_dsn(**parameters)], seconds, password)
        counted = re.search(r"^tps = ([0-9.]+)", output, re.MULTILINE)
        if counted is None:
            raise FailedError(f"pgbench, {workload}: {output}")
        return {"rate": float(counted[1]), "p50": None, "p99": None, "cpu": None}

    def facts(self) -> dict[str, Any]:
        """Give the machine, the versions and the size of it all."""
        postgresql = self._sql("SHOW server_version").scalar()
        size = {name: getattr(self.options, name) for name in ("rows", "rounds", "seconds")}
        return {**report.machine(), "PostgreSQL": postgresql, **size}


def _run(command: list[Any], seconds: int, environment: dict[str, str] | None = None) -> str:
    """Give what a load prints; it has to end soon after its time."""
    done = subprocess.run(
        command,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=seconds + 30,
    )
    if done.returncode != 0:
        raise FailedError(f"{Path(command[0]).name} failed: {done.stderr[:300].strip()}")
    return done.stdout


def _pages(server: Server, call: Call) -> Iterator[Any]:
    """Give the answer to a call, and those to the links to the next pages."""
    for _ in range(call.pages):
        status, headers, body = server.ask(call)
        yield _comparable(status, headers, body)
        if (link := _following(headers)) is None:
            break
        parts = urlsplit(link)
        call = replace(call, path=f"{parts.path}?{parts.query}")


def _following(headers: Message) -> str | None:
    link = re.fullmatch('<(.*)>; rel="next"', headers.get("Link", ""))
    return link[1] if link else None


def _comparable(status: int, headers: Message, body: bytes) -> Any:
    """Give what has to be the same: of a refusal only its status, since each has its own words."""
    if status >= 400:
        return status
    link = _following(headers)
    following = urlsplit(link) if link else None
    # A link may say what goes without saying.
    query = following and set(parse_qsl(following.query)) - {("limit", "20"), ("sort", "-id")}
    location = urlsplit(headers.get("Location", "")).path
    answer = json.loads(body, object_hook=_with_times)
    return location, following and following.path, query, status, answer


def _with_times(members: dict[str, Any]) -> dict[str, Any]:
    """Give an object with its times as such, and those of rows just written as the same."""
    names = ("created_at", "updated_at", "event_timestamp")
    times = {name: members[name] for name in names if name in members}
    return {**members, **{name: _time(text) for name, text in times.items()}}


def _time(text: Any) -> Any:
    if re.fullmatch(IN_UTC, str(text)) is None:
        return text
    time = datetime.fromisoformat(text)
    return "now" if abs(datetime.now(UTC) - time) < timedelta(hours=1) else time


def _tell(number: int, workload: str, connections: int, name: str, figures: Any) -> None:
    load = f"{workload}, {connections} connections, {name}"
    click.echo(f"round {number + 1}: {load}: {figures['rate']:.0f} requests/s")


if __name__ == "__main__":
    main()
