"""The clients that ``make clients`` generates: strict types, and the story of README."""

import json

import pytest

from phresh.config import ROOT


def test_the_lock_file_has_no_address_of_a_registry():
    lock = json.loads((ROOT / "clients" / "package-lock.json").read_text())
    assert [name for name, package in lock["packages"].items() if "resolved" in package] == []


@pytest.mark.slow
def test_the_python_client_and_its_story_are_strictly_typed(run):
    run("mypy", "--strict", "--config-file=", "-p", "phresh_client")
    run("mypy", "--strict", "--config-file=", "story.py")


@pytest.mark.slow
def test_the_story_with_the_python_client(run, base_url):
    run("python", "story.py", base_url)


@pytest.mark.slow
def test_the_story_with_the_typescript_client(run, base_url):
    # The compiler writes what node runs, unless a type is wrong.
    run("tsc", "--project", ".", "--noEmitOnError")
    run("node", "build/story/story.js", base_url)
