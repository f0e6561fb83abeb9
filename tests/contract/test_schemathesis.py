"""Requests that schemathesis generates from the OpenAPI document, to the server as it runs."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest
from flask_migrate import upgrade

from phresh import create_app
from phresh.config import ROOT
from phresh.database.base import db
from tests.tools.cluster import Phresh
from tests.tools.processes import copy_checkout, environment
from tests.tools.schemathesis_data import cursors, fill

# `make fuzz` sets others.
SECONDS = os.environ.get("FUZZ_SECONDS", "100")
SEED = os.environ.get("FUZZ_SEED", "1")

# The sender of all requests, and another user, who must not see what is theirs.
USERS = {"user-1": "token-1", "user-3": "token-3"}
ACCOUNTS = {
    "auth": [
        {"name": name, "fixedHeaders": [{"name": "Authorization", "value": f"Bearer {token}"}]}
        for name, token in USERS.items()
    ]
}
CONFIG = """
[auth.wfc]
path = "accounts.json"
user = "user-1"
peers = ["user-1", "user-3"]
"""


@pytest.fixture
def served(make_database, tmp_path):
    if importlib.util.find_spec("schemathesis") is None:
        pytest.skip("No schemathesis: make install")
    url = make_database("schemathesis")
    app = create_app({"DATABASE_URL": url})
    with app.app_context():
        upgrade()
        with db.engine.begin() as connection:
            data = {"paths": fill(connection), "cursors": cursors(app)}
        db.engine.dispose()
    (tmp_path / "data.json").write_text(json.dumps(data))
    cheap = {"ARGON2_TIME_COST": "1", "ARGON2_MEMORY_COST": "8", "RATELIMIT_ENABLED": "false"}
    # No worker runs, so no mail is sent; but one can be asked for.
    mail = {"MAIL_URL": "memory:", "ACCOUNT_URL": "https://phresh.example/account"}
    served = Phresh(copy_checkout(tmp_path / "checkout"), url, **cheap, **mail)
    yield served
    served.stop()


@pytest.mark.slow
def test_every_response_is_as_the_document_says(served, tmp_path):
    report = tmp_path / "report.json"
    options = {
        "--checks": "all",
        "--phases": "examples,coverage,fuzzing,stateful",
        "--max-time": SECONDS,
        "--seed": SEED,
        "--generation-database": "none",
        "--report-json-path": report,
    }
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    (tmp_path / "accounts.json").write_text(json.dumps(ACCOUNTS))
    command = [sys.executable, "-m", "schemathesis.cli", "run"]
    command += [str(part) for option in options.items() for part in option]
    hooks = {
        "SCHEMATHESIS_HOOKS": "tests.tools.schemathesis_hooks",
        "SCHEMATHESIS_DATA": str(tmp_path / "data.json"),
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [*command, f"http://127.0.0.1:{served.port}/openapi.json"],
        cwd=tmp_path,
        env=environment(**hooks),
        timeout=int(SECONDS) + 60,
    )
    assert done.returncode == 0  # what it prints has the requests
    # A value that only the database rejects is logged as an error, and so is any traceback.
    assert '"level": "ERROR"' not in served.log.read_text()
    results = json.loads(report.read_text())
    assert set(results["phases"]) == {
        phase for phase, of in results["phases"].items() if of["status"] == "success"
    }
    accepted = {
        name: sum(phase["accepted"] for phase in phases.values())
        for name, phases in results["valid_rates"].items()
    }
    assert len(accepted) == results["operations"]["total"]
    assert all(accepted.values()), accepted
