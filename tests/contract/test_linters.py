"""What other people's tools say of openapi.json: two linters, and a validator of JSON Schema.

They are in ``clients/package.json``. This needs Node.
"""

import json
import os
import shutil
import subprocess

import pytest

from phresh.config import ROOT

TOOLS = ROOT / "clients" / "node_modules"
pytestmark = pytest.mark.slow

AJV = """
const Ajv = require(process.argv[1] + "/ajv/dist/2020").default;
const { components } = JSON.parse(require("fs").readFileSync(process.argv[2], "utf8"));
const rejected = {};
for (const name of ["Cleaning", "CleaningCreate", "CleaningUpdate"]) {
  const accepts = new Ajv({ strict: false }).compile(components.schemas[name].properties.price);
  for (let cents = 0; cents <= 10000; cents++) {
    if (!accepts(cents / 100)) (rejected[name] ??= []).push(cents / 100);
  }
}
console.log(JSON.stringify(rejected));
"""


@pytest.fixture(autouse=True)
def _tools():
    if not shutil.which("node") or not TOOLS.is_dir():
        pytest.skip("The tools of clients/ are not installed: npm ci in clients/.")


def run(*arguments):
    quiet = {"REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true", "NO_COLOR": "1"}
    path = {"PATH": f"{TOOLS / '.bin'}:{os.environ['PATH']}", "HOME": "/tmp"}  # noqa: S108
    return subprocess.run(
        arguments, cwd=ROOT, env={**path, **quiet}, capture_output=True, text=True, timeout=120
    )


def test_spectral_finds_nothing():
    done = run("spectral", "lint", "--format", "json", "--quiet", "openapi.json")
    assert json.loads(done.stdout) == [], done.stderr


def test_redocly_finds_nothing():
    done = run("redocly", "lint", "--format", "json", "openapi.json")
    assert json.loads(done.stdout)["totals"] == {"errors": 0, "warnings": 0, "ignored": 0}


def test_ajv_accepts_every_price():
    done = run("node", "-e", AJV, str(TOOLS), "openapi.json")
    assert json.loads(done.stdout) == {}, done.stderr
