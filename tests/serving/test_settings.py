"""gunicorn's settings: each is honoured, or refused by its name; none is ignored silently."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from gunicorn.config import KNOWN_SETTINGS, Config

from phresh.serving.settings import (
    BY_GUNICORN,
    BY_WORKER,
    REFUSED,
    mount_point,
    refuse_ignored,
)
from tests.tools.cluster import Phresh, are_running
from tests.tools.processes import copy_checkout, environment, free_port, wait_until
from tests.tools.raw_http import RawConnection, request

NO_DATABASE = "postgresql://127.0.0.1:1/none"
PID_ROUTE = 'import os\napp.add_url_rule("/pid", "pid", lambda: str(os.getpid()))\n'
# Of each type of gunicorn's settings, one that is not the default.
OTHERS = {
    "forwarded_allow_ips": "*",
    "secure_scheme_headers": {},
    "forwarder_headers": "X",
    "header_map": "refuse",
    "proxy_protocol": "auto",
    "proxy_allow_ips": "*",
    "uwsgi_allow_ips": "*",
    "http_parser": "python",
    "protocol": "uwsgi",
    "http_protocols": "h2,h1",
    "http2_cleartext": "upgrade",
    "asgi_loop": "asyncio",
    "asgi_lifespan": "off",
    "tmp_upload_dir": "uploads",
    "logconfig": "log.ini",
    "logconfig_json": "log.json",
    "syslog_addr": "udp://localhost:515",
    "statsd_host": "localhost:1",
    "sendfile": True,
}


def test_every_setting_of_gunicorn_is_honoured_or_refused():
    names = {setting.name for setting in KNOWN_SETTINGS}
    assert BY_GUNICORN | BY_WORKER | REFUSED.keys() == names
    assert len(BY_GUNICORN) + len(BY_WORKER) + len(REFUSED) == len(names)


def config(**settings):
    config = Config()
    config.set("logconfig_dict", {"version": 1})
    for name, value in settings.items():
        config.set(name, value)
    return config


@pytest.mark.parametrize("name", REFUSED)
def test_a_setting_without_effect_is_refused_by_name(monkeypatch, name):
    monkeypatch.delenv("FORWARDED_ALLOW_IPS", raising=False)
    default = config().settings[name].default
    other = OTHERS.get(name, not default if isinstance(default, bool) else None)
    if other is None:
        other = default + 1 if isinstance(default, int) else "other"
    refuse_ignored(config())
    with pytest.raises(RuntimeError, match=f"^{name}: .*[.]$"):
        refuse_ignored(config(**{name: other}))


def test_the_log_of_gunicorn_can_be_used_without_that_of_phresh():
    without = Config()
    without.set("errorlog", "file")
    refuse_ignored(without)


def test_trusted_addresses_in_the_environment_are_refused(monkeypatch):
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")
    with pytest.raises(RuntimeError, match=r"^FORWARDED_ALLOW_IPS: "):
        refuse_ignored(config(forwarded_allow_ips=""))


@pytest.mark.parametrize("path", ["", "/", "/phresh", "/phresh/", "/a-b/c.d_e~"])
def test_script_name_is_where_the_api_is_mounted(monkeypatch, path):
    monkeypatch.setenv("SCRIPT_NAME", path)
    assert mount_point() == path.rstrip("/")


@pytest.mark.parametrize(
    "path", ["phresh", "//phresh", "/a b", "/a//b", "/..", "http://a", "/\u00e9"]
)
def test_script_name_that_is_no_path_is_refused(monkeypatch, path):
    monkeypatch.setenv("SCRIPT_NAME", path)
    with pytest.raises(RuntimeError, match=r"^SCRIPT_NAME: Not a path like /phresh: "):
        mount_point()


# With gunicorn


@pytest.fixture
def checkout(tmp_path):
    checkout = copy_checkout(tmp_path / "checkout")
    with (checkout / "wsgi.py").open("a") as file:
        file.write(PID_ROUTE)
    return checkout


@pytest.fixture
def serve(checkout):
    started = []

    def serve(*arguments, **settings):
        server = ("gunicorn", "-c", "gunicorn.conf.py", *arguments, "{app}")
        settings = {"WORKERS": "1", **settings}
        started.append(Phresh(checkout, NO_DATABASE, server=server, **settings))
        return started[-1]

    yield serve
    for served in started:
        assert served.stop() == 0
        assert "Traceback" not in served.log.read_text()


def messages(served):
    return [json.loads(line)["message"] for line in served.log.read_text().splitlines()]


def test_the_start_is_refused_in_one_line(checkout):
    command = [sys.executable, "-m", "gunicorn", "-c", "gunicorn.conf.py"]
    settings = environment(DATABASE_URL=NO_DATABASE, PORT=str(free_port()))
    refused = subprocess.run(
        [*command, "--proxy-protocol", "auto", "wsgi:app"],
        cwd=checkout,
        env=settings,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert refused.returncode == 1
    assert "\nError: proxy_protocol: " in refused.stderr
    assert "Traceback" not in refused.stderr


def test_script_name_mounts_the_api_under_a_path(serve):
    served = serve("--env", "SCRIPT_NAME=/phresh")
    assert served.send("GET", "/phresh/healthz").status == 200
    assert served.send("GET", "/phresh/").json["docs"] == "/phresh/docs/"
    assert served.send("GET", "/phresh").json["docs"] == "/phresh/docs/"
    # A health check on the machine need not know the mount.
    assert served.send("GET", "/").json["health"] == "/phresh/healthz"


def test_a_worker_is_replaced_after_max_requests_without_a_lost_request(serve):
    served = serve("--max-requests", "10", "--workers", "2")
    responses = []

    def has_third():
        responses.append(served.send("GET", "/pid"))
        return len({response.body for response in responses}) > 2

    assert wait_until(has_third)
    assert {response.status for response in responses} == {200}
    assert "Restarting the worker after 10 requests." in messages(served)


def test_keep_alive_0_closes_each_connection_after_its_response(serve):
    served = serve("--keep-alive", "0")
    connection = RawConnection(served.port)
    time.sleep(1.5)  # the worker looks for idle connections once a second
    response = connection.send(request() * 2).read_response()
    assert (response.status, response.headers["Connection"]) == (200, "close")
    assert connection.is_closed()
    connection.close()


HOOKS = """
def pre_request(worker, req):
    worker.log.info("Before %s %s %s", req.method, req.path, dict(req.headers)["HOST"])


