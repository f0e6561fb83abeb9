"""Create accounts."""

import sqlalchemy as sa
from alembic import op

revision = "2b6d9e0f4a13"
down_revision = "c8e27d4b9f10"
branch_labels = None
depends_on = None


def time_column(name):
    return sa.Column(
        name, sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
    )


def upgrade():
    op.create_table(
        "users",
        sa.Column("id", sa.Integer(), sa.Identity(always=False), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("username", sa.Text(), nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=False),
        sa.Column("is_active", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        time_column("created_at"),
        time_column("updated_at"),
        sa.CheckConstraint("char_length(email) <= 254", name=op.f("ck_users_email_length")),
        sa.CheckConstraint("email ~ '^[^@]+@[^@]+$'", name=op.f("ck_users_email")),
        sa.CheckConstraint("username ~ '^[A-Za-z0-9_-]{3,30}$'", name=op.f("ck_users_username")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
    )
    op.create_index("uq_users_email", "users", [sa.text("lower(email)")], unique=True)
    op.create_index("uq_users_username", "users", [sa.text("lower(username)")], unique=True)
    op.create_table(
        "tokens",
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        time_column("created_at"),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("octet_length(hash) = 32", name=op.f("ck_tokens_hash")),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_tokens_user_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("hash", name=op.f("pk_tokens")),
    )
    op.create_index(op.f("ix_tokens_user_id"), "tokens", ["user_id"])
    op.create_index(op.f("ix_tokens_expires_at"), "tokens", ["expires_at"])
    op.create_table(
        "attempts",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        time_column("at"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_attempts")),
        prefixes=["UNLOGGED"],
    )
    op.create_index(op.f("ix_attempts_key_at"), "attempts", ["key", "at"])
    op.create_index(op.f("ix_attempts_at"), "attempts", ["at"])
    # Soon done, whatever the table has: a default that is the same for each row is stored once.
    op.add_column("cleanings", sa.Column("owner_id", sa.Integer(), nullable=True))
    op.add_column("cleanings", time_column("created_at"))
    op.add_column("cleanings", time_column("updated_at"))


def downgrade():
    for name in ("updated_at", "created_at", "owner_id"):
        op.drop_column("cleanings", name)
    op.drop_table("attempts")
    op.drop_table("tokens")
    op.drop_table("users")
