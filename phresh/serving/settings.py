"""gunicorn's settings: who honours each, so that none is ignored silently."""

import os
from types import SimpleNamespace
from typing import Any

from gunicorn.config import Config

from phresh.config import MOUNT

LOG = "phresh.serving.hooks.Logger"

# By gunicorn itself: its command line, its master, and what all its workers share.
BY_GUNICORN = frozenset(
    (
        *("config", "bind", "backlog", "workers", "worker_class", "timeout", "graceful_timeout"),
        *("reload", "reload_engine", "reload_extra_files", "spew", "check_config", "print_config"),
        *("preload_app", "reuse_port", "chdir", "daemon", "raw_env", "pidfile", "worker_tmp_dir"),
        *("user", "group", "umask", "initgroups", "pythonpath", "paste", "raw_paste_global_conf"),
        *("proc_name", "default_proc_name", "wsgi_app", "logger_class", "loglevel"),
        *("logconfig_dict", "capture_output", "enable_stdio_inheritance"),
        *("control_socket", "control_socket_mode", "control_socket_disable"),
        *("on_starting", "on_reload", "when_ready", "pre_fork", "post_fork", "post_worker_init"),
        *("worker_int", "worker_abort", "pre_exec", "child_exit", "worker_exit", "on_exit"),
        *("nworkers_changed", "dirty_apps", "dirty_workers", "dirty_timeout", "dirty_threads"),
        *("dirty_graceful_timeout", "on_dirty_starting", "dirty_post_fork", "dirty_worker_init"),
        "dirty_worker_exit",
    )
)
# By our worker.
BY_WORKER = frozenset(
    (
        *("worker_connections", "max_requests", "max_requests_jitter", "keepalive"),
        *("limit_request_line", "limit_request_fields", "limit_request_field_size"),
        *("pre_request", "post_request", "certfile", "keyfile", "ca_certs", "cert_reqs"),
        *("ciphers", "ssl_version", "ssl_context", "suppress_ragged_eofs"),
        "do_handshake_on_connect",  # always, in the green thread of the connection
    )
)
PROXIES = "Set TRUSTED_PROXIES to the number of proxies in front of Phresh."
STRICT = "The default worker accepts valid HTTP only."
HTTP1 = "The default worker serves HTTP/1.1 to WSGI apps."
OWN_LOG = "Phresh writes its own log (docs/operations.md)."
# By neither: with another value than these, our worker does not start. The first is the default.
REFUSED: dict[str, tuple[str, tuple[Any, ...]]] = {
    "forwarded_allow_ips": (PROXIES, ("127.0.0.1,::1", "")),
    "secure_scheme_headers": (PROXIES, ()),
    "forwarder_headers": (PROXIES, ()),
    "header_map": ("The default worker drops headers with underscores.", ()),
    "proxy_protocol": ("The default worker does not read the PROXY protocol.", ()),
    "proxy_allow_ips": ("The default worker does not read the PROXY protocol.", ()),
    "permit_obsolete_folding": (STRICT, ()),
    "permit_unconventional_http_method": (STRICT, ()),
    "permit_unconventional_http_version": (STRICT, ()),
    "strip_header_spaces": (STRICT, ()),
    "casefold_http_method": (STRICT, ()),
    "http_parser": ("The default worker has a parser of its own.", ()),
    "protocol": (HTTP1, ()),
    "uwsgi_allow_ips": (HTTP1, ()),
    "http_protocols": (HTTP1, ()),
    "http2_cleartext": (HTTP1, ()),
    "http2_initial_window_size": (HTTP1, ()),
    "http2_max_concurrent_streams": (HTTP1, ()),
    "http2_max_frame_size": (HTTP1, ()),
    "http2_max_header_list_size": (HTTP1, ()),
    "asgi_loop": (HTTP1, ()),
    "asgi_lifespan": (HTTP1, ()),
    "asgi_disconnect_grace_period": (HTTP1, ()),
    "websocket_max_message_size": (HTTP1, ()),
    "root_path": (HTTP1, ()),
    "threads": ("Set THREADS to the connections that a worker serves at once.", ()),
    "sendfile": ("The default worker never uses it.", (None, False)),
    "tmp_upload_dir": ("The default worker stores no uploads.", ()),
    "accesslog": (OWN_LOG, ()),
    "access_log_format": (OWN_LOG, ()),
    "disable_redirect_access_to_syslog": (OWN_LOG, ()),
    "errorlog": (OWN_LOG, ()),
    "logconfig": (OWN_LOG, ()),
    "logconfig_json": (OWN_LOG, ()),
    "syslog": (OWN_LOG, ()),
    "syslog_addr": (OWN_LOG, ()),
    "syslog_prefix": (OWN_LOG, ()),
    "syslog_facility": (OWN_LOG, ()),
    "statsd_host": (OWN_LOG, ()),
    "statsd_prefix": (OWN_LOG, ()),
    "dogstatsd_tags": (OWN_LOG, ()),
    "enable_backlog_metric": (OWN_LOG, ()),
}
# gunicorn applies these itself, unless its log is configured in a way that overrides them.
OVERRIDDEN_BY_LOG = (
    *("errorlog", "logconfig", "logconfig_json"),
    *("syslog", "syslog_addr", "syslog_prefix", "syslog_facility"),
)


