"""The worker beside the server that ``flask serve`` starts: it is kept running until that ends.

Each process holds the write end of the next one's standard input, which the kernel closes however a
process ends. So none is left behind, and no process needs to know the number of another.

It runs this file by itself, without the package around it, so that it takes little memory.
"""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress

WORKER = (sys.executable, "-m", "flask", "worker", "--ends-with-stdin")
DELAYS = (1, 2, 5, 10, 30)  # seconds until a worker that ended soon is started again
SOON = 60  # seconds
GRACE = 15  # seconds in which jobs can finish
PIPE = "PHRESH_WORKER_PIPE"  # the environment variable with the descriptor of the write end


def start() -> None:
    """Start it beside this process, and beside those that it forks or becomes by exec."""
    reader, writer = os.pipe()
    # In a session of its own: Ctrl-C is for the server, whose end it sees. It does not get the
    # locks on the embedded PostgreSQL: a new server need not wait for it.
    command = [sys.executable, "-I", __file__]
    subprocess.Popen(command, stdin=reader, start_new_session=True)
    os.close(reader)
    os.set_inheritable(writer, True)
    os.environ[PIPE] = str(writer)


def reload() -> None:
    """Restart the worker beside this server, if there is one, so that it loads its code again."""
    if PIPE in os.environ:
        with suppress(BrokenPipeError):  # it was killed
            os.write(int(os.environ[PIPE]), b"\n")


def watch_stdin(ended: Callable[[], object], told: Callable[[], object] = lambda: None) -> None:
    """Call one function when standard input is closed, another when something is written to it."""
    loop = asyncio.get_running_loop()

    def read() -> None:
        if os.read(sys.stdin.fileno(), 100):
            told()
        else:
            loop.remove_reader(sys.stdin)
            ended()

    loop.add_reader(sys.stdin, read)


async def keep() -> None:
    """Keep a worker running until standard input is closed."""
    loop, changed = asyncio.get_running_loop(), asyncio.Event()
    has_ended = False

    def end() -> None:
        nonlocal has_ended
        has_ended = True
        changed.set()

    watch_stdin(end, changed.set)
    failures = 0
    while not has_ended:
        changed.clear()
        worker = await asyncio.create_subprocess_exec(*WORKER, stdin=subprocess.PIPE)
        began = loop.time()
        working, changing = asyncio.create_task(worker.wait()), asyncio.create_task(changed.wait())
        await asyncio.wait({working, changing}, return_when=asyncio.FIRST_COMPLETED)
        if changed.is_set():
            worker.stdin.close()  # type: ignore[union-attr] # it is a pipe
            await asyncio.wait({working}, timeout=GRACE)
            if worker.returncode is None:
                worker.kill()
            await working
            continue
        failures = 0 if loop.time() - began > SOON else failures + 1
        delay = DELAYS[min(failures, len(DELAYS) - 1)]
        await asyncio.wait({changing}, timeout=delay)


if __name__ == "__main__":
    asyncio.run(keep())
