"""How Phresh is served; gunicorn reads this file, settings come from phresh/config.py."""

import gc
import logging
import signal

import gevent

from phresh.config import read_settings
from phresh.db import bound_requests, shown

_settings = read_settings()
_host = _settings["HOST"]

bind = f"[{_host}]:{_settings['PORT']}" if ":" in _host else f"{_host}:{_settings['PORT']}"
workers = _settings["WORKERS"]
worker_class = "phresh.worker.Worker"
logger_class = "phresh.worker.Logger"
worker_connections = _settings["THREADS"]
control_socket_disable = True
# More than a request may wait for the database; compose and an orchestrator kill after 20.
graceful_timeout = 15
timeout = 30
keepalive = 5
forwarded_allow_ips = ""  # TRUSTED_PROXIES says whom the app believes

# What no line tells need not be found out for each
# (https://docs.python.org/3/howto/logging.html#optimization).
logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
logging._srcfile = None

# The app writes the access log, since it knows the request's id.
logconfig_dict = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"json": {"()": "phresh.logs.JSONFormatter"}},
    "handlers": {"stderr": {"class": "phresh.logs.LoopHandler", "formatter": "json"}},
    "root": {"level": "INFO", "handlers": ["stderr"]},
    "loggers": {"gunicorn.error": {"level": "INFO", "propagate": True}},
}


def on_starting(server):
    """Say where the data is."""
    if _settings["SQLALCHEMY_DATABASE_URI"] is not None:
        server.log.info("Database: %s", shown(_settings["SQLALCHEMY_DATABASE_URI"]))


def post_fork(_server, _worker):
    """End a worker that is told to while it still boots.

    Until the gevent worker sets its own handlers it has the master's, which lose the signal.
    """
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def child_exit(_server, worker):
    """Leave nothing to a worker that is gone, killed ones too."""
    worker.leave_board()


def post_worker_init(worker):
    """Bound what a request waits for, only here, and fit worker, app and log together."""
    bound_requests(worker.wsgi)
    worker.body_max = worker.wsgi.config["MAX_CONTENT_LENGTH"]
    worker.wsgi.extensions["passwords"].defer(gevent.get_hub().threadpool.apply)
    for handler in logging.root.handlers:
        handler.defer(gevent.get_hub().loop.run_callback)
    # What is loaded by now stays; a collection that looks through all of it stops the worker for
    # 65 ms (https://docs.python.org/3/library/gc.html#gc.freeze).
    gc.collect()
    gc.freeze()
