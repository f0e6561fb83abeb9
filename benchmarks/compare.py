"""Compare Phresh with its peers: requests per second, latency and processor time.

Run it with ``make bench``. Each contender serves a copy of the same database, on the server that
the app would use, and receives the same requests from wrk. One contender runs at a time, in rounds,
so that a slow moment of the machine affects all of them. First, the responses are compared: all
contenders have to respond alike.
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
    REQUESTS,
    Call,
    calls_to_compare,
    make_workloads,
    pgbench_scripts,
    read,
    wrk_script,
)
from phresh import create_app
from phresh.cleanings.models import Cleaning
from phresh.database.base import db
from phresh.web.pages import encode_cursor

CONNECTIONS = (16, 64)
PGBENCH = "pgbench"
NAMES = [*(contender.name for contender in CONTENDERS), PGBENCH]
RESULTS = Path(__file__).parent / "results"
UTC_TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)"


def main() -> None:
    """Run the comparison, print the tables and save them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--smoke", action="store_true", help="measure for a second each, save nothing"
    )
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds (%(default)s)")
    parser.add_argument("--seconds", type=int, default=3, help="per measurement (%(default)s)")
    parser.add_argument(
        "--rows", type=int, default=100_000, help="number of cleanings (%(default)s)"
    )
    parser.add_argument("--only", nargs="+", default=NAMES, choices=NAMES, help="contenders to run")
    parser.add_argument(
        "--workloads", nargs="+", default=[""], help="run those with such a part in the name"
    )
    parser.add_argument(
        "--output", type=Path, default=RESULTS, help="folder to save to (%(default)s)"
    )
    options = parser.parse_args()
    if options.smoke:
        options.rounds, options.seconds, options.rows = 1, 1, 10_000
    if shutil.which("wrk") is None:
        sys.exit("wrk is not installed. On Debian: apt-get install wrk")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that all servers are stopped
    with TemporaryDirectory() as folder, Bench(options, Path(folder)).prepared() as bench:
        try:
            bench.check()
            results = bench.measure()
        except FailedError as error:
            sys.exit(f"Failed: {error}")
        output = Path(folder) if options.smoke else options.output
        output.mkdir(exist_ok=True)
        click.echo(report.save(output, bench.facts(), results))


