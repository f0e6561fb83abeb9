"""The endpoints under ``/api/feed/``."""

from typing import Any

from phresh.accounts.tokens import login_not_required
from phresh.feed import queries
from phresh.feed.schemas import EventSchema, FeedSchema
from phresh.web.blueprint import Blueprint
from phresh.web.pages import LINK, Page

blp = Blueprint("feed", __name__, url_prefix="/api/feed", description="Activity feed")


@blp.get("/cleanings/")
@login_not_required
@blp.arguments(FeedSchema, location="query")
@blp.response(200, EventSchema(many=True), headers=LINK)
def list_events(query: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """List posted and changed cleanings, newest first

    Each cleaning is listed in its current state: once when it was posted, and once when it was last
    changed.
    """
    page: Page = query["page"]
    return page.respond(queries.event_page(page))
