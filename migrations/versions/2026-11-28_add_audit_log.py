"""Add the audit log."""

import sqlalchemy as sa
from alembic import op

revision = "c6e92d5a1b74"
down_revision = "41f8b0d36c7a"
branch_labels = None
depends_on = None

PROTECT = """
CREATE FUNCTION protect_audit_log() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$ BEGIN
    IF TG_OP = 'DELETE' AND OLD.at < now() - interval '30 days' THEN
        RETURN OLD;
    END IF;
    RAISE insufficient_privilege USING MESSAGE = 'lines of the audit log cannot be changed';
END $$
"""


def upgrade():
    op.create_table(
        "audit_log",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column(
            "at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("actor_id", sa.Integer()),
        sa.Column("user_id", sa.Integer()),
        sa.Column("target", sa.Text()),
        sa.Column("reason", sa.Text()),
        sa.Column("address", sa.Text()),
        sa.Column("request_id", sa.Text()),
        sa.CheckConstraint("action ~ '^[a-z_]{1,50}$'", name=op.f("ck_audit_log_action")),
        sa.CheckConstraint("char_length(reason) <= 500", name=op.f("ck_audit_log_reason_length")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_log")),
    )
    op.create_index(op.f("ix_audit_log_user_id_id"), "audit_log", ["user_id", "id"])
    op.create_index(op.f("ix_audit_log_at"), "audit_log", ["at"])
    op.execute(PROTECT)
    op.execute(
        "CREATE TRIGGER protect_audit_log BEFORE DELETE OR UPDATE ON audit_log"
        " FOR EACH ROW EXECUTE FUNCTION protect_audit_log()"
    )


def downgrade():
    op.drop_table("audit_log")
    op.execute("DROP FUNCTION protect_audit_log()")
