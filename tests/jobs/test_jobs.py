"""Background jobs: deferred with the transaction of a view, run until they succeed."""

import ast
import asyncio
import json
import logging
import re
import subprocess
import sys
from logging.config import dictConfig

import pytest
from croniter import croniter
from procrastinate.schema import SchemaManager
from sqlalchemy import create_engine, text

from phresh.config import ROOT
from phresh.jobs import worker
from phresh.jobs.tasks import TASKS, Task, task
from phresh.web.blueprint import Blueprint

URL = "/api/parcels/"


@pytest.fixture
def done():
    """What the task ``note`` was called with."""
    return []


@pytest.fixture
def note(done):
    @task
    def note(**values):
        done.append(values)

    return note


@pytest.fixture
def failing():
    @task
    def failing():
        raise RuntimeError("the mail server is away")

    return failing


@pytest.fixture
def client(make_app, note):
    """A client of an app with a view that defers a job, and one that fails after it has."""
    app = make_app()
    blp = Blueprint("parcels", __name__, url_prefix=URL)

    @blp.post("/")
    @blp.response(204)
    def send():
        note.defer(number=7)

    @blp.post("/failing/")
    @blp.response(204)
    def fail():
        note.defer(number=8)
        raise LookupError

    @blp.get("/")
    @blp.response(200)
    def read():
        note.defer(number=9)
        return {}

    app.config["PROPAGATE_EXCEPTIONS"] = False
    app.register_blueprint(blp)
    return app.test_client()


def jobs(sql):
    return [tuple(row) for row in sql("SELECT status, attempts FROM procrastinate_jobs")]


def test_a_job_is_there_when_the_view_has_committed_and_runs_once(client, sql, done, work):
    assert client.post(URL).status_code == 204
    assert done == []
    assert jobs(sql) == [("todo", 0)]
    work()
    work()
    assert done == [{"number": 7}]
    assert jobs(sql) == []


def test_no_job_is_left_of_a_view_that_fails(client, sql):
    assert client.post(f"{URL}failing/").status_code == 500
    assert jobs(sql) == []


def test_a_view_that_only_reads_can_defer_nothing(client, sql):
    assert client.get(URL).status_code == 500
    assert jobs(sql) == []


def test_the_lines_of_a_job_have_the_id_of_its_request(client, work, lines):
    request_id = client.post(URL).headers["X-Request-Id"]
    work()
    [line] = [line for line in lines() if line["message"] == "job"]
    assert (line["request_id"], line["attempt"]) == (request_id, 1)
    assert line["task"].endswith(".note")


def test_a_failed_job_runs_again_later_and_is_not_lost(app, failing, sql, work, lines):
    with app.app_context():
        failing.defer()
    waits = "SELECT round(extract(epoch FROM scheduled_at - now())) FROM procrastinate_jobs"
    due = []
    for attempt in range(1, Task.RETRIES + 2):
        work()
        [line] = [line for line in lines() if line["message"].startswith("job failed")][-1:]
        assert line["attempt"] == attempt
        assert "the mail server is away" in line["exception"]
        if attempt <= Task.RETRIES:
            assert jobs(sql) == [("todo", attempt)]
            assert line["level"] == "WARNING"
            due += [int(seconds) for (seconds,) in sql(waits)]
            sql("UPDATE procrastinate_jobs SET scheduled_at = now()")
    assert line["level"] == "ERROR"
    assert jobs(sql) == [("failed", Task.RETRIES + 1)]
    expected = [worker.FACTOR**attempt for attempt in range(1, Task.RETRIES + 1)]
    assert all(abs(got - want) <= 2 for got, want in zip(due, expected, strict=True)), due


