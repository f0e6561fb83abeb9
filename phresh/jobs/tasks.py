"""Tasks: what a worker can run, and how a view leaves it a job.

    @task
    def send_receipt(cleaning_id: int) -> None:
        ...

    send_receipt.defer(cleaning_id=7)

A job is a row that the view's own transaction writes: it is there if and only if what the view has
written is. procrastinate runs it (phresh/jobs/worker.py), which no request needs to import.
"""

import json
from collections.abc import Callable
from typing import Any, overload

from flask import g, has_app_context

from phresh.database.transactions import fetch
from phresh.jobs import queries

TASKS: dict[str, "Task"] = {}


class Task:
    """A function that a worker runs.

    A job runs until it succeeds, 9 times at most, within 3 hours. It can run twice: a worker that
    dies in the middle of a job leaves it to another one.

    :param function: takes values of JSON by keyword
    :param schedule: when to run it by the clock, as the five fields of cron, in UTC; None: when it
        is deferred
    """

    RETRIES = 8

    def __init__(self, function: Callable[..., None], schedule: str | None) -> None:
        self.function = function
        self.schedule = schedule
        # Under this name jobs are stored: when it changes, those that wait are never run.
        self.name = f"{function.__module__.removeprefix('phresh.')}.{function.__name__}"

    def __call__(self, **arguments: Any) -> None:
        """Do the work now."""
        self.function(**arguments)

    def defer(self, **arguments: Any) -> None:
        """Leave a job to the worker, in the view's transaction.

        :param arguments: of the function; values of JSON, and no secrets: they are stored as they
            are until the job has succeeded
        """
        if has_app_context() and (request_id := g.get("request_id")):
            arguments["request_id"] = request_id
        fetch(queries.deferred_job(task=self.name, arguments=json.dumps(arguments)))


@overload
def task(function: Callable[..., None]) -> Task: ...


@overload
def task(*, schedule: str) -> Callable[[Callable[..., None]], Task]: ...


def task(function: Callable[..., None] | None = None, *, schedule: str | None = None) -> Any:
    """Make a task of a function.

    :param schedule: see :class:`Task`
    """

    def make(function: Callable[..., None]) -> Task:
        made = Task(function, schedule)
        TASKS[made.name] = made
        return made

    return make if function is None else make(function)
