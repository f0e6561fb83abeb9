"""The queries on cleanings. Their rows are representations as JSON text."""

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Executable,
    Numeric,
    Select,
    case,
    cast,
    column,
    delete,
    exists,
    func,
    insert,
    literal_column,
    or_,
    select,
    table,
    update,
)

from phresh.accounts.models import User
from phresh.accounts.queries import has_username, public_user
from phresh.cleanings.models import (
    CLEANING_TYPES,
    PRICE_MAX,
    SEARCHED,
    WORDS_MAX,
    Cleaning,
    is_word_character,
)
from phresh.database.statements import Query, Value, query, row_json
from phresh.web.pages import Page

Conditions = Sequence[ColumnElement[bool]]

# How many rows in the order of a page are searched for words before the index of words is used.
# Words that occur in one row of 240 or more fill a page by then; rarer ones the index finds in few
# rows, which are sorted soon. The planner alone reads the whole table in order when it mistakes a
# rare word for a common one.
NEARBY = 5_000

# The values of filters that every row passes; no client can send them.
ANY = {"price_min": -1, "price_max": -1, "status": "", "owner": ""}
ANY_PRICE: dict[str, Any] = {"price_min": Decimal(0), "price_max": PRICE_MAX}

FIXED = ("cleaning_type", "price")  # once it is taken


# Of a cleaning's representation.
COLUMNS = (
    *(Cleaning.id, Cleaning.name, Cleaning.description, Cleaning.cleaning_type, Cleaning.price),
    *(Cleaning.status, public_user(Cleaning.owner_id).label("owner")),
    *(Cleaning.hidden_at.is_not(None).label("is_hidden"), Cleaning.created_at, Cleaning.updated_at),
)
RENDERED = row_json(*COLUMNS).label("json")

# Of a page. It needs no index of its own: hidden rows are few, and a page skips them.
IS_PUBLIC = Cleaning.hidden_at.is_(None)

# That feature stands on this one, which so cannot import its model.
OFFERS = table("offers", column("cleaning_id"), column("user_id"), column("status")).c


def cleaning_page(
    page: Page, cleaning_type: Sequence[str] = (), q: str = "", **filters: Any
) -> Query:
    """Select the page of the cleanings that pass every filter.

    Clients choose among 68 statements: none of their values is in one.
    """
    types = sorted(set(cleaning_type))
    if len(types) == len(CLEANING_TYPES):
        types = []
    if q:
        return _search(page, types, q.split(), filters)
    values = {**{f"kind_{i}": kind for i, kind in enumerate(types)}, **page.values}
    in_order = set()
    if page.order.begins_with("price"):
        in_order = ANY_PRICE.keys() | (set() if types else {"status"})
    if filters.keys() <= in_order and (in_order or not types):
        prices = ANY_PRICE if filters.keys() & ANY_PRICE.keys() else {}
        return _page_in_order(page, len(types), **prices | filters, **values)
    return _filtered_page(page, len(types), **ANY | filters, **values)


@query
def _page_in_order(page: Page, count: int, **values: Value) -> Executable:
    """Select the page for so many types, or for all; an index has the rows in order."""
    conditions = []
    if "price_min" in values:
        conditions.append(Cleaning.price.between(values["price_min"], values["price_max"]))
    if "status" in values:
        conditions.append(Cleaning.status == values["status"])
    return page.cut(_part_of_types(page, conditions, count, values))


@query
def _filtered_page(page: Page, count: int, **values: Value) -> Executable:
    """Select the same with all filters; how rare their values are decides the plan."""
    part = _part_of_types(page, _pass_filters(values), count, values)
    return page.cut(part).execution_options(plan_by_values=True)


def _part_of_types(
    page: Page, conditions: Conditions, count: int, values: Mapping[str, Value]
) -> Select[Any]:
    # An index has the rows of one type in order, but not those of two.
    types = [[Cleaning.cleaning_type == values[f"kind_{i}"]] for i in range(count)] or [[]]
    shown = select(RENDERED).where(IS_PUBLIC, *conditions)
    return page.merged([page.part(shown.where(*each), Cleaning) for each in types])


