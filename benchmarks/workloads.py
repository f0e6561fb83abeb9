"""The requests to the contenders, and the scripts with which wrk and pgbench send them."""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from psycopg2.extensions import AsIs, adapt

from benchmarks.samples import (
    DISABLED,
    EXPIRED,
    POPULAR,
    USERS,
    is_open,
    owner_of,
    token,
    token_hash,
)
from phresh.accounts.queries import user_of_token
from phresh.cleanings import queries
from phresh.cleanings.models import ORDERS
from phresh.database.statements import Query
from phresh.web.pages import Page, encode_cursor

PATH = "/api/cleanings/"
FEED = "/api/feed/cleanings/"
FILTERS = "cleaning_type=full_clean&price_min=40&sort=price"
REQUESTS = 1_000  # per workload; wrk picks from them at random
SEED = 4

NEW = {
    "name": "Flat above the bakery",
    "description": "Flour gets everywhere.",
    "cleaning_type": "dust_up",
    "price": 15.5,
}

# wrk calls init once, request for each request that it sends, and done at the end. The requests are
# formatted in advance, because wrk uses the same processors as the servers that it measures.
SCRIPT = """
local calls = {%(calls)s}
local formatted = {}

function init(arguments)
  math.randomseed(%(seed)d)
  for number, call in ipairs(calls) do
    formatted[number] = wrk.format(call[1], call[2], call[4], call[3])
  end
end

function request()
  return formatted[math.random(#formatted)]
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '\\n{"requests": %%d, "seconds": %%f, "p50": %%f, "p99": %%f, ',
    summary.requests, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3
  ))
  io.write(string.format(
    '"bad_status": %%d, "socket_errors": %%d, "timeouts": %%d}\\n',
    errors.status, errors.connect + errors.read + errors.write, errors.timeout
  ))
end
"""


