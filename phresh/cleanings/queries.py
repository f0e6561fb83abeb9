"""The statements on cleanings. Each gives rows of rendered JSON."""

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

from phresh.cleanings.models import Cleaning, is_word_character
from phresh.db import row_json
from phresh.pages import Page

Conditions = Sequence[ColumnElement[bool]]

# How many rows in the order of a page are looked through for words before the index of words is
# asked. Words in one row of 240 or more fill a page by then; rarer ones the index finds in few
# rows, which are soon sorted. The planner alone reads the whole table in order when it takes a
# rare word for a common one.
NEARBY = 5_000


def _rendered(cleaning: Any) -> ColumnElement[str]:
    names = ("id", "name", "description", "cleaning_type", "price")
    return row_json(*(getattr(cleaning, name) for name in names)).label("json")


RENDERED = _rendered(Cleaning)


def cleaning_page(
    page: Page,
    cleaning_type: Sequence[str] = (),
    price_min: Decimal | None = None,
    price_max: Decimal | None = None,
    q: str = "",
) -> Executable:
    """The page of those that pass every filter given."""
    conditions = []
    if price_min is not None:
        conditions.append(Cleaning.price >= price_min)
    if price_max is not None:
        conditions.append(Cleaning.price <= price_max)
    # An index has the rows of one type in order, not those of two.
    kinds = [[Cleaning.cleaning_type == kind] for kind in sorted(set(cleaning_type))] or [[]]
    parts = [[*conditions, *kind] for kind in kinds]
    if q:
        return page.merged([_page_with_words(page, part, q) for part in parts])
    return page.merged([page.of(select(RENDERED).where(*part), Cleaning) for part in parts])


def _page_with_words(page: Page, conditions: Conditions, q: str) -> Select[Any]:
    """Look nearby; where that does not fill the page, sort all rows that have the words."""
    nearby = page.begun(select(Cleaning).where(*conditions), Cleaning)
    near = aliased(Cleaning, page.first(nearby, Cleaning, NEARBY).subquery())
    read = select(_rendered(near), *page.order.columns(near)).where(*_have_words(near, q))
    filled = page.first(read, near, page.wanted).cte()
    is_full = select(func.count()).select_from(filled).scalar_subquery() == page.wanted

    keys = select(*page.order.columns(Cleaning)).where(*conditions, *_have_words(Cleaning, q))
    # Materialized: else the planner may read in order all the same.
    found = page.begun(keys, Cleaning).cte().prefix_with("MATERIALIZED")
    first = page.first(select(found).where(~is_full), found.c, page.wanted).subquery()
    rest = select(RENDERED, *page.order.columns(Cleaning)).join(first, first.c.id == Cleaning.id)
    return page.merged([select(filled).where(is_full), rest])


def _have_words(cleaning: Any, words: str) -> list[ColumnElement[bool]]:
    return [_has_word(cleaning, word) for word in words.split()]


def _has_word(cleaning: Any, word: str) -> ColumnElement[bool]:
    """Whether name or description has it, in any case.

    The index knows words by three letters or digits in a row and by how they start. What has not
    so many can only be found where a word starts, and that is after what stands before it here.
    """
    escaped = re.sub(r"([\\%_])", r"\\\1", word)
    runs = "".join(character if is_word_character(character) else " " for character in word)
    anywhere = any(len(run) >= 3 for run in runs.split())
    starts = ("%",) if anywhere else ("", "% ", "%\n", "%(")
    columns = (cleaning.name, cleaning.description)
    return or_(*(column.ilike(f"{start}{escaped}%") for column in columns for start in starts))


def cleaning_by_id(cleaning_id: int) -> Select[Any]:
    """One cleaning, or no row."""
    return select(RENDERED).where(Cleaning.id == cleaning_id)


def locked_cleaning(cleaning_id: int) -> Executable:
    """One cleaning that nobody else can write until this transaction ends, or no row."""
    return cleaning_by_id(cleaning_id).with_for_update()


def new_cleaning(values: dict[str, Any]) -> Executable:
    """Insert a cleaning; gives its id too."""
    return insert(Cleaning).values(**values).returning(RENDERED, Cleaning.id)


def changed_cleaning(cleaning_id: int, changes: dict[str, Any]) -> Executable:
    """Change a cleaning, or no row; without changes it is only read."""
    if not changes:
        return cleaning_by_id(cleaning_id)
    statement = update(Cleaning).where(Cleaning.id == cleaning_id).values(**changes)
    return statement.returning(RENDERED)


def deleted_cleaning(cleaning_id: int) -> Executable:
    """Delete a cleaning, or no row."""
    return delete(Cleaning).where(Cleaning.id == cleaning_id).returning(Cleaning.id)
