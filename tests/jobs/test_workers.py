"""Workers as processes: beside ``make run``, killed, and left without a database."""

import os
import signal

import pytest

from tests.tools.processes import (
    Served,
    copy_checkout,
    flask,
    open_folder,
    running_in,
    wait_until,
)

TASK = """

from pathlib import Path
from time import sleep

from phresh.jobs.tasks import task


@task
def hold(path):
    with Path(path).open("a") as file:
        file.write("began\\n")
    while not Path(path).with_suffix(".go").exists():
        sleep(0.05)
    with Path(path).open("a") as file:
        file.write("ended\\n")
"""


@pytest.fixture
def folder():
    with open_folder() as folder:
        yield folder


@pytest.fixture
def checkout(folder):
    """A checkout with a task that runs until a file is there."""
    checkout = copy_checkout(folder / "checkout")
    with (checkout / "wsgi.py").open("a") as file:
        file.write(TASK)
    return checkout


@pytest.fixture
def served(checkout):
    served = Served(checkout).wait(60)
    assert wait_until(lambda: workers(checkout))
    yield served
    if served.process.poll() is None:
        served.end(signal.SIGINT, group=True)
    else:
        served.process.communicate()


def named(checkout, name):
    return [int(line.split()[0]) for line in running_in(checkout) if name in line]


def workers(checkout):
    return named(checkout, "flask worker")


def supervisors(checkout):
    return named(checkout, "jobs/supervisor.py")


def sql(checkout, statement):
    done = flask(checkout, "psql", "-Atc", statement)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def defer(checkout, task, arguments="{}"):
    sql(
        checkout,
        "SELECT procrastinate_defer_jobs_v1(ARRAY[ROW("
        f"'{task}', '{task}', 0, NULL, NULL, '{arguments}', NULL)::procrastinate_job_to_defer_v1])",
    )


def hold(checkout, folder):
    """Have a job run, and return the file that has what it did."""
    path = folder / "held"
    defer(checkout, "wsgi.hold", f'{{"path": "{path}"}}')
    assert wait_until(lambda: path.exists() and path.read_text() == "began\n")
    return path


def waiting(checkout):
    return sql(checkout, "SELECT task_name FROM procrastinate_jobs WHERE task_name ~ 'hold'")


@pytest.mark.slow
def test_a_job_whose_worker_is_killed_runs_again_and_none_is_lost(checkout, served, folder):
    path = hold(checkout, folder)
    [killed] = workers(checkout)
    os.kill(killed, signal.SIGKILL)
    assert wait_until(lambda: workers(checkout) not in ([], [killed]))
    sql(checkout, "UPDATE procrastinate_workers SET last_heartbeat = now() - interval '1 minute'")
    defer(checkout, "jobs.worker.retry_stalled", '{"timestamp": 0}')
    assert wait_until(lambda: path.read_text() == "began\nbegan\n")
    path.with_suffix(".go").touch()
    assert wait_until(lambda: not waiting(checkout))
    assert path.read_text() == "began\nbegan\nended\n"


@pytest.mark.slow
def test_a_worker_that_is_asked_to_end_completes_its_job(checkout, served, folder):
    path = hold(checkout, folder)
    [worker] = workers(checkout)
    os.kill(worker, signal.SIGTERM)
    path.with_suffix(".go").touch()
    assert wait_until(lambda: worker not in workers(checkout))
    assert path.read_text() == "began\nended\n"
    assert waiting(checkout) == []


@pytest.mark.slow
def test_the_worker_of_serve_returns_after_postgresql_was_killed(checkout, served, folder):
    for process in named(checkout, "bin/postgres"):
        os.kill(process, signal.SIGKILL)
    path = folder / "held"
    path.with_suffix(".go").touch()
    assert wait_until(served.answers)
    defer(checkout, "wsgi.hold", f'{{"path": "{path}"}}')
    assert wait_until(lambda: path.exists() and path.read_text() == "began\nended\n", 60)


@pytest.mark.slow
def test_a_reload_of_the_server_starts_another_worker(checkout, served, folder):
    path = hold(checkout, folder)
    before = workers(checkout)
    os.kill(min(named(checkout, "gunicorn")), signal.SIGHUP)
    path.with_suffix(".go").touch()
    assert wait_until(lambda: workers(checkout) and workers(checkout) != before, 60)
    assert path.read_text() == "began\nended\n"
    assert served.answers()


@pytest.mark.slow
@pytest.mark.parametrize("who", ["make", "gunicorn", "supervisor"])
def test_no_worker_is_left_behind(checkout, served, who):
    if who == "make":
        _, output = served.end(signal.SIGTERM)
        assert "The worker has ended." in output
        assert workers(checkout) == supervisors(checkout) == []
        return
    killed = supervisors(checkout) if who == "supervisor" else named(checkout, "gunicorn")
    os.kill(min(killed), signal.SIGKILL)
    assert wait_until(lambda: not workers(checkout)), running_in(checkout)
    assert wait_until(lambda: not supervisors(checkout)), running_in(checkout)
    if who == "supervisor":
        assert served.answers()
