"""Create cleanings."""

import sqlalchemy as sa
from alembic import op

revision = "91ac0fb8413f"
down_revision = None
branch_labels = None
depends_on = None


def upgrade():
    op.create_table(
        "cleanings",
        sa.Column("id", sa.Integer(), sa.Identity(always=False), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column(
            "cleaning_type", sa.Text(), server_default=sa.text("'spot_clean'"), nullable=False
        ),
        sa.Column("price", sa.Numeric(10, 2), nullable=False),
        sa.CheckConstraint("char_length(name) <= 200", name=op.f("ck_cleanings_name_length")),
        sa.CheckConstraint(
            r"name ~ '[^\u0009-\u000d\u001c-\u0020\u0085\u00a0\u1680\u2000-\u200a"
            r"\u2028\u2029\u202f\u205f\u3000\ufeff]'",
            name=op.f("ck_cleanings_name_not_blank"),
        ),
        sa.CheckConstraint(
            "char_length(description) <= 10000", name=op.f("ck_cleanings_description_length")
        ),
        sa.CheckConstraint(
            "cleaning_type IN ('dust_up', 'spot_clean', 'full_clean')",
            name=op.f("ck_cleanings_cleaning_type"),
        ),
        sa.CheckConstraint(
            "price BETWEEN 0 AND 99999999.99", name=op.f("ck_cleanings_price_range")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_cleanings")),
    )
    op.create_index(op.f("ix_cleanings_name"), "cleanings", ["name"])


def downgrade():
    op.drop_table("cleanings")