def _pass_filters(values: Mapping[str, Value]) -> list[ColumnElement[bool]]:
    """Return the conditions of all filters. The planner drops those that every row passes."""
    # Else the type of a price would be that of -1, an integer.
    prices = {name: cast(values[name], Numeric) for name in ("price_min", "price_max")}
    values = {**values, **prices}
    username = select(User.id).where(has_username(values["owner"])).scalar_subquery()
    conditions = {
        "price_min": Cleaning.price >= values["price_min"],
        "price_max": Cleaning.price <= values["price_max"],
        "status": Cleaning.status == values["status"],
        "owner": Cleaning.owner_id == username,
    }
    return [or_(_is_any(values[name], ANY[name]), passed) for name, passed in conditions.items()]


def _is_any(value: Value, every: object) -> ColumnElement[bool]:
    """Return whether a value is the one that every row passes; part of the text, it is not sent."""
    return value == literal_column(repr(every))


def _search(
    page: Page, types: Sequence[str], words: Sequence[str], filters: Mapping[str, Any]
) -> Query:
    kinds = {"kind_0": types[0], "kind_1": types[-1]} if types else {"kind_0": "", "kind_1": ""}
    missing = [""] * (WORDS_MAX - len(words))
    patterns = {f"word_{i}": word for i, word in enumerate([*map(_pattern, words), *missing])}
    values = {**ANY, **filters, **kinds, **patterns, **page.values}
    return _searched_page(page, **values, nearby=NEARBY)


@query
def _searched_page(page: Page, **values: Value) -> Executable:
    """Search nearby rows; where they do not fill the page, sort all rows that have the words."""
    kinds = (values["kind_0"], values["kind_1"])
    is_of_type = or_(_is_any(kinds[0], ""), *(Cleaning.cleaning_type == kind for kind in kinds))
    conditions = [IS_PUBLIC, *_pass_filters(values), is_of_type]
    patterns = [values[f"word_{i}"] for i in range(WORDS_MAX)]

    keys = page.order.columns(Cleaning)
    all_nearby = select(*keys, SEARCHED.label("searched")).where(*conditions)
    nearby = page.first(
        page.after_cursor(all_nearby, Cleaning), Cleaning, values["nearby"]
    ).subquery()
    matching = select(*page.order.columns(nearby.c)).where(*_match(nearby.c.searched, patterns))
    filled = page.first(matching, nearby.c, values["fetch_limit"]).cte()
    is_full = select(func.count()).select_from(filled).scalar_subquery() == values["fetch_limit"]

    everywhere = select(*keys).where(*conditions, *_match(SEARCHED, patterns))
    # Materialized: else the planner may read in order all the same.
    found = page.after_cursor(everywhere, Cleaning).cte().prefix_with("MATERIALIZED")
    rest = page.first(select(found).where(~is_full), found.c, values["fetch_limit"])

    # Rendered only once it is known which rows are on the page.
    ids = page.merged([select(filled).where(is_full), rest]).subquery().c
    rendered = select(RENDERED, *keys).where(Cleaning.id == ids.id)
    return page.cut(page.first(rendered, ids)).execution_options(plan_by_values=True)


def _match(searched: Any, patterns: Sequence[Value]) -> list[ColumnElement[bool]]:
    return [or_(_is_any(pattern, ""), searched.like(func.lower(pattern))) for pattern in patterns]


def _pattern(word: str) -> str:
    """Return the LIKE pattern of a searched text (``SEARCHED``) that has the word.

    The index finds words by three letters or digits in a row, and by how words start. A shorter
    word is found only where a word starts.
    """
    escaped = re.sub(r"[\\%_]", r"\\\g<0>", word.replace("(", "( "))
    runs = "".join(character if is_word_character(character) else " " for character in word)
    anywhere = any(len(run) >= 3 for run in runs.split())
    return f"%{escaped}%" if anywhere else f"% {escaped}%"


