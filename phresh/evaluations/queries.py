"""The queries on evaluations."""

from sqlalchemy import (
    Double,
    Executable,
    cast,
    func,
    insert,
    select,
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
    Evaluation.created_at,
)


def evaluation_page(page: Page, cleaner_id: int) -> Query:
    """Select a page of the evaluations of a cleaner."""
    return _evaluation_page(page, cleaner_id=cleaner_id, **page.values)


@query
def _evaluation_page(page: Page, *, cleaner_id: Value, **_: Value) -> Executable:
    return page.apply(select(RENDERED).where(Evaluation.cleaner_id == cleaner_id), Evaluation)


@query
def evaluation_by_cleaning(*, cleaner_id: Value, cleaning_id: Value) -> Executable:
    """Select the evaluation of a cleaner for one cleaning."""
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
    ).where(Evaluation.cleaner_id == cleaner_id)
