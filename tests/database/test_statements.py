"""How queries are sent: prepared once per connection, and again when the connection is stale."""

import time

import psycopg2
import pytest
from sqlalchemy import make_url, select, text

from phresh import create_app
from phresh.cleanings.models import Cleaning
from phresh.database.base import db
from phresh.database.pool import PooledConnection
from phresh.database.statements import query
from phresh.database.transactions import (
    StaleConnectionError,
    _with_retries,
    fetch,
    transaction,
)
from phresh.web.blueprint import Blueprint
from tests.tools.helpers import sql_text
from tests.tools.processes import wait_until

PATH = "/api/cleanings/"
NEW = {"new_cleaning": {"name": "One", "price": 1}}
TABLE = "CREATE TABLE moving (id int)"


@query
def all_rows():
    return text("SELECT * FROM moving")


@query
def prices_over(minimum, *, unused=None, price):
    over = (Cleaning.price > price, Cleaning.price > minimum)
    return select(Cleaning.name).where(*over).order_by(Cleaning.id)


@pytest.fixture
def single_connection_app(settings, sql):
    """The current app, with one connection, which prepares statements."""
    if not settings["PREPARED_STATEMENTS"]:
        pytest.skip("Not through PgBouncer")
    single_connection_app = create_app({**settings, "POOL_SIZE": 1})
    with single_connection_app.app_context():
        yield single_connection_app
        db.engine.dispose()


@pytest.fixture
def changing_table(sql):
    """Make a table that a test can change."""
    sql(TABLE)
    yield sql
    sql("DROP TABLE moving")


def prepared_statements():
    found = fetch(sql_text("SELECT name, generic_plans + custom_plans FROM pg_prepared_statements"))
    return dict(found)


def backend_pid():
    return fetch(sql_text("SELECT pg_backend_pid()"))[0][0]


def test_a_query_is_prepared_once_and_executed_each_time(single_connection_app, make_cleaning):
    job = make_cleaning()
    client = single_connection_app.test_client()
    for _ in range(3):
        assert client.get(f"{PATH}{job}/").status_code == 200
    assert list(prepared_statements().values()) == [3]


def test_dispose_of_the_engine_closes_the_idle_connections_of_the_pool(single_connection_app, sql):
    count = "SELECT count(*) FROM pg_stat_activity WHERE pid = :pid"
    pid = backend_pid()

    @transaction
    def dispose_while_it_is_used():
        assert backend_pid() == pid
        db.engine.dispose()
        assert backend_pid() == pid

    dispose_while_it_is_used()
    db.engine.dispose()
    wait_until(lambda: sql(count, pid=pid) == [(0,)])
    assert backend_pid() != pid


def test_constants_arguments_and_parameters_get_the_right_values(
    single_connection_app, make_cleaning
):
    for price in (1, 2, 3):
        make_cleaning(name=f"For {price}", price=price)
    assert fetch(prices_over(0, price=2)) == [("For 3",)]
    assert fetch(prices_over(1, price=0)) == [("For 2",), ("For 3",)]
    assert fetch(prices_over(1, price=2)) == [("For 3",)]
    assert list(prepared_statements().values()) == [3]


@query
def prices_of(*, price):
    """A statement whose plan depends on the price."""
    statement = select(Cleaning.name).where(Cleaning.price == price)
    return statement.execution_options(plan_by_values=True)


def plans():
    """Return how often the server has planned a prepared statement: for any values, for these."""
    counts = "generic_plans, custom_plans"
    return fetch(sql_text(f"SELECT {counts} FROM pg_prepared_statements"))


def test_statements_planned_by_their_values_are_prepared_and_planned_each_time(
    single_connection_app, make_cleaning
):
    make_cleaning(price=2)
    for count in range(1, 10):  # the server alone would plan the sixth for any values
        assert fetch(prices_of(price=2)) == [("Job 1",)]
        assert plans() == [(0, count)]


def test_a_transaction_plans_by_values_what_says_so(single_connection_app, make_cleaning):
    make_cleaning(price=2)

    @transaction
    def read():
        return [fetch(prices_of(price=2)) for _ in range(7)]

    assert read() == [[("Job 1",)]] * 7
    assert plans() == [(0, 7)]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"price_min": "12.55"}, ["12.55", "12.56", "13.00"]),
        ({"price_max": "12.55", "status": "open", "sort": "id"}, ["12.54", "12.55"]),
        ({"price_min": "12.55", "price_max": "12.55", "q": "job"}, ["12.55"]),
    ],
)
def test_prices_keep_their_decimals_as_parameters(client, make_cleaning, filters, expected):
    for price in ("12.54", "12.55", "12.56", "13"):
        make_cleaning(price=price)
    for _ in range(2):
        rows = client.get(PATH, query_string=filters).json
        assert sorted(map(str, (row["price"] for row in rows))) == expected


def test_the_oldest_prepared_statement_is_deallocated_at_the_limit(
    single_connection_app, monkeypatch
):
    monkeypatch.setattr("phresh.database.pool.PREPARED_MAX", 3)
    client = single_connection_app.test_client()
    for limit in (1, 2, 3, 4, 5, 1):
        assert client.get(PATH, query_string={"limit": limit}).status_code == 200
        assert len(prepared_statements()) <= 3


