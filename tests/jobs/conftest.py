"""Fixtures for background jobs: tasks of a test, and a worker that runs what is there."""

import asyncio

import pytest

from phresh.jobs import worker
from phresh.jobs.tasks import TASKS


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

    async def run():
        queue = worker.make_queue(app)
        queue.periodic_registry.periodic_tasks.clear()
        async with queue.open_async():
            await queue.run_worker_async(
                queues=[*TASKS],
                wait=False,
                listen_notify=False,
                delete_jobs="successful",
                install_signal_handlers=False,
            )

    return lambda: asyncio.run(run())
