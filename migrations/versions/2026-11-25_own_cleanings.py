"""Have cleanings belong to accounts."""

from alembic import op

revision = "7c4e1a8d3f52"
down_revision = "2b6d9e0f4a13"
branch_labels = None
depends_on = None

INDEX = "ix_cleanings_owner_id_id"
KEY = "fk_cleanings_owner_id"


def upgrade():
    drop_key()  # of an interrupted run
    # In two steps, of which the second, that reads the table, blocks nobody.
    op.create_foreign_key(
        KEY,
        "cleanings",
        "users",
        ["owner_id"],
        ["id"],
        ondelete="CASCADE",
        postgresql_not_valid=True,
    )
    with op.get_context().autocommit_block():
        op.execute(f"ALTER TABLE cleanings VALIDATE CONSTRAINT {KEY}")
        drop_index()  # what an interrupted run left is not valid
        op.create_index(INDEX, "cleanings", ["owner_id", "id"], postgresql_concurrently=True)


def downgrade():
    drop_key()
    with op.get_context().autocommit_block():
        drop_index()


def drop_key():
    op.execute(f"ALTER TABLE cleanings DROP CONSTRAINT IF EXISTS {KEY}")


def drop_index():
    op.drop_index(INDEX, "cleanings", postgresql_concurrently=True, if_exists=True)
