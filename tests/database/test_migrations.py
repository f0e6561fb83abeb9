"""The migrations: up, down and up again, and what they make is what the models say."""

import re

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from flask_migrate import downgrade, stamp, upgrade
from sqlalchemy import create_engine, text
from sqlalchemy.exc import IntegrityError

from phresh import create_app
from phresh.accounts.models import email_key
from phresh.database.base import db
from tests.tools.features import features

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
PERSISTENCE = """
    SELECT relname, relpersistence FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relname <> 'alembic_version'
"""
TRIGGERS = """
    SELECT pg_get_triggerdef(pg_trigger.oid), tgenabled, pg_get_functiondef(tgfoid) FROM pg_trigger
    WHERE NOT tgisinternal
"""
TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"


def catalog(engine):
    """Tell what a database has, in words that can be compared; flask db check is blind to some."""
    with engine.connect() as connection:
        queries = (COLUMNS, CONSTRAINTS, INDEXES, PERSISTENCE, TRIGGERS)
        return [sorted(map(str, connection.execute(text(query)))) for query in queries]


def differences(connection):
    """Return how the tables of the models differ from what they say, as ``flask db check`` does."""
    names = db.metadata.tables
    ours = {"include_name": lambda name, kind, _: kind != "table" or name in names}
    return compare_metadata(MigrationContext.configure(connection, opts=ours), db.metadata)


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


def test_they_run_down_and_up_with_rows_in_every_table(migrated):
    rows = {}
    for feature in features().values():
        rows |= feature.rows
    with db.engine.begin() as connection:
        for table in db.metadata.sorted_tables:
            assert table.name in rows, (
                f"No test inserts a row into the table {table.name}: add the SQL to `rows` in the "
                "tests/<feature>/routes.py of its feature."
            )
            connection.execute(text(rows.pop(table.name)))
            assert connection.scalar(text(f"SELECT count(*) FROM {table}")), table.name
    assert not rows, f"`rows` of a tests/<feature>/routes.py has no such tables: {sorted(rows)}"
    downgrade(revision="91ac0fb8413f")
    upgrade()
    with db.engine.connect() as connection:
        names = "SELECT name, owner_id FROM cleanings ORDER BY id"
        assert connection.execute(text(names)).all() == [("Hers", None), ("A guest's", None)]


def test_what_is_searched_becomes_composed(migrated):
    downgrade(revision="d91b40c2e6a7")
    twice = "\u0958"  # one character, which the normalization form C has as two
    before = ["Zu\u0308rich", "Z\u00fcrich", "Zurich", twice * 200, twice * 100]
    with db.engine.begin() as connection:
        insert = text("INSERT INTO cleanings (name, description, price) VALUES (:name, :text, 1)")
        for name in before:
            connection.execute(insert, {"name": name, "text": None})
        connection.execute(insert, {"name": "x", "text": "Zu\u0308rich"})
        connection.execute(
            text(
                "CREATE TABLE old AS SELECT id, name, updated_at, xmin::text AS made FROM cleanings"
            )
        )
    upgrade()
    with db.engine.begin() as connection:
        select = text("SELECT name, description FROM cleanings ORDER BY id")
        names, texts = zip(*connection.execute(select), strict=True)
        changed = text("""
            SELECT old.name, old.updated_at = cleanings.updated_at FROM cleanings
            JOIN old USING (id) WHERE old.made <> cleanings.xmin::text
        """)
        found = connection.execute(changed).all()
        connection.execute(text("DROP TABLE old"))
    assert names == ("Z\u00fcrich", *before[1:4], "\u0915\u093c" * 100, "x")
    assert texts == (None,) * 5 + ("Z\u00fcrich",)
    assert sorted(found) == sorted([(before[0], True), (before[4], True), ("x", True)])


