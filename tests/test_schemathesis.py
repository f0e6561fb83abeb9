"""Requests that schemathesis makes of the OpenAPI document, to the server as it is run."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cluster import Phresh
from flask_migrate import upgrade
from processes import copy_checkout, environment

from phresh import create_app
from phresh.db import db

# `make fuzz` gives others.
SECONDS = os.environ.get("FUZZ_SECONDS", "60")
SEED = os.environ.get("FUZZ_SEED", "1")


@pytest.fixture
def served(make_database, tmp_path):
    if importlib.util.find_spec("schemathesis") is None:
        pytest.skip("No schemathesis: make install")
    url = make_database("schemathesis")
    with create_app({"DATABASE_URL": url}).app_context():
        upgrade()
        db.engine.dispose()
    served = Phresh(copy_checkout(tmp_path / "checkout"), url)
    yield served
    served.stop()


@pytest.mark.slow
def test_every_request_is_answered_as_the_document_says(served, tmp_path):
    report = tmp_path / "report.json"
    options = {
        "--checks": "all",
        "--phases": "examples,coverage,fuzzing,stateful",
        "--max-time": SECONDS,
        "--seed": SEED,
        "--generation-database": "none",
        "--report-json-path": report,
    }
    command = [sys.executable, "-m", "schemathesis.cli", "run"]
    command += [str(part) for option in options.items() for part in option]
    hooks = Path(__file__).with_name("schemathesis_hooks.py")
    done = subprocess.run(
        [*command, f"http://127.0.0.1:{served.port}/openapi.json"],
        cwd=tmp_path,
        env=environment(SCHEMATHESIS_HOOKS=str(hooks)),
        timeout=int(SECONDS) + 60,
    )
    assert done.returncode == 0  # what it prints has the requests
    # A value that only the database refused is logged as an error, and so is any traceback.
    assert '"level": "ERROR"' not in served.log.read_text()
    told = json.loads(report.read_text())
    assert set(told["phases"]) == {
        phase for phase, of in told["phases"].items() if of["status"] == "success"
    }
    accepted = {
        name: sum(phase["accepted"] for phase in phases.values())
        for name, phases in told["valid_rates"].items()
    }
    assert len(accepted) == told["operations"]["total"]
    assert all(accepted.values()), accepted
