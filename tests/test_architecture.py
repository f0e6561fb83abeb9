"""Imports run one way, so that a reader finds what a change can reach."""

import ast
from pathlib import Path

import pytest

from phresh.config import ROOT

ORDER = [
    {"config", "logs", "statements", "worker"},
    {"embedded", "pool"},
    {"db"},
    {"api"},
    {"pages"},
    {"models", "limits"},
    {"schemas", "queries"},
    {"auth"},
    {"services", "idempotency"},
    {"views"},
    {"docs", "cli", "demo", "__init__"},
    {"wsgi"},
]
FILES = [ROOT / "wsgi.py", *sorted((ROOT / "phresh").rglob("*.py"))]


def rank(module: str) -> int:
    return next(place for place, names in enumerate(ORDER) if module in names)


def imported(path: Path) -> set[str]:
    """The modules of ours that a file imports, by the last part of their name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            names = {f"{module}.{alias.name}" for alias in node.names}
            found |= {name for name in names if is_module(name)} or {module}
    return {
        "__init__" if name == "phresh" else name for name in found if name.split(".")[0] == "phresh"
    }


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").exists()


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_what_comes_before_it(path):
    if path.name == "__init__.py" and path.parent.name != "phresh":
        assert imported(path) == set(), "a feature's package holds its docstring only"
        return
    here = rank(path.stem)
    for name in imported(path):
        place = rank(name.rpartition(".")[2])
        assert place < here or (
            place == here and path.stem in {"schemas", "queries", "services", "cli", "__init__"}
        ), f"{path.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_views_auth_and_what_they_rest_on_touch_the_request(path):
    if path.stem in {"views", "auth", "api", "pages", "idempotency", "limits", "logs"}:
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "flask":
            assert not {alias.name for alias in node.names} & {"request", "g", "session"}
