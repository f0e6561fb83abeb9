"""Index statuses and times."""

import sqlalchemy as sa
from alembic import op

revision = "d91b40c2e6a7"
down_revision = "a3f8c15e7d24"
branch_labels = None
depends_on = None

OWNER = "fk_cleanings_owner_id"
CHECKS = {
    "ck_cleanings_status": "status IN ('open', 'taken', 'completed')",
    "ck_cleanings_owner_id": "owner_id IS NOT NULL OR status <> 'taken'",
}
INDEXES = {
    "ix_cleanings_status_id": ["status", "id"],
    "ix_cleanings_status_price_id": ["status", "price", "id"],
    "ix_cleanings_created_at_id": ["created_at", "id"],
}
CHANGED = "ix_cleanings_changed"


def upgrade():
    drop_checks()  # of an interrupted run
    for name, condition in CHECKS.items():
        op.create_check_constraint(op.f(name), "cleanings", condition, postgresql_not_valid=True)
    renew_owner("SET NULL")
    with op.get_context().autocommit_block():
        for name in (*CHECKS, OWNER):
            op.execute(f"ALTER TABLE cleanings VALIDATE CONSTRAINT {name}")
        drop_indexes()
        for name, columns in INDEXES.items():
            op.create_index(name, "cleanings", columns, postgresql_concurrently=True)
        op.create_index(
            CHANGED,
            "cleanings",
            ["updated_at", "id"],
            postgresql_where=sa.text("updated_at > created_at"),
            postgresql_concurrently=True,
        )


def downgrade():
    drop_checks()
    renew_owner("CASCADE")
    with op.get_context().autocommit_block():
        op.execute(f"ALTER TABLE cleanings VALIDATE CONSTRAINT {OWNER}")
        drop_indexes()


def renew_owner(ondelete):
    """Replace the foreign key; existing rows are checked later."""
    op.execute(f"ALTER TABLE cleanings DROP CONSTRAINT IF EXISTS {OWNER}")
    op.create_foreign_key(
        OWNER,
        "cleanings",
        "users",
        ["owner_id"],
        ["id"],
        ondelete=ondelete,
        postgresql_not_valid=True,
    )


def drop_checks():
    for name in CHECKS:
        op.execute(f"ALTER TABLE cleanings DROP CONSTRAINT IF EXISTS {name}")


def drop_indexes():
    for name in [*INDEXES, CHANGED]:
        op.drop_index(name, "cleanings", postgresql_concurrently=True, if_exists=True)
