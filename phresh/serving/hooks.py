"""gunicorn's hooks (gunicorn.conf.py names them), for our worker and gunicorn's own alike."""

import gc
import logging
import signal
from typing import Any

import gevent
from gevent import monkey
from gunicorn import glogging
from sqlalchemy import URL

from phresh.config import without_secrets
from phresh.serving.logs import LoopHandler


class Logger(glogging.Logger):
    """Leaves the access log to the app, which knows the id of a request."""

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
