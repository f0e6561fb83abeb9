"""Reserve released usernames."""

import sqlalchemy as sa
from alembic import op

revision = "c17f5a3e9d80"
down_revision = "a6d20e8b7f43"
branch_labels = None
depends_on = None

RESERVE = """
CREATE FUNCTION reserve_username() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF TG_OP <> 'DELETE' THEN
        DELETE FROM released_usernames WHERE username = lower(NEW.username)
        AND (user_id = NEW.id OR released_at <= now() - interval '90 days');
        IF EXISTS (SELECT FROM released_usernames WHERE username = lower(NEW.username)) THEN
            RAISE unique_violation USING
                MESSAGE = 'the username is reserved', CONSTRAINT = 'uq_users_username';
        END IF;
    END IF;
    IF TG_OP = 'DELETE' OR (TG_OP = 'UPDATE' AND lower(NEW.username) <> lower(OLD.username)) THEN
        INSERT INTO released_usernames (username, user_id) VALUES (lower(OLD.username), OLD.id)
        ON CONFLICT (username) DO UPDATE SET user_id = OLD.id, released_at = now();
    END IF;
    RETURN NULL;
END $$
"""
ON_USERNAME = """
CREATE TRIGGER reserve_username AFTER INSERT OR DELETE OR UPDATE OF username ON users
FOR EACH ROW EXECUTE FUNCTION reserve_username()
"""
# In SQL, so that a script of flask db upgrade --sql finds the schema when it runs.
PIN = """
DO $$ BEGIN
    EXECUTE format('ALTER FUNCTION reserve_username SET search_path = pg_catalog, %I, pg_temp',
        current_schema());
END $$
"""


def upgrade():
    op.create_table(
        "released_usernames",
        sa.Column("username", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column(
            "released_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.CheckConstraint("username = lower(username)", name=op.f("ck_released_usernames_lower")),
        sa.PrimaryKeyConstraint("username", name=op.f("pk_released_usernames")),
    )
    op.execute(RESERVE)
    op.execute(ON_USERNAME)
    op.execute(PIN)


def downgrade():
    op.execute("DROP TRIGGER reserve_username ON users")
    op.execute("DROP FUNCTION reserve_username")
    op.drop_table("released_usernames")
