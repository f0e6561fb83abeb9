"""docs/development.md: what the page says is done in a copy of the checkout, then checked."""

import ast
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from phresh.config import ROOT
from tests.tools.processes import LEFT_OUT, copy_checkout, environment, running_in, wait_until

PAGE = (ROOT / "docs" / "development.md").read_text()
FILE = re.compile(r"^`([^`\n]+)`\n\n```\w+\n(.*?)^```", re.DOTALL | re.MULTILINE)
EMPTY_FILE = re.compile(r"^`([^`\n]+\.py)` is an empty file", re.MULTILINE)
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)

STANDARD, FAST = "With standard idioms", "On the fast path"
# The headings that each way leaves out.
WAYS = {STANDARD: {FAST, "Test the pages of the fast path"}, FAST: {STANDARD}}

NOT_RUN = {
    "make install": "needs a package index; .ci/run does it",
    "make run": "tests/cli/test_commands.py does it",
    "make test": "this test is part of it; .ci/run does it",
    "make openapi": "its commands are run",
    "make clients": "clients/test_generated.py runs what it makes",
    "make check": "each of its checks is run, with the tests that concern a new resource",
    ".venv/bin/flask run --debug": "serves until it is stopped; tests/serving/test_servers.py",
    ".venv/bin/flask test tests/offers": "it differs from tests/bookmarks only in the folder",
    ".venv/bin/flask test tests/offers/test_offers.py": "the same",
    ".venv/bin/flask test -m slow tests/clients": "the same",
    ".venv/bin/flask test -k price": "pytest's own option",
}
SHARED_TESTS = ["tests/contract", "tests/database/test_migrations.py", "tests/test_architecture.py"]
# What the page's make check does, but for hadolint, and only with the shared tests.
CHECKS = [
    "ruff format --check .",
    "ruff check .",
    "mypy",
    "flask db check",
    f"flask test -q -n 2 {' '.join(SHARED_TESTS)}",
]
GENERATED = (*LEFT_OUT, "*.egg-info")

NOTE = '''

class Note(Base):
    """A table whose CHECK is longer than a line."""

    __tablename__ = "notes"
    __table_args__ = (CheckConstraint(f"text ~ '{NOT_BLANK}'", name="text_not_blank"),)

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    text: Mapped[str] = mapped_column(Text)
'''


