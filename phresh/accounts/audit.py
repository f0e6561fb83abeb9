"""The audit log: what was done to an account, or as an operator. Its lines cannot be changed.

A line is written in the transaction of what it is about: either both are there or neither. One of a
failure stays, although the request is rejected.
"""

from datetime import datetime
from typing import Any

from flask import g, has_request_context, request
from sqlalchemy import (
    DDL,
    BigInteger,
    CheckConstraint,
    DateTime,
    Executable,
    Identity,
    Index,
    Integer,
    Text,
    delete,
    event,
    func,
    insert,
)
from sqlalchemy.orm import Mapped, mapped_column

from phresh.accounts.queries import SECOND
from phresh.database.base import Base
from phresh.database.statements import Value, query
from phresh.database.transactions import fetch, fetch_autocommit

DAYS_MIN = 30  # for which a line cannot be deleted
REASON_MAX = 500


class AuditLine(Base):
    """A line of the audit log. It stays when the accounts are gone that it is about."""

    __tablename__ = "audit_log"
    __table_args__ = (
        CheckConstraint("action ~ '^[a-z_]{1,50}$'", name="action"),
        CheckConstraint(f"char_length(reason) <= {REASON_MAX}", name="reason_length"),
        Index(None, "user_id", "id"),
        Index(None, "at"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    action: Mapped[str] = mapped_column(Text)
    # Who: null for whoever has no token, and for a command on the machine.
    actor_id: Mapped[int | None] = mapped_column(Integer)
    user_id: Mapped[int | None] = mapped_column(Integer)  # whose account
    target: Mapped[str | None] = mapped_column(Text)  # what else, like "cleaning 7"
    reason: Mapped[str | None] = mapped_column(Text)
    address: Mapped[str | None] = mapped_column(Text)  # null for a command
    request_id: Mapped[str | None] = mapped_column(Text)


PROTECT = f"""
CREATE FUNCTION protect_audit_log() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$ BEGIN
    IF TG_OP = 'DELETE' AND OLD.at < now() - interval '{DAYS_MIN} days' THEN
        RETURN OLD;
    END IF;
    RAISE insufficient_privilege USING MESSAGE = 'lines of the audit log cannot be changed';
END $$
"""
ON_CHANGE = """
CREATE TRIGGER protect_audit_log BEFORE DELETE OR UPDATE ON audit_log
FOR EACH ROW EXECUTE FUNCTION protect_audit_log()
"""
for statement in (PROTECT, ON_CHANGE):
    event.listen(AuditLine.__table__, "after_create", DDL(statement.replace("%", "%%")))


def record(action: str, **about: Any) -> None:
    """Write a line in the transaction of the view.

    :param action: what was done, like ``password_changed``
    :param about: ``user_id``, ``target`` and ``reason`` of :class:`AuditLine`
    """
    fetch(_new_line(action=action, **about, **_origin()))


def record_failure(action: str, **about: Any) -> None:
    """Write a line that stays when the request is rejected."""
    fetch_autocommit(_new_line(action=action, **about, **_origin()))


def _origin() -> dict[str, Any]:
    """Return who acts, from where."""
    if not has_request_context():
        return {}
    account = g.get("account")
    return {
        "actor_id": account and account.user_id,
        "address": request.remote_addr,
        "request_id": g.request_id,
    }


@query
def _new_line(**values: Value) -> Executable:
    """Insert a line."""
    return insert(AuditLine).values(values)


@query
def deleted_old_lines(*, seconds: Value) -> Executable:
    """Delete the lines that are older than that many seconds."""
    old = AuditLine.at < func.now() - seconds * SECOND
    return delete(AuditLine).where(old).returning(AuditLine.id)
