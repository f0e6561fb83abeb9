"""Create quotas."""

import sqlalchemy as sa
from alembic import op

revision = "e4b7a90d15c2"
down_revision = "0a7d3e5b9c12"
branch_labels = None
depends_on = None


def upgrade():
    op.create_table(
        "quotas",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("full_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_quotas")),
        prefixes=["UNLOGGED"],
        postgresql_with={"fillfactor": 50},
    )


def downgrade():
    op.drop_table("quotas")
