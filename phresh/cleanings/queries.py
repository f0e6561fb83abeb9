"""The queries on cleanings. Each gives rows of rendered JSON."""

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
    union_all,
    update,
)
from sqlalchemy.orm import aliased

from phresh.cleanings.models import Cleaning, is_word_character
from phresh.offers.models import Offer
from phresh.pages import Page
from phresh.statements import Query, Value, parameter, query, row_json
from phresh.users.models import User
from phresh.users.queries import has_username, public_user

Conditions = Sequence[ColumnElement[bool]]

# How many rows in the order of a page are looked through for words before the index of words is
# asked. Words in one row of 240 or more fill a page by then; rarer ones the index finds in few
# rows, which are soon sorted. The planner alone reads the whole table in order when it takes a
# rare word for a common one.
NEARBY = 5_000

FIXED = ("cleaning_type", "price")  # once it is taken


def rendered_columns(cleaning: Any, owner_id: Any = None) -> list[ColumnElement[Any]]:
    """Give what an answer has of a cleaning, of the table or of a subquery.

    :param owner_id: in an INSERT, whose column SQLAlchemy takes for one of another table
    """
    names = ("id", "name", "description", "cleaning_type", "price", "status")
    columns = [getattr(cleaning, name) for name in names]
    owner = public_user(cleaning.owner_id if owner_id is None else owner_id).label("owner")
    return [*columns, owner, cleaning.created_at, cleaning.updated_at]


def _rendered(cleaning: Any, owner_id: Any = None) -> ColumnElement[str]:
    return row_json(*rendered_columns(cleaning, owner_id)).label("json")


RENDERED = _rendered(Cleaning)


def cleaning_page(
    page: Page, cleaning_type: Sequence[str] = (), q: str = "", **values: Decimal | str
) -> Query:
    """The page of those that pass every filter given."""
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
    """Make it for so many kinds, and words of so many patterns."""
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
    # How rare a word is decides what to read; and how rare a type or a price range, where the order
    # is not that of the index which has them.
    is_by_price = page.order.begins_with("price")
    by_values = bool(
        words or ((kinds or conditions) and not is_by_price) or (kinds and "status" in values)
    )
    # An index has the rows of one type in order, not those of two.
    parts = [[*conditions, Cleaning.cleaning_type == values[kind]] for kind in kinds]
    pages = [
        _page_with_words(page, part, words)
        if words
        else page.of(select(RENDERED).where(*part), Cleaning)
        for part in parts or [conditions]
    ]
    return page.merged(pages).execution_options(plan_by_values=by_values)


def _page_with_words(page: Page, conditions: Conditions, words: Sequence[int]) -> Select[Any]:
    """Look nearby; where that does not fill the page, sort all rows that have the words."""
    nearby = page.begun(select(Cleaning).where(*conditions), Cleaning)
    near = aliased(Cleaning, page.first(nearby, Cleaning, NEARBY).subquery())
    read = select(_rendered(near), *page.order.columns(near)).where(*_have_words(near, words))
    filled = page.first(read, near, page.wanted).cte()
    is_full = select(func.count()).select_from(filled).scalar_subquery() == page.wanted

    keys = select(*page.order.columns(Cleaning)).where(*conditions, *_have_words(Cleaning, words))
    # Materialized: else the planner may read in order all the same.
    found = page.begun(keys, Cleaning).cte().prefix_with("MATERIALIZED")
    first = page.first(select(found).where(~is_full), found.c, page.wanted).subquery()
    rest = select(RENDERED, *page.order.columns(Cleaning)).join(first, first.c.id == Cleaning.id)
    return page.merged([select(filled).where(is_full), rest])


def _have_words(cleaning: Any, words: Sequence[int]) -> list[ColumnElement[bool]]:
    columns = (cleaning.name, cleaning.description)
    return [
        or_(*(column.ilike(parameter(f"word_{i}_{j}")) for column in columns for j in range(count)))
        for i, count in enumerate(words)
    ]


def _patterns(word: str) -> list[str]:
    """Give what text that has the word is LIKE, one of it, in any case.

    The index knows words by three letters or digits in a row and by how they start. What has not
    so many can only be found where a word starts, and that is after what stands before it here.
    """
    escaped = re.sub(r"([\\%_])", r"\\\1", word)
    runs = "".join(character if is_word_character(character) else " " for character in word)
    anywhere = any(len(run) >= 3 for run in runs.split())
    starts = ("%",) if anywhere else ("", "% ", "%\n", "%(")
    return [f"{start}{escaped}%" for start in starts]


@query
def cleaning_by_id(*, cleaning_id: Value) -> Executable:
    """One cleaning, or no row."""
    return select(RENDERED).where(Cleaning.id == cleaning_id)


def _job(cleaning_id: Value) -> Select[Any]:
    job: Any = select(Cleaning.owner_id, Cleaning.status)
    return job.where(Cleaning.id == cleaning_id)


@query
def job_by_id(*, cleaning_id: Value) -> Executable:
    """Whose a cleaning is and its status, or no row."""
    return _job(cleaning_id)


@query
def locked_job(rendered: bool = False, *, cleaning_id: Value) -> Executable:
    """The same, and nobody else can write it until this transaction ends.

    :param rendered: whether to give how it is rendered too
    """
    job = _job(cleaning_id).with_for_update(of=Cleaning)
    return job.add_columns(RENDERED) if rendered else job


@query
def locked_jobs(*, user_id: Value) -> Executable:
    """The ids of the cleanings that a user owns or has an offer on, all locked, in their order."""
    mine = aliased(Cleaning)
    # Each by its index; with OR all cleanings would be read.
    of_user = union_all(
        select(mine.id).where(mine.owner_id == user_id),
        select(Offer.cleaning_id).where(Offer.user_id == user_id),
    )
    jobs = select(Cleaning.id).where(Cleaning.id.in_(of_user)).order_by(Cleaning.id)
    return jobs.with_for_update(of=Cleaning)


@query
def deleted_jobs(*, user_id: Value) -> Executable:
    """Delete the cleanings of a user, but not the completed ones."""
    return delete(Cleaning).where(Cleaning.owner_id == user_id, Cleaning.status != "completed")


@query
def new_cleaning(**values: Value) -> Executable:
    """Insert a cleaning; gives its id too."""
    rendered = _rendered(Cleaning, values["owner_id"])
    return insert(Cleaning).values(values).returning(rendered, Cleaning.id)


@query
def changed_cleaning(*, cleaning_id: Value, owner_id: Value = None, **changes: Value) -> Executable:
    """Change a cleaning, or no row; without changes it is only read.

    :param owner_id: where given, it is changed only if it is theirs, and only as they may
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
    # Not now(), when the transaction began: what waited for the row would turn back its clock.
    return changed.values(updated_at=func.clock_timestamp(), **changes).returning(RENDERED)


@query
def deleted_cleaning(*, cleaning_id: Value, owner_id: Value = None) -> Executable:
    """Delete a cleaning, or no row.

    :param owner_id: where given, it is deleted only if it is theirs and open
    """
    deleted = delete(Cleaning).where(Cleaning.id == cleaning_id).returning(Cleaning.id)
    if owner_id is not None:
        deleted = deleted.where(Cleaning.owner_id == owner_id, Cleaning.status == "open")
    return deleted
