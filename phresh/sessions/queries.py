"""The queries on sessions: the tokens of a user."""

from sqlalchemy import Executable, delete, func, select

from phresh.accounts.models import Token
from phresh.accounts.queries import is_valid
from phresh.database.statements import Query, Value, query, row_json
from phresh.web.pages import Page

# What a session is named by: a part of the hash, of which nothing can be told about the token.
ID = func.encode(func.substr(Token.hash, 1, 8), "hex")

SHOWN = (
    *(ID.label("id"), Token.created_at, Token.last_used_at),
    *(Token.address, Token.user_agent),
)


def session_page(page: Page, *, user_id: int, token_hash: bytes, idle: int) -> Query:
    """Select a page of the sessions of a user, and of which one a token is."""
    values = {"user_id": user_id, "token_hash": token_hash, "idle": idle}
    return _session_page(page, **values, **page.values)


@query
def _session_page(page: Page, **values: Value) -> Executable:
    sessions = (
        select(*SHOWN, (Token.hash == values["token_hash"]).label("is_current"))
        .where(Token.user_id == values["user_id"], *is_valid(values["idle"]))
        .subquery()
    )
    return page.apply(select(row_json(*sessions.c)), sessions.c)


@query
def deleted_session(*, user_id: Value, session_id: Value) -> Executable:
    """Delete a session of a user."""
    mine = delete(Token).where(Token.user_id == user_id, session_id == ID)
    return mine.returning(Token.user_id)
