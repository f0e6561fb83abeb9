"""The API written as the documentation of Flask-Smorest and Flask-SQLAlchemy shows."""

import base64
import hashlib
import os
import re
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from functools import wraps
from typing import Any

from flask import Flask, g, request, url_for
from flask.views import MethodView
from flask_smorest import Api, Blueprint, abort
from flask_sqlalchemy import SQLAlchemy
from marshmallow import RAISE, Schema, ValidationError, fields, validate
from sqlalchemy import (
    DateTime,
    ForeignKey,
    Identity,
    LargeBinary,
    Numeric,
    Text,
    func,
    literal,
    select,
    tuple_,
    union_all,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

app = Flask(__name__)
app.config.update(
    API_TITLE="Cleanings",
    API_VERSION="1",
    OPENAPI_VERSION="3.1.0",
    SQLALCHEMY_DATABASE_URI=os.environ["DATABASE_URL"].replace(":", "+psycopg2:", 1),
    # One connection per gunicorn thread; otherwise some would be closed after each request.
    SQLALCHEMY_ENGINE_OPTIONS={
        "pool_size": 8,
        "connect_args": {"options": "-c timezone=UTC"},
    },
)


class Base(DeclarativeBase):
    """The base of every model."""


# Objects are not read again after a commit.
db = SQLAlchemy(app, model_class=Base, session_options={"expire_on_commit": False})
api = Api(app)
blp = Blueprint("cleanings", __name__, url_prefix="/api/cleanings")


class User(db.Model):
    """The columns of the table of users that are needed here."""

    __tablename__ = "users"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    username: Mapped[str] = mapped_column(Text)
    is_active: Mapped[bool]


class Token(db.Model):
    """The table of tokens."""

    __tablename__ = "tokens"

    hash: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey(User.id))
    expires_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class Cleaning(db.Model):
    """The table of cleanings."""

    __tablename__ = "cleanings"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    name: Mapped[str] = mapped_column(Text)
    description: Mapped[str | None] = mapped_column(Text)
    cleaning_type: Mapped[str] = mapped_column(Text)
    price: Mapped[Decimal] = mapped_column(Numeric(10, 2))
    status: Mapped[str] = mapped_column(Text, server_default="open")
    owner_id: Mapped[int | None] = mapped_column(ForeignKey(User.id))
    owner: Mapped[User | None] = relationship(lazy="joined")
    hidden_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())

    @property
    def is_hidden(self) -> bool:
        """Whether an operator has hidden it."""
        return self.hidden_at is not None


class Offer(db.Model):
    """The table of offers."""

    __tablename__ = "offers"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    cleaning_id: Mapped[int] = mapped_column(ForeignKey(Cleaning.id))
    user_id: Mapped[int | None] = mapped_column(ForeignKey(User.id))
    user: Mapped[User | None] = relationship(lazy="joined")
    message: Mapped[str | None] = mapped_column(Text)
    status: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    updated_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


def check_name(name: str) -> None:
    """Reject a blank name."""
    if not name.strip():
        raise ValidationError("Must not be blank.")


def check_price(price: Decimal) -> None:
    """Reject a price out of range or with more than two decimals."""
    if not 0 <= price <= Decimal("99999999.99") or price != round(price, 2):
        raise ValidationError("Must be from 0 to 99999999.99 with at most 2 decimals.")


NAME: list[Any] = [validate.Length(1, 200), check_name]
DESCRIPTION = validate.Length(max=10_000)
TYPE = validate.OneOf(["dust_up", "spot_clean", "full_clean"])


class OwnerSchema(Schema):
    """The public data of a user."""

    username = fields.String()


class CleaningSchema(Schema):
    """The representation of a cleaning."""

    id = fields.Integer()
    name = fields.String()
    description = fields.String()
    cleaning_type = fields.String()
    price = fields.Float()
    status = fields.String()
    owner = fields.Nested(OwnerSchema)
    is_hidden = fields.Boolean()
    created_at = fields.AwareDateTime()
    updated_at = fields.AwareDateTime()


class EventSchema(CleaningSchema):
    """An event: a cleaning as it is now, with the type and time of the event."""

    event_type = fields.String()
    event_timestamp = fields.AwareDateTime()


class OfferSchema(Schema):
    """The representation of an offer."""

    id = fields.Integer()
    cleaning_id = fields.Integer()
    user = fields.Nested(OwnerSchema)
    message = fields.String()
    status = fields.String()
    created_at = fields.AwareDateTime()
    updated_at = fields.AwareDateTime()


