"""The API in FastAPI on asyncpg, served by uvicorn: the baseline, written to be fast."""

import base64
import hashlib
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

import asyncpg
from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from pydantic import BaseModel, Field

CleaningType = Literal["dust_up", "spot_clean", "full_clean"]
Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"\S")]
Description = Annotated[str, Field(max_length=10_000)]
Price = Annotated[Decimal, Field(ge=0, max_digits=10, decimal_places=2)]

ID = "([0-9]{1,10})"
TIME = r"[0-9-]{10}T[0-9:]{8}(?:\.[0-9]{6})?(?:Z|\+00:00)"


def time_text(time: datetime) -> str:
    """Return a time in UTC as cursors have it."""
    return time.isoformat(timespec="microseconds").replace("+00:00", "Z")


# float8 holds every price exactly to the cent, and asyncpg decodes it faster than numeric.
COLUMNS = (
    "c.id, c.name, c.description, c.cleaning_type, c.price::float8 AS price, "
    "c.status, c.hidden_at IS NOT NULL AS is_hidden, c.created_at, c.updated_at"
)
OWNED = f"SELECT {COLUMNS}, u.username FROM cleanings c LEFT JOIN users u ON u.id = c.owner_id"
USER = (
    "SELECT u.id, u.username FROM tokens t JOIN users u ON u.id = t.user_id "
    "WHERE t.hash = $1 AND t.expires_at > now() AND u.is_active"
)


class Owner(BaseModel):
    """The public data of a user."""

    username: str


class Cleaning(BaseModel):
    """The representation of a cleaning."""

    id: int
    name: str
    description: str | None
    cleaning_type: CleaningType
    price: float
    status: str
    owner: Owner | None
    is_hidden: bool
    created_at: datetime
    updated_at: datetime


class Event(Cleaning):
    """An event: a cleaning as it is now, with the type and time of the event."""

    event_type: str
    event_timestamp: datetime


class Offer(BaseModel):
    """The representation of an offer."""

    id: int
    cleaning_id: int
    user: Owner | None
    message: str | None
    status: str
    created_at: datetime
    updated_at: datetime


class PageQuery(BaseModel, extra="forbid"):
    """The query parameters of a page."""

    limit: Annotated[int, Field(ge=1, le=100)] = 20
    after: str | None = None


class CleaningCreate(BaseModel, extra="forbid"):
    """A new cleaning."""

    name: Name
    description: Description | None = None
    cleaning_type: CleaningType = "spot_clean"
    price: Price


class CreateBody(BaseModel, extra="forbid"):
    """The body of a POST."""

    new_cleaning: CleaningCreate


class CleaningUpdate(BaseModel, extra="forbid"):
    """Changes to a cleaning: None marks a field that is not sent; a null is rejected."""

    name: Name = None
    description: Description | None = None
    cleaning_type: CleaningType = None
    price: Price = None


class UpdateBody(BaseModel, extra="forbid"):
    """The body of a PATCH."""

    cleaning_update: CleaningUpdate


class ListQuery(PageQuery):
    """The query parameters of the list of cleanings."""

    cleaning_type: CleaningType | None = None
    price_min: Price | None = None
    sort: Literal["-id", "price"] = "-id"


