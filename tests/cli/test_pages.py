"""The pages of the documentation: their sessions work as pasted, and they name what there is."""

import re
import subprocess

import pytest

from phresh.config import ROOT
from tests.tools.processes import environment, serving

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)

# What each line prints at least that begins with curl or http. The first of two is for the first
# run, the second for a database where the page has run before.
SESSIONS = {
    "README.md": [
        ('"access_token"', '"status": 409'),
        '"Clean my attic"',
        '"owner" : {"username" : "anna"}',
        "^204.*-recovery.eml",
        "^204",
    ],
    "docs/api.md": [
        r'"http://localhost:\d+/openapi.json"',
        '"owner" : null',
        ('"access_token"', '"status": 409'),
        '"anna@phresh.example"',
        '"owner" : {"username" : "anna"}',
        "34.50",
        ('"access_token"', '"status": 409'),
        r" 403 .*Only the owner can change or delete a cleaning\.",
        " 401 .*WWW-Authenticate: Bearer.*Authentication required",
        '"username" : "ben".*"pending"',
        ('"access_token"', '"status": 409'),
        r'"username" : "cleo".*I could come on Friday\..*"pending"',
        r'^\[.*"cleo".*"ben"',
        '"ben".*"accepted"',
        '"ben".*"cancelled"',
        '"cleo".*"accepted"',
        '"overall_rating" : 5.*"Spotless"',
        ('"total_evaluations" : 1', '"total_evaluations" : 2'),
        r'^\[{.*?"completed".*?"is_update"',
        " 204 ",
        " 401 .*The access token is invalid or has expired",
        r' 201 .*Location: http://localhost:\d+/api/cleanings/.*"Clean my cellar"',
        r' 201 .*Location: http://localhost:\d+/api/cleanings/.*"Clean my cellar"',
        r" 422 .*This key was already used with a different body\.",
        r' 200 .*Link: <http://localhost:\d+/api/cleanings/\?q=clean&.*rel="next"',
        r"^\[{",
        ' 304 .*ETag: "',
        r' 200 .*"Clean my garage".*31\.00',
        " 412 .*The resource has changed since you read it",
        # curl, HTTPie
        *[
            '"Clean my attic"',
            r"^\[{",
            r'"status": 422.*Must have at most 2 decimals\..*exits with',
        ]
        * 2,
    ],
}


@pytest.fixture
def served():
    with serving() as server:
        yield server


@pytest.mark.slow
@pytest.mark.parametrize("page", SESSIONS)
def test_the_session_of_a_page_works_as_pasted_and_again(served, page):
    for run in range(2):
        printed = paste(ROOT / page, f"localhost:{served.port}", served.checkout)
        for line, (output, expected) in enumerate(zip(printed, SESSIONS[page], strict=True), 1):
            pattern = expected[run] if isinstance(expected, tuple) else expected
            assert re.search(pattern, output, re.DOTALL), f"line {line}, run {run + 1}: {output}"


def paste(page, address, folder=ROOT):
    """Return what each line prints that begins with curl or http; all blocks are one script."""
    blocks = [block for kind, block in FENCED.findall(page.read_text()) if kind == "sh"]
    script = "\n".join(blocks).replace("localhost:8000", address)
    # HTTPie takes a standard input that is no terminal for the body.
    script = re.sub(r"\bhttp (?=--|GET)", "http --ignore-stdin ", script)
    marked = re.sub("^curl", "printf '\\\\f'; curl -s", script, flags=re.MULTILINE)
    marked = re.sub("^http", "printf '\\\\f'; http", marked, flags=re.MULTILINE)
    command = ["bash", "-e", "-c", marked]
    options = {"env": environment(), "capture_output": True, "text": True, "timeout": 60}
    done = subprocess.run(command, cwd=folder, **options)
    assert done.returncode == 0, done.stderr
    return [output.strip() for output in done.stdout.split("\f")[1:]]


def test_every_page_with_a_session_is_tried():
    found = {
        str(page.relative_to(ROOT))
        for page in PAGES
        if any(kind == "sh" and "curl" in block for kind, block in FENCED.findall(page.read_text()))
    }
    assert found == set(SESSIONS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_in_a_page_leads_somewhere(page):
    for link in re.findall(r"\]\((?!https?://)([^)]+)\)", page.read_text()):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def anchors(page):
    """Return the anchors that a page's headings have where such pages are shown."""
    plain = FENCED.sub("", page.read_text())
    headings = re.findall(r"^#+ (.*)$", plain, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_in_a_page_exists(page, app):
    text = page.read_text()
    for name in re.findall(r"\bflask ([a-z][a-z-]+)", "\n".join(code(text))):
        assert name in app.cli.commands or name in {"run", "shell", "routes"}, f"flask {name}"
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for name in re.findall(r"\bmake ([a-z][a-z-]+)", "\n".join(code(text))):
        assert name in targets, f"make {name}"


def code(text):
    """Return the pieces of a page that are code: blocks, and what is between backticks."""
    return [block for _, block in FENCED.findall(text)] + re.findall("`([^`\n]+)`", text)


# `accounts/test_limits.py`, `accounts/test_limits.py::test_a`, `::test_b` (in the file named last),
# or `test_c` (in any file).
TEST = re.compile(r"`(?:(?:tests/)?([\w/]*test_\w+\.py))?(?:(::)?(test_\w+))?`")


def unknown_tests(text, tests):
    """Return the names in a page that are no test, or no file of tests.

    :param tests: for each path below ``tests/``, the names of its tests; the files that the page
        itself writes are added
    """
    unknown, path = [], None
    tests = {**tests, **{written: [] for written in re.findall("^`tests/(.*)`$", text, re.M)}}
    for match in TEST.finditer(FENCED.sub("", text)):
        path = match[1] or path
        searched = [path] if match[1] or match[2] else tests
        found = [tests[each] for each in searched if each in tests]
        if not found or (match[3] and not any(match[3] in names for names in found)):
            unknown.append(match[0])
    return unknown


@pytest.fixture(scope="module")
def tests():
    return {
        str(path.relative_to(ROOT / "tests")): re.findall(r"def (test_\w+)", path.read_text())
        for path in (ROOT / "tests").rglob("test_*.py")
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_test_that_a_page_names_exists(page, tests):
    assert unknown_tests(page.read_text(), tests) == []


def test_a_test_that_does_not_exist_is_found():
    tests = {"a/test_a.py": ["test_one"], "test_b.py": ["test_two"]}
    known = "`test_two` `a/test_a.py` `::test_one` `tests/a/test_a.py::test_one` `test_b.py`"
    assert unknown_tests(known, tests) == []
    for name in ("`a/test_b.py`", "`test_b.py::test_one`", "`test_three`", "`::test_two`"):
        assert unknown_tests(f"`a/test_a.py` {name}", tests) == [name]


def test_every_command_is_in_the_operator_s_page(app):
    page = "\n".join(code((ROOT / "docs" / "operations.md").read_text()))
    missing = [name for name in app.cli.commands if f"flask {name}" not in page]
    assert missing == []


def test_every_operation_is_in_the_client_developer_s_page(client):
    # A new resource may have a page of its own; the worked example is in no page for clients.
    page = "".join(path.read_text() for path in PAGES if path.name != "development.md")
    paths = client.get("/openapi.json").json["paths"]
    short = {path.replace("{cleaning_id}", "{id}") for path in paths}
    assert [path for path in sorted(short) if path not in page] == []


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) < 150
