"""How Phresh is served; gunicorn reads this file, settings come from phresh/config.py."""

import sys

from phresh.config import ConfigError, read_settings, shown_url
from phresh.database import checks
from phresh.jobs import supervisor
from phresh.serving import hooks
from phresh.serving.requests import HEAD_MAX

try:
    _settings = read_settings()
except ConfigError as error:
    sys.exit(f"Error: {error.message}")
_host = _settings["HOST"]

bind = f"[{_host}]:{_settings['PORT']}" if ":" in _host else f"{_host}:{_settings['PORT']}"
workers = _settings["WORKERS"]
# gunicorn's own serve the same app: -k gevent, -k gthread --threads 4, -k sync.
worker_class = "phresh.serving.worker.Worker"
logger_class = "phresh.serving.hooks.Logger"
worker_connections = _settings["THREADS"]
control_socket_disable = True
# More than a request may wait for the database; compose and an orchestrator kill after 20.
graceful_timeout = 15
timeout = 30
keepalive = 5
limit_request_line = limit_request_field_size = HEAD_MAX  # gunicorn's own workers: 8190
forwarded_allow_ips = ""  # TRUSTED_PROXIES says which proxies the app trusts

# The app writes the access log, since it knows the request's id.
logconfig_dict = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"json": {"()": "phresh.serving.logs.JSONFormatter"}},
    "handlers": {"stderr": {"class": "phresh.serving.logs.LoopHandler", "formatter": "json"}},
    "root": {"level": "INFO", "handlers": ["stderr"]},
    "loggers": {"gunicorn.error": {"level": "INFO", "propagate": True}},
}

post_fork = hooks.post_fork
post_worker_init = hooks.post_worker_init
child_exit = hooks.child_exit


def on_reload(_server):
    """Reload the worker for background jobs too, where it is beside this server."""
    supervisor.reload()


def on_starting(server):
    """Prepare the log and SIGHUP, say which database is configured, and end if it is not suitable.

    One that can't be reached yet is checked later, on the first connection of each worker.
    """
    url = _settings["SQLALCHEMY_DATABASE_URI"]
    hooks.prepare_log(server.log, url)
    hooks.prepare_reload(server)
    if url is None:
        return
    is_reached, fault = checks.fault_at_start(url, _settings["DATABASE_TIMEOUT"])
    if is_reached and fault:
        server.log.error("%s: %s", shown_url(_settings, url), fault)
        sys.exit(1)
    elif fault:
        server.log.warning("The database can't be reached yet: %s", fault)
