"""Imports run one way, so that a reader finds what a change can reach.

    settings <- config <- database <- web <- jobs, mail <- accounts <- features
    features <- admin, deletion, export <- operations <- cli <- phresh/__init__ <- wsgi

``serving`` stands apart and imports only ``config``. Every package that is not named here is a
feature, so a new one needs no change here.
"""

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter

import pytest

from phresh.config import ROOT

FEATURE = "a feature"
WINGS = {
    "settings": -1,
    "config": 0,
    "database": 1,
    "web": 2,
    "jobs": 3,
    "mail": 3,
    "accounts": 4,
    FEATURE: 5,
    "admin": 6,
    "deletion": 6,
    "export": 6,
    "operations": 7,
    "cli": 8,
    "phresh": 9,
    "wsgi": 10,
}
# Inside a feature, and accounts, deletion and export. Other modules, like accounts/tokens.py, are
# helpers.
HELPER = "a helper"
MODULES = {"models": 0, "schemas": 1, "queries": 1, HELPER: 2, "services": 3, "views": 4}
# Which modules may import flask's request, g and session. Other modules get what they need of the
# request as arguments.
OF_REQUESTS = {
    "phresh.accounts.audit",
    "phresh.accounts.limits",
    "phresh.accounts.tokens",
    "phresh.database.deadlines",
    "phresh.database.transactions",
    "phresh.jobs.tasks",
    "phresh.jobs.worker",
    "phresh.serving.logs",
}


def sources() -> dict[str, str]:
    """Return the source text of every module, by name."""
    paths = [ROOT / "wsgi.py", *sorted((ROOT / "phresh").rglob("*.py"))]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths]
    return {
        name.removesuffix(".__init__"): path.read_text()
        for name, path in zip(names, paths, strict=True)
    }


@cache
def parsed(text: str) -> list[ast.AST]:
    """Return the nodes of a source text that the rules look at."""
    kinds = (ast.Import, ast.ImportFrom, ast.Attribute)
    return [node for node in ast.walk(ast.parse(text)) if isinstance(node, kinds)]


class Imports:
    """The imports of all modules.

    :param texts: the source text of each module, by name
    """

    def __init__(self, texts: dict[str, str]) -> None:
        self.nodes = {name: parsed(text) for name, text in texts.items()}
        self.packages = {name.rpartition(".")[0] for name in texts}
        self.graph = {name: set(self._of(name)) for name in texts}

    def _of(self, name: str) -> Iterator[str]:
        """Yield the modules of Phresh that a module imports, also inside of functions."""
        for node in self.nodes[name]:
            if isinstance(node, ast.Import):
                found = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                parts = [f"{node.module}.{alias.name}" for alias in node.names]
                found = [part if part in self.nodes else str(node.module) for part in parts]
            else:
                continue
            yield from (each for each in found if each.partition(".")[0] == "phresh")

    def edges(self) -> Iterator[tuple[str, str]]:
        for name, found in self.graph.items():
            for each in sorted(found):
                yield name, each


def wing(name: str) -> str:
    """Return the part of Phresh that a module belongs to: a package, or config, phresh, wsgi."""
    parts = name.split(".")
    return parts[0] if len(parts) == 1 else parts[1]


def wing_rank(name: str) -> int:
    return WINGS.get(wing(name), WINGS[FEATURE])


def module_rank(name: str) -> int:
    return MODULES.get(name.rpartition(".")[2], MODULES[HELPER])


def is_feature(name: str) -> bool:
    """Return whether a module is of a feature, of accounts, of deletion or of export."""
    has_rank = WINGS["accounts"] <= wing_rank(name) <= WINGS["deletion"]
    return has_rank and wing(name) != "serving"


