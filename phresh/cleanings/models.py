"""The table of cleanings."""

from datetime import datetime
from decimal import Decimal

from sqlalchemy import (
    CheckConstraint,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Numeric,
    Text,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from phresh.database.base import Base
from phresh.web.fields import NOT_BLANK
from phresh.web.pages import Order

CLEANING_TYPES = ("dust_up", "spot_clean", "full_clean")
STATUSES = ("open", "taken", "completed")
NAME_MAX = 200
DESCRIPTION_MAX = 10_000
SEARCHED_MAX = 500  # characters of a description
WORDS_MAX = 8  # of a search
PRICE_MAX = Decimal("99999999.99")


class Cleaning(Base):
    """A cleaning job at a price per hour. Each CHECK mirrors a rule of the schemas."""

    __tablename__ = "cleanings"
    __table_args__ = (
        CheckConstraint(f"char_length(name) <= {NAME_MAX}", name="name_length"),
        CheckConstraint(f"name ~ '{NOT_BLANK}'", name="name_not_blank"),
        CheckConstraint(
            f"char_length(description) <= {DESCRIPTION_MAX}", name="description_length"
        ),
        CheckConstraint(f"cleaning_type IN {CLEANING_TYPES}", name="cleaning_type"),
        CheckConstraint(f"status IN {STATUSES}", name="status"),
        # An account can't be deleted while its cleaning is taken.
        CheckConstraint("owner_id IS NOT NULL OR status <> 'taken'", name="owner_id"),
        # BETWEEN, since NaN is greater than every number.
        CheckConstraint(f"price BETWEEN 0 AND {PRICE_MAX}", name="price_range"),
        Index(None, "name"),
        # The sort orders of the list, of all and of one type.
        Index(None, "price", "id"),
        Index(None, "cleaning_type", "id"),
        Index(None, "cleaning_type", "price", "id"),
        Index(None, "owner_id", "id"),
        Index(None, "status", "id"),
        Index(None, "status", "price", "id"),
        # The feed.
        Index(None, "created_at", "id"),
        Index(
            "ix_cleanings_changed",
            "updated_at",
            "id",
            postgresql_where=text("updated_at > created_at"),
        ),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    name: Mapped[str] = mapped_column(Text)
    description: Mapped[str | None] = mapped_column(Text)
    cleaning_type: Mapped[str] = mapped_column(Text, server_default=text("'spot_clean'"))
    price: Mapped[Decimal] = mapped_column(Numeric(10, 2))
    # Null for a guest, and for a completed cleaning whose owner's account was deleted.
    owner_id: Mapped[int | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    # A trigger on offers keeps it up to date.
    status: Mapped[str] = mapped_column(Text, server_default=text("'open'"))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    hidden_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))  # by an operator


# What a search looks through, in lower case; the index has its trigrams. There is a blank before
# each word: at the beginning, for a line break, and after an opening bracket. Of a description only
# the beginning: the trigrams of long ones took many times as much as the table.
SEARCHED = func.replace(
    func.replace(
        " "
        + func.lower(
            Cleaning.name + func.coalesce(" " + func.left(Cleaning.description, SEARCHED_MAX), "")
        ),
        func.chr(10),
        " ",
    ),
    "(",
    "( ",
)
Index(
    "ix_cleanings_searched",
    SEARCHED.label("searched"),
    postgresql_using="gin",
    postgresql_ops={"searched": "gin_trgm_ops"},
)

# As in the index ix_cleanings_changed.
CHANGED = Cleaning.updated_at > Cleaning.created_at

ID, PRICE = ("id", int), ("price", Decimal)
ORDERS = {
    "-id": Order((ID,), descending=True),
    "id": Order((ID,)),
    "price": Order((PRICE, ID)),
    "-price": Order((PRICE, ID), descending=True),
}


def is_word_character(character: str) -> bool:
    """Return whether the index of words covers a character; str.isalnum() accepts more, like ½."""
    return character.isalpha() or character.isdecimal()
