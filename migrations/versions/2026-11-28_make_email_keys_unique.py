"""Make email keys unique."""

import sqlalchemy as sa
from alembic import op

from phresh.accounts.models import email_key  # the one place where keys are made

revision = "a6d20e8b7f43"
down_revision = "58c3f1d7e0b9"
branch_labels = None
depends_on = None

UNIQUE, BUILT = "uq_users_email", "uq_users_email_key"
LOWER = "ix_users_lower_email"
LENGTH = "ck_users_key_length"
NOT_NULL = "ck_users_email_key_not_null"  # until the column is, so that no lock waits for all rows
BATCH = 5_000  # rows that wait for each other


def upgrade():
    op.execute(f"ALTER TABLE users DROP CONSTRAINT IF EXISTS {NOT_NULL}")  # of an interrupted run
    op.create_check_constraint(
        op.f(NOT_NULL), "users", "email_key IS NOT NULL", postgresql_not_valid=True
    )
    with op.get_context().autocommit_block():
        fill()
        for name in (LENGTH, NOT_NULL):
            op.execute(f"ALTER TABLE users VALIDATE CONSTRAINT {name}")
        drop_indexes(BUILT, LOWER)  # what an interrupted run left is not valid
        create_index(BUILT, "email_key", unique=True)
        create_index(LOWER, sa.text("lower(email)"))  # where the last release looks
    # The old name, by which the last release knows why an insert fails.
    replace_unique()
    op.alter_column("users", "email_key", nullable=False)
    op.drop_constraint(NOT_NULL, "users")


def downgrade():
    with op.get_context().autocommit_block():
        drop_indexes(BUILT)
        create_index(BUILT, sa.text("lower(email)"), unique=True)
        drop_indexes(LOWER)
    replace_unique()
    op.alter_column("users", "email_key", nullable=True)
    op.drop_constraint(LENGTH, "users")
    op.create_check_constraint(
        op.f(LENGTH), "users", "char_length(email_key) <= 254", postgresql_not_valid=True
    )


def fill():
    """Fill in the keys, some rows at a time; others may change the rows at the same time."""
    if op.get_context().as_sql:  # there are none but these, or the script has stopped before
        op.execute("UPDATE users SET email_key = lower(email) WHERE email_key IS NULL")
        return
    connection = op.get_bind()
    last = connection.scalar(sa.text("SELECT coalesce(max(id), 0) FROM users"))
    ascii_keys = sa.text(
        "UPDATE users SET email_key = lower(email) WHERE id BETWEEN :first AND :last"
        " AND email_key IS NULL AND octet_length(email) = char_length(email)"
        " AND email !~* '[@.]xn--'"
    )
    for first in range(0, last + 1, BATCH):
        connection.execute(ascii_keys, {"first": first, "last": first + BATCH - 1})
    others = connection.execute(
        sa.text("SELECT id, email FROM users WHERE email_key IS NULL")
    ).all()
    one = sa.text(
        "UPDATE users SET email_key = :key WHERE id = :id AND email = :email AND email_key IS NULL"
    )
    for user_id, email in others:
        connection.execute(one, {"key": email_key(email), "id": user_id, "email": email})


def replace_unique():
    op.drop_index(UNIQUE, "users")
    op.execute(f"ALTER INDEX {BUILT} RENAME TO {UNIQUE}")


def create_index(name, expression, **options):
    op.create_index(name, "users", [expression], postgresql_concurrently=True, **options)


def drop_indexes(*names):
    for name in names:
        op.drop_index(name, "users", postgresql_concurrently=True, if_exists=True)