def test_they_make_what_the_models_say(migrated, make_database):
    with db.engine.connect() as connection:
        assert differences(connection) == []
    engine = create_engine(make_database("models"))
    with engine.begin() as connection:
        connection.execute(text("CREATE EXTENSION pg_trgm"))
    db.metadata.create_all(engine)
    ours = [[row for row in rows if "procrastinate" not in row] for rows in catalog(db.engine)]
    assert ours == catalog(engine)
    engine.dispose()


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE cleanings ALTER cleaning_type SET DEFAULT 'dust_up'",
        "ALTER TABLE cleanings DROP CONSTRAINT ck_cleanings_price_range,"
        " ADD CONSTRAINT ck_cleanings_price_range CHECK (price >= 0)",
        "ALTER TABLE attempts SET LOGGED",
        "ALTER TABLE cleanings DISABLE TRIGGER derive_status_on_update",
        "DROP TRIGGER follow_offer ON offers",
        "CREATE OR REPLACE FUNCTION follow_offer() RETURNS trigger LANGUAGE plpgsql"
        " AS 'BEGIN RETURN NULL; END'",
    ],
)
def test_the_catalog_sees_each_change(migrated, change):
    before = catalog(db.engine)
    with db.engine.begin() as connection:
        connection.execute(text(change))
    assert catalog(db.engine) != before


def test_every_constraint_has_the_name_that_the_rule_gives(migrated):
    with db.engine.connect() as connection:
        for table, name, definition in connection.execute(text(CONSTRAINTS)):
            # PostgreSQL 18 keeps NOT NULL as a constraint, by a name of its own.
            # The tables of procrastinate are as it has them.
            if not definition.startswith("NOT NULL") and not table.startswith("procrastinate_"):
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
        other.execute(text("CREATE INDEX ix_cleanings_price_id ON cleanings (price)"))
        other.commit()
    upgrade()
    with db.engine.connect() as connection:
        assert differences(connection) == []


def test_no_index_of_a_live_table_is_built_in_its_way(migrated, capsys):
    upgrade(revision="91ac0fb8413f:head", sql=True)
    sql = capsys.readouterr().out
    built = [line for line in sql.splitlines() if re.match("CREATE .* ON cleanings ", line)]
    assert len(built) == 10
    assert all(line.startswith("CREATE INDEX CONCURRENTLY") for line in built)


def test_no_constraint_of_a_live_table_is_checked_in_its_way(migrated, capsys):
    """Validated in a later transaction: in the same one, the lock of the first step stays."""
    upgrade(revision="91ac0fb8413f:head", sql=True)
    sql = capsys.readouterr().out
    added = r"ALTER TABLE cleanings ADD CONSTRAINT (\w+) [^;]*?( NOT VALID)?;"
    found = list(re.finditer(added, sql))
    assert found
    for match in found:
        name, unchecked = match.groups()
        assert unchecked, name
        validate = f"ALTER TABLE cleanings VALIDATE CONSTRAINT {name};"
        between, validated, _ = sql[match.end() :].partition(validate)
        assert validated, name
        assert "COMMIT;" in between, name


@pytest.mark.parametrize(
    ("revision", "noted"),
    [
        ("5d0c1f6a2b7e", "91ac0fb8413f"),
        ("7c4e1a8d3f52", "2b6d9e0f4a13"),
        ("d91b40c2e6a7", "a3f8c15e7d24"),
        ("f4b81c6d2e90", "4e7b1d92c0a6"),
        ("0a7d3e5b9c12", "f4b81c6d2e90"),
        ("a6d20e8b7f43", "58c3f1d7e0b9"),
        ("e2a94c70b5d1", "5b0e7d3f1c94"),
        ("a3d94e7c1b60", "7be05c18d9f3"),
    ],
)
def test_a_migration_that_was_interrupted_is_run_again(migrated, revision, noted):
    """At its end, before it was noted: what is not one transaction may have done all that."""
    downgrade(revision=revision)
    before = catalog(db.engine)
    stamp(revision=noted)
    upgrade(revision=revision)
    assert catalog(db.engine) == before