async def keep_session(_connection: asyncpg.Connection) -> None:
    """Do not reset a connection that is released: no request changes its session."""


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Keep a pool of connections and their prepared statements while the app runs."""
    size = int(os.environ["POOL"])
    async with asyncpg.create_pool(
        os.environ["DATABASE_URL"], min_size=size, max_size=size, reset=keep_session
    ) as app.state.pool:
        yield


UNUSED = ("tracing", "metrics", "logs", "operation_spans")
app = FastAPI(lifespan=lifespan, telemetry=dict.fromkeys(UNUSED, False))


async def account_or_guest(request: Request) -> dict[str, Any] | None:
    """Return the user of the token, or None without one; respond with 401 if it is invalid."""
    header = request.headers.get("authorization")
    if header is None:
        return None
    scheme, _, token = header.partition(" ")
    if scheme.lower() == "bearer":
        digest = hashlib.sha256(token.encode()).digest()
        user = await app.state.pool.fetchrow(USER, digest)
        if user is not None:
            return dict(user)
    raise HTTPException(
        401, "The access token is invalid or has expired.", {"WWW-Authenticate": "Bearer"}
    )


async def account(request: Request) -> dict[str, Any]:
    """Return the user of the access token, or respond with 401."""
    user = await account_or_guest(request)
    if user is None:
        raise HTTPException(401, "Authentication required.", {"WWW-Authenticate": "Bearer"})
    return user


@app.get("/api/cleanings/{cleaning_id}/", response_model=Cleaning)
async def get_cleaning(cleaning_id: int) -> Any:
    """Get a cleaning."""
    return with_owner(
        or_404(await app.state.pool.fetchrow(f"{OWNED} WHERE c.id = $1", cleaning_id))
    )


@app.get("/api/cleanings/", response_model=list[Cleaning])
async def list_cleanings(query: Annotated[ListQuery, Query()], response: Response) -> Any:
    """List cleanings, newest or cheapest first."""
    values: list[Any] = []
    conditions = ["true"]
    if query.cleaning_type is not None:
        values.append(query.cleaning_type)
        conditions.append(f"c.cleaning_type = ${len(values)}")
    if query.price_min is not None:
        values.append(query.price_min)
        conditions.append(f"c.price >= ${len(values)}")
    by_price = query.sort == "price"
    if query.after is not None:
        values += decode_list_cursor(query.after, by_price)
        last = len(values)
        conditions.append(
            f"(c.price, c.id) > (${last - 1}, ${last})" if by_price else f"c.id < ${last}"
        )
    # A literal limit: asyncpg prepares statements, and a plan for any limit is worse.
    sql = (
        f"{OWNED} WHERE {' AND '.join(conditions)} "
        f"ORDER BY {'c.price, c.id' if by_price else 'c.id DESC'} LIMIT {query.limit + 1}"
    )
    rows = await app.state.pool.fetch(sql, *values)
    if len(rows) > query.limit:
        rows.pop()
        link_next(response, "/api/cleanings/", query, plain_cursor_of(rows[-1], by_price))
    return [with_owner(row) for row in rows]


@app.get("/api/feed/cleanings/", response_model=list[Event])
async def list_events(query: Annotated[PageQuery, Query()], response: Response) -> Any:
    """List events, newest first."""
    values: list[Any] = []
    conditions_by_column = {"created_at": "", "updated_at": "AND updated_at > created_at"}
    if query.after is not None:
        values = decode_cursor(query.after, rf"-time ({TIME}) {ID}", datetime.fromisoformat, int)
        for column in conditions_by_column:
            conditions_by_column[column] += f" AND ({column}, id) < ($1, $2)"
    created, updated = (
        f"(SELECT '{kind}' AS event_type, {column} AS event_timestamp, id FROM cleanings "
        f"WHERE true {condition} ORDER BY {column} DESC, id DESC LIMIT {query.limit + 1})"
        for kind, (column, condition) in zip(
            ("is_create", "is_update"), conditions_by_column.items(), strict=True
        )
    )
    sql = (
        f"SELECT {COLUMNS}, u.username, e.event_type, e.event_timestamp "
        f"FROM (SELECT * FROM ({created} UNION ALL {updated}) b "
        f"ORDER BY event_timestamp DESC, id DESC LIMIT {query.limit + 1}) e "
        "JOIN cleanings c ON c.id = e.id LEFT JOIN users u ON u.id = c.owner_id "
        "ORDER BY e.event_timestamp DESC, e.id DESC"
    )
    rows = await app.state.pool.fetch(sql, *values)
    if len(rows) > query.limit:
        rows.pop()
        last = rows[-1]
        plain_cursor = f"-time {time_text(last['event_timestamp'])} {last['id']}"
        link_next(response, "/api/feed/cleanings/", query, plain_cursor)
    return [with_owner(row) for row in rows]


@app.get("/api/cleanings/{cleaning_id}/offers/", response_model=list[Offer])
async def list_offers(
    cleaning_id: int,
    query: Annotated[PageQuery, Query()],
    response: Response,
    user: Annotated[dict[str, Any], Depends(account)],
) -> Any:
    """List the offers on a cleaning of the current user, newest first."""
    values: list[Any] = [cleaning_id, user["id"]]
    if query.after is not None:
        values += decode_cursor(query.after, f"-id {ID}", int)
    sql = (
        "SELECT o.id, o.cleaning_id, o.message, o.status, o.created_at, o.updated_at, u.username "
        "FROM offers o JOIN cleanings c ON c.id = o.cleaning_id "
        "LEFT JOIN users u ON u.id = o.user_id WHERE o.cleaning_id = $1 AND c.owner_id = $2 "
        f"{'' if query.after is None else 'AND o.id < $3'} "
        f"ORDER BY o.id DESC LIMIT {query.limit + 1}"
    )
    rows = await app.state.pool.fetch(sql, *values)
    if not rows:
        sql = "SELECT owner_id FROM cleanings WHERE id = $1"
        if or_404(await app.state.pool.fetchrow(sql, cleaning_id))["owner_id"] != user["id"]:
            raise HTTPException(403, "Only the owner can see all offers on a cleaning.")
    if len(rows) > query.limit:
        rows.pop()
        path = f"/api/cleanings/{cleaning_id}/offers/"
        link_next(response, path, query, f"-id {rows[-1]['id']}")
    return [{**row, "user": with_owner(row)["owner"]} for row in rows]


@app.post("/api/cleanings/", response_model=Cleaning, status_code=201)
async def create_cleaning(
    body: CreateBody,
    response: Response,
    user: Annotated[dict[str, Any] | None, Depends(account_or_guest)],
) -> Any:
    """Post a cleaning."""
    new = body.new_cleaning
    sql = (
        "INSERT INTO cleanings AS c (name, description, cleaning_type, price, owner_id) "
        f"VALUES ($1, $2, $3, $4, $5) RETURNING {COLUMNS}"
    )
    values = (new.name, new.description, new.cleaning_type, new.price, user and user["id"])
    row = await app.state.pool.fetchrow(sql, *values)
    response.headers["Location"] = f"/api/cleanings/{row['id']}/"
    return {**row, "owner": user}


@app.patch("/api/cleanings/{cleaning_id}/", response_model=Cleaning)
async def update_cleaning(
    cleaning_id: int, body: UpdateBody, user: Annotated[dict[str, Any], Depends(account)]
) -> Any:
    """Change a cleaning of the current user."""
    changes = body.cleaning_update.model_dump(exclude_unset=True)
    row = None
    if changes:
        assignments = ", ".join(f"{name} = ${i}" for i, name in enumerate(changes, start=3))
        sql = (
            f"UPDATE cleanings AS c SET {assignments}, updated_at = now() "
            f"WHERE c.id = $1 AND c.owner_id = $2 RETURNING {COLUMNS}"
        )
        row = await app.state.pool.fetchrow(sql, cleaning_id, user["id"], *changes.values())
    if row is None:
        sql = f"SELECT {COLUMNS}, c.owner_id FROM cleanings c WHERE c.id = $1"
        row = or_404(await app.state.pool.fetchrow(sql, cleaning_id))
        if row["owner_id"] != user["id"]:
            raise HTTPException(403, "Only the owner can change a cleaning.")
    return {**row, "owner": user}


def or_404(row: asyncpg.Record | None) -> asyncpg.Record:
    """Return the row, or respond with 404 if there is none."""
    if row is None:
        raise HTTPException(404, "No cleaning found with that id.")
    return row


def with_owner(row: asyncpg.Record) -> dict[str, Any]:
    """Return a row with its owner as an object."""
    username = row["username"]
    return {**row, "owner": None if username is None else {"username": username}}


def link_next(response: Response, path: str, query: PageQuery, plain_cursor: str) -> None:
    """Add the link to the page after a cursor."""
    after = base64.urlsafe_b64encode(plain_cursor.encode()).decode().rstrip("=")
    parameters = urlencode({**query.model_dump(exclude_unset=True), "after": after})
    response.headers["Link"] = f'<{path}?{parameters}>; rel="next"'


def decode_cursor(cursor: str, pattern: str, *kinds: Any) -> list[Any]:
    """Return the values in a cursor, or respond with 422."""
    try:
        plain = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True).decode()
        match = re.fullmatch(pattern, plain)
        texts = match.groups() if match else ()
        return [kind(text) for kind, text in zip(kinds, texts, strict=True)]
    except ValueError:
        raise HTTPException(422, "Not a valid cursor for this sort order.") from None


def plain_cursor_of(row: asyncpg.Record, by_price: bool) -> str:
    """Return the cursor of a cleaning in the list, before it is encoded."""
    return f"price {row['price']:.2f} {row['id']}" if by_price else f"-id {row['id']}"


def decode_list_cursor(cursor: str, by_price: bool) -> list[Any]:
    """Return the values in a cursor of the list, or respond with 422."""
    if by_price:
        return decode_cursor(cursor, rf"price ([0-9]{{1,8}}\.[0-9]{{2}}) {ID}", Decimal, int)
    return decode_cursor(cursor, f"-id {ID}", int)
