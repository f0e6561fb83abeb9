"""Pin the functions to their schema."""

from alembic import op

revision = "e4a90d6b1c37"
down_revision = "d91b40c2e6a7"
branch_labels = None
depends_on = None

FOLLOW = """
CREATE OR REPLACE FUNCTION follow_offer() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF OLD.status IN ('accepted', 'completed') OR NEW.status IN ('accepted', 'completed') THEN
        UPDATE cleanings SET status = status, updated_at = greatest(
            updated_at, CASE TG_OP WHEN 'INSERT' THEN NEW.updated_at ELSE clock_timestamp() END
        )
        WHERE id IN (OLD.cleaning_id, NEW.cleaning_id);
    END IF;
    RETURN NULL;
END $$
"""
# In SQL, so that a script of flask db upgrade --sql finds the schema when it runs.
PIN = """
DO $$ BEGIN
    EXECUTE format('ALTER FUNCTION derive_status SET search_path = pg_catalog, %I, pg_temp',
        current_schema());
    EXECUTE format('ALTER FUNCTION follow_offer SET search_path = pg_catalog, %I, pg_temp',
        current_schema());
END $$
"""
FOLLOWED = """
CREATE OR REPLACE FUNCTION follow_offer() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF OLD.status IN ('accepted', 'completed') OR NEW.status IN ('accepted', 'completed') THEN
        UPDATE cleanings SET status = status, updated_at = greatest(updated_at, clock_timestamp())
        WHERE id IN (OLD.cleaning_id, NEW.cleaning_id);
    END IF;
    RETURN NULL;
END $$
"""


def upgrade():
    op.execute(FOLLOW)
    op.execute(PIN)


def downgrade():
    op.execute(FOLLOWED)  # this resets its search_path too
    op.execute("ALTER FUNCTION derive_status RESET search_path")
