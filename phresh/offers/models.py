"""The table of offers."""

from datetime import datetime

from sqlalchemy import (
    DDL,
    CheckConstraint,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Text,
    UniqueConstraint,
    event,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from phresh.database.base import Base

STATUSES = ("pending", "accepted", "rejected", "cancelled", "completed")
TAKING = ("accepted", "completed")  # a cleaning has at most one of these
MESSAGE_MAX = 2_000


class Offer(Base):
    """A user's offer to clean."""

    __tablename__ = "offers"
    __table_args__ = (
        CheckConstraint(f"status IN {STATUSES}", name="status"),
        CheckConstraint(f"char_length(message) <= {MESSAGE_MAX}", name="message_length"),
        # When an account is deleted, only its completed offers stay.
        CheckConstraint("user_id IS NOT NULL OR status = 'completed'", name="user_id"),
        UniqueConstraint("cleaning_id", "user_id"),
        Index(
            "uq_offers_taking",
            "cleaning_id",
            unique=True,
            postgresql_where=text(f"status IN {TAKING}"),
        ),
        Index(None, "cleaning_id", "id"),
        Index(None, "user_id", "id"),
    )

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    cleaning_id: Mapped[int] = mapped_column(ForeignKey("cleanings.id", ondelete="CASCADE"))
    user_id: Mapped[int | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    message: Mapped[str | None] = mapped_column(Text)
    status: Mapped[str] = mapped_column(Text, server_default=text("'pending'"))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


# The status of a cleaning follows its offers, whoever changes them.
DERIVE = """
CREATE FUNCTION derive_status() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    NEW.status := coalesce((
        SELECT CASE status WHEN 'accepted' THEN 'taken' ELSE 'completed' END FROM offers
        WHERE cleaning_id = NEW.id AND status IN ('accepted', 'completed')
    ), 'open');
    RETURN NEW;
END $$
"""
ON_INSERT = """
CREATE TRIGGER derive_status_on_insert BEFORE INSERT ON cleanings
FOR EACH ROW WHEN (NEW.status <> 'open') EXECUTE FUNCTION derive_status()
"""
ON_UPDATE = """
CREATE TRIGGER derive_status_on_update BEFORE UPDATE OF status ON cleanings
FOR EACH ROW EXECUTE FUNCTION derive_status()
"""
# A new offer, unlike a changed one, has the time of its change: a restored one is no change.
FOLLOW = """
CREATE FUNCTION follow_offer() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF OLD.status IN ('accepted', 'completed') OR NEW.status IN ('accepted', 'completed') THEN
        UPDATE cleanings SET status = status, updated_at = greatest(
            updated_at, CASE TG_OP WHEN 'INSERT' THEN NEW.updated_at ELSE clock_timestamp() END
        )
        WHERE id IN (OLD.cleaning_id, NEW.cleaning_id);
    END IF;
    RETURN NULL;
END $$
"""
ON_OFFER = """
CREATE TRIGGER follow_offer AFTER INSERT OR DELETE OR UPDATE OF status, cleaning_id ON offers
FOR EACH ROW EXECUTE FUNCTION follow_offer()
"""
# Their tables are found whatever the search_path of the session is: pg_dump's is empty.
PIN = """
DO $$ BEGIN
    EXECUTE format('ALTER FUNCTION derive_status SET search_path = pg_catalog, %%I, pg_temp',
        current_schema());
    EXECUTE format('ALTER FUNCTION follow_offer SET search_path = pg_catalog, %%I, pg_temp',
        current_schema());
END $$
"""
for statement in (DERIVE, ON_INSERT, ON_UPDATE, FOLLOW, ON_OFFER, PIN):
    event.listen(Offer.__table__, "after_create", DDL(statement))