def test_failed_jobs_are_listed_and_can_be_retried(app, failing, note, sql, work, run):
    with app.app_context():
        failing.defer()
        note.defer(secret="four cats on a roof")
    sql("UPDATE procrastinate_jobs SET attempts = :n WHERE task_name ~ 'failing'", n=Task.RETRIES)
    sql("UPDATE procrastinate_jobs SET scheduled_at = now() + '1 hour' WHERE task_name ~ 'note'")
    work()
    code, printed = run("jobs")
    first, second = printed.splitlines()
    assert code == 0
    assert re.fullmatch(r"\d+  failed  \S+\.failing  9 attempts", first)
    assert re.fullmatch(r"\d+  waiting  \S+\.note  0 attempts, next at [\d-]+ [\d:]+ UTC", second)
    job_id = first.split()[0]
    assert run("jobs", "retry", job_id) == (0, f"Job {job_id} waits for the worker.\n")
    assert run("jobs", "retry", job_id) == (1, "Error: There is no such failed job.\n")
    assert ("todo", Task.RETRIES + 2) in jobs(sql)


def test_a_job_of_a_newer_release_waits_for_a_worker_that_knows_its_task(app, note, sql, work):
    with app.app_context():
        note.defer()
    del TASKS[note.name]
    work()
    assert jobs(sql) == [("todo", 0)]


def test_each_task_of_the_code_is_served_under_its_name_and_has_a_valid_schedule(app):
    found = set()
    for path in (ROOT / "phresh").rglob("*.py"):
        module = ".".join(path.relative_to(ROOT / "phresh").with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            names = {getattr(getattr(each, "func", each), "id", "") for each in node.decorator_list}
            if "task" in names:
                found.add(f"{module}.{node.name}")
    assert "operations.housekeeping.remove_expired" in found
    queue = worker.make_queue(app)
    # procrastinate brings tasks of its own, which nothing defers.
    served = {made.name: made.queue for made in queue.tasks.values() if made.queue != "builtin"}
    assert served == {name: name for name in found | {worker.RETRY_STALLED}}
    scheduled = {name for name, _ in queue.periodic_registry.periodic_tasks}
    assert scheduled == {
        worker.RETRY_STALLED,
        *(each.name for each in TASKS.values() if each.schedule),
    }
    assert all(croniter.is_valid(each.schedule) for each in TASKS.values() if each.schedule)


def test_what_has_expired_is_deleted_by_the_clock(app, anna, sql, work):
    sql(
        "INSERT INTO tokens (hash, user_id, expires_at) VALUES (sha256('a'), :user, now())",
        user=anna.id,
    )
    with app.app_context():
        TASKS["operations.housekeeping.remove_expired"].defer()
    work()
    assert sql("SELECT count(*) FROM tokens") == [(1,)]


def test_what_serves_does_not_load_the_worker():
    code = "import sys, wsgi; print([name for name in sys.modules if name.startswith('procras')])"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# Workers that die


def retry_stalled(app):
    async def run():
        queue = worker.make_queue(app)
        async with queue.open_async():
            await worker._retry_stalled(type("Context", (), {"app": queue}), timestamp=0)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("heartbeat", "status"), [("now() - interval '31 seconds'", "todo"), ("now()", "doing")]
)
def test_a_job_of_a_dead_worker_runs_again(app, note, sql, heartbeat, status):
    with app.app_context():
        note.defer()
    sql(f"INSERT INTO procrastinate_workers (last_heartbeat) VALUES ({heartbeat})")
    worker_id = "(SELECT id FROM procrastinate_workers)"
    sql(f"UPDATE procrastinate_jobs SET status = 'doing', worker_id = {worker_id}")
    retry_stalled(app)
    assert [found for found, _ in jobs(sql)] == [status]


def test_a_job_whose_workers_die_each_time_fails_in_the_end(app, note, sql):
    with app.app_context():
        note.defer()
    for _ in range(Task.RETRIES + 1):
        sql("UPDATE procrastinate_jobs SET status = 'doing'")
        retry_stalled(app)
    assert jobs(sql) == [("failed", Task.RETRIES + 1)]


