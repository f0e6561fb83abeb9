"""Add background jobs."""

from pathlib import Path

import sqlalchemy as sa
from alembic import op
from procrastinate.schema import SchemaManager

revision = "5b0e7d3f1c94"
down_revision = "c17f5a3e9d80"
branch_labels = None
depends_on = None

# procrastinate's own steps, which stay as they are once released. A later release that has more of
# them needs a migration of ours that runs those.
LAST = "03.04.00_50_post_add_retry_failed_job_procedure.sql"

FUNCTIONS = """
    SELECT oid::regprocedure AS name FROM pg_proc WHERE proname LIKE 'procrastinate%'
        AND pronamespace = quote_ident(current_schema())::regnamespace
"""
# As 2026-11-28_pin_the_functions.py does: pg_restore has no search_path.
PIN = f"""
DO $$ DECLARE it record; BEGIN
    FOR it IN {FUNCTIONS} LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path = pg_catalog, %I, pg_temp',
            it.name, current_schema());
    END LOOP;
END $$
"""
DROP = f"""
DO $$ DECLARE it record; BEGIN
    DROP TABLE procrastinate_events, procrastinate_periodic_defers, procrastinate_jobs,
        procrastinate_workers CASCADE;
    FOR it IN {FUNCTIONS} LOOP
        EXECUTE format('DROP FUNCTION %s', it.name);
    END LOOP;
    DROP TYPE procrastinate_job_to_defer_v1, procrastinate_job_status,
        procrastinate_job_event_type;
END $$
"""


def upgrade():
    for step in sorted(Path(SchemaManager.get_migrations_path()).glob("*.sql")):
        if step.name <= LAST:
            execute(step.read_text())
    execute(PIN)


def downgrade():
    execute(DROP)


def execute(sql):
    """Run SQL as it stands: a colon in it is no parameter."""
    op.execute(sa.DDL(sql.replace("%", "%%")))