def wrong_wings(imports: Imports) -> Iterator[str]:
    """Yield each import of a wing that stands above, or beside, that of the importing module."""
    for name, found in imports.edges():
        here, there = wing(name), wing(found)
        if here == there:
            continue
        if "serving" in (here, there):
            if there != "config" and here != "phresh":
                yield f"{name} imports {found}, but serving stands apart: it imports only config"
            continue
        are_features = wing_rank(name) == wing_rank(found) == WINGS[FEATURE]
        if wing_rank(name) <= wing_rank(found) and not are_features:
            yield f"{name} imports {found}, which stands above it or beside it"


def wrong_modules(imports: Imports) -> Iterator[str]:
    """Yield each import against the order models <- schemas, queries <- services <- views."""
    for name, found in imports.edges():
        if found.endswith(".views") and name != "phresh":
            yield f"{name} imports {found}: only phresh/__init__.py imports views"
        if not (is_feature(name) and is_feature(found)):
            continue
        here, there = module_rank(name), module_rank(found)
        # Modules of two features may be of one kind, and so may helpers.
        may_be_equal = wing(name) != wing(found) or here == MODULES[HELPER]
        if here < there or (here == there and not may_be_equal):
            yield f"{name} imports {found}, which comes after it"


def circles(imports: Imports) -> Iterator[str]:
    """Yield a circle of packages, and one of modules, if there are any."""
    packages: dict[str, set[str]] = {}
    for name, found in imports.edges():
        if wing(name) != wing(found):
            packages.setdefault(wing(name), set()).add(wing(found))
    for graph in (packages, imports.graph):
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            yield f"a circle of imports: {' <- '.join(error.args[1])}"


