"""Fixtures for background jobs: tasks of a test, and a worker that runs what is there."""

import pytest

from phresh.jobs.tasks import TASKS
from tests.tools.jobs import run_jobs


@pytest.fixture(autouse=True)
def _forget_tasks():
    """Forget the tasks that a test makes."""
    before = dict(TASKS)
    yield
    TASKS.clear()
    TASKS.update(before)


@pytest.fixture
def work(app):
    """Run every job that can run now, in a worker that then ends."""
    return lambda: run_jobs(app)
