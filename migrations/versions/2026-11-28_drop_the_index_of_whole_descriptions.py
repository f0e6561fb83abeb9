"""Drop the index of whole descriptions.

The code of 1.0 searches by it. Without it, a search of 1.0 for a rare word reads the whole table,
for at most STATEMENT_TIMEOUT.
"""

from alembic import op

revision = "0a7d3e5b9c12"
down_revision = "f4b81c6d2e90"
branch_labels = None
depends_on = None

NAME = "ix_cleanings_search"


def upgrade():
    with op.get_context().autocommit_block():
        drop_index()


def downgrade():
    with op.get_context().autocommit_block():
        drop_index()  # what an interrupted run left is not valid
        op.create_index(
            NAME,
            "cleanings",
            ["name", "description"],
            postgresql_using="gin",
            postgresql_ops={"name": "gin_trgm_ops", "description": "gin_trgm_ops"},
            postgresql_concurrently=True,
        )


def drop_index():
    op.drop_index(NAME, "cleanings", postgresql_concurrently=True, if_exists=True)
