"""What the contenders are asked, and how wrk asks it."""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg2.extensions import AsIs, adapt

from phresh.cleanings import queries
from phresh.cleanings.models import ORDERS
from phresh.pages import Page
from phresh.statements import Query

PATH = "/api/cleanings/"
FILTERS = "cleaning_type=full_clean&price_min=40&sort=price"
MANY = 1_000  # requests of a workload; wrk picks from them by chance
SEED = 4

NEW = {
    "name": "Flat above the bakery",
    "description": "Flour gets everywhere.",
    "cleaning_type": "dust_up",
    "price": 15.5,
}

# wrk calls init once, request for every request it sends, done at the end. The requests are made
# beforehand, since wrk shares the processors with what it measures.
SCRIPT = """
local json = {["Content-Type"] = "application/json"}
local calls = {%(calls)s}
local made = {}

function init(arguments)
  math.randomseed(%(seed)d)
  for number, call in ipairs(calls) do
    made[number] = wrk.format(call[1], call[2], call[4], call[3])
  end
end

function request()
  return made[math.random(#made)]
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '\\n{"requests": %%d, "seconds": %%f, "p50": %%f, "p99": %%f, ',
    summary.requests, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3
  ))
  io.write(string.format(
    '"refused": %%d, "lost": %%d, "late": %%d}\\n',
    errors.status, errors.connect + errors.read + errors.write, errors.timeout
  ))
end
"""


@dataclass(frozen=True)
class Call:
    """A request; its body is sent as JSON."""

    method: str
    path: str
    body: Any = None

    @property
    def text(self) -> str | None:
        """Its body as it is sent."""
        return None if self.body is None else json.dumps(self.body)

    @property
    def headers(self) -> Mapping[str, str]:
        """Its headers beside those that any has."""
        return {} if self.body is None else {"Content-Type": "application/json"}


def read(cleaning_id: int) -> Call:
    """Read one cleaning."""
    return Call("GET", f"{PATH}{cleaning_id}/")


def create(**changes: Any) -> Call:
    """Post a cleaning."""
    return Call("POST", PATH, {"new_cleaning": {**NEW, **changes}})


def update(cleaning_id: int, **changes: Any) -> Call:
    """Change a cleaning."""
    return Call("PATCH", f"{PATH}{cleaning_id}/", {"cleaning_update": changes})


def page(query: str) -> Call:
    """List cleanings."""
    return Call("GET", f"{PATH}?{query}" if query else PATH)


def make_workloads(rows: int, cursors: Sequence[str]) -> dict[str, list[Call]]:
    """Give the requests of each workload, those that write last.

    :param rows: how many cleanings there are, with the ids from 1
    :param cursors: places in the list that FILTERS gives
    """
    chance = random.Random(SEED)  # noqa: S311

    def one() -> int:
        return chance.randint(1, rows)

    def price() -> float:
        return chance.randint(1_000, 9_999) / 100

    def many(call: Callable[[], Call]) -> list[Call]:
        return [call() for _ in range(MANY)]

    list_20 = [page("limit=20")]
    reads = many(lambda: read(one()))
    creates = many(lambda: create(price=price()))
    updates = many(lambda: update(one(), price=price()))
    return {
        "read one": reads,
        "list 20": list_20,
        "list 100": [page("limit=100")],
        "filtered list": [page(f"{FILTERS}&after={cursor}") for cursor in cursors],
        "create": creates,
        "update": updates,
        "90% reads, 10% writes": [*reads[:700], *list_20 * 200, *creates[:50], *updates[:50]],
    }


def wrk_script(calls: Sequence[Call]) -> str:
    """Give wrk's script in Lua, which sends these requests by chance."""
    return SCRIPT % {"calls": ", ".join(map(_in_lua, calls)), "seed": SEED}


def _in_lua(call: Call) -> str:
    # Text in ASCII is written alike in JSON and in Lua.
    parts = [json.dumps(part) for part in (call.method, call.path, call.text) if part is not None]
    return f"{{{', '.join([*parts, *(['json'] if call.headers else [])])}}}"


def pgbench_scripts(rows: int) -> dict[str, str]:
    """Give the statements of some workloads for pgbench, as Phresh makes them."""
    page = Page("-id", ORDERS["-id"], 20, is_first=True, after=())
    values = {**NEW, "price": AsIs(":price / 100.0")}
    return {
        "read one": f"\\set id random(1, {rows})\n"
        + _in_sql(queries.cleaning_by_id(cleaning_id=AsIs(":id"))),
        "list 20": _in_sql(queries.cleaning_page(page)),
        "create": "\\set price random(1000, 9999)\n" + _in_sql(queries.new_cleaning(**values)),
    }


def _in_sql(query: Query) -> str:
    text, values = query.to_send(prepared=False)
    sql = text % tuple(str(adapt(value)) for value in values)
    return f"{' '.join(sql.split())};\n"


def checks(rows: int) -> list[Call]:
    """Give the requests that all contenders have to answer alike, in this order."""
    new_id = rows + 1
    refused_values: list[dict[str, Any]] = [
        *({"name": name} for name in ("", " \t", "x" * 201)),
        {"description": "x" * 10_001},
        *({"cleaning_type": kind} for kind in ("", "wash")),
        *({"price": price} for price in (-0.01, 100_000_000, 29.999, "dear", "")),
        {"unknown": 1},
        *({name: None} for name in ("name", "cleaning_type", "price")),
    ]
    refused_queries = (
        *("limit=0", "limit=101", "limit=x", "after=x", "price_min=-1", "price_min=x"),
        *("cleaning_type=wash", "sort=wash", "unknown=1"),
    )
    return [
        *(read(cleaning_id) for cleaning_id in (1, 2, rows // 2, rows, new_id)),
        *(page(query) for query in ("", "limit=1", "limit=20", "limit=100")),
        *(page(query) for query in (FILTERS, f"{FILTERS}&limit=100", "sort=price&limit=7")),
        page("price_min=99.95&cleaning_type=dust_up"),  # fewer than a page
        create(),
        create(name="x" * 200, description="x" * 10_000, price="29.99"),
        create(description=None, price=0),
        create(description="", price=99_999_999.99),
        Call("POST", PATH, {"new_cleaning": {"name": " Größe ☃ ", "price": 1}}),
        *(read(new_id + i) for i in range(5)),
        update(1, name="Another", description="Other", cleaning_type="full_clean", price="1.5"),
        *(update(new_id, **{name: value}) for name, value in NEW.items()),
        update(new_id, description=None),
        update(new_id),
        update(1_000_000_000, price=1),
        read(1),
        page("limit=6"),
        *(create(**values) for values in refused_values),
        *(update(1, **values) for values in refused_values),
        *(Call("POST", PATH, body) for body in ({}, {"new_cleaning": None}, [], {"name": "x"})),
        Call("POST", PATH, {"new_cleaning": {"price": 1}}),
        Call("POST", PATH, {"new_cleaning": {"name": "x"}}),
        Call("POST", PATH, {"new_cleaning": NEW, "unknown": 1}),
        Call("PATCH", f"{PATH}1/", {"cleaning_update": {}, "unknown": 1}),
        *(page(query) for query in refused_queries),
        page("limit=1"),
    ]
