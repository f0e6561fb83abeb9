"""The migrations: up, down and up again, and what they make is what the models say."""

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from flask_migrate import downgrade, upgrade
from sqlalchemy import create_engine, text
from sqlalchemy.exc import IntegrityError, OperationalError

from phresh import create_app
from phresh.db import db

CONSTRAINTS = """
    SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
    WHERE connamespace = 'public'::regnamespace AND conrelid::regclass::text <> 'alembic_version'
"""
INDEXES = """
    SELECT tablename, indexname, indexdef FROM pg_indexes
    WHERE schemaname = 'public' AND tablename <> 'alembic_version'
"""
COLUMNS = """
    SELECT table_name, column_name, data_type, is_nullable, column_default, is_identity,
           generation_expression, character_maximum_length, numeric_precision, numeric_scale
    FROM information_schema.columns
    WHERE table_schema = 'public' AND table_name <> 'alembic_version'
"""
TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"


def catalog(engine):
    """Tell what a database has, in words that can be compared; flask db check is blind to some."""
    with engine.connect() as connection:
        queries = (COLUMNS, CONSTRAINTS, INDEXES)
        return [sorted(map(str, connection.execute(text(query)))) for query in queries]


@pytest.fixture
def migrated(make_database):
    """An app on a database of its own that has every migration."""
    app = create_app({"DATABASE_URL": make_database("migrations")})
    with app.app_context():
        upgrade()
        yield app
        db.engine.dispose()


def test_they_run_up_down_and_up_again(migrated):
    first = catalog(db.engine)
    downgrade(revision="base")
    with db.engine.connect() as connection:
        assert connection.scalars(text(TABLES)).all() == ["alembic_version"]
    upgrade()
    assert catalog(db.engine) == first


def test_each_goes_down_and_up_by_itself(migrated):
    with db.engine.connect() as connection:
        steps = len(MigrationContext.configure(connection).get_current_heads())
    assert steps == 1, "one line of revisions, no branches"
    while True:
        before = catalog(db.engine)
        with db.engine.connect() as connection:
            if not MigrationContext.configure(connection).get_current_heads():
                break
        downgrade()
        upgrade(revision="+1")
        assert catalog(db.engine) == before
        downgrade()


def test_they_make_what_the_models_say(migrated, make_database):
    with db.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), db.metadata) == []
    engine = create_engine(make_database("models"))
    with engine.begin() as connection:
        connection.execute(text("CREATE EXTENSION pg_trgm"))
    db.metadata.create_all(engine)
    assert catalog(db.engine) == catalog(engine)
    engine.dispose()


def test_the_catalog_sees_a_changed_check_and_a_changed_default(migrated):
    before = catalog(db.engine)
    with db.engine.begin() as connection:
        connection.execute(text("ALTER TABLE cleanings ALTER cleaning_type SET DEFAULT 'dust_up'"))
    assert catalog(db.engine) != before


def test_every_constraint_has_the_name_that_the_rule_gives(migrated):
    with db.engine.connect() as connection:
        for table, name, definition in connection.execute(text(CONSTRAINTS)):
            # PostgreSQL 18 keeps NOT NULL as a constraint, by a name of its own.
            if not definition.startswith("NOT NULL"):
                kind = {"PRIMARY": "pk", "UNIQUE": "uq", "FOREIGN": "fk", "CHECK": "ck"}
                assert name.startswith(f"{kind[definition.split()[0]]}_{table}"), definition


def test_every_database_of_ours_knows_letters_of_every_script(migrated):
    with db.engine.connect() as connection:
        ctype = "SELECT datctype FROM pg_database WHERE datname = current_database()"
        assert connection.scalar(text(ctype)) == "C.UTF-8"


def test_an_index_is_built_while_others_read_and_write(migrated):
    """It waits for them, but nobody waits for it; and what an interrupted build left is renewed."""
    downgrade(revision="91ac0fb8413f")
    with db.engine.connect() as other:
        other.execute(text("CREATE EXTENSION pg_trgm"))
        other.execute(text("CREATE INDEX ix_cleanings_price_id ON cleanings (price)"))
        other.commit()
    upgrade()
    with db.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), db.metadata) == []


def test_no_index_of_a_live_table_is_built_in_its_way(migrated, capsys):
    upgrade(revision="91ac0fb8413f:head", sql=True)
    built = [line for line in capsys.readouterr().out.splitlines() if " ON cleanings" in line]
    assert len(built) == 4
    assert all(line.startswith("CREATE INDEX CONCURRENTLY") for line in built)


def test_a_migration_that_has_to_wait_gives_up(migrated):
    with db.engine.connect() as other:
        other.execute(text("SELECT FROM idempotency_keys"))
        with pytest.raises(OperationalError, match="lock timeout"):
            downgrade()
        other.rollback()
    downgrade()


GOOD = {"name": "A job", "description": None, "cleaning_type": "dust_up", "price": "20"}


@pytest.mark.parametrize(
    ("check", "bad"),
    [
        ("name_length", {"name": "x" * 201}),
        ("name_not_blank", {"name": ""}),
        ("name_not_blank", {"name": " \t\n\u00a0\u3000\x1c\x85\ufeff"}),
        ("description_length", {"description": "x" * 10_001}),
        ("cleaning_type", {"cleaning_type": "deep_clean"}),
        ("price_range", {"price": "-0.01"}),
        ("price_range", {"price": "NaN"}),
    ],
)
def test_each_check_refuses_what_the_schemas_refuse(sql, check, bad):
    columns = ", ".join(GOOD)
    values = ", ".join(f":{name}" for name in GOOD)
    insert = f"INSERT INTO cleanings ({columns}) VALUES ({values})"
    sql(insert, **GOOD)
    with pytest.raises(IntegrityError, match=f"ck_cleanings_{check}"):
        sql(insert, **GOOD | bad)