def refuse_ignored(cfg: Config) -> None:
    """Refuse the settings that the default worker would ignore.

    :raises RuntimeError: which says the name of the setting, and what to do
    """
    defaults = Config()
    for name, (reason, accepted) in REFUSED.items():
        if name in OVERRIDDEN_BY_LOG and not cfg.logconfig_dict:
            continue
        setting = cfg.settings[name]
        values = [_validated(setting, value) for value in accepted]
        if setting.get() not in [*values, defaults.settings[name].get()]:
            raise RuntimeError(f"{name}: gunicorn's setting has no effect here. {reason}")
    if "FORWARDED_ALLOW_IPS" in os.environ:
        raise RuntimeError(f"FORWARDED_ALLOW_IPS: gunicorn's setting has no effect here. {PROXIES}")


def mount_point() -> str:
    """Return the path below which requests arrive, by ``SCRIPT_NAME``, which gunicorn reads too.

    :raises RuntimeError: when it is no path
    """
    text = os.environ.get("SCRIPT_NAME", "")
    if not MOUNT.fullmatch(text):
        raise RuntimeError(f"SCRIPT_NAME: Not a path like /phresh: {text[:100]!a}.")
    return text.rstrip("/")


def _validated(setting: Any, value: Any) -> Any:
    return setting.validator(value) if callable(setting.validator) else value


def with_request_hooks(worker: Any, app: Any) -> Any:
    """Return the app with gunicorn's hooks ``pre_request`` and ``post_request`` around it.

    Without such hooks it is the app itself, so that they cost nothing.
    """
    defaults, cfg = Config(), worker.cfg
    if all(
        cfg.settings[name].get() == defaults.settings[name].get()
        for name in ("pre_request", "post_request")
    ):
        return app

    def hooked(environ: Any, start_response: Any) -> Any:
        response = SimpleNamespace(status="", headers=[], response_length=0)

        def start(status: str, headers: Any, exc_info: Any = None) -> Any:
            response.status, response.headers = status, headers
            return start_response(status, headers, exc_info)

        request = _request(environ)
        cfg.pre_request(worker, request)
        try:
            parts = app(environ, start)
            try:
                body = b"".join(parts)
            finally:
                if hasattr(parts, "close"):
                    parts.close()
            response.response_length = len(body)
            return [body]
        finally:
            try:
                cfg.post_request(worker, request, environ, response)
            except Exception:
                worker.log.exception("Exception in post_request hook")

    return hooked


def _request(environ: Any) -> SimpleNamespace:
    """Return what gunicorn's hooks read of a request."""
    names = [name for name in environ if name.startswith("HTTP_")]
    headers = [(name[5:].replace("_", "-"), environ[name]) for name in names]
    return SimpleNamespace(
        method=environ["REQUEST_METHOD"],
        uri=environ["RAW_URI"],
        path=environ["PATH_INFO"],
        query=environ["QUERY_STRING"],
        fragment="",
        version=tuple(int(part) for part in environ["SERVER_PROTOCOL"][5:].split(".")),
        headers=headers,
        scheme=environ["wsgi.url_scheme"],
        peer_addr=(environ["REMOTE_ADDR"], environ["REMOTE_PORT"]),
        remote_addr=(environ["REMOTE_ADDR"], environ["REMOTE_PORT"]),
        body=environ["wsgi.input"],
    )
