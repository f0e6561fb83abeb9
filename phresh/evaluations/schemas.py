"""The schemas of evaluations."""

from decimal import Decimal
from typing import Any

from marshmallow import Schema, fields, validate

from phresh.accounts.schemas import PublicUser
from phresh.evaluations.models import COMMENT_MAX, HEADLINE_MAX, RATING_MAX, RATING_MIN
from phresh.web.fields import CREATED_AT, Count, Flag, Id, Text
from phresh.web.pages import NEWEST_FIRST, PageSchema

HEADLINE = {"description": "A headline.", "example": "Spotless"}
COMMENT = {"description": "A comment.", "example": "Even the cat approves."}
NO_SHOW = {"description": "Whether the cleaner did not come.", "example": False}


class Rating(fields.Integer):
    """A number of stars; 3.0 is an integer too, as in JSON Schema."""

    default_error_messages = {"stars": f"Must be a whole number from {RATING_MIN} to {RATING_MAX}."}

    def __init__(self, description: str, **kwargs: Any) -> None:
        stars = validate.Range(RATING_MIN, RATING_MAX)
        metadata = {"description": description, "example": 5}
        super().__init__(validate=stars, metadata=metadata, **kwargs)

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> int:
        number = isinstance(value, int | Decimal) and not isinstance(value, bool)
        if not number or value not in range(RATING_MIN, RATING_MAX + 1):
            raise self.make_error("stars")
        return int(value)


class Average(fields.Float):
    """An average of ratings, in a response; null if there are none."""

    def __init__(self, description: str) -> None:
        stars = validate.Range(RATING_MIN, RATING_MAX)
        metadata = {"description": description, "example": 4.5}
        super().__init__(required=True, allow_none=True, validate=stars, metadata=metadata)


OVERALL = "How good it was, in stars."
PROFESSIONALISM = "How professional the cleaner was, in stars."
COMPLETENESS = "How completely it was done, in stars."
EFFICIENCY = "How efficiently it was done, in stars."


class EvaluationSchema(Schema):
    """An evaluation: how the owner of a cleaning rates the cleaner."""

    cleaning_id = Id("The id of the cleaning.", required=True)
    cleaner = PublicUser("Who is rated; null if the account was deleted.")
    owner = PublicUser("Who has rated; null if the account was deleted.")
    overall_rating = Rating(OVERALL, required=True)
    professionalism = Rating(PROFESSIONALISM, required=True, allow_none=True)
    completeness = Rating(COMPLETENESS, required=True, allow_none=True)
    efficiency = Rating(EFFICIENCY, required=True, allow_none=True)
    headline = fields.String(required=True, allow_none=True, metadata=HEADLINE)
    comment = fields.String(required=True, allow_none=True, metadata=COMMENT)
    no_show = fields.Boolean(required=True, metadata=NO_SHOW)
    is_hidden = fields.Boolean(
        required=True,
        metadata={
            "description": "Whether an operator has hidden it. Only its author can read it then, "
            "and it does not count.",
            "example": False,
        },
    )
    created_at = fields.AwareDateTime(required=True, metadata=CREATED_AT)


class EvaluationCreateSchema(Schema):
    """A new evaluation."""

    overall_rating = Rating(OVERALL, required=True)
    professionalism = Rating(PROFESSIONALISM, load_default=None, allow_none=True)
    completeness = Rating(COMPLETENESS, load_default=None, allow_none=True)
    efficiency = Rating(EFFICIENCY, load_default=None, allow_none=True)
    headline = Text(load_default=None, allow_none=True, max_length=HEADLINE_MAX, metadata=HEADLINE)
    comment = Text(load_default=None, allow_none=True, max_length=COMMENT_MAX, metadata=COMMENT)
    no_show = Flag(load_default=False, metadata=NO_SHOW)


class EvaluationListSchema(PageSchema):
    """A page of the evaluations of a cleaner."""

    ORDERS = NEWEST_FIRST


class StatsSchema(Schema):
    """The rating statistics of a cleaner; averages are null if nothing was rated."""

    total_evaluations = Count("The number of evaluations.", required=True)
    total_no_show = Count("How often the cleaner did not come.", required=True)
    one_stars = Count("The number of overall ratings of one star.", required=True)
    two_stars = Count("The number of overall ratings of two stars.", required=True)
    three_stars = Count("The number of overall ratings of three stars.", required=True)
    four_stars = Count("The number of overall ratings of four stars.", required=True)
    five_stars = Count("The number of overall ratings of five stars.", required=True)
    avg_overall_rating = Average("The average overall rating.")
    min_overall_rating = Rating("The lowest overall rating.", required=True, allow_none=True)
    max_overall_rating = Rating("The highest overall rating.", required=True, allow_none=True)
    avg_professionalism = Average("The average rating of professionalism.")
    avg_completeness = Average("The average rating of completeness.")
    avg_efficiency = Average("The average rating of efficiency.")
