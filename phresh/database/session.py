"""``db.session``: in a view it shares the request's connection, transaction and deadline.

Elsewhere, in the shell, in commands and in routes of plain Flask, it is Flask-SQLAlchemy's own.
"""

from typing import Any

from flask_sqlalchemy.session import Session
from sqlalchemy import Connection, Engine

from phresh.database.transactions import READ_ONLY, UnitOfWork, current_unit, is_in_view

COMMIT = (
    "A view can't commit db.session: all that it writes is one transaction, which is committed "
    "when it returns and rolled back when it raises. Use db.session.flush() to send what is "
    "pending, and abort() or any exception to undo it."
)


class ViewSession(Session):
    """Flask-SQLAlchemy's session, which joins the unit of work of a view."""

    _unit: UnitOfWork | None = None

    def get_bind(self, *arguments: Any, **options: Any) -> Engine | Connection:
        """Return the connection of the view's unit of work; the engine where there is none."""
        bind = super().get_bind(*arguments, **options)
        if not isinstance(bind, Engine) or bind is not self._db.engine:
            return bind  # another database
        unit = current_unit()
        if unit is None:
            return bind
        self._unit = unit
        return unit.join(self, bind)

    def flush(self, objects: Any = None) -> None:
        """Send what is pending.

        :raises RuntimeError: when a view that only reads has changed something
        """
        if (self.new or self.dirty or self.deleted) and is_in_view():
            unit = current_unit()
            if unit is not None and unit.is_read_only:
                raise RuntimeError(READ_ONLY)
        super().flush(objects)

    def commit(self) -> None:
        """Commit, but not in a view.

        :raises RuntimeError: in a view
        """
        if is_in_view():
            raise RuntimeError(COMMIT)
        super().commit()

    def commit_unit(self) -> None:
        """Flush and commit, as the end of the view's unit of work."""
        super().commit()

    def close(self) -> None:
        """Close, and end the unit of work that a view which only reads has begun by its use."""
        super().close()
        unit, self._unit = self._unit, None
        if unit is not None and unit.is_read_only:
            unit.finish()
