"""Add operators."""

from alembic import op

revision = "7be05c18d9f3"
down_revision = "c6e92d5a1b74"
branch_labels = None
depends_on = None

# By the name of the index: its table, and what it has.
INDEXES = {
    "ix_users_username_trigrams": "users USING gin (lower(username) gin_trgm_ops)",
    "ix_users_email_key_trigrams": "users USING gin (email_key gin_trgm_ops)",
    "ix_released_usernames_user_id": "released_usernames (user_id)",
}


def upgrade():
    # The default is the same for all rows, so none of them is written.
    op.execute(
        "ALTER TABLE users ADD COLUMN IF NOT EXISTS is_superuser boolean NOT NULL DEFAULT false"
    )
    with op.get_context().autocommit_block():
        for name, what in INDEXES.items():
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")  # of an interrupted run
            op.execute(f"CREATE INDEX CONCURRENTLY {name} ON {what}")


def downgrade():
    with op.get_context().autocommit_block():
        for name in INDEXES:
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
    op.drop_column("users", "is_superuser")
