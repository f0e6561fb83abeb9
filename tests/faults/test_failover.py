"""Tests of docs/reliability.md: some hosts are silent, read only, or not found."""

import os
import shutil
import socket
import socketserver
import ssl
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from phresh import create_app
from phresh.database.base import db
from phresh.database.transactions import fetch_autocommit
from tests.tools.cluster import SilentHost
from tests.tools.helpers import sql_text
from tests.tools.processes import wait_until
from tests.tools.users import PASSWORD

pytestmark = pytest.mark.slow

LIST = ("GET", "/api/cleanings/")
POST = ("POST", "/api/cleanings/", {"new_cleaning": {"name": "One", "price": 20}})
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def assert_unavailable(response, seconds=6):
    assert response.status == 503, response
    assert response.headers["Content-Type"] == "application/problem+json"
    assert int(response.headers["Retry-After"]) > 0
    assert response.seconds < seconds


@pytest.fixture
def silent_host(add_cleanup):
    host = SilentHost()
    add_cleanup(host.close)
    return f"127.0.0.1:{host.port}"


@pytest.fixture
def standby(cluster, workspace, add_cleanup):
    standby = cluster.standby(workspace[0] / f"standby-{time.monotonic_ns()}")
    add_cleanup(standby.stop)
    return standby


@pytest.mark.parametrize("order", ["silent, reads, reads", "reads, silent, reads"])
def test_no_worker_aborts_while_no_host_accepts_writes(make_cluster, silent_host, serve, order):
    """As between the end of a primary and the promotion of a standby."""
    reads = make_cluster().start(default_transaction_read_only="on").host
    hosts = order.replace("silent", silent_host).replace("reads", reads).replace(" ", "")
    url = f"postgresql://postgres@{hosts}/postgres?target_session_attrs=read-write"
    served = serve(url, WORKERS="1", CONNECT_TIMEOUT="1")
    workers = served.workers()
    for _ in range(3):
        assert_unavailable(served.send(*LIST))
    for response in served.send_all(*[LIST, POST] * 4):
        assert_unavailable(response)
    assert served.workers() == workers
    assert "SIGABRT" not in served.log.read_text()


def test_the_host_that_accepted_last_is_tried_first(cluster, silent_host, serve):
    url = f"postgresql://postgres@{silent_host},{cluster.host}/postgres"
    served = serve(url, WORKERS="1")
    assert served.send(*LIST).status == 200
    responses = served.send_all(*[LIST, POST] * 10)  # more than one connection
    assert {response.status for response in responses} == {200, 201}
    assert max(response.seconds for response in responses) < 2  # CONNECT_TIMEOUT


def test_connections_to_a_host_that_fell_silent_fail_no_request(proxy, serve):
    """The system does not notice: the proxy acknowledges, as a network does that forgets."""
    served = serve(f"postgresql://postgres@127.0.0.1:{proxy.port}/postgres", WORKERS="1")
    assert {response.status for response in served.send_all(*[LIST] * 30)} == {200}
    opened = proxy.seen
    assert opened > 1
    time.sleep(2.5)  # CHECK_AFTER
    proxy.forget()
    responses = served.send_all(*[LIST, POST] * 15)
    assert {response.status for response in responses} == {200, 201}
    assert proxy.seen > opened


def test_one_request_at_most_fails_for_connections_that_were_just_used(proxy, serve):
    served = serve(f"postgresql://postgres@127.0.0.1:{proxy.port}/postgres", WORKERS="1")
    assert {response.status for response in served.send_all(*[LIST] * 30)} == {200}
    assert proxy.seen > 2
    proxy.forget()
    statuses = [served.send(*LIST).status for _ in range(proxy.seen + 1)]
    assert statuses.count(503) <= 1
    assert statuses[-1] == 200


def test_each_endpoint_is_503_at_a_standby_and_opens_few_connections(cluster, standby, serve):
    primary = serve(cluster.url, WORKERS="1")
    user = {"email": "two@phresh.example", "username": "two", "password": PASSWORD}
    registered = primary.send("POST", "/api/users/", {"new_user": user}).json
    login = f"username={user['email']}&password={PASSWORD}".replace(" ", "+").encode()
    token = {"Authorization": f"Bearer {registered['access_token']['access_token']}"}
    assert primary.send("GET", "/readyz").status == 200
    # With rate limits: counting is a write too.
    served = serve(standby.url, WORKERS="1", POOL_SIZE="1", RATELIMIT_ENABLED="true")
    sessions = "SELECT sessions FROM pg_stat_database WHERE datname = 'postgres'"

    def seen():
        time.sleep(0.1)
        return standby.sql("SELECT pg_stat_force_next_flush()", sessions)[0][0]

    other = {"email": "three@phresh.example", "username": "three", "password": PASSWORD}
    password = {"user_update": {"password": "five cats on a roof", "old_password": PASSWORD}}
    requests = [
        ("GET", "/readyz"),
        POST,
        ("POST", "/api/users/login/token/", login, FORM),
        ("POST", "/api/users/login/token/", login + b"wrong", FORM),
        ("POST", "/api/users/", {"new_user": other}),
        ("PATCH", "/api/users/me/", password),
    ]
    for method, path, *body in requests:
        assert wait_until(lambda: served.send(*LIST, **token).status == 200)
        before = seen()
        headers = token if len(body) < 2 else {**token, **body[1]}
        response = served.send(method, path, *body[:1], **headers)
        assert_unavailable(response)
        # Each connection of this function is a session too.
        assert seen() - before <= 4, (path, response)
    assert served.send("GET", "/healthz").status == 200
    log = served.log.read_text()
    assert '"ERROR"' not in log, log

    standby.promote()
    assert wait_until(lambda: served.send("GET", "/readyz").status == 200)
    assert served.send("POST", "/api/users/", {"new_user": other}).status == 201
    assert served.send("POST", "/api/users/login/token/", login + b"wrong", **FORM).status == 400
    assert served.send("POST", "/api/users/login/token/", login, **FORM).status == 200


