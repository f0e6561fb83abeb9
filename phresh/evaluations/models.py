"""The table of evaluations."""

from datetime import datetime

from sqlalchemy import (
    CheckConstraint,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    SmallInteger,
    Text,
    UniqueConstraint,
    false,
    func,
)
from sqlalchemy.orm import Mapped, mapped_column

from phresh.database.base import Base

RATINGS = ("professionalism", "completeness", "efficiency", "overall_rating")
RATING_MIN, RATING_MAX = 1, 5
HEADLINE_MAX = 200
COMMENT_MAX = 10_000


class Evaluation(Base):
    """An owner's rating of a cleaner, one per cleaning. The CHECKs mirror the schemas."""

    __tablename__ = "evaluations"
    __table_args__ = (
        *(
            CheckConstraint(f"{name} BETWEEN {RATING_MIN} AND {RATING_MAX}", name=name)
            for name in RATINGS
        ),
        CheckConstraint(f"char_length(headline) <= {HEADLINE_MAX}", name="headline_length"),
        CheckConstraint(f"char_length(comment) <= {COMMENT_MAX}", name="comment_length"),
        UniqueConstraint("cleaning_id"),
        Index(None, "cleaner_id", "id"),
        Index(None, "owner_id"),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    cleaning_id: Mapped[int] = mapped_column(ForeignKey("cleanings.id", ondelete="CASCADE"))
    # Null if the account was deleted.
    cleaner_id: Mapped[int | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    owner_id: Mapped[int | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    professionalism: Mapped[int | None] = mapped_column(SmallInteger)
    completeness: Mapped[int | None] = mapped_column(SmallInteger)
    efficiency: Mapped[int | None] = mapped_column(SmallInteger)
    overall_rating: Mapped[int] = mapped_column(SmallInteger)
    headline: Mapped[str | None] = mapped_column(Text)
    comment: Mapped[str | None] = mapped_column(Text)
    no_show: Mapped[bool] = mapped_column(server_default=false())
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    hidden_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))  # by an operator
