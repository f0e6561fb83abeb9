"""The queries on evaluations."""

from typing import Any

from sqlalchemy import (
    ColumnElement,
    Double,
    Executable,
    cast,
    func,
    insert,
    select,
)

from phresh.evaluations.models import RATINGS, Evaluation
from phresh.pages import Page
from phresh.statements import Query, Value, query, row_json
from phresh.users.queries import public_user

STARS = ("one_stars", "two_stars", "three_stars", "four_stars", "five_stars")


def _rendered(cleaner_id: Any, owner_id: Any) -> ColumnElement[str]:
    row = Evaluation
    return row_json(
        row.cleaning_id,
        public_user(cleaner_id).label("cleaner"),
        public_user(owner_id).label("owner"),
        *(row.overall_rating, row.professionalism, row.completeness, row.efficiency),
        *(row.headline, row.comment, row.no_show, row.created_at),
    )


RENDERED = _rendered(Evaluation.cleaner_id, Evaluation.owner_id)


def evaluation_page(page: Page, cleaner_id: int) -> Query:
    """The page of the evaluations of a cleaner."""
    return _evaluation_page(page, cleaner_id=cleaner_id, **page.values)


@query
def _evaluation_page(page: Page, *, cleaner_id: Value, **_: Value) -> Executable:
    return page.of(select(RENDERED).where(Evaluation.cleaner_id == cleaner_id), Evaluation)


@query
def evaluation_by_cleaning(*, cleaner_id: Value, cleaning_id: Value) -> Executable:
    """The evaluation of a cleaner for one job, or no row."""
    given = (Evaluation.cleaner_id == cleaner_id, Evaluation.cleaning_id == cleaning_id)
    return select(RENDERED).where(*given)


@query
def new_evaluation(**values: Value) -> Executable:
    """Insert an evaluation."""
    rendered = _rendered(values["cleaner_id"], values["owner_id"])
    return insert(Evaluation).values(values).returning(rendered)


@query
def stats(*, cleaner_id: Value) -> Executable:
    """What the evaluations of a cleaner come to; a row also where there are none."""
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
    ).where(Evaluation.cleaner_id == cleaner_id)
