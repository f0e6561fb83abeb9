"""Index what is searched."""

from alembic import op

revision = "f4b81c6d2e90"
down_revision = "4e7b1d92c0a6"
branch_labels = None
depends_on = None

NAME = "ix_cleanings_searched"
TEXT = """replace(
    replace(' ' || lower(name || coalesce(' ' || left(description, 500), '')), chr(10), ' '),
    '(', '( '
)"""


def upgrade():
    with op.get_context().autocommit_block():
        drop_index()  # what an interrupted run left is not valid
        op.execute(f"CREATE INDEX CONCURRENTLY {NAME} ON cleanings USING gin ({TEXT} gin_trgm_ops)")


def downgrade():
    with op.get_context().autocommit_block():
        drop_index()


def drop_index():
    op.drop_index(NAME, "cleanings", postgresql_concurrently=True, if_exists=True)
