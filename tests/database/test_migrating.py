"""Migrating beside others: their tables, other runs of flask db, scripts for psql, and dumps."""

import os
import shutil
import subprocess

import pytest
from flask_migrate import check, current, downgrade, migrate, stamp, upgrade
from sqlalchemy import make_url, text

from phresh import create_app
from phresh.config import ROOT
from phresh.database import embedded
from phresh.database.base import db
from tests.tools.processes import environment, wait_until

# In the order in which they go; with an extension that has tables of its own would be one more.
FOREIGN = """
    CREATE SCHEMA theirs;
    CREATE TABLE theirs.users (id integer PRIMARY KEY);
    CREATE TABLE notes (id integer PRIMARY KEY, text text);
    CREATE INDEX ix_notes_text ON notes (text);
    CREATE VIEW recent_notes AS SELECT * FROM notes;
    CREATE MATERIALIZED VIEW all_notes AS SELECT * FROM notes;
    CREATE SEQUENCE numbers;
    CREATE TYPE mood AS ENUM ('good', 'bad');
    CREATE FUNCTION theirs.derive_status() RETURNS trigger LANGUAGE plpgsql
        AS 'BEGIN RETURN NEW; END';
    CREATE EXTENSION pg_trgm;
    CREATE EXTENSION pg_stat_statements;
    CREATE TABLE words (word text);
    CREATE INDEX ix_words ON words USING gin (word gin_trgm_ops)
"""
OBJECTS = """
    SELECT classid::regclass::text, objid, pg_describe_object(classid, objid, objsubid)
    FROM pg_shdepend WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
    UNION SELECT 'pg_extension', oid, extname FROM pg_extension
    UNION SELECT 'pg_class', oid, relname FROM pg_class WHERE relname !~ '^pg_|alembic_version'
        AND relnamespace IN ('public'::regnamespace, to_regnamespace('theirs'))
    UNION SELECT 'pg_proc', oid, proname FROM pg_proc
        WHERE pronamespace IN ('public'::regnamespace, to_regnamespace('theirs'))
"""
ROWS = """
    INSERT INTO users (id, email, username, password_hash) VALUES
        (1, 'a@b.example', 'anna', '!'), (2, 'b@b.example', 'ben', '!');
    INSERT INTO profiles (user_id) VALUES (1), (2);
    INSERT INTO cleanings (id, name, price, owner_id, created_at, updated_at)
        SELECT id, 'Küche 🧹', 20, 1, '2026-01-01', '2026-01-02' FROM generate_series(1, 3) id;
    INSERT INTO offers (id, cleaning_id, user_id, created_at, updated_at)
        SELECT id, id, 2, '2026-01-01', '2026-01-02' FROM generate_series(1, 3) id;
    UPDATE offers SET status = 'accepted', updated_at = clock_timestamp() WHERE id < 3;
    UPDATE offers SET status = 'completed', updated_at = clock_timestamp() WHERE id = 2;
    INSERT INTO evaluations (cleaning_id, cleaner_id, owner_id, overall_rating) VALUES (2, 2, 1, 5);
    INSERT INTO tokens (hash, user_id, expires_at) VALUES (sha256('a'), 1, 'infinity');
    INSERT INTO procrastinate_jobs (queue_name, task_name, args) VALUES ('q', 't', '{"a": 1}')
"""


@pytest.fixture
def database(make_database):
    """An app on an empty database."""
    app = create_app({"DATABASE_URL": make_database("migrating")})
    with app.app_context():
        yield app
        db.engine.dispose()


