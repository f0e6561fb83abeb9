"""Create the marketplace."""

import sqlalchemy as sa
from alembic import op

revision = "a3f8c15e7d24"
down_revision = "7c4e1a8d3f52"
branch_labels = None
depends_on = None

DERIVE = """
CREATE FUNCTION derive_status() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    NEW.status := coalesce((
        SELECT CASE status WHEN 'accepted' THEN 'taken' ELSE 'completed' END FROM offers
        WHERE cleaning_id = NEW.id AND status IN ('accepted', 'completed')
    ), 'open');
    RETURN NEW;
END $$
"""
ON_INSERT = """
CREATE TRIGGER derive_status_on_insert BEFORE INSERT ON cleanings
FOR EACH ROW WHEN (NEW.status <> 'open') EXECUTE FUNCTION derive_status()
"""
ON_UPDATE = """
CREATE TRIGGER derive_status_on_update BEFORE UPDATE OF status ON cleanings
FOR EACH ROW EXECUTE FUNCTION derive_status()
"""
FOLLOW = """
CREATE FUNCTION follow_offer() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF OLD.status IN ('accepted', 'completed') OR NEW.status IN ('accepted', 'completed') THEN
        UPDATE cleanings SET status = status, updated_at = greatest(updated_at, clock_timestamp())
        WHERE id IN (OLD.cleaning_id, NEW.cleaning_id);
    END IF;
    RETURN NULL;
END $$
"""
ON_OFFER = """
CREATE TRIGGER follow_offer AFTER INSERT OR DELETE OR UPDATE OF status, cleaning_id ON offers
FOR EACH ROW EXECUTE FUNCTION follow_offer()
"""


def identity():
    return sa.Column("id", sa.Integer(), sa.Identity(always=False), nullable=False)


def time_column(name):
    return sa.Column(
        name, sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
    )


def reference(table, column, target, ondelete):
    name = op.f(f"fk_{table}_{column}")
    return sa.ForeignKeyConstraint([column], [f"{target}.id"], name=name, ondelete=ondelete)


def check(table, name, condition):
    return sa.CheckConstraint(condition, name=op.f(f"ck_{table}_{name}"))


def upgrade():
    op.create_table(
        "profiles",
        sa.Column("user_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("full_name", sa.Text(), nullable=True),
        sa.Column("phone_number", sa.Text(), nullable=True),
        sa.Column("bio", sa.Text(), nullable=True),
        sa.Column("image", sa.Text(), nullable=True),
        check("profiles", "full_name_length", "char_length(full_name) <= 200"),
        check("profiles", "phone_number_length", "char_length(phone_number) <= 50"),
        check("profiles", "bio_length", "char_length(bio) <= 10000"),
        check("profiles", "image_length", "char_length(image) <= 2000"),
        check("profiles", "image", "image ~* '^https?://'"),
        reference("profiles", "user_id", "users", "CASCADE"),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_profiles")),
    )
    op.execute("INSERT INTO profiles (user_id) SELECT id FROM users")
    op.create_table(
        "offers",
        identity(),
        sa.Column("cleaning_id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=True),
        sa.Column("message", sa.Text(), nullable=True),
        sa.Column("status", sa.Text(), server_default=sa.text("'pending'"), nullable=False),
        time_column("created_at"),
        time_column("updated_at"),
        check(
            "offers",
            "status",
            "status IN ('pending', 'accepted', 'rejected', 'cancelled', 'completed')",
        ),
        check("offers", "message_length", "char_length(message) <= 2000"),
        check("offers", "user_id", "user_id IS NOT NULL OR status = 'completed'"),
        reference("offers", "cleaning_id", "cleanings", "CASCADE"),
        reference("offers", "user_id", "users", "SET NULL"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_offers")),
        sa.UniqueConstraint("cleaning_id", "user_id", name=op.f("uq_offers_cleaning_id_user_id")),
    )
    op.create_index(
        "uq_offers_taking",
        "offers",
        ["cleaning_id"],
        unique=True,
        postgresql_where=sa.text("status IN ('accepted', 'completed')"),
    )
    op.create_index(op.f("ix_offers_cleaning_id_id"), "offers", ["cleaning_id", "id"])
    op.create_index(op.f("ix_offers_user_id_id"), "offers", ["user_id", "id"])
    op.create_table(
        "evaluations",
        identity(),
        sa.Column("cleaning_id", sa.Integer(), nullable=False),
        sa.Column("cleaner_id", sa.Integer(), nullable=True),
        sa.Column("owner_id", sa.Integer(), nullable=True),
        sa.Column("professionalism", sa.SmallInteger(), nullable=True),
        sa.Column("completeness", sa.SmallInteger(), nullable=True),
        sa.Column("efficiency", sa.SmallInteger(), nullable=True),
        sa.Column("overall_rating", sa.SmallInteger(), nullable=False),
        sa.Column("headline", sa.Text(), nullable=True),
        sa.Column("comment", sa.Text(), nullable=True),
        sa.Column("no_show", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        time_column("created_at"),
        *(
            check("evaluations", name, f"{name} BETWEEN 1 AND 5")
            for name in ("professionalism", "completeness", "efficiency", "overall_rating")
        ),
        check("evaluations", "headline_length", "char_length(headline) <= 200"),
        check("evaluations", "comment_length", "char_length(comment) <= 10000"),
        reference("evaluations", "cleaning_id", "cleanings", "CASCADE"),
        reference("evaluations", "cleaner_id", "users", "SET NULL"),
        reference("evaluations", "owner_id", "users", "SET NULL"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_evaluations")),
        sa.UniqueConstraint("cleaning_id", name=op.f("uq_evaluations_cleaning_id")),
    )
    op.create_index(op.f("ix_evaluations_cleaner_id_id"), "evaluations", ["cleaner_id", "id"])
    op.create_index(op.f("ix_evaluations_owner_id"), "evaluations", ["owner_id"])
    op.add_column(
        "cleanings",
        sa.Column("status", sa.Text(), server_default=sa.text("'open'"), nullable=False),
    )
    for statement in (DERIVE, ON_INSERT, ON_UPDATE, FOLLOW, ON_OFFER):
        op.execute(statement)


def downgrade():
    op.drop_table("evaluations")
    op.drop_table("offers")
    op.execute("DROP FUNCTION follow_offer")
    for name in ("derive_status_on_insert", "derive_status_on_update"):
        op.execute(f"DROP TRIGGER {name} ON cleanings")
    op.execute("DROP FUNCTION derive_status")
    op.drop_column("cleanings", "status")
    op.drop_table("profiles")
