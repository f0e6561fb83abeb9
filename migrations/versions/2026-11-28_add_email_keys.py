"""Add email keys."""

import sqlalchemy as sa
from alembic import op
from alembic.util import CommandError

from phresh.accounts.models import email_key  # the one place where keys are made

revision = "58c3f1d7e0b9"
down_revision = "e4b7a90d15c2"
branch_labels = None
depends_on = None

FILL = """
CREATE FUNCTION fill_email_key() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$ BEGIN
    IF octet_length(NEW.email) = char_length(NEW.email) THEN
        NEW.email_key := lower(NEW.email);
    ELSIF NEW.email_key IS NULL THEN
        NEW.email_key := lower(normalize(NEW.email, NFKC));
    END IF;
    RETURN NEW;
END $$
"""
ON_EMAIL = """
CREATE TRIGGER fill_email_key BEFORE INSERT OR UPDATE OF email ON users
FOR EACH ROW EXECUTE FUNCTION fill_email_key()
"""
LENGTH = "ck_users_key_length"
# Letters other than ASCII, or Punycode for them. Of other emails the key is lower(email), which is
# unique already.
NOT_ASCII = "(octet_length(email) <> char_length(email) OR email ~* '[@.]xn--')"
SCRIPT = f"""
DO $$ BEGIN
    IF EXISTS (SELECT FROM users WHERE {NOT_ASCII}) THEN
        RAISE 'There are emails with letters other than ASCII: run flask db upgrade without --sql.';
    END IF;
END $$
"""


def upgrade():
    if op.get_context().as_sql:
        op.execute(SCRIPT)
    else:
        refuse_conflicts(op.get_bind())
    op.add_column("users", sa.Column("email_key", sa.Text(), nullable=True))
    op.execute(FILL)
    op.execute(ON_EMAIL)
    op.create_check_constraint(
        op.f(LENGTH), "users", "char_length(email_key) <= 254", postgresql_not_valid=True
    )


def downgrade():
    op.execute("DROP TRIGGER fill_email_key ON users")
    op.execute("DROP FUNCTION fill_email_key")
    op.drop_column("users", "email_key")  # with its constraint


def refuse_conflicts(connection):
    """Stop before anything is changed, when accounts have the same email by the new rule."""
    found = {}
    for user_id, email in connection.execute(
        sa.text(f"SELECT id, email FROM users WHERE {NOT_ASCII} ORDER BY id")  # noqa: S608
    ):
        key = email_key(email)
        if len(key) > 254:
            raise CommandError(
                f"users: the email of the account {user_id} is too long in its compatibility form "
                "(NFKC). Change it, then run flask db upgrade again."
            )
        found.setdefault(key, []).append(user_id)
    ascii_ids = sa.text(
        f"SELECT lower(email), id FROM users WHERE NOT {NOT_ASCII} AND lower(email) = ANY(:keys)"  # noqa: S608
    )
    for key, user_id in connection.execute(ascii_ids, {"keys": list(found)}):
        found[key].append(user_id)
    conflicts = [", ".join(map(str, sorted(ids))) for ids in found.values() if len(ids) > 1]
    if conflicts:
        raise CommandError(
            "users: these accounts have emails that are one email now, since only case or "
            f"compatibility forms of letters differ: ids {'; '.join(conflicts)}. Change or delete "
            "all but one of each, then run flask db upgrade again."
        )