def test_failed_jobs_are_deleted_after_a_month(app, note, sql):
    with app.app_context():
        note.defer()
        note.defer()
    sql("UPDATE procrastinate_jobs SET status = 'doing'")
    sql("UPDATE procrastinate_jobs SET status = 'failed'")
    old = "at = at - interval '30 days 1 hour'"
    first = "SELECT min(id) FROM procrastinate_jobs"
    sql(f"UPDATE procrastinate_events SET {old} WHERE job_id = ({first})")
    retry_stalled(app)
    assert len(jobs(sql)) == 1


def test_two_workers_run_each_job_once(app, note, done, sql):
    with app.app_context():
        for number in range(30):
            note.defer(number=number)

    async def run():
        queues = [worker.make_queue(app) for _ in range(2)]
        for queue in queues:
            queue.periodic_registry.periodic_tasks.clear()
        async with queues[0].open_async(), queues[1].open_async():
            await asyncio.gather(
                *(
                    queue.run_worker_async(
                        queues=[note.name],
                        wait=False,
                        listen_notify=False,
                        install_signal_handlers=False,
                        concurrency=3,
                    )
                    for queue in queues
                )
            )

    asyncio.run(run())
    assert sorted(values["number"] for values in done) == list(range(30))
    assert set(jobs(sql)) == {("succeeded", 1)}


@pytest.fixture
def _restored_log():
    """Restore the log that a test configures as a worker does."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("procrastinate").setLevel(logging.NOTSET)


@pytest.mark.usefixtures("_restored_log")
def test_the_log_has_no_argument_of_a_job(failing, app, sql, work, capfd):
    with app.app_context():
        failing.defer(secret="four cats on a roof")  # which it does not take
    # procrastinate logs the last failure as an error, with the arguments.
    sql("UPDATE procrastinate_jobs SET attempts = :number", number=Task.RETRIES)
    dictConfig(worker.LOGGING)
    work()
    written = capfd.readouterr().err
    assert '"message": "job failed"' in written
    assert "cats" not in written


# The schema

SCHEMA = """
    SELECT 'function', concat_ws(' ', proname, pg_get_function_arguments(oid),
        pg_get_function_result(oid), prosrc) FROM pg_proc WHERE proname ~ '^procrastinate_'
    UNION ALL SELECT 'column', concat_ws(' ', table_name, column_name, data_type, is_nullable,
        column_default) FROM information_schema.columns WHERE table_name ~ '^procrastinate_'
    UNION ALL SELECT 'index', indexdef FROM pg_indexes WHERE tablename ~ '^procrastinate_'
    UNION ALL SELECT 'constraint', pg_get_constraintdef(oid) FROM pg_constraint
        WHERE conrelid::regclass::text ~ '^procrastinate_'
    UNION ALL SELECT 'trigger', pg_get_triggerdef(oid) FROM pg_trigger
        WHERE tgrelid::regclass::text ~ '^procrastinate_' AND NOT tgisinternal
    UNION ALL SELECT 'value', enumlabel FROM pg_enum
"""


def test_the_migration_makes_the_schema_of_the_installed_release(app, owner_engine, make_database):
    fresh = create_engine(make_database("schema"), isolation_level="AUTOCOMMIT")
    with fresh.connect() as connection:
        connection.exec_driver_sql(SchemaManager.get_schema().replace("%", "%%"))
        expected = {tuple(row) for row in connection.execute(text(SCHEMA))}
    fresh.dispose()
    with owner_engine.connect() as connection:
        found = {tuple(row) for row in connection.execute(text(SCHEMA))}
    assert expected - found == set()


def test_arguments_are_stored_as_they_are(app, note, sql):
    with app.app_context():
        note.defer(text="Zürich \u0001", number=1.5, nothing=None)
    [(stored,)] = sql("SELECT args::text FROM procrastinate_jobs")
    assert json.loads(stored) == {"text": "Zürich \u0001", "number": 1.5, "nothing": None}
