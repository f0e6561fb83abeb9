"""The API in FastAPI on asyncpg, served by uvicorn: the anchor, as fast as it goes."""

import base64
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

import asyncpg
from fastapi import FastAPI, HTTPException, Query, Response
from pydantic import BaseModel, Field

CleaningType = Literal["dust_up", "spot_clean", "full_clean"]
Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"\S")]
Description = Annotated[str, Field(max_length=10_000)]
Price = Annotated[Decimal, Field(ge=0, max_digits=10, decimal_places=2)]

# float8 holds each of these prices, and asyncpg decodes it faster than numeric.
COLUMNS = "id, name, description, cleaning_type, price::float8 AS price"


class Cleaning(BaseModel):
    """A cleaning, as it is answered."""

    id: int
    name: str
    description: str | None
    cleaning_type: CleaningType
    price: float


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


@app.get("/api/cleanings/{cleaning_id}/", response_model=Cleaning)
async def get_cleaning(cleaning_id: int) -> Any:
    """Get a cleaning."""
    sql = f"SELECT {COLUMNS} FROM cleanings WHERE id = $1"
    return found(await app.state.pool.fetchrow(sql, cleaning_id))


@app.get("/api/cleanings/", response_model=list[Cleaning])
async def list_cleanings(query: Annotated[ListQuery, Query()], response: Response) -> Any:
    """List cleanings, newest or cheapest first."""
    values: list[Any] = [query.limit + 1]
    conditions = ["true"]
    if query.cleaning_type is not None:
        values.append(query.cleaning_type)
        conditions.append(f"cleaning_type = ${len(values)}")
    if query.price_min is not None:
        values.append(query.price_min)
        conditions.append(f"price >= ${len(values)}")
    by_price = query.sort == "price"
    if query.after is not None:
        values += read_cursor(query.after, by_price)
        last = len(values)
        conditions.append(f"(price, id) > (${last - 1}, ${last})" if by_price else f"id < ${last}")
    sql = (
        f"SELECT {COLUMNS} FROM cleanings WHERE {' AND '.join(conditions)} "
        f"ORDER BY {'cleanings.price, id' if by_price else 'id DESC'} LIMIT $1"
    )
    rows = await app.state.pool.fetch(sql, *values)
    if len(rows) > query.limit:
        rows.pop()
        parameters = query.model_dump(exclude_unset=True)
        parameters["after"] = write_cursor(rows[-1], by_price)
        response.headers["Link"] = f'</api/cleanings/?{urlencode(parameters)}>; rel="next"'
    return [dict(row) for row in rows]


@app.post("/api/cleanings/", response_model=Cleaning, status_code=201)
async def create_cleaning(body: CreateBody, response: Response) -> Any:
    """Post a cleaning."""
    new = body.new_cleaning
    sql = (
        "INSERT INTO cleanings (name, description, cleaning_type, price) "
        f"VALUES ($1, $2, $3, $4) RETURNING {COLUMNS}"
    )
    values = (new.name, new.description, new.cleaning_type, new.price)
    row = await app.state.pool.fetchrow(sql, *values)
    response.headers["Location"] = f"/api/cleanings/{row['id']}/"
    return dict(row)


@app.patch("/api/cleanings/{cleaning_id}/", response_model=Cleaning)
async def update_cleaning(cleaning_id: int, body: UpdateBody) -> Any:
    """Change a cleaning."""
    changes = body.cleaning_update.model_dump(exclude_unset=True)
    if not changes:
        return await get_cleaning(cleaning_id)
    assignments = ", ".join(f"{name} = ${i}" for i, name in enumerate(changes, start=2))
    sql = f"UPDATE cleanings SET {assignments} WHERE id = $1 RETURNING {COLUMNS}"
    return found(await app.state.pool.fetchrow(sql, cleaning_id, *changes.values()))


def found(row: asyncpg.Record | None) -> dict[str, Any]:
    """Give the row, or answer 404."""
    if row is None:
        raise HTTPException(404, "No cleaning found with that id.")
    return dict(row)


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
