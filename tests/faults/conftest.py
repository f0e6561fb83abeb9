"""Fixtures: database servers to break, and the app served by real processes."""

import shutil
import time

import pytest
from flask_migrate import upgrade

from phresh import create_app
from phresh.database.base import db
from tests.tools.cluster import ACCOUNT, TOKEN, Cluster, Phresh, Proxy, make_folder
from tests.tools.processes import copy_checkout


@pytest.fixture(scope="module")
def workspace():
    """A folder with a copy of the checkout, and a stopped cluster that has the tables."""
    folder = make_folder()
    template = Cluster(folder / "template").make().start()
    with create_app({"DATABASE_URL": template.url}).app_context():
        upgrade()
        db.engine.dispose()
    template.sql(ACCOUNT)
    template.stop()
    copy_checkout(folder / "checkout")
    yield folder, template
    shutil.rmtree(folder)


@pytest.fixture
def add_cleanup():
    """Register functions to call at the end of the test, in reverse order."""
    started = []
    yield started.append
    for stop in reversed(started):
        stop()


@pytest.fixture
def make_cluster(workspace, add_cleanup):
    folder, template = workspace

    def make():
        cluster = template.copy(folder / f"data-{time.monotonic_ns()}")
        add_cleanup(lambda: shutil.rmtree(cluster.data))
        add_cleanup(cluster.stop)
        return cluster

    return make


@pytest.fixture
def cluster(make_cluster):
    """A running PostgreSQL server with empty tables."""
    return make_cluster().start()


@pytest.fixture
def proxy(cluster, add_cleanup):
    proxy = Proxy(cluster.port)
    add_cleanup(proxy.close)
    return proxy


@pytest.fixture
def serve(workspace, add_cleanup):
    def start(url, app="wsgi:app", **settings):
        served = Phresh(workspace[0] / "checkout", url, app, token=TOKEN, **settings)
        add_cleanup(served.stop)
        return served

    return start
