"""Plain English: words that readers had to decode do not come back.

They are those that docs and code of version 1.0 used in a sense of their own. The lists name them
with the words to use instead.
"""

import ast
import re

import pytest

from phresh.config import ROOT

PYTHON = [
    path
    for folder in ("phresh", "tests", "migrations", "benchmarks")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if path.name != "test_language.py"
]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", ".env.example")),
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "benchmarks" / "README.md",
]

# In docstrings, and in pages.
AVOIDED = {
    r"\bjudg(e|es|ed)\b": "validate",
    r"\bmeanwhile\b": "since, until then, concurrent",
    r"\bone's own\b": "your, the current user's",
    r"\bwho(ever)? (asks|goes|posts|offers|cleans|waits longest|has an account)\b": "caller, owner",
    r"\b(is|are|be|was|were) (answered|refused with)\b": "respond, reject",
    r"\b(an|the|first|its|each|whole) answers?\b": "response",
}
# At the start of a docstring (PEP 257: imperative).
STARTS = {
    r"(Give|Have|Say|Tell|Ask|Judge)s?\b": "Return, Raise, Yield, Validate, Set ...",
    r"Whether\b.*": "Return whether (a property may begin with Whether)",
}


def docstrings(path):
    """Yield each docstring of a module with its line, and whether it is a function's."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            text = ast.get_docstring(node)
            if text:
                is_function = isinstance(node, ast.FunctionDef) and not any(
                    "property" in ast.unparse(decorator) for decorator in node.decorator_list
                )
                yield getattr(node, "lineno", 1), text, is_function


def avoided(text):
    return [
        f"{match[0]!r}: {better}"
        for pattern, better in AVOIDED.items()
        for match in re.finditer(pattern, text, re.IGNORECASE)
    ]


@pytest.mark.parametrize("path", PYTHON, ids=lambda path: str(path.relative_to(ROOT)))
def test_docstrings_are_in_plain_english(path):
    found = []
    for line, text, is_function in docstrings(path):
        found += [f"{path}:{line}: {what}" for what in avoided(text)]
        if is_function and "tests" not in path.parts:
            found += [
                f"{path}:{line}: {text[:40]!r}: {better}"
                for pattern, better in STARTS.items()
                if re.match(pattern, text)
            ]
    assert found == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_pages_are_in_plain_english(path):
    prose = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    assert avoided(re.sub("`[^`\n]*`", "", prose)) == []


def test_the_list_finds_such_words():
    assert avoided("Whoever posts one's own is judged meanwhile; the answer is refused with 401.")