def private_names(imports: Imports) -> Iterator[str]:
    """Yield each use of a name with a leading underscore that belongs to another module."""
    for name, nodes in imports.nodes.items():
        ours = set()
        for node in nodes:
            if isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith("phresh."):
                ours |= {alias.asname or alias.name for alias in node.names}
                used = [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                used = [alias.name for alias in node.names if alias.name.startswith("phresh")]
            else:
                continue
            for each in used:
                if any(is_private(part) for part in each.split(".")):
                    yield f"{name} imports {each}, which is private"
        for node in nodes:
            if isinstance(node, ast.Attribute) and is_private(node.attr):
                owner = ast.unparse(node.value)
                if owner in ours or owner.startswith("phresh."):
                    yield f"{name} uses {owner}.{node.attr}, which is private"


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def uses_of_the_request(imports: Imports) -> Iterator[str]:
    """Yield each use of flask's request, g or session in a module that is not about requests."""
    for name, nodes in imports.nodes.items():
        if name.endswith(".views") or wing(name) == "web" or name in OF_REQUESTS:
            continue
        for node in nodes:
            used = set()
            if isinstance(node, ast.ImportFrom) and node.module in ("flask", "flask.globals"):
                used = {alias.name for alias in node.names}
            elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "flask":
                used = {node.attr}
            for each in sorted(used & {"request", "g", "session"}):
                yield f"{name} uses flask.{each}: only views, web and {sorted(OF_REQUESTS)} do"


def full_packages(imports: Imports) -> Iterator[str]:
    """Yield each package of Phresh whose __init__.py imports something."""
    for name in imports.packages & set(imports.nodes) - {"phresh"}:
        if imports.graph[name]:
            yield f"{name}/__init__.py imports something: it holds a docstring only"


def single_modules(imports: Imports) -> Iterator[str]:
    """Yield each module in phresh/ itself but config."""
    for name in imports.nodes:
        if name.count(".") == 1 and name not in imports.packages | {"phresh.config"}:
            yield f"{name} is in no package: a feature is a package with models, queries, views ..."


RULES = [
    wrong_wings,
    wrong_modules,
    circles,
    private_names,
    uses_of_the_request,
    full_packages,
    single_modules,
]


@pytest.mark.parametrize("rule", RULES)
def test_every_module_keeps_the_rule(rule):
    assert list(rule(Imports(sources()))) == []


@pytest.mark.parametrize(
    ("rule", "module", "line"),
    [
        (wrong_wings, "phresh.config", "from phresh.database import pool"),
        (wrong_wings, "phresh.settings.values", "from phresh.config import ROOT"),
        (wrong_wings, "phresh.database.pool", "from phresh.web.fields import Text"),
        (wrong_wings, "phresh.web.app", "def later(): from phresh.accounts import tokens"),
        (wrong_wings, "phresh.accounts.services", "from phresh.offers.models import Offer"),
        (wrong_wings, "phresh.offers.services", "from phresh.deletion import services"),
        (wrong_wings, "phresh.deletion.services", "from phresh.export import queries"),
        (wrong_wings, "phresh.offers.services", "import phresh.cli.demo"),
        (wrong_wings, "phresh.operations.health", "from phresh.cli import demo"),
        (wrong_wings, "phresh.cli.commands", "from phresh import create_app"),
        (wrong_wings, "phresh.serving.hooks", "from phresh.database import pool"),
        (wrong_wings, "phresh.web.app", "from phresh.serving.logs import JSONFormatter"),
        (wrong_wings, "phresh.made_up.models", "from phresh.cli import demo"),
        (wrong_modules, "phresh.offers.models", "from phresh.offers import queries"),
        (wrong_modules, "phresh.offers.schemas", "from phresh.offers import queries"),
        (wrong_modules, "phresh.offers.queries", "from phresh.offers.schemas import OfferSchema"),
        (wrong_modules, "phresh.offers.queries", "from phresh.cleanings import services"),
        (wrong_modules, "phresh.accounts.queries", "from phresh.accounts import tokens"),
        (wrong_modules, "phresh.accounts.tokens", "from phresh.accounts import services"),
        (wrong_modules, "phresh.offers.services", "from phresh.offers.views import blp"),
        (wrong_modules, "phresh.feed.views", "from phresh.cleanings.views import blp"),
        (wrong_modules, "phresh.cli.demo", "from phresh.cleanings.views import blp"),
        (wrong_modules, "phresh.made_up.models", "from phresh.offers import queries"),
        (circles, "phresh.cleanings.queries", "from phresh.offers.models import Offer"),
        (circles, "phresh.database.deadlines", "from phresh.database.pool import Pool"),
        (private_names, "phresh.offers.services", "from phresh.cleanings.queries import _rows"),
        (private_names, "phresh.cli.demo", "from phresh.database import pool; pool._wait()"),
        (private_names, "phresh.cli.demo", "import phresh.web.app; phresh.web.app._wait()"),
        (private_names, "phresh.cli.demo", "from phresh.web.app import App; App._wait()"),
        (uses_of_the_request, "phresh.offers.services", "from flask import request"),
        (uses_of_the_request, "phresh.database.pool", "import flask; flask.g.seen = True"),
        (uses_of_the_request, "phresh.made_up.queries", "from flask import g"),
        (full_packages, "phresh.offers", "from phresh.offers.models import Offer"),
        (single_modules, "phresh.made_up", "NAMES = []"),
    ],
)
def test_a_module_that_breaks_the_rule_is_found(rule, module, line):
    texts = sources()
    texts[module] = f"{texts.get(module, '')}\n{line}\n"
    assert len(list(rule(Imports(texts)))) >= 1


def test_a_new_feature_needs_no_change_here():
    feature = {
        "phresh.made_up": '"""A feature."""',
        "phresh.made_up.models": "from phresh.database.base import Base",
        "phresh.made_up.queries": "from phresh.made_up.models import Thing\n"
        "from phresh.accounts.queries import public_user",
        "phresh.made_up.schemas": "from phresh.made_up.models import Thing",
        "phresh.made_up.texts": "from phresh.made_up.queries import thing_by_id",
        "phresh.made_up.services": "from phresh.made_up import texts\n"
        "from phresh.offers.services import find_job",
        "phresh.made_up.views": "from flask import request\nfrom phresh.made_up import services\n"
        "from phresh.accounts.tokens import login_required",
    }
    texts = {**sources(), **feature}
    texts["phresh"] += "\nfrom phresh.made_up.views import blp as made_up_blp\n"
    for rule in RULES:
        assert list(rule(Imports(texts))) == []