class PageQuerySchema(Schema):
    """The query parameters of a page."""

    limit = fields.Integer(load_default=20, validate=validate.Range(1, 100))
    after = fields.String()


class CleaningCreateSchema(Schema):
    """A new cleaning."""

    name = fields.String(required=True, validate=NAME)
    description = fields.String(load_default=None, allow_none=True, validate=DESCRIPTION)
    cleaning_type = fields.String(load_default="spot_clean", validate=TYPE)
    price = fields.Decimal(required=True, validate=check_price)


class CreateBodySchema(Schema):
    """The body of a POST."""

    new_cleaning = fields.Nested(CleaningCreateSchema, required=True)


class CleaningUpdateSchema(Schema):
    """Changes to a cleaning; fields that are left out do not change."""

    name = fields.String(validate=NAME)
    description = fields.String(allow_none=True, validate=DESCRIPTION)
    cleaning_type = fields.String(validate=TYPE)
    price = fields.Decimal(validate=check_price)


class UpdateBodySchema(Schema):
    """The body of a PATCH."""

    cleaning_update = fields.Nested(CleaningUpdateSchema, required=True)


class ListQuerySchema(PageQuerySchema):
    """The query parameters of the list of cleanings."""

    cleaning_type = fields.String(validate=TYPE)
    price_min = fields.Decimal(validate=check_price)
    sort = fields.String(load_default="-id", validate=validate.OneOf(["-id", "price"]))


@blp.before_request
def load_user() -> None:
    """Load the user of the access token, or respond with 401 if it is invalid."""
    g.user = None
    if "Authorization" in request.headers:
        header = request.authorization
        token = (header is not None and header.type == "bearer" and header.token) or ""
        statement = (
            select(User)
            .join(Token, Token.user_id == User.id)
            .where(
                Token.hash == hashlib.sha256(token.encode()).digest(),
                Token.expires_at > func.now(),
                User.is_active,
            )
        )
        g.user = db.session.scalar(statement) or abort(
            401, message="The access token is invalid or has expired."
        )


def login_required(view: Callable[..., Any]) -> Callable[..., Any]:
    """Make a view respond with 401 to a request without a token."""

    @wraps(view)
    def with_user(*args: Any, **kwargs: Any) -> Any:
        if g.user is None:
            abort(401, message="Authentication required.")
        return view(*args, **kwargs)

    return with_user


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
            values = decode_list_cursor(query["after"], by_price)
            if by_price:
                statement = statement.where(tuple_(Cleaning.price, Cleaning.id) > values)
            else:
                statement = statement.where(Cleaning.id < values[0])
        cleanings = db.session.scalars(statement).all()
        page = cleanings[: query["limit"]]
        if len(cleanings) == len(page):
            return page
        after = encode_cursor(plain_cursor_of(page[-1], by_price))
        url = url_for("cleanings.Cleanings", **{**query, "after": after})
        return page, 200, {"Link": f'<{url}>; rel="next"'}

    @blp.arguments(CreateBodySchema)
    @blp.response(201, CleaningSchema)
    def post(self, body: dict[str, Any]) -> Any:
        """Post a cleaning."""
        cleaning = Cleaning(**body["new_cleaning"], owner=g.user)
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

    @login_required
    @blp.arguments(UpdateBodySchema)
    @blp.response(200, CleaningSchema)
    def patch(self, body: dict[str, Any], cleaning_id: int) -> Any:
        """Change a cleaning of the current user."""
        cleaning = db.get_or_404(Cleaning, cleaning_id)
        if cleaning.owner_id != g.user.id:
            abort(403, message="Only the owner can change a cleaning.")
        if changes := body["cleaning_update"]:
            for name, value in changes.items():
                setattr(cleaning, name, value)
            cleaning.updated_at = datetime.now(UTC)
            db.session.commit()
        return cleaning