def test_the_system_watches_connections_of_requests(cluster):
    """By default, and as the URL says."""
    for parameters, expected in (
        ("", (5, 2, 3, 10_000)),
        ("?keepalives_idle=60", (60, 2, 3, 10_000)),
    ):
        app = create_app({"DATABASE_URL": cluster.url + parameters})
        with app.app_context():
            fetch_autocommit(sql_text("SELECT 1"))
            connection = app.extensions["pool"].acquire(1)
            with socket.socket(fileno=os.dup(connection.driver.fileno())) as copy:
                names = ("KEEPIDLE", "KEEPINTVL", "KEEPCNT", "USER_TIMEOUT")
                options = [getattr(socket, f"TCP_{name}") for name in names]
                assert copy.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                assert tuple(copy.getsockopt(6, option) for option in options) == expected
            connection.driver.close()
            app.extensions["pool"].release(None)
            db.engine.dispose()


# An app for which the name "db.test" is looked up by a function that can be silent; this blocks the
# thread that calls it, as the system does.
NAMED = """
import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from gevent import monkey

import phresh

sleep = monkey.get_original("time", "sleep")


def look_up(name, port, **_):
    assert name == "db.test"
    with open("lookups", "a") as lookups:
        lookups.write("one\\n")
    while os.path.exists("silence"):
        sleep(0.05)
    return [(2, 1, 6, "", (address, 0)) for address in ("127.0.0.77", "127.0.0.1")]


monkey.get_original("socket", "getaddrinfo")
monkey.saved["socket"]["getaddrinfo"] = look_up
app = phresh.create_app()
"""


def test_a_silent_name_server_stops_no_other_request(cluster, workspace, serve):
    checkout = workspace[0] / "checkout"
    silence, lookups = checkout / "silence", checkout / "lookups"
    (checkout / "named.py").write_text(NAMED)
    silence.touch()
    url = f"postgresql://postgres@db.test:{cluster.port}/postgres"
    served = serve(url, "named:app", WORKERS="1")
    with ThreadPoolExecutor() as pool:
        waiting = pool.map(lambda request: served.send(*request), [LIST, POST] * 5)
        assert wait_until(lookups.exists)
        for _ in range(3):
            assert served.send("GET", "/healthz").seconds < 1
        for response in waiting:
            assert_unavailable(response)
    assert lookups.read_text().count("one") == 1
    began = time.monotonic()
    served.terminate()
    assert served.stop() == 0
    assert time.monotonic() - began < 5
    silence.unlink()
    served = serve(url, "named:app", WORKERS="1")
    assert {response.status for response in served.send_all(*[LIST, POST] * 5)} == {200, 201}


@pytest.fixture
def make_certificate(tmp_path):
    """Make the file of a certificate and its key, for a name."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")

    def make(name):
        file = tmp_path / f"{name}.pem"
        request = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2")
        about = ("-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}")
        command = [*request, *about, "-out", file, "-keyout", file]
        subprocess.run(command, check=True, capture_output=True)
        return file

    return make


class TLS(socketserver.ThreadingTCPServer):
    """A server that speaks TLS as PostgreSQL does, and passes what is inside on to it."""

    daemon_threads = True

    def __init__(self, certificate, port):
        super().__init__(("127.0.0.1", 0), socketserver.BaseRequestHandler)
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(certificate)
        self._port = port
        self.port = self.server_address[1]
        self._thread = threading.Thread(target=self.serve_forever)
        self._thread.start()

    def finish_request(self, request, _):
        request.recv(8)  # SSLRequest
        request.sendall(b"S")
        with (
            suppress(OSError),
            self._context.wrap_socket(request, server_side=True) as near,
            socket.create_connection(("127.0.0.1", self._port)) as far,
        ):
            threading.Thread(target=self._pass, args=(far, near), daemon=True).start()
            self._pass(near, far)

    def _pass(self, source, sink):
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_RDWR)

    def close(self):
        self.shutdown()
        self.server_close()
        self._thread.join()


@pytest.mark.parametrize(("name", "status"), [("localhost", 200), ("elsewhere", 503)])
def test_tls_is_verified_by_the_name(cluster, make_certificate, add_cleanup, name, status):
    """Also though an address is given to libpq."""
    certificate = make_certificate(name)
    server = TLS(certificate, cluster.port)
    add_cleanup(server.close)
    url = f"postgresql://postgres@localhost:{server.port}/postgres"
    app = create_app({"DATABASE_URL": f"{url}?sslmode=verify-full&sslrootcert={certificate}"})
    assert app.test_client().get("/readyz").status_code == status
    with app.app_context():
        db.engine.dispose()
