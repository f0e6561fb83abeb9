"""Whether the process lives, and whether it can serve."""

from flask_smorest import Blueprint
from marshmallow import Schema, fields
from sqlalchemy import Executable, text

from phresh.db import fetch
from phresh.statements import query

blp = Blueprint("health", __name__, description="For load balancers and container engines")


@query
def one() -> Executable:
    """The number 1, of any database that answers."""
    return text("SELECT 1")


class HealthSchema(Schema):
    """How it is."""

    status = fields.String(required=True, metadata={"example": "ok"})


@blp.get("/healthz")
@blp.response(200, HealthSchema)
def get_health() -> dict[str, str]:
    """Tell that the process lives, without asking the database"""
    return {"status": "ok"}


@blp.get("/readyz")
@blp.response(200, HealthSchema)
@blp.alt_response(503)
def get_readiness() -> dict[str, str]:
    """Tell that requests can be served, since the database answers"""
    fetch(one())
    return {"status": "ok"}
