"""The endpoints under ``/api/feed/``."""

from typing import Any

from phresh.api import Blueprint
from phresh.db import fetch
from phresh.feed import queries
from phresh.feed.schemas import EventSchema, FeedSchema
from phresh.pages import LINK, Page

blp = Blueprint("feed", __name__, url_prefix="/api/feed", description="What happens")


@blp.get("/cleanings/")
@blp.arguments(FeedSchema, location="query")
@blp.response(200, EventSchema(many=True), headers=LINK)
def list_events(query: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """List what was posted and changed, newest first

    A cleaning is there as it is now: once when it was posted, and once when it was last changed.
    """
    page: Page = query["page"]
    return page.answer(fetch(queries.event_page(page)))