def program(name):
    server = embedded.Server(ROOT / "instance")
    found = shutil.which(name, path=f"{server.programs / 'bin'}:{os.environ['PATH']}")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def call(name, *arguments, script=None):
    """Run one of PostgreSQL's programs on the database of the app and return what it printed."""
    url = db.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    done = subprocess.run(
        [program(name), "--dbname", url, *arguments],
        input=script,
        capture_output=True,
        text=True,
        env=environment(PGCLIENTENCODING="UTF8"),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_script(script):
    call("psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", script=script)


def execute(statements):
    with db.engine.begin() as connection:
        connection.execute(text(statements))


def select(statement):
    with db.engine.connect() as connection:
        return sorted(map(tuple, connection.execute(text(statement))))


def contents():
    names = [*db.metadata.tables, "procrastinate_jobs"]
    return {name: select(f"SELECT t::text FROM {name} t") for name in names}


def script_of(work, capsys, **options):
    capsys.readouterr()
    work(sql=True, **options)
    printed = capsys.readouterr()
    assert "Applied: " not in printed.out
    assert "Reverted: " not in printed.out
    return printed.out, printed.err


def test_a_script_of_the_migrations_runs_in_psql(database, capsys):
    everything, said = script_of(upgrade, capsys)
    assert "Applied: Create cleanings" in said
    run_script(everything)
    check()
    made = select(OBJECTS.replace("objid", "0").replace("oid,", "0,"))
    script, said = script_of(downgrade, capsys, revision="head:a3f8c15e7d24")
    assert "Reverted: Index statuses and times" in said
    run_script(script)
    run_script(script_of(upgrade, capsys, revision="a3f8c15e7d24:head")[0])
    check()
    run_script(script_of(downgrade, capsys, revision="head:base")[0])
    assert select("SELECT tablename FROM pg_tables WHERE schemaname = 'public'") == [
        ("alembic_version",)
    ]
    upgrade()
    assert select(OBJECTS.replace("objid", "0").replace("oid,", "0,")) == made


def test_a_script_of_the_last_migration_and_of_a_stamp_run_too(database, capsys):
    upgrade()
    run_script(script_of(downgrade, capsys)[0])
    [(before,)] = select("SELECT version_num FROM alembic_version")
    upgrade()
    downgrade(revision="base")
    execute("DROP TABLE alembic_version")
    run_script(script_of(stamp, capsys, revision=before)[0])
    assert select("SELECT version_num FROM alembic_version") == [(before,)]


def test_objects_of_others_are_left_alone(database, capsys, tmp_path):
    execute(FOREIGN)
    before = select(OBJECTS)
    assert len(before) > 15
    upgrade()
    check()
    versions = ROOT / "migrations" / "versions"
    there = set(versions.iterdir())
    migrate(message="nothing")
    assert set(versions.iterdir()) == there
    assert "Models and migrations agree" in capsys.readouterr().out
    assert set(before) < set(select(OBJECTS))
    downgrade(revision="base")
    left = {row for row in select(OBJECTS) if row[2] != "alembic_version_pkc"}
    assert {row for row in left if "alembic_version" not in row[2]} == set(before)


def test_a_table_that_depends_on_ours_stops_a_downgrade_in_one_line(database, caplog):
    upgrade()
    execute("CREATE TABLE notes (user_id integer REFERENCES users)")
    with pytest.raises(SystemExit):
        downgrade(revision="base")
    [message] = [line for line in caplog.messages if line.startswith("Error: ")]
    assert "cannot drop table users because other objects depend on it" in message
    assert len(message.splitlines()) == 1
    assert select("SELECT count(*) FROM notes") == [(0,)]
    execute("DROP TABLE notes")
    upgrade()
    check()


def test_everything_works_in_a_schema_of_its_own(database):
    name = db.engine.url.database
    execute(f'CREATE SCHEMA "my app"; ALTER DATABASE "{name}" SET search_path = "my app", public')
    db.engine.dispose()
    upgrade()
    check()
    found = select("SELECT DISTINCT schemaname FROM pg_tables WHERE schemaname !~ '^pg_|^info'")
    assert found == [("my app",)]
    execute(ROWS)
    execute("SET LOCAL search_path = ''; UPDATE \"my app\".offers SET status = 'pending'")
    assert select("SELECT DISTINCT status FROM cleanings") == [("open",)]
    downgrade(revision="base")
    upgrade()


def test_each_function_of_ours_has_a_search_path(database):
    upgrade()
    unset = """
        SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace
            AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = pg_proc.oid AND deptype = 'e')
            AND NOT coalesce(proconfig::text, '') ~ 'search_path=pg_catalog, (public, )?pg_temp'
    """
    assert select(unset) == [], "Pin it as migrations/versions/2026-11-28_pin_the_functions.py does"


# The history of the jobs is written by a trigger.
DATA_ONLY = (
    *("--data-only", "--exclude-table=alembic_version", "--exclude-table=procrastinate_events"),
)


@pytest.mark.parametrize(
    "options",
    [
        DATA_ONLY,
        (*DATA_ONLY, "--inserts"),
        (),
    ],
)
def test_a_dump_restores_what_was_there(database, make_database, options):
    upgrade()
    execute(ROWS)
    before = contents()
    assert [len(before[name]) for name in ("cleanings", "offers", "evaluations")] == [3, 3, 1]
    dump = call("pg_dump", *options)
    other = create_app({"DATABASE_URL": make_database("restored")})
    with other.app_context():
        if options:
            upgrade()
        run_script(dump)
        assert contents() == before
        check()
        execute("UPDATE offers SET status = 'pending' WHERE id = 1")
        assert select("SELECT status FROM cleanings WHERE id = 1") == [("open",)]
        db.engine.dispose()


def start_upgrade():
    return subprocess.Popen(
        ["flask", "db", "upgrade"],
        cwd=ROOT,
        env=environment(DATABASE_URL=db.engine.url.render_as_string(hide_password=False)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_migration_waits_for_another_one_and_says_so(database, capsys):
    with db.engine.connect() as other:
        holder = other.scalar(text("SELECT pg_backend_pid()"))
        lock = int.from_bytes(b"phresh")
        other.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": lock})
        waiting = start_upgrade()
        said = next(line for line in waiting.stderr if line.startswith("Another process"))
        assert said == (
            "Another process changes this database: waiting for its end. "
            f"(The server process {holder} holds the advisory lock.)\n"
        )
        assert select("SELECT to_regclass('cleanings')::text") == [(None,)]
        snapshots = """
            SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                AND backend_xmin IS NOT NULL AND pid <> pg_backend_pid()
        """
        # What waits has no snapshot, for which CREATE INDEX CONCURRENTLY would wait.
        assert wait_until(lambda: select(snapshots) == [(0,)])
        current()  # what only reads does not wait
        other.rollback()
    printed, _ = waiting.communicate(timeout=120)
    assert waiting.returncode == 0
    assert "Applied: Create cleanings" in printed
    check()


def test_several_migrations_at_once_work_one_after_the_other(database):
    runs = [start_upgrade() for _ in range(3)]
    printed = [run.communicate(timeout=120) for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0], printed
    applied = [out.count("Applied: ") for out, _ in printed]
    assert sorted(applied)[:2] == [0, 0], printed
    check()


def test_the_lock_outlives_time_limits_of_the_role(database):
    """Such limits are for requests; that of the lock's transaction would end it half-way."""
    name = db.engine.url.database
    execute(f'ALTER DATABASE "{name}" SET idle_in_transaction_session_timeout = 300')
    execute(f"ALTER DATABASE \"{name}\" SET default_transaction_isolation = 'serializable'")
    db.engine.dispose()
    upgrade()
    check()


def test_the_role_of_the_migrations_may_be_another_one(make_database):
    url = make_url(make_database("roles"))
    away = url.set(drivername="postgresql", host="127.0.0.1", port=1, query={})
    settings = {
        "DATABASE_URL": away.render_as_string(hide_password=False),
        "MIGRATION_DATABASE_URL": url.render_as_string(hide_password=False),
    }
    with create_app(settings).app_context():
        upgrade()
        check()
        downgrade()
        upgrade()
