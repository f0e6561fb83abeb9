"""The schemas of evaluations."""

from decimal import Decimal
from typing import Any

from marshmallow import Schema, fields, validate

from phresh.accounts.schemas import PublicUserSchema
from phresh.evaluations.models import COMMENT_MAX, HEADLINE_MAX, RATING_MAX, RATING_MIN
from phresh.web.fields import Flag, Text
from phresh.web.pages import NEWEST_FIRST, PageSchema

HEADLINE = {"example": "Spotless"}
COMMENT = {"example": "Even the cat approves."}
DELETED = {"description": "null if the account was deleted"}


class Rating(fields.Integer):
    """A number of stars; 3.0 is an integer too, as in JSON Schema."""

    default_error_messages = {"stars": f"Must be a whole number from {RATING_MIN} to {RATING_MAX}."}

    def __init__(self, **kwargs: Any) -> None:
        stars = validate.Range(RATING_MIN, RATING_MAX)
        super().__init__(validate=stars, metadata={"example": 5}, **kwargs)

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> int:
        number = isinstance(value, int | Decimal) and not isinstance(value, bool)
        if not number or value not in range(RATING_MIN, RATING_MAX + 1):
            raise self.make_error("stars")
        return int(value)


class EvaluationSchema(Schema):
    """An evaluation."""

    cleaning_id = fields.Integer(required=True, metadata={"example": 1})
    cleaner = fields.Nested(PublicUserSchema, required=True, allow_none=True, metadata=DELETED)
    owner = fields.Nested(PublicUserSchema, required=True, allow_none=True, metadata=DELETED)
    overall_rating = Rating(required=True)
    professionalism = Rating(required=True, allow_none=True)
    completeness = Rating(required=True, allow_none=True)
    efficiency = Rating(required=True, allow_none=True)
    headline = fields.String(required=True, allow_none=True, metadata=HEADLINE)
    comment = fields.String(required=True, allow_none=True, metadata=COMMENT)
    no_show = fields.Boolean(required=True)
    created_at = fields.AwareDateTime(required=True)


class EvaluationCreateSchema(Schema):
    """A new evaluation."""

    overall_rating = Rating(required=True)
    professionalism = Rating(load_default=None, allow_none=True)
    completeness = Rating(load_default=None, allow_none=True)
    efficiency = Rating(load_default=None, allow_none=True)
    headline = Text(load_default=None, allow_none=True, max_length=HEADLINE_MAX, metadata=HEADLINE)
    comment = Text(load_default=None, allow_none=True, max_length=COMMENT_MAX, metadata=COMMENT)
    no_show = Flag(load_default=False, metadata={"description": "The cleaner did not come"})


class EvaluationListSchema(PageSchema):
    """A page of the evaluations of a cleaner."""

    ORDERS = NEWEST_FIRST


class StatsSchema(Schema):
    """The rating statistics of a cleaner; averages are null if nothing was rated."""

    total_evaluations = fields.Integer(required=True)
    total_no_show = fields.Integer(required=True)
    one_stars = fields.Integer(
        required=True, metadata={"description": "Number of overall ratings of one star"}
    )
    two_stars = fields.Integer(required=True)
    three_stars = fields.Integer(required=True)
    four_stars = fields.Integer(required=True)
    five_stars = fields.Integer(required=True)
    avg_overall_rating = fields.Float(required=True, allow_none=True)
    min_overall_rating = fields.Integer(required=True, allow_none=True)
    max_overall_rating = fields.Integer(required=True, allow_none=True)
    avg_professionalism = fields.Float(required=True, allow_none=True)
    avg_completeness = fields.Float(required=True, allow_none=True)
    avg_efficiency = fields.Float(required=True, allow_none=True)
