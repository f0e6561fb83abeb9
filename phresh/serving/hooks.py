"""gunicorn's hooks (gunicorn.conf.py names them), for our worker and gunicorn's own alike."""

import gc
import logging
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import gevent
from gevent import monkey
from gunicorn import glogging
from sqlalchemy import URL

from phresh.config import without_secrets
from phresh.serving.logs import LoopHandler

CHECK_TIMEOUT = 60  # seconds to load configuration and code


class Logger(glogging.Logger):
    """Leaves the access log to the app, which knows the id of a request."""

    def setup(self, cfg: Any) -> None:
        """Configure the log, and apply ``--log-level``, which the configuration would override."""
        super().setup(cfg)
        if cfg.loglevel != cfg.settings["loglevel"].default:
            for logger in (logging.root, self.error_log):
                logger.setLevel(self.loglevel)

    def access(self, *_: Any) -> None:
        """Do nothing."""


def prepare_log(log: Any, database: URL | None) -> None:
    """Leave out of log records what no line shows, and log which database is configured.

    The former saves time for each record
    (https://docs.python.org/3/howto/logging.html#optimization).

    :param log: gunicorn's logger
    :param database: None for the embedded PostgreSQL, which ``flask serve`` has announced
    """
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None
    if database is not None:
        log.info("Database: %s", without_secrets(database))


def prepare_reload(server: Any) -> None:
    """Prepare SIGHUP and SIGUSR2 for new code, and SIGHUP for code that does not load.

    gunicorn promises the former of HUP. But what ``gunicorn.conf.py`` imports stays in the master,
    and so in the workers that it forks. And a configuration that is not valid, or code that does
    not load, would end the master.

    :param server: gunicorn's arbiter
    """
    handle, args = server.handle_hup, server.START_CTX["args"]
    # With python -m gunicorn, gunicorn would start itself by the path of that file, also on USR2:
    # its folder would hide modules of the standard library.
    program = Path(args[1])
    if program.name == "__main__.py":
        args[1:2] = ["-m", program.parent.name]

    def handle_hup() -> None:
        command = [*args, "--check-config"]
        try:
            checked = subprocess.run(
                command, capture_output=True, text=True, timeout=CHECK_TIMEOUT, check=False
            )
            is_valid, output = checked.returncode == 0, checked.stderr
        except (OSError, subprocess.TimeoutExpired) as error:
            is_valid, output = False, str(error)
        if not is_valid:
            server.log.error("Not reloaded, the workers continue as before: %s", output.strip())
            return
        for name in [name for name in sys.modules if name.partition(".")[0] == "phresh"]:
            del sys.modules[name]
        handle()

    server.handle_hup = handle_hup


def post_fork(_server: Any, _worker: Any) -> None:
    """Let a signal end a worker that is still starting.

    Until the worker sets its own handlers it has the master's, which lose the signal.
    """
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def post_worker_init(_worker: Any) -> None:
    """Connect the log with the event loop, where there is one, and freeze what is loaded."""
    if monkey.is_module_patched("socket"):
        for handler in logging.root.handlers:
            if isinstance(handler, LoopHandler):
                handler.defer(gevent.get_hub().loop.run_callback)
    # What is loaded by now stays. A collection that looks through all of it stops the worker for
    # 65 ms (https://docs.python.org/3/library/gc.html#gc.freeze).
    gc.collect()
    gc.freeze()


def child_exit(_server: Any, worker: Any) -> None:
    """Free the place of a worker that has ended, also of a killed one."""
    leave_board = getattr(worker, "leave_board", None)  # only our worker has one
    if leave_board is not None:
        leave_board()
