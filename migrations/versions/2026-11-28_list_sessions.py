"""List sessions."""

from alembic import op

revision = "9d41c7a6f2e8"
down_revision = "e2a94c70b5d1"
branch_labels = None
depends_on = None

USER_AGENT = "ck_tokens_user_agent"


def upgrade():
    # What an interrupted run has left.
    op.execute(f"ALTER TABLE tokens DROP CONSTRAINT IF EXISTS {USER_AGENT}")
    # The default is the same for all rows, so none of them is written.
    op.execute(
        "ALTER TABLE tokens"
        " ADD COLUMN IF NOT EXISTS last_used_at timestamptz NOT NULL DEFAULT now(),"
        " ADD COLUMN IF NOT EXISTS address text, ADD COLUMN IF NOT EXISTS user_agent text"
    )
    op.create_check_constraint(
        op.f(USER_AGENT), "tokens", "char_length(user_agent) <= 200", postgresql_not_valid=True
    )
    with op.get_context().autocommit_block():
        op.execute(f"ALTER TABLE tokens VALIDATE CONSTRAINT {USER_AGENT}")


def downgrade():
    for column in ("last_used_at", "address", "user_agent"):
        op.drop_column("tokens", column)
