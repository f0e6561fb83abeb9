"""The worker, which runs background jobs: procrastinate with the tasks of Phresh.

It ends with an error when it loses the database, and is to be started again, as ``flask serve``,
compose and systemd do. A job that a worker was running when it died runs again once no heartbeat
has come from that worker for :data:`STALLED` seconds.
"""

import asyncio
import logging
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from logging.config import dictConfig
from typing import Any

import procrastinate
from flask import Flask, g
from procrastinate.exceptions import ConnectorException
from procrastinate.jobs import Job, Status

from phresh.database.base import db
from phresh.jobs.supervisor import watch_stdin
from phresh.jobs.tasks import TASKS, Task

STALLED = 30  # seconds
FAILED_KEPT = 30 * 24  # hours
# Seconds between looks for jobs whose time has come; of new ones, PostgreSQL notifies the worker.
POLL = 5
FACTOR = 3  # of the seconds before the next try: 3, 9, 27 ..., in all 2.7 hours

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"json": {"()": "phresh.serving.logs.JSONFormatter"}},
    "filters": {"values": {"()": "phresh.jobs.worker.WithoutValues"}},
    "handlers": {
        "stderr": {"class": "logging.StreamHandler", "formatter": "json", "filters": ["values"]}
    },
    "root": {"level": "INFO", "handlers": ["stderr"]},
    "loggers": {"procrastinate": {"level": "WARNING"}},
}

log = logging.getLogger("phresh.jobs")


class WithoutValues(logging.Filter):
    """Leaves out the lines of procrastinate that have the arguments of a job; ours say the rest."""

    def filter(self, record: logging.LogRecord) -> bool:  # noqa: D102
        return not hasattr(record, "job")


class WorkerError(Exception):
    """The worker has ended and was not asked to."""


def run(app: Flask, *, concurrency: int, ends_with_stdin: bool = False) -> None:
    """Run jobs until SIGTERM or SIGINT, which lets those that run finish.

    :param concurrency: jobs at once, each in a thread of its own
    :param ends_with_stdin: end also when standard input is closed
    :raises WorkerError: when the worker ends by itself
    """
    dictConfig(LOGGING)
    asyncio.run(_run(app, concurrency, ends_with_stdin=ends_with_stdin))


async def _run(app: Flask, concurrency: int, *, ends_with_stdin: bool) -> None:
    asked = asyncio.Event()
    if ends_with_stdin:
        watch_stdin(asked.set)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, asked.set)
    jobs = make_queue(app, concurrency)
    async with jobs.open_async():
        working = asyncio.create_task(
            jobs.run_worker_async(
                queues=[*TASKS, RETRY_STALLED],
                concurrency=concurrency,
                listen_notify=app.config["PREPARED_STATEMENTS"],
                fetch_job_polling_interval=POLL,
                delete_jobs="successful",
                install_signal_handlers=False,
                stalled_worker_timeout=STALLED,
            )
        )
        log.info("The worker runs jobs of: %s", ", ".join(sorted(TASKS)))
        await asyncio.wait(
            {working, asyncio.create_task(asked.wait())}, return_when=asyncio.FIRST_COMPLETED
        )
        if not asked.is_set():
            with suppress(ConnectorException):
                await working
            raise WorkerError("The worker has lost the database.")
        working.cancel()
        with suppress(asyncio.CancelledError):
            await working
    log.info("The worker has ended.")


def make_queue(app: Flask, concurrency: int = 1) -> procrastinate.App:
    """Return procrastinate's app with the tasks of Phresh, on the database of the app."""
    with app.app_context():
        _, parameters = db.engine.dialect.create_connect_args(db.engine.url)
    parameters.setdefault("application_name", "phresh worker")
    parameters.setdefault("connect_timeout", app.config["CONNECT_TIMEOUT"])
    if not app.config["PREPARED_STATEMENTS"]:
        parameters["prepare_threshold"] = None
    jobs = procrastinate.App(
        connector=procrastinate.PsycopgConnector(
            kwargs=parameters, min_size=1, max_size=concurrency + 2
        )
    )
    retry = procrastinate.RetryStrategy(max_attempts=Task.RETRIES, exponential_wait=FACTOR)
    for task in TASKS.values():
        made: Any = jobs.task(name=task.name, queue=task.name, retry=retry, pass_context=True)
        added = made(_runner(app, task))
        if task.schedule is not None:
            jobs.periodic(cron=task.schedule)(added)
    stalled = jobs.task(name=RETRY_STALLED, queue=RETRY_STALLED, pass_context=True)
    jobs.periodic(cron="* * * * *")(stalled(_retry_stalled))
    return jobs


def _runner(app: Flask, task: Task) -> Callable[..., None]:
    """Return what runs a job of a task, in an app context of its own, and logs how it ended."""

    def run_job(context: procrastinate.JobContext, **arguments: Any) -> None:
        job = context.job
        arguments.pop("timestamp", None)  # of the clock
        with app.app_context():
            g.request_id = arguments.pop("request_id", None)
            began = time.monotonic()
            fields = _fields(job)
            try:
                task.function(**arguments)
            except Exception:
                last = job.attempts >= task.RETRIES
                level = logging.ERROR if last else logging.WARNING
                log.log(
                    *(level, "job failed" if last else "job failed, and will run again"),
                    exc_info=True,
                    extra={"fields": fields},
                )
                raise
            fields["duration_ms"] = round((time.monotonic() - began) * 1000, 1)
            log.info("job", extra={"fields": fields})

    return run_job


def _fields(job: Job) -> dict[str, Any]:
    """Return what the log says of a job: not its arguments."""
    return {"task": job.task_name, "job_id": job.id, "attempt": job.attempts + 1}


RETRY_STALLED = "jobs.worker.retry_stalled"


async def _retry_stalled(context: procrastinate.JobContext, **_: Any) -> None:
    """Retry the jobs of dead workers, and delete what failed long ago."""
    manager = context.app.job_manager
    for job in await manager.get_stalled_jobs(seconds_since_heartbeat=STALLED):
        await _retry(manager, job)
    await manager.delete_old_jobs(
        nb_hours=FAILED_KEPT, include_failed=True, include_cancelled=True, include_aborted=True
    )


async def _retry(manager: Any, job: Job) -> None:
    fields = _fields(job)
    if job.attempts >= Task.RETRIES:
        log.error("job failed: its worker died", extra={"fields": fields})
        await manager.finish_job(job=job, status=Status.FAILED, delete_job=False)
    else:
        log.warning("job of a dead worker, will run again", extra={"fields": fields})
        await manager.retry_job(job=job)
