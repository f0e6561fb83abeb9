"""The export of an account: that it is complete, whose data it has, and what it costs."""

import json
import tracemalloc

import pytest

from phresh.cleanings.queries import hidden_cleaning
from phresh.export import services
from phresh.export.queries import BATCH, SECTIONS
from tests.export.routes import EXPORT, too_much
from tests.tools.features import World
from tests.tools.marketplace import Story

NEW = {"new_cleaning": {"name": "Job", "price": 20}}
SECRET = "a secret, of which only a hash is stored"
KEY = "names the row, and nothing else does"
SHOWN_AS_NAME = "a user, whose username is shown"

# For each table: the members of the document that have its rows, and of each column that is not
# named so there, the reason.
EXPORTED = {
    "users": (
        ["account"],
        {
            "password_hash": SECRET,
            "email_key": "a form of the email",
            "confirmed_key": "email_verified",
            "is_active": "always true: otherwise there is no export",
        },
    ),
    "profiles": (["profile"], {"user_id": "the id of the account", "hidden_at": "is_hidden"}),
    "tokens": (["sessions"], {"hash": SECRET, "user_id": "the id of the account"}),
    "one_time_tokens": (
        ["mailed_links"],
        {"hash": SECRET, "user_id": "the id of the account", "email_key": "email"},
    ),
    "audit_log": (
        ["audit_log"],
        {
            "id": KEY,
            "user_id": "the id of the account",
            "actor_id": "the account itself, or an operator",
            "target": "only of what operators do to other things than accounts",
            "request_id": "for the server's log",
        },
    ),
    "cleanings": (["cleanings"], {"owner_id": SHOWN_AS_NAME, "hidden_at": "is_hidden"}),
    "offers": (["offers"], {"user_id": SHOWN_AS_NAME}),
    "evaluations": (
        ["evaluations_written", "evaluations_received"],
        {
            "id": KEY,
            "owner_id": SHOWN_AS_NAME,
            "cleaner_id": SHOWN_AS_NAME,
            "hidden_at": "is_hidden",
        },
    ),
    "released_usernames": (["former_usernames"], {"user_id": "the id of the account"}),
    "idempotency_keys": (
        ["idempotency_keys"],
        {
            "sender": "the id of the account",
            "key": "made up by the client; nobody else can use it",
            "body_hash": SECRET,
            "answer": "shows what was created, which is in the document",
            "headers": "of that response",
        },
    ),
}
# The other tables, with the reason why nothing of them is exported.
NOT_EXPORTED = {
    "alembic_version": "has no data of users",
    "two_factors": "a secret; account.has_two_factor says whether there is one",
    "recovery_codes": SECRET,
    "attempts": "only the last release counts there",
    "quotas": "counters, which expire; what they count is not named by the account alone",
    "procrastinate_workers": "has no data of users",
    "procrastinate_jobs": "mails that wait to be sent; deleted when they are",
    "procrastinate_events": "when such a mail was sent",
    "procrastinate_periodic_defers": "has no data of users",
}


@pytest.fixture
def full(make_user, make_cleaning, sql):
    """Make Anna, of whom there is something in every table: she owns one job and did another."""
    story = Story(make_user, make_cleaning, "completed")
    anna, ben = story.anna, story.ben
    for someone in (anna, ben):
        assert someone.client.delete("/api/users/me/sessions/").status_code == 204
    job = make_cleaning(owner_id=ben.id)
    offer = {"new_offer": {"message": "On Friday?"}}
    assert anna.client.post(f"/api/cleanings/{job}/offers/", json=offer).status_code == 201
    assert ben.client.put(f"/api/cleanings/{job}/offers/anna/").status_code == 200
    rating = {"evaluation_create": {"overall_rating": 5, "comment": "Thank you"}}
    rated = ben.client.post(f"/api/users/anna/evaluations/{job}/", json=rating)
    assert rated.status_code == 201
    for someone in (anna, ben):
        headers = {"Idempotency-Key": "made-up"}
        posted = someone.client.post("/api/cleanings/", json=NEW, headers=headers)
        assert posted.status_code == 201
    sql(
        "INSERT INTO one_time_tokens (hash, user_id, purpose, email_key, expires_at) "
        "SELECT sha256(email::bytea), id, 'recovery', email_key, now() + interval '1 hour' "
        "FROM users WHERE username IN ('anna', 'ben')"
    )
    sql(
        "INSERT INTO released_usernames (username, user_id) "
        "SELECT username || '-before', id FROM users"
    )
    return story


def export_of(someone):
    response = someone.client.get(EXPORT)
    assert response.status_code == 200, response.text
    return response.json


# What it has


