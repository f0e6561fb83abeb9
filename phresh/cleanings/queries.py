"""The statements on cleanings. Each gives rows of rendered JSON."""

from typing import Any

from sqlalchemy import Executable, delete, insert, select, update

from phresh.cleanings.models import Cleaning
from phresh.db import row_json

RENDERED = row_json(
    Cleaning.id, Cleaning.name, Cleaning.description, Cleaning.cleaning_type, Cleaning.price
)


def newest_cleanings(limit: int) -> Executable:
    """The list, newest first."""
    return select(RENDERED).order_by(Cleaning.id.desc()).limit(limit)


def cleaning_by_id(cleaning_id: int) -> Executable:
    """One cleaning, or no row."""
    return select(RENDERED).where(Cleaning.id == cleaning_id)


def new_cleaning(values: dict[str, Any]) -> Executable:
    """Insert a cleaning; gives its id too."""
    return insert(Cleaning).values(**values).returning(RENDERED, Cleaning.id)


def changed_cleaning(cleaning_id: int, changes: dict[str, Any]) -> Executable:
    """Change a cleaning, or no row; without changes it is only read."""
    if not changes:
        return cleaning_by_id(cleaning_id)
    statement = update(Cleaning).where(Cleaning.id == cleaning_id).values(**changes)
    return statement.returning(RENDERED)


def deleted_cleaning(cleaning_id: int) -> Executable:
    """Delete a cleaning, or no row."""
    return delete(Cleaning).where(Cleaning.id == cleaning_id).returning(Cleaning.id)