def test_nothing_is_prepared_when_prepared_statements_is_false(settings, make_cleaning):
    app = create_app({**settings, "POOL_SIZE": 1, "PREPARED_STATEMENTS": False})
    job = make_cleaning()
    with app.app_context():
        assert app.test_client().get(f"{PATH}{job}/").json["id"] == job
        assert fetch(prices_over(0, price=2)) == [("Job 1",)]
        assert prepared_statements() == {}
        db.engine.dispose()


def test_a_table_changed_by_a_migration_is_read_on_a_new_connection(
    single_connection_app, changing_table
):
    assert fetch(all_rows()) == []
    before = backend_pid()
    changing_table("ALTER TABLE moving ADD COLUMN more int")
    changing_table("INSERT INTO moving VALUES (1, 2)")
    assert fetch(all_rows()) == [(1, 2)]
    assert backend_pid() != before


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("statement", ["DEALLOCATE ALL", "SELECT pg_terminate_backend({}, 5000)"])
def test_a_stale_connection_is_replaced_without_an_error(
    single_connection_app, sql, method, statement
):
    client = single_connection_app.test_client()

    def send_request():
        return client.get(PATH) if method == "GET" else client.post(PATH, json=NEW)

    assert send_request().status_code in (200, 201)
    if "terminate" in statement:
        sql(statement.format(backend_pid()))
    else:
        fetch(sql_text(statement))
    assert send_request().status_code in (200, 201)
    assert sql("SELECT count(*) FROM cleanings") == [(2 if method == "POST" else 0,)]


def test_a_new_connection_that_is_lost_is_not_replaced(single_connection_app, sql):
    """Otherwise a statement that crashes the server would be sent again and again."""
    kill = "SELECT pg_terminate_backend(pg_backend_pid())"
    client = with_view(single_connection_app, kill).test_client()
    assert client.get("/run/").status_code == 503
    assert client.get("/run/").status_code == 503


def test_a_commit_that_postgresql_turns_into_a_rollback_returns_500(single_connection_app, sql):
    """A view that swallows a database error must not respond with success."""
    blp = Blueprint("swallowing", __name__)

    @blp.route("/swallow/", methods=["POST"])
    @blp.response(201)
    def swallow():
        fetch(sql_text("INSERT INTO cleanings (name, price) VALUES ('One', 1)"))
        try:
            fetch(sql_text("SELECT 1 / 0"))
        except Exception:
            return "{}"

    single_connection_app.register_blueprint(blp)
    assert single_connection_app.test_client().post("/swallow/").status_code == 500
    assert sql("SELECT count(*) FROM cleanings") == [(0,)]
    assert single_connection_app.test_client().get(PATH).status_code == 200


def with_view(app, statement):
    blp = Blueprint("running", __name__)

    @blp.get("/run/")
    @blp.response(200)
    def run():
        return str(fetch(sql_text(statement)))

    app.register_blueprint(blp)
    return app


def test_a_transaction_begins_even_if_its_first_query_fails(single_connection_app, sql):
    """PREPARE is sent before BEGIN, and fails here."""
    blp = Blueprint("beginning", __name__)

    @query
    def from_missing_table():
        return text("SELECT * FROM nowhere")

    @blp.route("/begin/", methods=["POST"])
    @blp.response(201)
    def begin():
        try:
            fetch(from_missing_table())
        except psycopg2.Error:
            fetch(sql_text("INSERT INTO cleanings (name, price) VALUES ('One', 1)"))
        return 1 / 0

    single_connection_app.register_blueprint(blp)
    assert single_connection_app.test_client().post("/begin/").status_code == 500
    assert sql("SELECT count(*) FROM cleanings") == [(0,)]


@pytest.fixture
def opened(monkeypatch):
    """The connections that the pools have opened."""
    opened = []
    make = PooledConnection.__init__

    def record(connection, *arguments, **options):
        make(connection, *arguments, **options)
        opened.append(connection)

    monkeypatch.setattr(PooledConnection, "__init__", record)
    return opened


@pytest.mark.parametrize("is_logged_in", [False, True])
def test_a_write_that_the_server_rejects_is_tried_on_no_more_than_one_new_connection(
    settings, opened, anna, is_logged_in
):
    """Reading the token first makes a used connection of it, but not an old one."""
    if not settings["DATABASE_LIMITS"]:
        pytest.skip("PgBouncer refuses options")
    url = make_url(settings["DATABASE_URL"])
    url = url.update_query_dict({"options": "-c default_transaction_read_only=on"})
    app = create_app(
        {**settings, "POOL_SIZE": 1, "DATABASE_URL": url.render_as_string(hide_password=False)}
    )
    client = app.test_client()
    headers = {"Authorization": f"Bearer {anna.token}"} if is_logged_in else {}
    for has_old_connection in (False, True):
        if has_old_connection:
            assert client.get(PATH, headers=headers).status_code == 200
        opened.clear()
        response = client.post(PATH, json=NEW, headers=headers)
        assert response.status_code == 503
        assert response.headers["Retry-After"]
        assert len(opened) == 1
    assert client.get("/readyz").status_code == 503
    with app.app_context():
        db.engine.dispose()


def test_stale_connections_are_replaced_three_times_at_most(single_connection_app):
    calls = []

    def work():
        calls.append(1)
        raise StaleConnectionError("57P01", time.monotonic() - 60)

    with pytest.raises(StaleConnectionError):
        _with_retries(work)
    assert len(calls) == 3