@dataclass(frozen=True)
class Call:
    """A request; its body is sent as JSON.

    :param pages: how many pages to follow when responses are compared
    """

    method: str
    path: str
    body: Any = None
    authorization: str = ""
    pages: int = 1

    def as_user(self, user_id: int | None) -> "Call":
        """Return the same request with the token of a user, or without a token."""
        return replace(self, authorization=f"Bearer {token(user_id)}" if user_id else "")

    @property
    def text(self) -> str | None:
        """The body as it is sent."""
        return None if self.body is None else json.dumps(self.body)

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers beside those that every request has."""
        headers = {} if self.body is None else {"Content-Type": "application/json"}
        return {**headers, "Authorization": self.authorization} if self.authorization else headers


def read(cleaning_id: int) -> Call:
    """Return a request that gets a cleaning."""
    return Call("GET", f"{PATH}{cleaning_id}/")


def create(**changes: Any) -> Call:
    """Return a request that creates a cleaning."""
    return Call("POST", PATH, {"new_cleaning": {**NEW, **changes}})


def update(cleaning_id: int, **changes: Any) -> Call:
    """Return a request that changes a sample cleaning, sent by its owner."""
    call = Call("PATCH", f"{PATH}{cleaning_id}/", {"cleaning_update": changes})
    return call.as_user(owner_of(cleaning_id))


def page(query: str) -> Call:
    """Return a request that lists cleanings."""
    return Call("GET", f"{PATH}?{query}" if query else PATH)


def feed(query: str) -> Call:
    """Return a request that lists events."""
    return Call("GET", f"{FEED}?{query}" if query else FEED)


def offers(cleaning_id: int, query: str) -> Call:
    """Return a request that lists the offers on a sample cleaning, sent by its owner."""
    path = f"{PATH}{cleaning_id}/offers/"
    return Call("GET", f"{path}?{query}" if query else path).as_user(owner_of(cleaning_id))


def make_workloads(
    rows: int, cursors: Sequence[str], times: Sequence[str]
) -> dict[str, list[Call]]:
    """Return the requests of each workload; workloads that write come last.

    :param rows: how many cleanings there are, with the ids from 1
    :param cursors: of the list that FILTERS selects
    :param times: cursors of the feed
    """
    rng = random.Random(SEED)  # noqa: S311

    def any_id() -> int:
        return rng.randint(1, rows)

    def open_id_with_owner() -> int:
        return next(i for i in iter(any_id, None) if owner_of(i) and is_open(i))

    def any_user() -> int:
        return rng.randint(1, USERS)

    def price() -> float:
        return rng.randint(1_000, 9_999) / 100

    def make_calls(call: Callable[[], Call]) -> list[Call]:
        return [call() for _ in range(REQUESTS)]

    list_20 = [page("limit=20")]
    reads = make_calls(lambda: read(any_id()))
    creates = make_calls(lambda: create(price=price()).as_user(any_user()))
    updates = make_calls(lambda: update(open_id_with_owner(), price=price()))
    return {
        "read one": reads,
        "list 20": list_20,
        "list 100": [page("limit=100")],
        "filtered list": [page(f"{FILTERS}&after={cursor}") for cursor in cursors],
        "feed": [*[feed("limit=20")] * len(times), *(feed(f"limit=20&after={t}") for t in times)],
        "offers list": [offers(cleaning_id, "limit=20") for cleaning_id in POPULAR],
        "create": creates,
        "update": updates,
        "90% reads, 10% writes": [*reads[:700], *list_20 * 200, *creates[:50], *updates[:50]],
    }


def wrk_script(calls: Sequence[Call]) -> str:
    """Return a Lua script for wrk, which sends these requests in random order."""
    return SCRIPT % {"calls": ", ".join(map(_lua, calls)), "seed": SEED}


def _lua(call: Call) -> str:
    # ASCII text is written the same way in JSON and in Lua.
    texts = (call.method, call.path, call.text)
    parts = ["nil" if part is None else json.dumps(part) for part in texts]
    headers = [f"[{json.dumps(name)}] = {json.dumps(v)}" for name, v in call.headers.items()]
    return f"{{{', '.join(parts)}, {{{', '.join(headers)}}}}}"


def pgbench_scripts(rows: int) -> dict[str, str]:
    """Return pgbench scripts of some workloads, with the statements that Phresh sends."""
    page = Page("-id", ORDERS["-id"], 20)
    values = {**NEW, "price": AsIs(":price / 100.0"), "owner_id": AsIs(":owner")}
    return {
        "read one": f"\\set id random(1, {rows})\n"
        + _sql(queries.cleaning_by_id(cleaning_id=AsIs(":id"))),
        "list 20": _sql(queries.cleaning_page(page)),
        "create": f"\\set price random(1000, 9999)\n\\set owner random(1, {USERS})\n"
        + _sql(user_of_token(token_hash=token_hash(1), idle=30 * 24 * 3600))
        + _sql(queries.new_cleaning(**values)),
    }


def _sql(query: Query) -> str:
    text, values = query.to_send(prepared=False)
    sql = text % tuple(str(adapt(value)) for value in values)
    # pgbench takes ":MI" for a variable, also in a string. Quoted, the colons mean the same.
    sql = sql.replace("HH24:MI:SS", 'HH24":"MI":"SS')
    return f"{' '.join(sql.split())};\n"


def calls_to_compare(rows: int) -> list[Call]:
    """Return the requests, in this order, to which all contenders have to respond alike."""
    new_id = rows + 1
    invalid_values: list[dict[str, Any]] = [
        *({"name": name} for name in ("", " \t", "x" * 201)),
        {"description": "x" * 10_001},
        *({"cleaning_type": kind} for kind in ("", "wash")),
        *({"price": price} for price in (-0.01, 100_000_000, 29.999, "dear", "")),
        {"unknown": 1},
        *({"id": 1}, {"owner": None}, {"owner_id": 1}, {"created_at": "2025-01-01T00:00:00Z"}),
        {"status": "open"},
        *({name: None} for name in ("name", "cleaning_type", "price")),
    ]
    invalid_queries = (
        *("limit=0", "limit=101", "limit=x", "after=x", "price_min=-1", "price_min=x"),
        *("cleaning_type=wash", "sort=wash", "unknown=1"),
    )
    invalid_pages = ("limit=0", "limit=101", "limit=x", "after=x", "sort=-id", "unknown=1")
    # "-id 5", "-time 2026-01-01T00:00:00+00:00 5", and the same of a thirteenth month.
    by_id, by_time = "LWlkIDU", "LXRpbWUgMjAyNi0wMS0wMVQwMDowMDowMCswMDowMCA1"
    by_invalid_time = "LXRpbWUgMjAyNi0xMy0wMVQwMDowMDowMCswMDowMCA1"
    # In the middle of both kinds of events: samples were posted a day ago, one per second.
    ago = timedelta(days=1, seconds=rows // 2)
    middle = encode_cursor("-time", (datetime.now(UTC) - ago, 1))
    change = update(1, price=1)
    invalid_tokens = (
        *("", "x", "Bearer", "Bearer ", "Bearer x", f"Bearer {token(1)}x", f"Basic {token(1)}"),
        *(f"Bearer {token(any_user)}" for any_user in (DISABLED, EXPIRED)),
    )
    return [
        *(feed(query) for query in ("", "limit=1", "limit=20", f"after={by_time}")),
        replace(feed(f"limit=20&after={middle}"), pages=2),
        *(replace(feed(f"limit={limit}"), pages=2) for limit in (7, 100)),
        *(feed(query) for query in (*invalid_pages, f"after={by_id}", f"after={by_invalid_time}")),
        *(replace(offers(1, query), pages=3) for query in ("", "limit=7", "limit=20")),
        *(offers(1, query) for query in ("limit=100", f"after={by_id}")),
        *(offers(cleaning_id, "") for cleaning_id in (2, 5, 15, 25, 35, 999_999_999)),
        *(offers(1, query) for query in (*invalid_pages, f"after={by_time}")),
        *(replace(offers(1, ""), authorization=header) for header in invalid_tokens),
        *(offers(cleaning_id, "").as_user(2) for cleaning_id in (1, 3, 10, 999_999_999)),
        *(offers(cleaning_id, "limit=0").as_user(None) for cleaning_id in (1, 999_999_999)),
        *(read(cleaning_id) for cleaning_id in (1, 2, rows // 2, rows, new_id)),
        *(page(query) for query in ("", "limit=1", "limit=20", "limit=100")),
        *(page(query) for query in (FILTERS, f"{FILTERS}&limit=100", "sort=price&limit=7")),
        page("price_min=99.95&cleaning_type=dust_up"),  # less than a page
        create().as_user(owner_of(new_id)),
        create(name="x" * 200, description="x" * 10_000, price="29.99"),
        create(description=None, price=0),
        create(description="", price=99_999_999.99),
        Call("POST", PATH, {"new_cleaning": {"name": " Größe ☃ ", "price": 1}}).as_user(USERS),
        *(read(new_id + i) for i in range(5)),
        update(1, name="Another", description="Other", cleaning_type="full_clean", price="1.5"),
        *(update(new_id, **{name: value}) for name, value in NEW.items()),
        update(new_id, description=None),
        update(new_id),
        update(999_999_999, price=1),
        read(1),
        page("limit=6"),
        feed("limit=20"),
        *(replace(change, authorization=header) for header in invalid_tokens),
        *(replace(create(), authorization=header) for header in invalid_tokens if header),
        *(update(cleaning_id, price=1).as_user(1) for cleaning_id in (2, 10, new_id + 1)),
        update(2).as_user(1),
        *(read(cleaning_id) for cleaning_id in (1, 2, 10)),
        replace(update(1, price=-1), authorization=""),
        update(2, price=-1).as_user(1),
        update(999_999_999, price=-1),
        *(create(**values) for values in invalid_values),
        *(update(1, **values) for values in invalid_values),
        *(Call("POST", PATH, body) for body in ({}, {"new_cleaning": None}, [], {"name": "x"})),
        Call("POST", PATH, {"new_cleaning": {"price": 1}}),
        Call("POST", PATH, {"new_cleaning": {"name": "x"}}),
        Call("POST", PATH, {"new_cleaning": NEW, "unknown": 1}),
        Call("PATCH", f"{PATH}1/", {"cleaning_update": {}, "unknown": 1}).as_user(1),
        *(page(query) for query in invalid_queries),
        page("limit=1"),
    ]