def sections(page):
    """Return the text under each heading of the worked example."""
    example = page.partition("\n## A worked example")[2].partition("\n## ")[0]
    parts = re.split(r"^### (.*)\n", example, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def example(way):
    """Return the text of the worked example for one of the two ways."""
    return "\n".join(text for name, text in sections(PAGE).items() if name not in WAYS[way])


def files(text):
    """Return the files that a text shows, by path."""
    return {**dict(FILE.findall(text)), **dict.fromkeys(EMPTY_FILE.findall(text), "")}


def commands(text):
    return [
        line
        for kind, block in BLOCK.findall(text)
        for line in block.splitlines()
        if kind == "console"
    ]


def lines_of_init():
    """Return the lines for phresh/__init__.py: the import and the entry of RESOURCES."""
    return [block for _, block in BLOCK.findall(sections(PAGE)["Register it"])]


@pytest.fixture
def checkout():
    """A copy of the checkout, with the venv of these tests; every user can enter it."""
    folder = Path(tempfile.mkdtemp(prefix="phresh-"))
    folder.chmod(0o755)
    checkout = copy_checkout(folder / "checkout")
    (checkout / ".venv").symlink_to(sys.prefix)
    yield checkout
    assert wait_until(lambda: not running_in(folder)), running_in(folder)
    shutil.rmtree(folder)


def contents(checkout):
    """Return the content of each file of a checkout, but of those that tools generate."""
    return {
        str(path.relative_to(checkout)): path.read_bytes()
        for path in checkout.rglob("*")
        if path.is_file()
        and not any(part.match(pattern) for part in parts(path, checkout) for pattern in GENERATED)
    }


def parts(path, folder):
    return [Path(part) for part in path.relative_to(folder).parts]


def run(checkout, command, **settings):
    """Run a command, which must succeed, and return what it printed."""
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=checkout,
        env=environment(**settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}"
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_a_resource_is_added_as_the_page_says(checkout, way):
    before = contents(checkout)
    text = example(way)
    added = files(text)
    for path, content in added.items():
        assert path not in before
        (checkout / path).parent.mkdir(exist_ok=True)
        (checkout / path).write_text(content)
    register(checkout / "phresh" / "__init__.py")
    for command in [line for line in commands(text) if line not in NOT_RUN]:
        run(checkout, command)
    for command in [*recipe("openapi"), *CHECKS]:
        run(checkout, command)
    after = contents(checkout)
    new = {path for path in after if path not in before}
    [migration] = new - set(added)
    assert re.fullmatch(r"migrations/versions/\d{4}-\d\d-\d\d_create_bookmarks\.py", migration)
    changed = {path for path, content in before.items() if after.get(path) != content}
    assert changed == {"phresh/__init__.py", "openapi.json", "phresh/web/examples.json"}


def register(path):
    """Add the two lines where they belong."""
    line, entry = lines_of_init()
    text = path.read_text()
    text = text.replace("from phresh.cleanings import", f"{line}from phresh.cleanings import", 1)
    path.write_text(text.replace("    feed_blp,\n", f"    feed_blp,\n{entry}"))


@pytest.mark.slow
def test_a_new_revision_needs_no_mending(checkout, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['ruff'] = None\n")
    without_ruff = {"PYTHONPATH": str(tmp_path)}
    versions = checkout / "migrations" / "versions"
    before = set(versions.iterdir())
    run(checkout, "flask db upgrade")
    models = checkout / "phresh" / "offers" / "models.py"
    base = "from phresh.database.base import Base\n"
    imports = f"{base}from phresh.web.fields import NOT_BLANK\n"
    models.write_text(models.read_text().replace(base, imports) + NOTE)

    printed = run(checkout, "flask db migrate -m 'Keep notes.'", **without_ruff)
    [revision] = set(versions.iterdir()) - before
    assert f"{revision.name} is not formatted: ruff is not installed. Run make install" in printed
    assert ast.get_docstring(ast.parse(revision.read_text())) == "Keep notes."
    assert max(map(len, revision.read_text().splitlines())) > 100
    run(checkout, "! ruff format --check .")
    for line in recipe("fix"):
        run(checkout, line)
    run(checkout, "ruff format --check . && ruff check .")
    formatted = revision.read_text()

    revision.unlink()
    printed = run(checkout, "flask db migrate -m 'Keep notes'")
    assert "not formatted" not in printed
    assert without_ids(revision.read_text()) == without_ids(formatted)
    run(checkout, "flask db upgrade")

    run(checkout, """flask db revision -m 'Rename "notes"'""")
    [empty] = set(versions.iterdir()) - before - {revision}
    assert empty.name.endswith("_rename_notes.py")
    run(checkout, "ruff format --check . && ruff check . && flask db upgrade && flask db check")


def recipe(target):
    """Return the commands of a target of the Makefile."""
    makefile = (ROOT / "Makefile").read_text()
    found = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)[1]
    return [line.lstrip("@") for line in found.replace("$(BIN)/", "").strip().split("\n\t")]


def without_ids(text):
    return re.sub(r'"[0-9a-f]{12}"', '""', text)


@pytest.mark.parametrize("way", WAYS)
def test_the_files_of_the_page_parse(way):
    found = files(example(way))
    assert {"models", "schemas", "views"} <= {Path(path).stem for path in found}
    for path, content in found.items():
        if path.endswith(".py"):
            ast.parse(content, path)
    shown = [block for kind, block in BLOCK.findall(example(way)) if kind != "console"]
    assert sorted(shown) == sorted(filter(None, [*found.values(), *lines_of_init()]))
    line, entry = lines_of_init()
    ast.parse(line)
    ast.parse(f"RESOURCES = [\n{entry}]")


def test_every_command_of_the_page_is_run_or_named():
    run_here = {line for way in WAYS for line in commands(example(way))}
    for line in commands(PAGE):
        assert line in run_here or line in NOT_RUN, line
    assert set(NOT_RUN) <= set(commands(PAGE))


def test_the_tree_of_the_page_is_that_of_the_code():
    [tree] = [block for kind, block in BLOCK.findall(PAGE) if "RESOURCES: the list" in block]
    named = set(re.findall(r"[\w./]+", tree))
    for package in ("database", "web"):
        modules = {path.name for path in (ROOT / "phresh" / package).glob("[a-z]*.py")}
        assert modules <= named, modules - named
    for name in named:
        if name.endswith((".py", "/")):
            assert [*ROOT.glob(name), *(ROOT / "phresh").rglob(name)], name
