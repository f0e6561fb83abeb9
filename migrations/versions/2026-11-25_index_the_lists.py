"""Index the lists."""

from alembic import op

revision = "5d0c1f6a2b7e"
down_revision = "91ac0fb8413f"
branch_labels = None
depends_on = None

# Each serves a filter and the order of a page at once, so that a page reads no more than itself.
INDEXES = {
    "ix_cleanings_price_id": ["price", "id"],
    "ix_cleanings_cleaning_type_id": ["cleaning_type", "id"],
    "ix_cleanings_cleaning_type_price_id": ["cleaning_type", "price", "id"],
}


def upgrade():
    op.execute("CREATE EXTENSION IF NOT EXISTS pg_trgm")
    with op.get_context().autocommit_block():
        drop_indexes()  # what an interrupted run left is not valid
        for name, columns in INDEXES.items():
            op.create_index(name, "cleanings", columns, postgresql_concurrently=True)
        op.create_index(
            "ix_cleanings_search",
            "cleanings",
            ["name", "description"],
            postgresql_using="gin",
            postgresql_ops={"name": "gin_trgm_ops", "description": "gin_trgm_ops"},
            postgresql_concurrently=True,
        )


def downgrade():
    with op.get_context().autocommit_block():
        drop_indexes()
    # pg_trgm stays: it may have been there before, and others may use it.


def drop_indexes():
    for name in [*INDEXES, "ix_cleanings_search"]:
        op.drop_index(name, "cleanings", postgresql_concurrently=True, if_exists=True)
