"""The queries on cleanings. Their rows are representations as JSON text."""

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Executable,
    Select,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.orm import aliased

from phresh.accounts.models import User
from phresh.accounts.queries import has_username, public_user
from phresh.cleanings.models import Cleaning, is_word_character
from phresh.database.statements import Query, Value, parameter, query, row_json
from phresh.web.pages import Page

Conditions = Sequence[ColumnElement[bool]]

# How many rows in the order of a page are searched for words before the index of words is used.
# Words that occur in one row of 240 or more fill a page by then; rarer ones the index finds in few
# rows, which are sorted soon. The planner alone reads the whole table in order when it mistakes a
# rare word for a common one.
NEARBY = 5_000

FIXED = ("cleaning_type", "price")  # once it is taken


def rendered_columns(cleaning: Any) -> list[ColumnElement[Any]]:
    """Return the columns of a cleaning's representation, of the table or of a subquery."""
    names = ("id", "name", "description", "cleaning_type", "price", "status")
    columns = [getattr(cleaning, name) for name in names]
    owner = public_user(cleaning.owner_id).label("owner")
    return [*columns, owner, cleaning.created_at, cleaning.updated_at]


def _rendered(cleaning: Any) -> ColumnElement[str]:
    return row_json(*rendered_columns(cleaning)).label("json")


RENDERED = _rendered(Cleaning)


def cleaning_page(
    page: Page, cleaning_type: Sequence[str] = (), q: str = "", **values: Decimal | str
) -> Query:
    """Select the page of the cleanings that pass every filter."""
    kinds = {f"kind_{i}": kind for i, kind in enumerate(sorted(set(cleaning_type)))}
    words = [_patterns(word) for word in q.split()]
    patterns = {
        f"word_{i}_{j}": text for i, word in enumerate(words) for j, text in enumerate(word)
    }
    shape = (page, tuple(kinds), tuple(map(len, words)))
    return _cleaning_page(*shape, **values, **kinds, **patterns, **page.values)


@query
def _cleaning_page(
    page: Page, kinds: Sequence[str], words: Sequence[int], **values: Any
) -> Executable:
    """Select the page for that many kinds, and words of that many patterns."""
    conditions = []
    if "price_min" in values:
        conditions.append(Cleaning.price >= values["price_min"])
    if "price_max" in values:
        conditions.append(Cleaning.price <= values["price_max"])
    if "status" in values:
        conditions.append(Cleaning.status == values["status"])
    if "owner" in values:
        owner = select(User.id).where(has_username(values["owner"])).scalar_subquery()
        conditions.append(Cleaning.owner_id == owner)
    # The best plan depends on how rare a word is; and on how rare a type or a price range is, where
    # the order is not that of the index which has them.
    is_by_price = page.order.begins_with("price")
    by_values = bool(
        words or ((kinds or conditions) and not is_by_price) or (kinds and "status" in values)
    )
    # An index has the rows of one type in order, but not those of two.
    parts = [[*conditions, Cleaning.cleaning_type == values[kind]] for kind in kinds]
    pages = [
        _page_with_words(page, part, words)
        if words
        else page.apply(select(RENDERED).where(*part), Cleaning)
        for part in parts or [conditions]
    ]
    return page.merged(pages).execution_options(plan_by_values=by_values)


def _page_with_words(page: Page, conditions: Conditions, words: Sequence[int]) -> Select[Any]:
    """Search nearby rows; where they do not fill the page, sort all rows that have the words."""
    nearby = page.after_cursor(select(Cleaning).where(*conditions), Cleaning)
    near = aliased(Cleaning, page.first(nearby, Cleaning, NEARBY).subquery())
    read = select(_rendered(near), *page.order.columns(near)).where(*_have_words(near, words))
    filled = page.first(read, near, page.fetch_limit).cte()
    is_full = select(func.count()).select_from(filled).scalar_subquery() == page.fetch_limit

    keys = select(*page.order.columns(Cleaning)).where(*conditions, *_have_words(Cleaning, words))
    # Materialized: else the planner may read in order all the same.
    found = page.after_cursor(keys, Cleaning).cte().prefix_with("MATERIALIZED")
    first = page.first(select(found).where(~is_full), found.c, page.fetch_limit).subquery()
    rest = select(RENDERED, *page.order.columns(Cleaning)).join(first, first.c.id == Cleaning.id)
    return page.merged([select(filled).where(is_full), rest])


def _have_words(cleaning: Any, words: Sequence[int]) -> list[ColumnElement[bool]]:
    columns = (cleaning.name, cleaning.description)
    return [
        or_(*(column.ilike(parameter(f"word_{i}_{j}")) for column in columns for j in range(count)))
        for i, count in enumerate(words)
    ]


def _patterns(word: str) -> list[str]:
    """Return the LIKE patterns of a text that has the word, of which one must match.

    The index finds words by three letters or digits in a row, and by how words start. A shorter
    word is found only where a word starts: at the beginning, or after a character given here.
    """
    escaped = re.sub(r"([\\%_])", r"\\\1", word)
    runs = "".join(character if is_word_character(character) else " " for character in word)
    anywhere = any(len(run) >= 3 for run in runs.split())
    starts = ("%",) if anywhere else ("", "% ", "%\n", "%(")
    return [f"{start}{escaped}%" for start in starts]


@query
def cleaning_by_id(*, cleaning_id: Value) -> Executable:
    """Select a cleaning."""
    return select(RENDERED).where(Cleaning.id == cleaning_id)


def _job(cleaning_id: Value) -> Select[Any]:
    job: Any = select(Cleaning.owner_id, Cleaning.status)
    return job.where(Cleaning.id == cleaning_id)


@query
def job_by_id(*, cleaning_id: Value) -> Executable:
    """Select the owner and the status of a cleaning."""
    return _job(cleaning_id)


@query
def locked_job(*, cleaning_id: Value) -> Executable:
    """Select the same, and lock the row until this transaction ends."""
    return _job(cleaning_id).with_for_update(of=Cleaning)


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
