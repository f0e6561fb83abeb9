"""What the tests of all routes know of each feature: its ``tests/<feature>/routes.py``.

A new feature has such a file beside its tests. The tests in ``tests/contract`` and those of the
migrations find it by themselves: you change no file that features share. It defines one name::

    ALL = "/api/notes/"
    ONE = f"{ALL}<id:note_id>/"


    def own_note(world):
        path = world.owner.client.post(ALL, json={"new_note": {"text": "Mine"}}).headers["Location"]
        return {"note_id": path.split("/")[-2]}


    FEATURE = Feature(
        prepare=own_note,
        routes=[
            Route("GET", ALL, EVERYONE),
            Route("POST", ALL, (401, 201, 201)),
            Route("GET", ONE, EVERYONE, errors={404}),
            Route("DELETE", ONE, (401, 403, 204), errors={404}),
        ],
        rows={"notes": "INSERT INTO notes (text, owner_id) SELECT 'Hers', id FROM users"},
    )

A request has the body that the document shows as its example. Where that cannot succeed, ``send``
has another one.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.tools.users import Someone

NOBODY, OTHER, OWNER = WHO = ("nobody", "another user", "the owner")
# Statuses for nobody, another user and the owner.
EVERYONE, ACCOUNTS, OWNERS = (200, 200, 200), (401, 200, 200), (401, 403, 200)


@dataclass(frozen=True)
class World:
    """What ``prepare`` makes rows with: two users and the fixtures of the same names."""

    owner: Someone
    other: Someone
    make_user: Callable[..., Someone]
    make_cleaning: Callable[..., int]
    sql: Callable[..., Any]


Prepare = Callable[[World], Mapping[str, Any]]


@dataclass(frozen=True)
class Route:
    """One method of one URL rule; for other rows, a method can have another route.

    :param statuses: for nobody, another user and the owner of what ``prepare`` makes
    :param errors: the error statuses in the document, but those that follow from the kind of
        operation (401, 422, 500, 503; 429 where it writes; 400, 413 and 415 with a body)
    :param send: arguments of the test client, instead of the document's example of the body
    :param example: the status of that example, which ``send`` replaces
    :param rejected: arguments of a request of the owner's that gets an error status, for its
        example in the document; most are found without (tests/tools/examples.py)
    :param prepare: instead of the feature's
    :param filters: of a list: values of each filter that can decide the shape of a statement;
        None: not sent
    :param statements: of a list: the number of statements that clients can choose, by default two
        for each order
    """

    method: str
    rule: str
    statuses: tuple[int, int, int]
    errors: AbstractSet[int] = frozenset()
    send: Mapping[str, Any] | None = None
    example: int | None = None
    rejected: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    prepare: Prepare | None = None
    filters: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    statements: int | None = None

    def __str__(self) -> str:
        return f"{self.method} {self.rule}"


@dataclass(frozen=True)
class Feature:
    """A feature, as the tests of all routes see it.

    :param routes: each method of each URL rule; HEAD follows from GET
    :param prepare: makes rows for a request and returns the values of the rules' parameters
    :param rows: for each table of the feature, SQL that inserts a row; tables that it refers to
        have rows already
    :param fuzz: for an operation id, SQL that makes what schemathesis' requests of that operation
        need; its last statement returns the values of the path parameters, if there are any, a row
        for each request. ``user-1`` sends the requests, those with an id of 1000 or more what ends
        a login of the sender. There are 9,999 users, with the ids 1 to 9999; each path that has a
        username has ``user-2``
    :param correct: makes a request of schemathesis valid by what the document cannot express; it
        is called with the operation id and the case
    :param undocumented: messages of validation errors that the document cannot express
    """

    routes: list[Route] = field(default_factory=list)
    prepare: Prepare = lambda _: {}
    rows: Mapping[str, str] = field(default_factory=dict)
    fuzz: Mapping[str, str] = field(default_factory=dict)
    correct: Callable[[str, Any], None] = lambda *_: None
    undocumented: AbstractSet[str] = frozenset()


@cache
def features() -> dict[str, Feature]:
    """Return every feature, by the name of its folder."""
    tests = Path(__file__).parents[1]
    names = sorted(path.parent.name for path in tests.glob("*/routes.py"))
    return {name: import_module(f"tests.{name}.routes").FEATURE for name in names}


def routes() -> Iterator[tuple[Feature, Route]]:
    """Yield every route with its feature, and HEAD for each GET."""
    for feature in features().values():
        for route in feature.routes:
            yield feature, route
            if route.method == "GET":
                yield (
                    feature,
                    Route(
                        "HEAD", route.rule, route.statuses, prepare=route.prepare, send=route.send
                    ),
                )


def path_of(feature: Feature, route: Route, world: World) -> str:
    """Make the rows that a route needs, and return the path that names them."""
    values = (route.prepare or feature.prepare)(world)

    def value(match: re.Match[str]) -> str:
        name = match[1]
        assert name in values, f"{route}: `prepare` must return a value for {name}."
        return str(values[name])

    return re.sub(r"<(?:[^:<>]+:)?(\w+)>", value, route.rule)


def is_page(endpoint: str) -> bool:
    """Return whether an endpoint is no part of the API: the document, pages, static files."""
    return endpoint == "static" or endpoint.rpartition(".")[0] in {"account", "docs", "api-docs"}
