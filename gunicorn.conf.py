"""How Phresh is served; gunicorn reads this file, settings come from phresh/config.py."""

import signal

from phresh.config import read_settings
from phresh.db import shown, wait_at_most

_settings = read_settings()
_host = _settings["HOST"]

bind = f"[{_host}]:{_settings['PORT']}" if ":" in _host else f"{_host}:{_settings['PORT']}"
workers = _settings["WORKERS"]
worker_class = "gevent"  # waits for PostgreSQL without holding a thread: db.wait_at_most
control_socket_disable = True
graceful_timeout = 15
timeout = 30
keepalive = 5
accesslog = "-"


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


def post_worker_init(_worker):
    """Bound every wait for the database; here, since COPY in the flask commands needs none."""
    wait_at_most(_settings["DATABASE_TIMEOUT"])
