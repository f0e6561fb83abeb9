"""Health checks: whether the process runs, and whether it can serve."""

from flask_smorest import Blueprint
from marshmallow import Schema, fields
from sqlalchemy import Executable, text

from phresh.accounts.tokens import login_not_required
from phresh.database.statements import query
from phresh.database.transactions import fetch

blp = Blueprint("health", __name__, description="Health checks")


@query
def one() -> Executable:
    """Select the number 1, as any database that is available can."""
    return text("SELECT 1")


class HealthSchema(Schema):
    """The result of a health check."""

    status = fields.String(required=True, metadata={"example": "ok"})


@blp.get("/healthz")
@login_not_required
@blp.response(200, HealthSchema)
def get_health() -> dict[str, str]:
    """Liveness check (does not use the database)"""
    return {"status": "ok"}


@blp.get("/readyz")
@login_not_required
@blp.response(200, HealthSchema)
@blp.alt_response(503)
def get_readiness() -> dict[str, str]:
    """Readiness check (queries the database)"""
    fetch(one())
    return {"status": "ok"}