class Bench:
    """The databases of the benchmark, and the steps that use them.

    :param options: the parsed command line
    :param folder: for the scripts of wrk and pgbench, and for the logs of the contenders
    """

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options, self.folder = options, folder
        self.contenders = [each for each in CONTENDERS if each.name in options.only]
        self.connections = CONNECTIONS[:1] if options.smoke else CONNECTIONS

    @contextmanager
    def prepared(self) -> Iterator["Bench"]:
        """Make and fill the database that is copied for each contender; drop all at the end."""
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
        """Fill the database, and write the scripts, which contain ids and cursors from it."""
        rows = self.options.rows
        app = create_app({"DATABASE_URL": url.render_as_string(hide_password=False)})
        with app.app_context():
            upgrade()
            add_owned_samples(rows)
            engine = db.engine.execution_options(isolation_level="AUTOCOMMIT")
            with engine.connect() as connection:
                connection.execute(text("VACUUM (FREEZE, ANALYZE)"))
                # Cursors at random depths of the list that FILTERS selects.
                conditions = (Cleaning.cleaning_type == "full_clean", Cleaning.price >= 40)
                positions = select(Cleaning.price, Cleaning.id).where(*conditions)
                shuffled = positions.order_by(func.md5(Cleaning.name)).limit(REQUESTS)
                cursors = [
                    encode_cursor("price", position) for position in connection.execute(shuffled)
                ]
                events = select(Cleaning.created_at, Cleaning.id).order_by(func.md5(Cleaning.name))
                times = [
                    encode_cursor("-time", at) for at in connection.execute(events.limit(REQUESTS))
                ]
            db.engine.dispose()
        selected = self.options.workloads
        workloads = make_workloads(rows, cursors, times)
        self.workloads = [name for name in workloads if any(part in name for part in selected)]
        for name in self.workloads:
            self._file(name, "lua").write_text(wrk_script(workloads[name]))
        self.pgbench_workloads = [name for name in pgbench_scripts(rows) if name in self.workloads]
        for name in self.pgbench_workloads:
            self._file(name, "sql").write_text(pgbench_scripts(rows)[name])

    def _file(self, name: str, extension: str) -> Path:
        safe_name = re.sub(r"\W+", "-", name)
        return self.folder / f"{safe_name}.{extension}"

    @contextmanager
    def _served(self, contender: Contender) -> Iterator[Server]:
        """Serve the contender on a new copy of the database."""
        self._copy()
        log = self._file(contender.name, "log")
        with served(contender, read(1), self.url, self.pool, log) as server:
            yield server

    def _copy(self) -> None:
        self._drop(f"{self.template}_run")
        self._sql(f"CREATE DATABASE {self.template}_run TEMPLATE {self.template}")

    def check(self) -> None:
        """Check that all contenders respond alike.

        :raises FailedError: when two of them do not
        """
        calls = calls_to_compare(self.options.rows)
        first: tuple[str, list[Any]] | None = None
        for contender in self.contenders:
            if contender.only_workload:
                continue
            with self._served(contender) as server:
                responses = [list(_pages(server, call)) for call in calls]
            first = first or (contender.name, responses)
            for call, expected, response in zip(calls, first[1], responses, strict=True):
                if response != expected:
                    request = f"{call.method} {call.path} {call.text or ''}"[:300]
                    difference = (
                        f"{first[0]}: {expected!s:.500}\n{contender.name}: {response!s:.500}"
                    )
                    raise FailedError(f"{request}\n{difference}")
            click.echo(f"{contender.name}: {len(calls)} responses as expected")

    def measure(self) -> list[dict[str, Any]]:
        """Return the figures of each round, by workload, number of connections and contender.

        :raises FailedError: when a request fails
        """
        results: dict[tuple[str, int, str], list[dict[str, float | None]]] = {}
        for number in range(self.options.rounds):
            # Each round begins with another contender, so that none always follows the same one.
            shift = number % max(len(self.contenders), 1)
            for contender in [*self.contenders[shift:], *self.contenders[:shift]]:
                with self._served(contender) as server:
                    for workload in self.workloads:
                        if contender.only_workload in ("", workload):
                            for connections, figures in self._measure_with_wrk(server, workload):
                                key = (workload, connections, contender.name)
                                results.setdefault(key, []).append(figures)
                                _print_rate(number, *key, figures)
            if PGBENCH in self.options.only:
                self._copy()
                for workload in self.pgbench_workloads:
                    for connections in self.connections:
                        key = (workload, connections, PGBENCH)
                        figures = self._measure_with_pgbench(workload, connections)
                        results.setdefault(key, []).append(figures)
                        _print_rate(number, *key, figures)
        return [
            {"workload": workload, "connections": connections, "contender": name, "rounds": rounds}
            for (workload, connections, name), rounds in results.items()
        ]

    def _measure_with_wrk(
        self, server: Server, workload: str
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the figures for each number of connections, after a second of warm-up."""
        if not self.options.smoke:
            self._run_wrk(server, workload, max(self.connections), 1)
        for connections in self.connections:
            yield connections, self._run_wrk(server, workload, connections, self.options.seconds)

    def _run_wrk(
        self, server: Server, workload: str, connections: int, seconds: int
    ) -> dict[str, float]:
        script = self._file(workload, "lua")
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout=10s"]
        before = server.cpu_seconds()
        output = _run([*command, "-s", script, f"http://127.0.0.1:{server.port}"], seconds)
        cpu_seconds = server.cpu_seconds() - before
        measured = json.loads(output.splitlines()[-1])
        if failures := {
            key: measured[key]
            for key in ("bad_status", "socket_errors", "timeouts")
            if measured[key]
        }:
            raise server.failure(f"{workload}, {connections} connections: {failures}")
        if not measured["requests"]:
            raise server.failure(f"{workload}, {connections} connections: no response in time")
        return {
            "rate": measured["requests"] / measured["seconds"],
            "p50": measured["p50"],
            "p99": measured["p99"],
            "cpu": cpu_seconds / measured["requests"] * 1000,
        }

    def _measure_with_pgbench(self, workload: str, connections: int) -> dict[str, float | None]:
        seconds = self.options.seconds
        _, parameters = db.engine.dialect.create_connect_args(self.url)
        password = {"PGPASSWORD": parameters.pop("password", "")}
        command = [self.pgbench, "-n", "-Mprepared", "-j1", f"-c{connections}", f"-T{seconds}"]
        script = self._file(workload, "sql")
        output = _run([*command, "-f", script, make_dsn(**parameters)], seconds, password)
        measured = re.search(r"^tps = ([0-9.]+)", output, re.MULTILINE)
        if measured is None:
            raise FailedError(f"pgbench, {workload}: {output}")
        return {"rate": float(measured[1]), "p50": None, "p99": None, "cpu": None}

    def facts(self) -> dict[str, Any]:
        """Return the machine, the versions of all software and the size of the run."""
        postgresql = self._sql("SHOW server_version").scalar()
        size = {name: getattr(self.options, name) for name in ("rows", "rounds", "seconds")}
        return {**report.machine(), "PostgreSQL": postgresql, **size}


def _run(command: list[Any], seconds: int, environment: dict[str, str] | None = None) -> str:
    """Run a load generator for that many seconds and return its output."""
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
    """Yield the response to a call, and those to the links to the next pages."""
    for _ in range(call.pages):
        status, headers, body = server.send(call)
        yield _comparable(status, headers, body)
        if (link := _next_link(headers)) is None:
            break
        parts = urlsplit(link)
        call = replace(call, path=f"{parts.path}?{parts.query}")


def _next_link(headers: Message) -> str | None:
    link = re.fullmatch('<(.*)>; rel="next"', headers.get("Link", ""))
    return link[1] if link else None


def _comparable(status: int, headers: Message, body: bytes) -> Any:
    """Return what must be equal: for an error only its status, because error texts differ."""
    if status >= 400:
        return status
    link = _next_link(headers)
    next_url = urlsplit(link) if link else None
    # A link may contain parameters that have their default value.
    query = next_url and set(parse_qsl(next_url.query)) - {("limit", "20"), ("sort", "-id")}
    location = urlsplit(headers.get("Location", "")).path
    response = json.loads(body, object_hook=_with_times)
    return location, next_url and next_url.path, query, status, response


def _with_times(members: dict[str, Any]) -> dict[str, Any]:
    """Return an object with its times parsed; those of rows that were just written are equal."""
    names = ("created_at", "updated_at", "event_timestamp")
    times = {name: members[name] for name in names if name in members}
    return {**members, **{name: _time(text) for name, text in times.items()}}


def _time(text: Any) -> Any:
    if re.fullmatch(UTC_TIME, str(text)) is None:
        return text
    time = datetime.fromisoformat(text)
    return "now" if abs(datetime.now(UTC) - time) < timedelta(hours=1) else time


def _print_rate(number: int, workload: str, connections: int, name: str, figures: Any) -> None:
    load = f"{workload}, {connections} connections, {name}"
    click.echo(f"round {number + 1}: {load}: {figures['rate']:.0f} requests/s")


if __name__ == "__main__":
    main()
