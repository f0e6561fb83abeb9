"""The API as the documentation of Flask-Smorest and Flask-SQLAlchemy shows it."""

import base64
import os
import re
from decimal import Decimal
from typing import Any

from flask import Flask, url_for
from flask.views import MethodView
from flask_smorest import Api, Blueprint, abort
from flask_sqlalchemy import SQLAlchemy
from marshmallow import RAISE, Schema, ValidationError, fields, validate
from sqlalchemy import Identity, Numeric, Text, select, tuple_
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

app = Flask(__name__)
app.config.update(
    API_TITLE="Cleanings",
    API_VERSION="1",
    OPENAPI_VERSION="3.1.0",
    SQLALCHEMY_DATABASE_URI=os.environ["DATABASE_URL"].replace(":", "+psycopg2:", 1),
    # A connection for each of gunicorn's threads, else some would be closed after each request.
    SQLALCHEMY_ENGINE_OPTIONS={"pool_size": 8},
)


class Base(DeclarativeBase):
    """What every model inherits."""


db = SQLAlchemy(app, model_class=Base)
api = Api(app)
blp = Blueprint("cleanings", __name__, url_prefix="/api/cleanings")


class Cleaning(db.Model):
    """The table of cleanings."""

    __tablename__ = "cleanings"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    name: Mapped[str] = mapped_column(Text)
    description: Mapped[str | None] = mapped_column(Text)
    cleaning_type: Mapped[str] = mapped_column(Text)
    price: Mapped[Decimal] = mapped_column(Numeric(10, 2))


def check_name(name: str) -> None:
    """Refuse a blank name."""
    if not name.strip():
        raise ValidationError("Must not be blank.")


def check_price(price: Decimal) -> None:
    """Refuse a price out of range, and more than two decimals."""
    if not 0 <= price <= Decimal("99999999.99") or price != round(price, 2):
        raise ValidationError("Must be from 0 to 99999999.99 with at most 2 decimals.")


NAME: list[Any] = [validate.Length(1, 200), check_name]
DESCRIPTION = validate.Length(max=10_000)
TYPE = validate.OneOf(["dust_up", "spot_clean", "full_clean"])


class CleaningSchema(Schema):
    """A cleaning, as it is answered."""

    id = fields.Integer()
    name = fields.String()
    description = fields.String()
    cleaning_type = fields.String()
    price = fields.Float()


class CleaningCreateSchema(Schema):
    """A cleaning to be posted."""

    name = fields.String(required=True, validate=NAME)
    description = fields.String(load_default=None, allow_none=True, validate=DESCRIPTION)
    cleaning_type = fields.String(load_default="spot_clean", validate=TYPE)
    price = fields.Decimal(required=True, validate=check_price)


class CreateBodySchema(Schema):
    """The body of a POST."""

    new_cleaning = fields.Nested(CleaningCreateSchema, required=True)


class CleaningUpdateSchema(Schema):
    """Changes to a cleaning; what is left out stays as it is."""

    name = fields.String(validate=NAME)
    description = fields.String(allow_none=True, validate=DESCRIPTION)
    cleaning_type = fields.String(validate=TYPE)
    price = fields.Decimal(validate=check_price)


class UpdateBodySchema(Schema):
    """The body of a PATCH."""

    cleaning_update = fields.Nested(CleaningUpdateSchema, required=True)


class ListQuerySchema(Schema):
    """Which cleanings to list, in which order."""

    limit = fields.Integer(load_default=20, validate=validate.Range(1, 100))
    after = fields.String()
    cleaning_type = fields.String(validate=TYPE)
    price_min = fields.Decimal(validate=check_price)
    sort = fields.String(load_default="-id", validate=validate.OneOf(["-id", "price"]))


@blp.route("/")
class Cleanings(MethodView):
    """All cleanings."""

    @blp.arguments(ListQuerySchema, location="query", unknown=RAISE)
    @blp.response(200, CleaningSchema(many=True))
    def get(self, query: dict[str, Any]) -> Any:
        """List cleanings, newest or cheapest first."""
        by_price = query["sort"] == "price"
        statement = select(Cleaning).limit(query["limit"] + 1)
        if by_price:
            statement = statement.order_by(Cleaning.price, Cleaning.id)
        else:
            statement = statement.order_by(Cleaning.id.desc())
        if "cleaning_type" in query:
            statement = statement.where(Cleaning.cleaning_type == query["cleaning_type"])
        if "price_min" in query:
            statement = statement.where(Cleaning.price >= query["price_min"])
        if "after" in query:
            place = read_cursor(query["after"], by_price)
            if by_price:
                statement = statement.where(tuple_(Cleaning.price, Cleaning.id) > place)
            else:
                statement = statement.where(Cleaning.id < place[0])
        cleanings = db.session.scalars(statement).all()
        page = cleanings[: query["limit"]]
        if len(cleanings) == len(page):
            return page
        after = write_cursor(page[-1], by_price)
        url = url_for("cleanings.Cleanings", **{**query, "after": after})
        return page, 200, {"Link": f'<{url}>; rel="next"'}

    @blp.arguments(CreateBodySchema)
    @blp.response(201, CleaningSchema)
    def post(self, body: dict[str, Any]) -> Any:
        """Post a cleaning."""
        cleaning = Cleaning(**body["new_cleaning"])
        db.session.add(cleaning)
        db.session.commit()
        url = url_for("cleanings.CleaningById", cleaning_id=cleaning.id)
        return cleaning, 201, {"Location": url}


@blp.route("/<int:cleaning_id>/")
class CleaningById(MethodView):
    """One cleaning."""

    @blp.response(200, CleaningSchema)
    def get(self, cleaning_id: int) -> Any:
        """Get a cleaning."""
        return db.get_or_404(Cleaning, cleaning_id)

    @blp.arguments(UpdateBodySchema)
    @blp.response(200, CleaningSchema)
    def patch(self, body: dict[str, Any], cleaning_id: int) -> Any:
        """Change a cleaning."""
        cleaning = db.get_or_404(Cleaning, cleaning_id)
        for name, value in body["cleaning_update"].items():
            setattr(cleaning, name, value)
        db.session.commit()
        return cleaning


def write_cursor(cleaning: Cleaning, by_price: bool) -> str:
    """Give the opaque text of a cleaning's place in the order."""
    plain = f"price {cleaning.price} {cleaning.id}" if by_price else f"-id {cleaning.id}"
    return base64.urlsafe_b64encode(plain.encode()).decode().rstrip("=")


def read_cursor(cursor: str, by_price: bool) -> list[Any]:
    """Give the values of a place, or answer 422."""
    pattern = r"price ([0-9]{1,8}\.[0-9]{2}) ([0-9]{1,10})" if by_price else "-id ([0-9]{1,10})"
    try:
        plain = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True).decode()
    except ValueError:
        plain = ""
    if (match := re.fullmatch(pattern, plain)) is None:
        abort(422, message="Not a place in this order.")
    *price, id_ = match.groups()
    return [*map(Decimal, price), int(id_)]


api.register_blueprint(blp)
