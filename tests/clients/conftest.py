"""Generated clients, and a server to run them against."""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from phresh.config import ROOT
from tests.tools.processes import environment, serving

NODE = ROOT / "clients" / "node_modules" / ".bin"


@pytest.fixture(scope="module")
def served():
    with serving() as server:
        yield server


@pytest.fixture(scope="module")
def base_url(served):
    return f"http://localhost:{served.port}"


@pytest.fixture(scope="session")
def generated():
    """The folder with both clients, generated if the document has changed."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    venv = Path(sys.prefix)
    # make installs what is older than the lock files, which is not what a test should do here.
    make = ["make", "clients", f"VENV={venv}", "--old-file", f"{venv}/.installed"]
    # Processes that test in parallel share the folder.
    with (ROOT / "Makefile").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(make, cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return ROOT / "clients" / "build"


@pytest.fixture
def run(generated):
    """Run a program, which has to succeed, and return what it printed."""

    def run(*command: str | Path, cwd: Path = ROOT / "clients") -> str:
        settings = {"PYTHONPATH": str(generated / "python"), "MYPYPATH": str(generated / "python")}
        path = f"{NODE}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        done = subprocess.run(
            command,
            cwd=cwd,
            env=environment() | settings | {"PATH": path},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run