def test_the_previous_version_counts_attempts_on_the_new_schema(migrated):
    """It has an id that the database sets, and that it returns."""
    insert = "INSERT INTO attempts (key) VALUES ('k') RETURNING attempts.id"
    delete = "DELETE FROM attempts WHERE at <= now() RETURNING attempts.id"
    with db.engine.begin() as connection:
        for statement in (insert, insert):
            assert len(connection.execute(text(statement)).all()) == 1
    with db.engine.begin() as connection:
        assert len(connection.execute(text(delete)).all()) == 2


def test_no_unlogged_table_has_a_sequence(migrated):
    """A standby that is promoted may be unable to use it (fixed in PostgreSQL 17.11 and others)."""
    unlogged = "SELECT relname, relkind FROM pg_class WHERE relpersistence = 'u'"
    with db.engine.connect() as connection:
        found = connection.execute(text(f"{unlogged} AND relkind IN ('r', 'S')")).all()
    assert sorted(found) == [("attempts", "r"), ("quotas", "r")]


@pytest.mark.parametrize("words", ["roof", "%"])
def test_the_search_of_the_release_before_runs_on_the_new_tables(migrated, words):
    """While a deployment replaces the code, as that release sends it."""
    search = """
        SELECT id FROM cleanings WHERE name ILIKE :like OR description ILIKE :like
        ORDER BY id DESC LIMIT 21
    """
    with db.engine.begin() as connection:
        new = "INSERT INTO cleanings (name, price, description) VALUES ('Job', 1, :text)"
        connection.execute(text(new), {"text": f"The {words}"})
        found = connection.execute(text(search), {"like": "%{}%".format(words.replace("%", "\\%"))})
        assert len(found.all()) == 1


# Email keys

INSERT = "INSERT INTO users (email, username, password_hash) VALUES (:email, :name, '')"
KEYS = "SELECT id, email_key FROM users ORDER BY id"


@pytest.fixture
def before_keys(migrated):
    """The database of the release before keys; insert accounts and return their ids."""
    downgrade(revision="0a7d3e5b9c12")

    def insert(*emails):
        with db.engine.begin() as connection:
            return [
                connection.scalar(
                    text(f"{INSERT} RETURNING id"), {"email": email, "name": f"user-{number}"}
                )
                for number, email in enumerate(emails)
            ]

    return insert


def test_accounts_have_the_keys_that_python_makes(before_keys):
    emails = ["Anna@X.example", "stra\u00dfe@x.example", "\uff42en@x.example", "c@stra\u00dfe.de"]
    ids = before_keys(*emails)
    upgrade()
    with db.engine.connect() as connection:
        keys = connection.execute(text(KEYS)).all()
    assert keys == list(zip(ids, map(email_key, emails), strict=True))


@pytest.mark.parametrize(
    "emails",
    [
        ("stra\u00dfe@x.com", "anna@x.com", "STRASSE@x.com"),
        ("a@b\u00fccher.de", "anna@x.com", "a@xn--bcher-kva.de"),
        ("\uff42en@x.com", "anna@x.com", "ben@x.com"),
        ("\u03c3\u03c2@x.com", "anna@x.com", "\u03c3\u03c3@x.com"),
    ],
)
def test_accounts_whose_emails_are_one_by_the_key_stop_the_upgrade_by_id(
    before_keys, caplog, emails
):
    """Before anything is changed; when one of them was changed, it goes on."""
    first, _, last = before_keys(*emails)
    upgrade(revision="e4b7a90d15c2")
    before = catalog(db.engine)
    with pytest.raises(SystemExit):
        upgrade()
    assert f"ids {first}, {last}. Change or delete all but one" in caplog.text
    assert catalog(db.engine) == before
    with db.engine.begin() as connection:
        connection.execute(text(f"UPDATE users SET email = 'x@x.com' WHERE id = {last}"))
    upgrade()


