"""How queries are sent: prepared once a connection, anew when that connection went stale."""

import psycopg2
import pytest
from sqlalchemy import select, text

from phresh import create_app
from phresh.cleanings.models import Cleaning
from phresh.database.base import db
from phresh.database.statements import query
from phresh.database.transactions import fetch
from phresh.web.blueprint import Blueprint
from tests.tools.helpers import sql_text

PATH = "/api/cleanings/"
NEW = {"new_cleaning": {"name": "One", "price": 1}}
TABLE = "CREATE TABLE moving (id int)"


@query
def everything():
    return text("SELECT * FROM moving")


@query
def prices_over(minimum, *, unused=None, price):
    return select(Cleaning.name).where(Cleaning.price > price, Cleaning.price > minimum)


@pytest.fixture
def one(settings, sql):
    """An app with one connection, which prepares statements: the current one, after that of sql."""
    if not settings["PREPARED_STATEMENTS"]:
        pytest.skip("Not through PgBouncer")
    one = create_app({**settings, "POOL_SIZE": 1})
    with one.app_context():
        yield one
        db.engine.dispose()


@pytest.fixture
def moving(sql):
    """A table that a test may change."""
    sql(TABLE)
    yield sql
    sql("DROP TABLE moving")


def prepared():
    found = fetch(sql_text("SELECT name, generic_plans + custom_plans FROM pg_prepared_statements"))
    return dict(found)


def backend():
    return fetch(sql_text("SELECT pg_backend_pid()"))[0][0]


def test_a_query_is_prepared_once_and_run_each_time(one, make_cleaning):
    job = make_cleaning()
    client = one.test_client()
    for _ in range(3):
        assert client.get(f"{PATH}{job}/").status_code == 200
    assert list(prepared().values()) == [3]


def test_constants_and_parts_and_values_come_where_they_belong(one, make_cleaning):
    for price in (1, 2, 3):
        make_cleaning(name=f"For {price}", price=price)
    assert fetch(prices_over(0, price=2)) == [("For 3",)]
    assert fetch(prices_over(1, price=0)) == [("For 2",), ("For 3",)]
    assert fetch(prices_over(1, price=2)) == [("For 3",)]
    assert list(prepared().values()) == [3]


def test_what_is_planned_by_its_values_is_not_prepared(one, client):
    client = one.test_client()
    assert client.get(PATH, query_string={"q": "word"}).status_code == 200
    assert client.get(PATH, query_string={"price_min": 3}).status_code == 200
    assert client.get(PATH, query_string={"cleaning_type": "dust_up"}).status_code == 200
    assert prepared() == {}
    assert client.get(PATH, query_string={"price_min": 3, "sort": "price"}).status_code == 200
    assert len(prepared()) == 1


def test_the_oldest_is_forgotten_when_there_are_many(one, monkeypatch):
    monkeypatch.setattr("phresh.database.pool.PREPARED_MAX", 3)
    client = one.test_client()
    for limit in (1, 2, 3, 4, 5, 1):
        assert client.get(PATH, query_string={"limit": limit}).status_code == 200
        assert len(prepared()) <= 3


def test_nothing_is_prepared_where_the_setting_says_so(settings, make_cleaning):
    app = create_app({**settings, "POOL_SIZE": 1, "PREPARED_STATEMENTS": False})
    job = make_cleaning()
    with app.app_context():
        assert app.test_client().get(f"{PATH}{job}/").json["id"] == job
        assert fetch(prices_over(0, price=2)) == [("Job 1",)]
        assert prepared() == {}
        db.engine.dispose()


def test_what_a_migration_changed_is_planned_anew(one, moving):
    assert fetch(everything()) == []
    before = backend()
    moving("ALTER TABLE moving ADD COLUMN more int")
    moving("INSERT INTO moving VALUES (1, 2)")
    assert fetch(everything()) == [(1, 2)]
    assert backend() != before


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("statement", ["DEALLOCATE ALL", "SELECT pg_terminate_backend({}, 5000)"])
def test_what_a_connection_lost_between_two_requests_no_client_sees(one, sql, method, statement):
    client = one.test_client()

    def ask():
        return client.get(PATH) if method == "GET" else client.post(PATH, json=NEW)

    assert ask().status_code in (200, 201)
    if "terminate" in statement:
        sql(statement.format(backend()))
    else:
        fetch(sql_text(statement))
    assert ask().status_code in (200, 201)
    assert sql("SELECT count(*) FROM cleanings") == [(2 if method == "POST" else 0,)]


def test_a_new_connection_that_is_lost_is_not_replaced(one, sql):
    """Else a statement that the server can't stand would be sent as often as it can fail."""
    kill = "SELECT pg_terminate_backend(pg_backend_pid())"
    client = with_view(one, kill).test_client()
    assert client.get("/run/").status_code == 503
    assert client.get("/run/").status_code == 503


def test_a_commit_that_postgresql_turns_into_a_rollback_is_no_answer(one, sql):
    """A view that swallows an error has nothing to acknowledge."""
    blp = Blueprint("swallowing", __name__)

    @blp.route("/swallow/", methods=["POST"])
    @blp.response(201)
    def swallow():
        fetch(sql_text("INSERT INTO cleanings (name, price) VALUES ('One', 1)"))
        try:
            fetch(sql_text("SELECT 1 / 0"))
        except Exception:
            return "{}"

    one.register_blueprint(blp)
    assert one.test_client().post("/swallow/").status_code == 500
    assert sql("SELECT count(*) FROM cleanings") == [(0,)]
    assert one.test_client().get(PATH).status_code == 200


def with_view(app, statement):
    blp = Blueprint("running", __name__)

    @blp.get("/run/")
    @blp.response(200)
    def run():
        return str(fetch(sql_text(statement)))

    app.register_blueprint(blp)
    return app


def test_a_transaction_begins_though_its_first_query_was_refused(one, sql):
    """By PREPARE, which is sent before BEGIN."""
    blp = Blueprint("beginning", __name__)

    @query
    def nowhere():
        return text("SELECT * FROM nowhere")

    @blp.route("/begin/", methods=["POST"])
    @blp.response(201)
    def begin():
        try:
            fetch(nowhere())
        except psycopg2.Error:
            fetch(sql_text("INSERT INTO cleanings (name, price) VALUES ('One', 1)"))
        return 1 / 0

    one.register_blueprint(blp)
    assert one.test_client().post("/begin/").status_code == 500
    assert sql("SELECT count(*) FROM cleanings") == [(0,)]
