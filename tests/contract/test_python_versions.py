"""The OpenAPI document does not depend on Python's version; what differs in others is simulated."""

import subprocess
import sys
from http import HTTPStatus

import pytest

from phresh.config import ROOT
from tests.tools.processes import environment

# What Python 3.13 has in http.HTTPStatus.
OF_3_13 = {
    413: ("CONTENT_TOO_LARGE", "Content Too Large"),
    414: ("URI_TOO_LONG", "URI Too Long"),
    416: ("RANGE_NOT_SATISFIABLE", "Range Not Satisfiable"),
    422: ("UNPROCESSABLE_CONTENT", "Unprocessable Content"),
}
# What Python 3.11 has.
OF_3_11 = {
    413: ("REQUEST_ENTITY_TOO_LARGE", "Request Entity Too Large"),
    414: ("REQUEST_URI_TOO_LONG", "Request-URI Too Long"),
    416: ("REQUESTED_RANGE_NOT_SATISFIABLE", "Requested Range Not Satisfiable"),
    422: ("UNPROCESSABLE_ENTITY", "Unprocessable Entity"),
}

# Python 3.13 removes the indentation of docstrings when it compiles them.
DEDENT = """
import ast, inspect
from importlib.machinery import SourceFileLoader

compiled = SourceFileLoader.source_to_code

def source_to_code(self, data, path, **options):
    tree = ast.parse(data)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                if isinstance(first.value.value, str):
                    first.value.value = inspect.cleandoc(first.value.value)
    return compiled(self, tree, path, **options)

SourceFileLoader.source_to_code = source_to_code
"""


@pytest.mark.parametrize("names", [OF_3_11, OF_3_13], ids=["3.11", "3.13"])
def test_the_document_does_not_depend_on_the_names_of_statuses(make_app, monkeypatch, names):
    for status, (name, phrase) in names.items():
        monkeypatch.setattr(HTTPStatus(status), "_name_", name)
        monkeypatch.setattr(HTTPStatus(status), "phrase", phrase)
    app = make_app(PUBLIC_URL="http://localhost:8000")
    api = app.extensions["flask-smorest"]["apis"][""]["ext_obj"]
    monkeypatch.setattr(type(api), "_texts", {})
    assert HTTPStatus(422).name == names[422][0]
    assert api.document == (ROOT / "openapi.json").read_text()


@pytest.mark.slow
def test_the_document_does_not_depend_on_the_indentation_of_docstrings(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(DEDENT)
    done = subprocess.run(
        [sys.executable, "-m", "flask", "openapi", "print"],
        cwd=ROOT,
        env=environment(PYTHONPATH=str(tmp_path), PYTHONPYCACHEPREFIX=str(tmp_path / "cache")),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == (ROOT / "openapi.json").read_text()
