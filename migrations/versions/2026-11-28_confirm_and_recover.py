"""Confirm email addresses and recover accounts."""

import sqlalchemy as sa
from alembic import op

revision = "e2a94c70b5d1"
down_revision = "5b0e7d3f1c94"
branch_labels = None
depends_on = None

LANGUAGE = "ck_users_language"


def upgrade():
    # What an interrupted run has left.
    op.execute(f"ALTER TABLE users DROP CONSTRAINT IF EXISTS {LANGUAGE}")
    op.execute("DROP TABLE IF EXISTS one_time_tokens")
    op.execute(
        "ALTER TABLE users ADD COLUMN IF NOT EXISTS language text NOT NULL DEFAULT 'en',"
        " ADD COLUMN IF NOT EXISTS confirmed_key text"
    )
    op.create_check_constraint(
        op.f(LANGUAGE), "users", "language IN ('en', 'ko')", postgresql_not_valid=True
    )
    with op.get_context().autocommit_block():
        op.execute(f"ALTER TABLE users VALIDATE CONSTRAINT {LANGUAGE}")
    op.create_table(
        "one_time_tokens",
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("email_key", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("octet_length(hash) = 32", name=op.f("ck_one_time_tokens_hash")),
        sa.CheckConstraint(
            "purpose IN ('confirmation', 'recovery')", name=op.f("ck_one_time_tokens_purpose")
        ),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["users.id"],
            name=op.f("fk_one_time_tokens_user_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("hash", name=op.f("pk_one_time_tokens")),
    )
    op.create_index(op.f("ix_one_time_tokens_user_id"), "one_time_tokens", ["user_id"])
    op.create_index(op.f("ix_one_time_tokens_expires_at"), "one_time_tokens", ["expires_at"])


def downgrade():
    op.drop_table("one_time_tokens")
    op.drop_column("users", "confirmed_key")
    op.drop_column("users", "language")
