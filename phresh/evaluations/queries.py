"""The queries on evaluations."""

from typing import Any

from sqlalchemy import (
    Double,
    Executable,
    Select,
    case,
    cast,
    func,
    insert,
    or_,
    select,
    update,
)

from phresh.accounts.queries import public_user
from phresh.database.statements import Query, Value, query, row_json
from phresh.evaluations.models import RATINGS, Evaluation
from phresh.web.pages import Page

STARS = ("one_stars", "two_stars", "three_stars", "four_stars", "five_stars")


RENDERED = row_json(
    Evaluation.cleaning_id,
    public_user(Evaluation.cleaner_id).label("cleaner"),
    public_user(Evaluation.owner_id).label("owner"),
    *(Evaluation.overall_rating, Evaluation.professionalism, Evaluation.completeness),
    *(Evaluation.efficiency, Evaluation.headline, Evaluation.comment, Evaluation.no_show),
    Evaluation.hidden_at.is_not(None).label("is_hidden"),
    Evaluation.created_at,
)
IS_PUBLIC = Evaluation.hidden_at.is_(None)


def evaluation_page(page: Page, cleaner_id: int) -> Query:
    """Select a page of the evaluations of a cleaner."""
    return _evaluation_page(page, cleaner_id=cleaner_id, **page.values)


@query
def _evaluation_page(page: Page, *, cleaner_id: Value, **_: Value) -> Executable:
    given = (Evaluation.cleaner_id == cleaner_id, IS_PUBLIC)
    return page.apply(select(RENDERED).where(*given), Evaluation)


@query
def evaluation_by_cleaning(*, cleaner_id: Value, cleaning_id: Value) -> Executable:
    """Select the evaluation of a cleaner for one cleaning, as everyone may see it."""
    return _evaluation(cleaner_id, cleaning_id).where(IS_PUBLIC)


@query
def seen_evaluation(*, cleaner_id: Value, cleaning_id: Value, viewer_id: Value) -> Executable:
    """Select the same as a certain user may see it: a hidden one, only its author."""
    seen = or_(IS_PUBLIC, Evaluation.owner_id == viewer_id)
    return _evaluation(cleaner_id, cleaning_id).where(seen)


def _evaluation(cleaner_id: Value, cleaning_id: Value) -> Select[Any]:
    given = (Evaluation.cleaner_id == cleaner_id, Evaluation.cleaning_id == cleaning_id)
    return select(RENDERED).where(*given)


@query
def new_evaluation(**values: Value) -> Executable:
    """Insert an evaluation."""
    return insert(Evaluation).values(values).returning(RENDERED)


@query
def stats(*, cleaner_id: Value) -> Executable:
    """Select the rating statistics of a cleaner; a row also if there are no evaluations."""
    overall = Evaluation.overall_rating
    averages = {
        name: cast(func.avg(getattr(Evaluation, name)), Double).label(f"avg_{name}")
        for name in RATINGS
    }
    return select(
        row_json(
            func.count().label("total_evaluations"),
            func.count().filter(Evaluation.no_show).label("total_no_show"),
            *(
                func.count().filter(overall == stars).label(name)
                for stars, name in enumerate(STARS, 1)
            ),
            averages.pop("overall_rating"),
            func.min(overall).label("min_overall_rating"),
            func.max(overall).label("max_overall_rating"),
            *averages.values(),
        )
    ).where(Evaluation.cleaner_id == cleaner_id, IS_PUBLIC)


@query
def hidden_evaluation(*, cleaning_id: Value, is_hidden: Value) -> Executable:
    """Hide the evaluation for a cleaning, or show it again; select its author."""
    hidden = update(Evaluation).where(Evaluation.cleaning_id == cleaning_id)
    return hidden.values(hidden_at=case((is_hidden, func.now()))).returning(Evaluation.owner_id)