def test_the_last_release_writes_emails_that_have_their_keys(migrated):
    """It does not know the column, and finds out by the same name that an email is taken."""
    with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        insert = text(INSERT)
        for number, email in enumerate(["Anna@x.com", "B\u00c4R@x.com", "c@x.com"]):
            connection.execute(insert, {"email": email, "name": f"user-{number}"})
        connection.execute(text("UPDATE users SET email = 'Carl@x.com' WHERE email = 'c@x.com'"))
        keys = [key for _, key in connection.execute(text(KEYS))]
        assert keys == ["anna@x.com", "b\u00e4r@x.com", "carl@x.com"]
        with pytest.raises(IntegrityError, match='unique constraint "uq_users_email"'):
            connection.execute(insert, {"email": "CARL@x.com", "name": "dora"})


def test_a_key_of_python_stays(sql, anna):
    """The trigger for the last release knows less about letters that are not ASCII."""
    change = "UPDATE users SET email = :email, email_key = 'strasse@x.com'"
    for email in ("stra\u00dfe@x.com", "STRA\u00dfE@x.com", "strasse@x.com"):
        sql(change, email=email)
        assert sql("SELECT email_key FROM users") == [("strasse@x.com",)]


def test_a_migration_that_has_to_wait_gives_up(migrated, caplog):
    downgrade(revision="c8e27d4b9f10")
    with db.engine.connect() as other:
        other.execute(text("SELECT FROM idempotency_keys"))
        with pytest.raises(SystemExit):
            downgrade()
        assert "lock timeout DROP TABLE idempotency_keys" in caplog.text
        assert "Traceback" not in caplog.text
        other.rollback()
    downgrade()


def test_a_migration_without_its_database_says_so(caplog):
    away = create_app({"DATABASE_URL": "postgresql://anna:secret@127.0.0.1:1/none"})
    with away.app_context(), pytest.raises(SystemExit):
        upgrade()
    assert "127.0.0.1:1/none: " in caplog.text
    assert "Connection refused" in caplog.text
    assert "secret" not in caplog.text
    assert "Traceback" not in caplog.text


GOOD = {
    "cleanings": {"name": "Job", "description": None, "cleaning_type": "dust_up", "price": "20"},
    "users": {"email": "a@b.example", "username": "anna", "password_hash": ""},
}


@pytest.mark.parametrize(
    ("table", "check", "bad"),
    [
        ("users", "username", {"username": "an"}),
        ("users", "username", {"username": "a" * 31}),
        ("users", "username", {"username": "anna\n"}),
        ("users", "username", {"username": "ännä"}),
        ("users", "email", {"email": "a.b.example"}),
        ("users", "email", {"email": "a@b@c.example"}),
        ("users", "email_length", {"email": "a@" + "b" * 253}),
        ("cleanings", "name_length", {"name": "x" * 201}),
        ("cleanings", "name_not_blank", {"name": ""}),
        ("cleanings", "name_not_blank", {"name": " \t\n\u00a0\u3000\x1c\x85\ufeff"}),
        ("cleanings", "description_length", {"description": "x" * 10_001}),
        ("cleanings", "cleaning_type", {"cleaning_type": "deep_clean"}),
        ("cleanings", "price_range", {"price": "-0.01"}),
        ("cleanings", "price_range", {"price": "NaN"}),
    ],
)
def test_each_check_refuses_what_the_schemas_refuse(sql, table, check, bad):
    good = GOOD[table]
    columns = ", ".join(good)
    values = ", ".join(f":{name}" for name in good)
    insert = f"INSERT INTO {table} ({columns}) VALUES ({values})"
    sql(insert, **good)
    with pytest.raises(IntegrityError, match=f'"ck_{table}_{check}"'):
        sql(insert, **good | bad)


def test_a_token_is_known_by_32_bytes(sql, anna):
    insert = "INSERT INTO tokens (hash, user_id, expires_at) VALUES (:hash, :user, now())"
    with pytest.raises(IntegrityError, match="ck_tokens_hash"):
        sql(insert, hash=b"x" * 31, user=anna.id)