def test_every_table_and_column_is_exported_or_has_a_reason_not_to_be(full, sql):
    """Of a new one: add it to phresh/export/queries.py, or here with the reason."""
    document = export_of(full.anna)
    columns = sql(
        "SELECT table_name, column_name FROM information_schema.columns JOIN "
        "information_schema.tables USING (table_schema, table_name) "
        "WHERE table_schema = current_schema() AND table_type = 'BASE TABLE'"
    )
    assert {table for table, _ in columns} == EXPORTED.keys() | NOT_EXPORTED.keys()
    shown = set()
    for table, (members, left_out) in EXPORTED.items():
        for member in members:
            rows = document[member] if isinstance(document[member], list) else [document[member]]
            assert rows, f"{member} is empty: have the fixture make a row."
            shown |= {(table, name) for row in rows for name in [*row, *left_out]}
    assert not {each for each in columns if each[0] in EXPORTED} - shown
    assert document.keys() == {each for members, _ in EXPORTED.values() for each in members}


def test_the_export_shows_each_row_as_the_api_does(full):
    anna = full.anna
    document = export_of(anna)
    assert document["account"] == anna.client.get("/api/users/me/").json
    assert document["profile"] == anna.client.get("/api/profiles/me/").json
    newest_first = anna.client.get("/api/cleanings/?owner=anna").json
    assert document["cleanings"] == newest_first[::-1]
    assert document["offers"] == anna.client.get("/api/users/me/offers/").json
    assert document["evaluations_written"] == [anna.client.get(full.evaluation).json]
    received = anna.client.get("/api/users/anna/evaluations/").json
    assert document["evaluations_received"] == received
    [listed] = anna.client.get("/api/users/me/sessions/").json
    del listed["is_current"]
    [session] = document["sessions"]
    assert session == {**listed, "expires_at": session["expires_at"]}
    [link] = document["mailed_links"]
    assert (link["purpose"], link["email"]) == ("recovery", anna.email)
    assert [name["username"] for name in document["former_usernames"]] == ["anna-before"]
    [key] = document["idempotency_keys"]
    assert (key["method"], key["path"]) == ("POST", "/api/cleanings")


def test_the_export_has_hidden_cleanings_too(full, write):
    write(hidden_cleaning(cleaning_id=full.job, is_hidden=True))
    shown = {row["id"]: row["is_hidden"] for row in export_of(full.anna)["cleanings"]}
    assert shown.pop(full.job) is True
    assert set(shown.values()) == {False}


def test_the_export_has_nothing_of_others_but_the_names_of_those_one_worked_with(full, sql):
    text = full.anna.client.get(EXPORT).text
    for secret in (full.ben.email, "ben-before", "cleo", "dora", full.anna.token):
        assert secret not in text
    for hashed in ("password_hash FROM users", "encode(hash, 'hex') FROM tokens"):
        assert all(row[0] not in text for row in sql(f"SELECT {hashed}"))
    others = json.loads(text.replace('{"username" : "ben"}', "null"))
    assert "ben" not in json.dumps(others)


def test_a_new_account_has_an_export(make_user):
    document = export_of(make_user("nina"))
    assert document["account"]["username"] == document["profile"]["username"] == "nina"
    assert {name for name, rows in document.items() if rows == []} == {*SECTIONS} - {"sessions"}


def test_the_export_needs_a_token(client):
    assert client.get(EXPORT).status_code == 401


def test_the_export_is_a_file_that_no_cache_stores(anna):
    response = anna.client.get(EXPORT)
    assert response.headers["Content-Disposition"] == 'attachment; filename="phresh-export.json"'
    assert response.headers["Cache-Control"] == "private, no-store"
    assert response.content_length == len(response.data)
    head = anna.client.head(EXPORT)
    assert head.headers["ETag"] == response.headers["ETag"]
    assert head.content_length == response.content_length
    same = anna.client.get(EXPORT, headers={"If-None-Match": response.headers["ETag"]})
    assert (same.status_code, same.data) == (304, b"")


# Batches


@pytest.fixture
def make_many(anna, ben, sql):
    """Return a function that makes so many rows of each kind for Anna."""

    def make(count):
        values = {"anna": anna.id, "ben": ben.id, "count": count}
        sql(
            "INSERT INTO cleanings (name, price, owner_id) "
            "SELECT 'Job', 1, owner FROM generate_series(1, :count), unnest(ARRAY[:anna, :ben]) "
            "AS owner",
            **values,
        )
        sql(
            "INSERT INTO offers (cleaning_id, user_id, status) "
            "SELECT id, CASE owner_id WHEN :anna THEN :ben ELSE :anna END, 'completed' "
            "FROM cleanings",
            **values,
        )
        sql(
            "INSERT INTO evaluations (cleaning_id, cleaner_id, owner_id, overall_rating) "
            "SELECT cleaning_id, user_id, owner_id, 5 FROM offers JOIN cleanings "
            "ON cleanings.id = cleaning_id"
        )
        for insert in (
            "tokens (hash, user_id, expires_at) SELECT sha256(int4send(n)), :anna, now()",
            "one_time_tokens (hash, user_id, purpose, email_key, expires_at) "
            "SELECT sha256(int4send(n)), :anna, 'recovery', 'a@b', now()",
            "released_usernames (username, user_id) SELECT 'name-' || n, :anna",
            "idempotency_keys (sender, method, path, key, body_hash) "
            "SELECT CAST(:anna AS int), 'POST', '/' || n % 3, n, ''",
            "audit_log (action, user_id) SELECT 'logged_in', :anna",
        ):
            rows = "FROM generate_series(1, :count) n"
            sql(f"INSERT INTO {insert} {rows}", anna=anna.id, count=count)

    return make