@blp.route("/<int:cleaning_id>/offers/")
class Offers(MethodView):
    """The offers on a cleaning."""

    @login_required
    @blp.arguments(PageQuerySchema, location="query", unknown=RAISE)
    @blp.response(200, OfferSchema(many=True))
    def get(self, query: dict[str, Any], cleaning_id: int) -> Any:
        """List the offers on a cleaning of the current user, newest first."""
        if db.get_or_404(Cleaning, cleaning_id).owner_id != g.user.id:
            abort(403, message="Only the owner can see all offers on a cleaning.")
        statement = select(Offer).where(Offer.cleaning_id == cleaning_id)
        if "after" in query:
            (last,) = decode_cursor(query["after"], f"-id {ID}", int)
            statement = statement.where(Offer.id < last)
        statement = statement.order_by(Offer.id.desc()).limit(query["limit"] + 1)
        rows = db.session.scalars(statement).all()
        page = rows[: query["limit"]]
        if len(rows) == len(page):
            return page
        after = encode_cursor(f"-id {page[-1].id}")
        url = url_for("cleanings.Offers", cleaning_id=cleaning_id, **{**query, "after": after})
        return page, 200, {"Link": f'<{url}>; rel="next"'}


feed = Blueprint("feed", __name__, url_prefix="/api/feed")


@feed.route("/cleanings/")
class Feed(MethodView):
    """The feed of events."""

    @feed.arguments(PageQuerySchema, location="query", unknown=RAISE)
    @feed.response(200, EventSchema(many=True))
    def get(self, query: dict[str, Any]) -> Any:
        """List events, newest first."""
        created, updated = Cleaning.created_at, Cleaning.updated_at
        parts = []
        for kind, column in (("is_create", created), ("is_update", updated)):
            part = select(literal(kind).label("event_type"), column.label("at"), Cleaning.id)
            if kind == "is_update":
                part = part.where(updated > created)
            if "after" in query:
                kinds = (datetime.fromisoformat, int)
                values = decode_cursor(query["after"], rf"-time ({TIME}) {ID}", *kinds)
                part = part.where(tuple_(column, Cleaning.id) < tuple_(*values))
            part = part.order_by(column.desc(), Cleaning.id.desc()).limit(query["limit"] + 1)
            parts.append(select(part.subquery()))
        events = union_all(*parts).subquery()
        statement = select(Cleaning, events.c.event_type, events.c.at)
        statement = statement.join(events, events.c.id == Cleaning.id)
        statement = statement.order_by(events.c.at.desc(), events.c.id.desc())
        rows = db.session.execute(statement.limit(query["limit"] + 1)).all()
        page = rows[: query["limit"]]
        events_of_page = [
            {
                **cleaning.__dict__,
                "is_hidden": cleaning.is_hidden,
                "event_type": kind,
                "event_timestamp": at,
            }
            for cleaning, kind, at in page
        ]
        if len(rows) == len(page):
            return events_of_page
        last, _, at = page[-1]
        after = encode_cursor(f"-time {time_text(at)} {last.id}")
        url = url_for("feed.Feed", **{**query, "after": after})
        return events_of_page, 200, {"Link": f'<{url}>; rel="next"'}


ID = "([0-9]{1,10})"
TIME = r"[0-9-]{10}T[0-9:]{8}(?:\.[0-9]{6})?(?:Z|\+00:00)"


def time_text(time: datetime) -> str:
    """Return a time in UTC as cursors have it."""
    return time.isoformat(timespec="microseconds").replace("+00:00", "Z")


def encode_cursor(plain: str) -> str:
    """Return the encoded form of a cursor."""
    return base64.urlsafe_b64encode(plain.encode()).decode().rstrip("=")


def decode_cursor(cursor: str, pattern: str, *kinds: Callable[[str], Any]) -> list[Any]:
    """Return the values in a cursor, or respond with 422."""
    try:
        plain = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True).decode()
        match = re.fullmatch(pattern, plain)
        texts = match.groups() if match else ()
        return [kind(text) for kind, text in zip(kinds, texts, strict=True)]
    except ValueError:
        abort(422, message="Not a valid cursor for this sort order.")


def plain_cursor_of(cleaning: Cleaning, by_price: bool) -> str:
    """Return the cursor of a cleaning in the list, before it is encoded."""
    return f"price {cleaning.price} {cleaning.id}" if by_price else f"-id {cleaning.id}"


def decode_list_cursor(cursor: str, by_price: bool) -> list[Any]:
    """Return the values in a cursor of the list, or respond with 422."""
    if by_price:
        return decode_cursor(cursor, rf"price ([0-9]{{1,8}}\.[0-9]{{2}}) {ID}", Decimal, int)
    return decode_cursor(cursor, f"-id {ID}", int)


api.register_blueprint(blp)
api.register_blueprint(feed)