@query
def cleaning_by_id(*, cleaning_id: Value) -> Executable:
    """Select a cleaning as everyone may see it."""
    return select(RENDERED).where(Cleaning.id == cleaning_id, IS_PUBLIC)


@query
def seen_cleaning(*, cleaning_id: Value, viewer_id: Value) -> Executable:
    """Select a cleaning as a certain user may see it: a hidden one has an owner and a cleaner."""
    takes = or_(OFFERS.status == "accepted", OFFERS.status == "completed")
    seen = or_(IS_PUBLIC, Cleaning.owner_id == viewer_id, _has_offer(viewer_id, takes))
    return select(RENDERED).where(Cleaning.id == cleaning_id, seen)


def _has_offer(user_id: Value, *conditions: ColumnElement[bool]) -> ColumnElement[bool]:
    of_user = (OFFERS.cleaning_id == Cleaning.id, OFFERS.user_id == user_id)
    return exists(select(OFFERS.status).where(*of_user, *conditions))


def _job(cleaning_id: Value, user_id: Value) -> Select[Any]:
    job: Any = select(Cleaning.owner_id, Cleaning.status, Cleaning.hidden_at.is_not(None))
    # Not as it is seen: each bidder can still read and rescind the own offer.
    known = or_(IS_PUBLIC, Cleaning.owner_id == user_id, _has_offer(user_id))
    return job.where(Cleaning.id == cleaning_id, known)


@query
def job_by_id(*, cleaning_id: Value, user_id: Value) -> Executable:
    """Select the owner and the status of a cleaning, and whether it is hidden.

    :param user_id: the current user; a hidden cleaning has only its owner and its bidders
    """
    return _job(cleaning_id, user_id)


@query
def locked_job(*, cleaning_id: Value, user_id: Value) -> Executable:
    """Select the same, and lock the row until this transaction ends."""
    return _job(cleaning_id, user_id).with_for_update(of=Cleaning)


@query
def new_cleaning(**values: Value) -> Executable:
    """Insert a cleaning; select its id too."""
    return insert(Cleaning).values(values).returning(RENDERED, Cleaning.id)


@query
def changed_cleaning(*, cleaning_id: Value, owner_id: Value = None, **changes: Value) -> Executable:
    """Change a cleaning; without changes, select it.

    :param owner_id: if passed, it is changed only if it is theirs, and only as its status allows
    """
    conditions = [Cleaning.id == cleaning_id]
    if owner_id is not None:
        conditions.append(Cleaning.owner_id == owner_id)
        conditions += [
            or_(Cleaning.status == "open", getattr(Cleaning, name) == changes[name])
            for name in FIXED
            if name in changes
        ]
    if not changes:
        return select(RENDERED).where(*conditions)
    changed = update(Cleaning).where(*conditions)
    # Not now(), the start of the transaction: after a wait for the row, the time would go back.
    return changed.values(updated_at=func.clock_timestamp(), **changes).returning(RENDERED)


@query
def deleted_cleaning(*, cleaning_id: Value, owner_id: Value = None) -> Executable:
    """Delete a cleaning.

    :param owner_id: if passed, it is deleted only if it is theirs and open
    """
    deleted = delete(Cleaning).where(Cleaning.id == cleaning_id).returning(Cleaning.id)
    if owner_id is not None:
        deleted = deleted.where(Cleaning.owner_id == owner_id, Cleaning.status == "open")
    return deleted


@query
def hidden_cleaning(*, cleaning_id: Value, is_hidden: Value) -> Executable:
    """Hide a cleaning, or show it again; select its owner.

    Its ``updated_at`` stays: for the feed, it has not changed.
    """
    hidden = update(Cleaning).where(Cleaning.id == cleaning_id)
    return hidden.values(hidden_at=case((is_hidden, func.now()))).returning(Cleaning.owner_id)