@pytest.mark.parametrize("count", [0, 1, BATCH - 1, BATCH, 2 * BATCH + 7])
def test_every_row_is_there_once_and_a_statement_reads_a_batch(anna, make_many, statements, count):
    make_many(count)
    statements.clear()
    document = export_of(anna)
    sizes = dict.fromkeys(SECTIONS, count)
    sizes["sessions"] += 1  # that of the request
    assert {name: len(document[name]) for name in SECTIONS} == sizes
    for name in ("cleanings", "offers"):
        ids = [row["id"] for row in document[name]]
        assert ids == sorted(set(ids))
    # The token, the limit, the account and the profile.
    assert len(statements) == 4 + sum(size // BATCH + 1 for size in sizes.values())


def test_an_export_takes_little_memory(app, anna, make_user, sql):
    """The account has 25 MB of descriptions."""
    values = {"id": anna.id}
    sql(
        "INSERT INTO cleanings (name, description, price, owner_id) "
        "SELECT 'Job', repeat('x', 10000), 1, :id FROM generate_series(1, 2500)",
        **values,
    )
    with app.app_context():
        services.export(make_user("nina").id).file.close()  # prepares
        tracemalloc.start()
        try:
            document = services.export(anna.id)
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    with document.file as file:
        assert document.size > 25_000_000
        assert most < 4_000_000
        assert len(json.load(file)["cleanings"]) == 2500


# One state, or an error


@pytest.fixture
def in_the_middle(monkeypatch):
    """Return a function that has something done once, when the first offers are to be read."""

    def do(action):
        actions, batch = [action], services.batch

        def acting(section, **values):
            if section == "offers" and actions:
                actions.pop()()
            return batch(section, **values)

        monkeypatch.setattr(services, "batch", acting)

    return do


def test_the_export_shows_one_state_of_the_database(full, sql, in_the_middle):
    in_the_middle(lambda: sql("DELETE FROM cleanings"))
    document = export_of(full.anna)
    assert [len(document[name]) for name in ("cleanings", "offers")] == [2, 1]
    assert len(document["evaluations_written"]) == 1
    assert sql("SELECT * FROM offers") == []


def test_the_export_begins_anew_when_its_connection_is_lost(full, sql, in_the_middle):
    def lose():
        sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND state = 'idle in transaction'"
        )
        sql("DELETE FROM cleanings")

    in_the_middle(lose)
    document = export_of(full.anna)
    assert [len(document[name]) for name in ("cleanings", "offers")] == [0, 0]


def test_an_error_in_the_middle_is_an_error_and_no_part_of_a_document(full, sql, in_the_middle):
    in_the_middle(lambda: sql("ALTER TABLE offers RENAME TO elsewhere"))
    try:
        response = full.anna.client.get(EXPORT)
    finally:
        sql("ALTER TABLE elsewhere RENAME TO offers")
    assert response.status_code >= 500
    assert response.mimetype == "application/problem+json"


def test_a_full_disk_is_503(anna, monkeypatch, caplog):
    class Full(services.SpooledTemporaryFile):
        def write(self, _):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(services, "SpooledTemporaryFile", Full)
    response = anna.client.get(EXPORT)
    assert response.status_code == 503
    assert "no room" in response.json["detail"]
    assert "No space left on device" in caplog.text


def test_an_account_that_is_too_large_for_one_document_is_409(
    anna, ben, make_user, make_cleaning, sql
):
    too_much(World(anna, ben, make_user, make_cleaning, sql))
    response = anna.client.get(EXPORT)
    assert response.status_code == 409
    assert "page by page" in response.json["detail"]


# The limit


def test_an_account_can_export_five_times_in_an_hour(anna, ben):
    for left in (4, 3, 2, 1, 0):
        response = anna.client.get(EXPORT)
        assert response.headers["RateLimit-Policy"] == '"exports";q=5;w=3600'
        assert response.headers["RateLimit"].startswith(f'"exports";r={left};')
    response = anna.client.head(EXPORT)
    assert response.status_code == 429
    assert 0 < int(response.headers["Retry-After"]) <= 3600 // 5
    assert ben.client.get(EXPORT).status_code == 200


def test_the_limit_can_be_set(make_app, anna):
    client = make_app(EXPORTS_PER_ACCOUNT=1, EXPORT_WINDOW=60).test_client()
    headers = {"Authorization": f"Bearer {anna.token}"}
    assert client.get(EXPORT, headers=headers).status_code == 200
    assert client.get(EXPORT, headers=headers).status_code == 429
