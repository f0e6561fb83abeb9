"""Whether the process lives."""

from flask_smorest import Blueprint
from marshmallow import Schema, fields

blp = Blueprint("health", __name__, description="For load balancers and container engines")


class HealthSchema(Schema):
    """The state of the process."""

    status = fields.String(required=True, metadata={"example": "ok"})


@blp.get("/healthz")
@blp.response(200, HealthSchema)
def get_health() -> dict[str, str]:
    """Tell that the process lives, without asking the database"""
    return {"status": "ok"}
