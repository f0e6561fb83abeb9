"""Background jobs, run where a test wants them."""

import asyncio
from typing import Any

from phresh.jobs import worker
from phresh.jobs.tasks import TASKS


def run_jobs(app: Any) -> None:
    """Run every job that can run now, in a worker that then ends."""

    async def run() -> None:
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

    asyncio.run(run())