def post_request(worker, req, environ, resp):
    worker.log.info("After %s %s %s", req.uri, resp.status, resp.response_length)
"""


def test_limits_and_hooks_of_gunicorn_are_honoured(serve, checkout):
    with (checkout / "gunicorn.conf.py").open("a") as file:
        file.write(f"limit_request_line = 100\n{HOOKS}")
    served = serve("--limit-request-fields", "9", "--limit-request-field_size", "1000")
    for text, status in (
        (request("/healthz?" + "a" * 78), 200),
        (request("/healthz?" + "a" * 79), 414),
        (request("/healthz", *["A: b"] * 8), 200),
        (request("/healthz", *["A: b"] * 9), 431),
        (request("/healthz", "A: " + "b" * 999), 200),
        (request("/healthz", "A: " + "b" * 1000), 431),
    ):
        connection = RawConnection(served.port)
        assert connection.send(text).read_response().status == status
        connection.close()
    served.send("GET", "/pid?a")
    before, after = f"Before GET /pid 127.0.0.1:{served.port}", "After /pid?a 200 OK "
    assert wait_until(lambda: before in messages(served))  # lines are written in the background
    assert wait_until(lambda: any(line.startswith(after) for line in messages(served)))


def test_the_log_level_is_honoured(serve):
    served = serve("--log-level", "error")
    served.send("GET", "/healthz")
    assert messages(served) == []


@pytest.mark.parametrize(
    ("settings", "arguments", "count"),
    [
        ({"WORKERS": "", "WEB_CONCURRENCY": "3"}, [], 3),
        ({"WORKERS": "2", "WEB_CONCURRENCY": "3"}, [], 2),
        ({"WORKERS": "2", "WEB_CONCURRENCY": "3"}, ["--workers", "1"], 1),
    ],
)
def test_web_concurrency_counts(serve, settings, arguments, count):
    served = serve(*arguments, **settings)
    assert wait_until(lambda: len(served.workers()) == count)


# Signals


def change_code(checkout, old='{"status": "ok"}', new='{"status": "new"}'):
    views = checkout / "phresh" / "operations" / "health.py"
    assert old in views.read_text()
    views.write_text(views.read_text().replace(old, new))


def test_hup_loads_new_code_and_keeps_the_workers_if_it_does_not_load(serve, checkout):
    served = serve()
    workers = served.reload()
    assert wait_until(lambda: served.workers() and not served.workers() & workers, 60)
    change_code(checkout)
    # What gunicorn.conf.py imports, too.
    logs = checkout / "phresh" / "serving" / "logs.py"
    logs.write_text(logs.read_text().replace('"method": received', '"verb": received'))
    workers = served.reload()
    assert wait_until(lambda: served.workers() and not served.workers() & workers, 60)
    assert wait_until(lambda: served.send("GET", "/healthz").json == {"status": "new"})
    assert wait_until(lambda: '"verb": "GET"' in served.log.read_text())
    for file, text in (("wsgi.py", "1 / 0\n"), ("gunicorn.conf.py", "nonsense = \n")):
        before = (checkout / file).read_text()
        (checkout / file).write_text(before + text)
        workers, count = served.reload(), served.log.read_text().count("Not reloaded")
        assert wait_until(lambda: served.log.read_text().count("Not reloaded") > count, 60)  # noqa: B023
        assert served.workers() == workers
        assert served.send("GET", "/healthz").status == 200
        (checkout / file).write_text(before)
    lines = [json.loads(line) for line in served.log.read_text().splitlines()]
    # The traceback of what does not load is in the message, one line of the log.
    for line in lines:
        line["message"] = line["message"].replace("Traceback", "")
    served.log.write_text("\n".join(json.dumps(line) for line in lines))


def test_a_second_sigterm_to_a_worker_is_ignored(serve, checkout):
    with (checkout / "wsgi.py").open("a") as file:
        file.write('import time\napp.add_url_rule("/slow", "slow", lambda: time.sleep(3) or "")\n')
    served = serve()
    (worker,) = served.workers()
    connection = RawConnection(served.port).send(request("/slow"))
    os.kill(worker, signal.SIGTERM)
    end = time.monotonic() + 2.5
    while time.monotonic() < end:  # before and after it closes its listener
        time.sleep(0.1)
        os.kill(worker, signal.SIGTERM)
    assert connection.read_response().status == 200
    connection.close()


def test_usr2_starts_a_new_master(serve):
    """Of what ``flask serve`` executes too, which is ``python -m gunicorn``."""
    served = serve()

    def log():
        return served.log.read_text()

    os.kill(served.pid, signal.SIGUSR2)
    assert wait_until(lambda: log().count("Booting worker") == 2, 60), log()
    old, new = map(int, re.findall(r"Listening at: [^(]*\((\d+)\)", log()))
    assert old == served.pid
    os.kill(new, signal.SIGTERM)
    assert wait_until(lambda: not are_running({new}), 60)
