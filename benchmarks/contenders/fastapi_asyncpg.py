"""The API in FastAPI on asyncpg, served by uvicorn: the anchor, as fast as it goes."""

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

# float8 holds each of these prices, and asyncpg decodes it faster than numeric.
COLUMNS = (
    "c.id, c.name, c.description, c.cleaning_type, c.price::float8 AS price, "
    "c.created_at, c.updated_at"
)
OWNED = f"SELECT {COLUMNS}, u.username FROM cleanings c LEFT JOIN users u ON u.id = c.owner_id"
USER = (
    "SELECT u.id, u.username FROM tokens t JOIN users u ON u.id = t.user_id "
    "WHERE t.hash = $1 AND t.expires_at > now() AND u.is_active"
)


class Owner(BaseModel):
    """A user, as others see them."""

    username: str


class Cleaning(BaseModel):
    """A cleaning, as it is answered."""

    id: int
    name: str
    description: str | None
    cleaning_type: CleaningType
    price: float
    owner: Owner | None
    created_at: datetime
    updated_at: datetime


class CleaningCreate(BaseModel, extra="forbid"):
    """A cleaning to be posted."""

    name: Name
    description: Description | None = None
    cleaning_type: CleaningType = "spot_clean"
    price: Price


class CreateBody(BaseModel, extra="forbid"):
    """The body of a POST."""

    new_cleaning: CleaningCreate


class CleaningUpdate(BaseModel, extra="forbid"):
    """Changes to a cleaning: None stands for what is left out, null is refused."""

    name: Name = None
    description: Description | None = None
    cleaning_type: CleaningType = None
    price: Price = None


class UpdateBody(BaseModel, extra="forbid"):
    """The body of a PATCH."""

    cleaning_update: CleaningUpdate


class ListQuery(BaseModel, extra="forbid"):
    """Which cleanings to list, in which order."""

    limit: Annotated[int, Field(ge=1, le=100)] = 20
    after: str | None = None
    cleaning_type: CleaningType | None = None
    price_min: Price | None = None
    sort: Literal["-id", "price"] = "-id"


async def leave(_connection: asyncpg.Connection) -> None:
    """Send nothing when a connection comes back to the pool: no request changes its session."""


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Keep a pool of connections, prepared statements included, while the app runs."""
    size = int(os.environ["POOL"])
    async with asyncpg.create_pool(
        os.environ["DATABASE_URL"], min_size=size, max_size=size, reset=leave
    ) as app.state.pool:
        yield


UNUSED = ("tracing", "metrics", "logs", "operation_spans")
app = FastAPI(lifespan=lifespan, telemetry=dict.fromkeys(UNUSED, False))


async def account_or_guest(request: Request) -> asyncpg.Record | None:
    """Give the user whose token was sent, None without, or answer 401."""
    sent = request.headers.get("authorization")
    if sent is None:
        return None
    scheme, _, token = sent.partition(" ")
    if scheme.lower() == "bearer":
        digest = hashlib.sha256(token.encode()).digest()
        user: asyncpg.Record | None = await app.state.pool.fetchrow(USER, digest)
        if user is not None:
            return user
    raise HTTPException(401, "The token is not valid.", {"WWW-Authenticate": "Bearer"})


async def account(request: Request) -> asyncpg.Record:
    """Give the user whose token was sent, or answer 401."""
    user = await account_or_guest(request)
    if user is None:
        raise HTTPException(401, "A token is needed.", {"WWW-Authenticate": "Bearer"})
    return user


@app.get("/api/cleanings/{cleaning_id}/", response_model=Cleaning)
async def get_cleaning(cleaning_id: int) -> Any:
    """Get a cleaning."""
    return owned(found(await app.state.pool.fetchrow(f"{OWNED} WHERE c.id = $1", cleaning_id)))


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
        values += read_cursor(query.after, by_price)
        last = len(values)
        conditions.append(
            f"(c.price, c.id) > (${last - 1}, ${last})" if by_price else f"c.id < ${last}"
        )
    # The limit itself: asyncpg prepares statements, whose plans for any limit are worse.
    sql = (
        f"{OWNED} WHERE {' AND '.join(conditions)} "
        f"ORDER BY {'c.price, c.id' if by_price else 'c.id DESC'} LIMIT {query.limit + 1}"
    )
    rows = await app.state.pool.fetch(sql, *values)
    if len(rows) > query.limit:
        rows.pop()
        parameters = query.model_dump(exclude_unset=True)
        parameters["after"] = write_cursor(rows[-1], by_price)
        response.headers["Link"] = f'</api/cleanings/?{urlencode(parameters)}>; rel="next"'
    return [owned(row) for row in rows]


@app.post("/api/cleanings/", response_model=Cleaning, status_code=201)
async def create_cleaning(
    body: CreateBody,
    response: Response,
    user: Annotated[asyncpg.Record | None, Depends(account_or_guest)],
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
    cleaning_id: int, body: UpdateBody, user: Annotated[asyncpg.Record, Depends(account)]
) -> Any:
    """Change a cleaning of one's own."""
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
        row = found(await app.state.pool.fetchrow(sql, cleaning_id))
        if row["owner_id"] != user["id"]:
            raise HTTPException(403, "Only who posted a cleaning can change it.")
    return {**row, "owner": user}


def found(row: asyncpg.Record | None) -> asyncpg.Record:
    """Give the row, or answer 404."""
    if row is None:
        raise HTTPException(404, "No cleaning found with that id.")
    return row


def owned(row: asyncpg.Record) -> dict[str, Any]:
    """Give a row with its owner."""
    username = row["username"]
    return {**row, "owner": None if username is None else {"username": username}}


def write_cursor(row: asyncpg.Record, by_price: bool) -> str:
    """Give the opaque text of a row's place in the order."""
    plain = f"price {row['price']:.2f} {row['id']}" if by_price else f"-id {row['id']}"
    return base64.urlsafe_b64encode(plain.encode()).decode().rstrip("=")


def read_cursor(cursor: str, by_price: bool) -> list[Any]:
    """Give the values of a place, or answer 422."""
    pattern = r"price ([0-9]{1,8}\.[0-9]{2}) ([0-9]{1,10})" if by_price else "-id ([0-9]{1,10})"
    try:
        plain = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True).decode()
    except ValueError:
        plain = ""
    if (match := re.fullmatch(pattern, plain)) is None:
        raise HTTPException(422, "Not a place in this order.")
    *price, id_ = match.groups()
    return [*map(Decimal, price), int(id_)]
