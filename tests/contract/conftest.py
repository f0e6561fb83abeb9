"""What the tests of all routes share: who sends requests, and what is in the tables."""

import pytest

from phresh.database.base import db
from tests.tools.features import NOBODY, OTHER, OWNER, World


@pytest.fixture
def world(anna, ben, make_user, make_cleaning, sql):
    return World(anna, ben, make_user, make_cleaning, sql)


@pytest.fixture
def clients(client, anna, ben):
    return {NOBODY: client, OTHER: ben.client, OWNER: anna.client}


@pytest.fixture
def tables(sql):
    """What is in the tables that someone could change."""

    def read():
        return {
            name: sql(f"SELECT t::text FROM {name} t ORDER BY 1")
            for name in [*db.metadata.tables, "procrastinate_jobs"]
            if name not in ("attempts", "quotas")
        }

    return read
