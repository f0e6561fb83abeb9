"""The query of the feed. It has no table of its own: each cleaning is one event or two."""

from types import SimpleNamespace
from typing import Any

from sqlalchemy import Executable, Select, Text, literal_column, select

from phresh.cleanings.models import CHANGED, Cleaning
from phresh.cleanings.queries import COLUMNS, IS_PUBLIC
from phresh.database.statements import Query, Value, query, row_json
from phresh.web.pages import Page


def event_page(page: Page) -> Query:
    """Select a page of events: each cleaning when it was posted, and when it was last changed."""
    return _event_page(page, **page.values)


@query
def _event_page(page: Page, **_: Value) -> Executable:
    posted = _events(page, "is_create", Cleaning.created_at)
    changed = _events(page, "is_update", Cleaning.updated_at).where(CHANGED)
    # Rendered only once it is known which events are on the page.
    events = page.merged([posted, changed]).subquery().c
    columns = (*COLUMNS, events.event_type, events.event_timestamp)
    rendered = select(row_json(*columns), *page.order.columns(events))
    return page.cut(page.first(rendered.where(Cleaning.id == events.id), events))


def _events(page: Page, event_type: str, time: Any) -> Select[Any]:
    kind = literal_column(f"'{event_type}'", Text).label("event_type")
    shown = select(kind).where(IS_PUBLIC)
    return page.part(shown, SimpleNamespace(event_timestamp=time, id=Cleaning.id))
