"""Searches: they take more of the database than other reads, and so they have a budget."""

from typing import Any

from flask import Flask, current_app
from flask_smorest import abort
from gevent import monkey
from psycopg2.errors import QueryCanceled

from phresh.cleanings.queries import cleaning_page
from phresh.database.transactions import fetch_within
from phresh.web.pages import Page
from phresh.web.turns import Turns

TOO_MANY = "Too many searches at once. Try again soon."
TOO_SLOW = "The search took too long. Use fewer or longer words, or other filters."


def init_app(app: Flask) -> None:
    """Limit how many searches each worker runs at once."""
    at_once, seconds = app.config["SEARCHES_AT_ONCE"], app.config["SEARCH_TIMEOUT"]
    app.extensions["searches"] = Turns(at_once, seconds, TOO_MANY)


def search(page: Page, query: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """Return a page of the cleanings that have the words in ``q``.

    Respond 503 when there is no turn in time, or the search takes too long.
    """
    seconds: float = current_app.config["SEARCH_TIMEOUT"]
    turns: Turns = current_app.extensions["searches"]
    # A thread that waits can't serve other requests; a green one does not keep them from it.
    with turns.turn(waits=monkey.is_module_patched("threading")):
        try:
            return page.respond(
                cleaning_page(page, **query), lambda found: fetch_within(seconds, found)
            )
        except QueryCanceled:
            abort(503, message=TOO_SLOW)
