"""Health checks: whether the process runs, and whether it can serve."""

from flask_smorest import Blueprint
from marshmallow import Schema, fields
from sqlalchemy import Executable, text

from phresh.accounts.tokens import login_not_required
from phresh.database.statements import query
from phresh.database.transactions import fetch_autocommit

blp = Blueprint("health", __name__, description="Health checks")


# An error with the SQLSTATE that a write would get, so that the connection is replaced in the same
# way: the next one may be to the new primary.
ACCEPTS_WRITES = """
    DO $$ BEGIN
        IF current_setting('transaction_read_only') = 'on' THEN
            RAISE read_only_sql_transaction USING MESSAGE = 'the server does not accept writes';
        END IF;
    END $$
"""


@query
def accepts_writes() -> Executable:
    """Fail on a standby, and on a primary that is set to read only."""
    return text(ACCEPTS_WRITES).execution_options(plan_by_values=True)  # DO can't be prepared


class HealthSchema(Schema):
    """The result of a health check."""

    status = fields.String(required=True, metadata={"description": "`ok`.", "example": "ok"})


@blp.get("/healthz")
@login_not_required
@blp.response(200, HealthSchema)
def get_health() -> dict[str, str]:
    """Check that the server runs

    It does not use the database.
    """
    return {"status": "ok"}


@blp.get("/readyz")
@login_not_required
@blp.response(200, HealthSchema)
@blp.alt_response(503)
def get_readiness() -> dict[str, str]:
    """Check that the server is ready

    The server is ready if the database responds and accepts writes.
    """
    fetch_autocommit(accepts_writes())  # in no transaction: that of this view refuses to write
    return {"status": "ok"}
