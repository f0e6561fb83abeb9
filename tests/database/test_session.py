"""db.session: in a view it is part of the view's one transaction; elsewhere it is as always."""

import time
from concurrent.futures import ThreadPoolExecutor

import marshmallow as ma
import psycopg2
import pytest
from flask import Flask, g, request
from flask.testing import FlaskClient
from flask_smorest import abort
from sqlalchemy import String, event, insert, select, text, update
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from phresh import create_app
from phresh.database.base import db
from phresh.database.statements import query
from phresh.database.transactions import fetch, fetch_autocommit
from phresh.web.app import App
from phresh.web.blueprint import Blueprint
from tests.tools.helpers import sql_text

URL = "/api/memos/"


class Base(DeclarativeBase):
    """A table that only these tests have."""


class Memo(Base):
    __tablename__ = "session_memos"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str] = mapped_column(String, unique=True)


class MemoSchema(ma.Schema):
    id = ma.fields.Integer()
    text = ma.fields.String()


@query
def new_memo(*, text):
    return insert(Memo).values(text=text)


@query
def changed_memo(*, text, new):
    return update(Memo).where(Memo.text == text).values(text=new)


@query
def memo_texts():
    return select(Memo.text).order_by(Memo.text)


def fetched():
    return [text for (text,) in fetch(memo_texts())]


def loaded():
    return list(db.session.scalars(select(Memo.text).order_by(Memo.text)))


def memo(text):
    return db.session.scalars(select(Memo).where(Memo.text == text)).one()


@pytest.fixture(autouse=True)
def unchecked_client(monkeypatch):
    """Use Flask's own test client: the views here do more than their document says."""
    monkeypatch.setattr(App, "test_client_class", FlaskClient)


@pytest.fixture(scope="module", autouse=True)
def table(settings, owner_engine):
    Base.metadata.create_all(owner_engine)
    yield
    Base.metadata.drop_all(owner_engine)


@pytest.fixture
def stored(sql):
    """What the table has, for another connection."""
    sql("DELETE FROM session_memos")
    return lambda: [text for (text,) in sql("SELECT text FROM session_memos ORDER BY text")]


@pytest.fixture
def make(settings, stored):
    """Make apps with one connection and these limits, whose views do what a test says."""
    made = []

    def start(**values):
        app = create_app({**settings, "POOL_SIZE": 1, "POOL_TIMEOUT": 1, **values})
        app.work = dict
        blp = Blueprint("memos", __name__, url_prefix=URL)

        @blp.get("/")
        @blp.response(200)
        def read():
            return app.work()

        @blp.route("/", methods=["POST", "PUT", "PATCH", "DELETE"])
        @blp.response(201)
        def write():
            return app.work()

        @blp.post("/dumped/")
        @blp.response(201, MemoSchema)
        def dumped():
            return app.work()

        app.testing = True
        app.register_blueprint(blp)
        made.append(app)
        return app

    yield start
    for app in made:
        assert_returned(app)
        with app.app_context():
            db.engine.dispose()


@pytest.fixture
def app_(make):
    return make()


@pytest.fixture
def post(app_):
    """POST to a view that does this; gives the response."""
    return lambda work, method="POST": does(app_, work, method)


@pytest.fixture
def get(app_):
    return lambda work: does(app_, work, "GET")


def does(app, work, method):
    """Respond by a view that does this; what it returns is sent if it is a dict."""

    def view():
        made = work()
        return made if isinstance(made, dict) else {}

    app.work = view
    return app.test_client().open(URL, method=method)


def assert_returned(app):
    """Its pool has all connections, and SQLAlchemy's none that is in use."""
    pool = app.extensions["pool"]
    assert pool._unopened + len(pool._idle) == app.config["POOL_SIZE"]
    assert all(c.driver.get_transaction_status() == 0 for c in pool._idle if not c.driver.closed)
    with app.app_context():
        assert db.engine.pool.checkedout() == 0
        assert db.session.registry.registry == {}


def backend_of_session():
    return db.session.execute(text("SELECT pg_backend_pid()")).scalar()


def backend_of_fetch():
    return fetch(sql_text("SELECT pg_backend_pid()"))[0][0]


# One connection and one transaction


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("first", [backend_of_session, backend_of_fetch])
def test_it_has_the_connection_of_fetch(app_, method, first, settings):
    if not settings["DATABASE_LIMITS"]:
        pytest.skip("Not through PgBouncer, which shares the server's connections")
    opened, seen = [], []
    with app_.app_context():
        event.listen(db.engine, "connect", lambda *_: opened.append(1))

    def work():
        seen.append({first(), backend_of_fetch(), backend_of_session(), backend_of_fetch()})

    for _ in range(3):
        does(app_, work, method)
    assert seen == [seen[0]] * 3
    assert len(seen[0]) == len(opened) == 1


def test_it_is_in_the_transaction_of_fetch(post):
    seen = []

    def work():
        for read in (backend_of_session, backend_of_fetch):
            read()
        number = "SELECT txid_current()"
        seen.append((db.session.execute(text(number)).scalar(), fetch(sql_text(number))[0][0]))

    post(work)
    assert len(set(seen[0])) == 1


def add(text):
    db.session.add(Memo(text=text))


WRITES = {
    "add": lambda: add("a"),
    "add and flush": lambda: [add("a"), db.session.flush()],
    "execute": lambda: db.session.execute(insert(Memo).values(text="a")),
    "raw text": lambda: db.session.execute(text("INSERT INTO session_memos (text) VALUES ('a')")),
    "fetch": lambda: fetch(new_memo(text="a")),
    "add_all after fetch": lambda: [fetched(), db.session.add_all([Memo(text="a")])],
    "in a savepoint": lambda: nested(lambda: add("a")),
    "merge": lambda: db.session.merge(Memo(id=1, text="a")),
}


def nested(work):
    with db.session.begin_nested():
        work()


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("write", WRITES)
def test_what_is_written_is_committed_when_the_view_returns(post, stored, write, method):
    assert post(WRITES[write], method).status_code == 201
    assert stored() == ["a"]


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("reason", ["abort", "raise", "nonsense"])
def test_what_is_written_is_rolled_back_when_it_raises(app_, stored, write, reason):
    def work():
        WRITES[write]()
        if reason == "abort":
            abort(409)
        elif reason == "raise":
            raise ZeroDivisionError
        return {"nonsense": object()}  # which no view may return

    app_.testing = False
    assert does(app_, work, "POST").status_code == (409 if reason == "abort" else 500)
    assert stored() == []


def test_changes_and_deletions_are_committed(post, stored, sql):
    sql("INSERT INTO session_memos (text) VALUES ('a'), ('b')")

    def work():
        memo("a").text = "changed"
        db.session.delete(memo("b"))

    assert post(work).status_code == 201
    assert stored() == ["changed"]


def test_a_new_object_is_dumped_with_its_id(app_, stored):
    def work():
        new = Memo(text="a")
        db.session.add(new)
        return new

    app_.work = work
    sent = app_.test_client().post(f"{URL}dumped/").json
    assert sent["text"] == "a"
    assert isinstance(sent["id"], int)


def test_events_of_the_session_happen(app_, stored):
    seen = []

    def work():
        session = db.session()
        for name in ("before_commit", "after_flush", "after_commit", "after_rollback"):
            event.listen(session, name, lambda *_, name=name: seen.append((name, len(stored()))))
        add("a")
        if "fail" in seen:
            abort(409)

    does(app_, work, "POST")
    assert seen == [("after_flush", 0), ("before_commit", 0), ("after_commit", 1)]
    seen[:] = ["fail"]
    does(app_, work, "POST")
    assert seen == ["fail", ("after_rollback", 1)]


# What the two see of each other


@pytest.mark.parametrize("method", ["POST"])
def test_each_sees_what_the_other_has_written(post, stored, method):
    seen = []

    def work():
        add("a")
        seen.append(fetched())
        fetch(new_memo(text="b"))
        seen.append(loaded())
        memo("a").text = "c"
        seen.append(fetched())

    post(work)
    assert seen == [["a"], ["a", "b"], ["b", "c"]]
    assert stored() == ["b", "c"]


@pytest.mark.parametrize(
    "change",
    [
        lambda: fetch(changed_memo(text="a", new="b")),
        lambda: fetch(sql_text("UPDATE session_memos SET text = 'b'")),
        lambda: fetch(changed_in_cte(text="b")),
    ],
)
def test_a_loaded_object_is_read_again_after_fetch_has_written(post, sql, stored, change):
    sql("INSERT INTO session_memos (text) VALUES ('a')")
    seen = []

    def work():
        loaded = memo("a")
        change()
        seen.extend([loaded.text, db.session.get(Memo, loaded.id) is loaded])

    post(work)
    assert seen == ["b", True]


@query
def changed_in_cte(*, text):
    changed = update(Memo).values(text=text).returning(Memo.id).cte()
    return select(changed.c.id)


# commit, rollback, savepoints

COMMITS = {
    "commit": lambda: db.session.commit(),
    "begin": lambda: enter(db.session.begin),
    "of the connection": lambda: db.session.connection().commit(),
    "of the transaction": lambda: db.session().get_transaction().commit(),
}


def enter(begin):
    db.session.rollback()
    with begin():
        add("b")


@pytest.mark.parametrize("commit", COMMITS)
@pytest.mark.parametrize("method", ["POST", "GET"])
def test_a_view_cannot_commit(app_, stored, method, commit):
    def work():
        if method == "POST":
            add("a")
        db.session.execute(text("SELECT 1"))
        if method == "GET" and commit == "begin":
            return
        COMMITS[commit]()

    if method == "GET" and commit == "begin":
        pytest.skip("add() is refused before")
    with pytest.raises(
        RuntimeError, match=r"A view can't commit db\.session: .*db\.session\.flush"
    ):
        does(app_, work, method)
    assert stored() == []


def test_a_commit_of_what_fetch_has_written_is_refused_too(post, stored):
    def work():
        fetch(new_memo(text="a"))
        db.session.commit()

    with pytest.raises(RuntimeError, match="A view can't commit"):
        post(work)
    assert stored() == []


@pytest.mark.parametrize("write", WRITES)
def test_rollback_undoes_all_and_the_view_goes_on(post, stored, write):
    seen = []

    def work():
        WRITES[write]()
        db.session.rollback()
        seen.append(fetched())
        add("b")
        fetch(new_memo(text="c"))
        seen.append(loaded())

    assert post(work).status_code == 201
    assert seen == [[], ["b", "c"]]
    assert stored() == ["b", "c"]


def test_rollback_after_rollback_undoes_what_fetch_wrote_between(post, stored):
    def work():
        add("a")
        db.session.rollback()
        fetch(new_memo(text="b"))
        db.session.rollback()

    assert post(work).status_code == 201
    assert stored() == []


@pytest.mark.parametrize("write", [add, lambda text: fetch(new_memo(text=text))])
def test_a_savepoint_is_rolled_back_alone(post, stored, write):
    def work():
        write("a")
        with pytest.raises((IntegrityError, psycopg2.IntegrityError)):
            nested(lambda: [write("b"), write("a"), db.session.flush()])
        write("c")

    assert post(work).status_code == 201
    assert stored() == ["a", "c"]


def test_a_savepoint_holds_for_fetch_before_the_session_has_sent_anything(post, stored):
    def work():
        with pytest.raises(psycopg2.IntegrityError):
            nested(lambda: [fetch(new_memo(text="a")) for _ in range(2)])
        fetch(new_memo(text="b"))

    assert post(work).status_code == 201
    assert stored() == ["b"]


# Errors


def test_an_integrity_error_can_be_caught(post, stored, sql):
    sql("INSERT INTO session_memos (text) VALUES ('a')")

    def work():
        add("b")
        add("a")
        try:
            db.session.flush()
        except IntegrityError:
            abort(409, message="There is one.")

    response = post(work)
    assert (response.status_code, response.json["detail"]) == (409, "There is one.")
    assert stored() == ["a"]


@pytest.mark.parametrize("flush", [True, False])
def test_an_integrity_error_that_is_not_caught_is_409(post, stored, sql, flush):
    sql("INSERT INTO session_memos (text) VALUES ('a')")

    def work():
        add("b")
        add("a")
        if flush:
            db.session.flush()

    response = post(work)
    assert response.status_code == 409
    assert response.json["detail"] == "The request conflicts with existing data."
    assert stored() == ["a"]


@pytest.mark.parametrize("when", ["flushed", "at the end", "read"])
def test_a_row_that_another_request_has_deleted_is_409(post, stored, sql, when):
    """A view that does not lock what it loads has lost the race, which is no defect."""
    sql("INSERT INTO session_memos (id, text) VALUES (1, 'theirs')")

    def work():
        found = memo("theirs")
        sql("DELETE FROM session_memos")
        if when == "read":
            db.session.expire(found)
            return {"text": found.text}
        found.text = "changed"
        if when == "flushed":
            db.session.flush()
        return {}

    response = post(work)
    assert response.status_code == 409
    assert response.json["detail"].startswith("Another request has changed or deleted")
    assert stored() == []


def test_an_error_that_is_swallowed_commits_nothing(app_, stored):
    def work():
        fetch(new_memo(text="a"))
        try:
            db.session.execute(text("SELECT 1 / 0"))
        except DBAPIError:
            return {}

    app_.testing = False
    assert does(app_, work, "POST").status_code == 500
    assert stored() == []


@pytest.mark.parametrize("state", ["40001", "40P01"])
def test_a_collision_is_tried_again_with_a_fresh_session(post, stored, state):
    seen = []

    def work():
        seen.append((loaded(), list(db.session.new)))
        add("a")
        fetch(new_memo(text="b"))
        if len(seen) < 3:
            fail = f"DO $$ BEGIN RAISE 'x' USING ERRCODE = '{state}'; END $$"
            db.session.execute(text(fail))

    assert post(work).status_code == 201
    assert seen == [([], [])] * 3
    assert stored() == ["a", "b"]


def use_both():
    return {"rows": [*loaded(), *fetched()]}


def use_fetch_first():
    return {"rows": [*fetched(), *loaded()]}


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "work", [use_both, use_fetch_first, loaded, lambda: add("x"), fetched, backend_of_fetch]
)
def test_a_connection_that_was_lost_between_two_requests_no_client_sees(
    app_, sql, method, work, stored, settings
):
    if not settings["DATABASE_LIMITS"]:
        pytest.skip("Not through PgBouncer, which reports a killed server to a later client")
    if method == "GET" and work.__name__ == "<lambda>":
        pytest.skip("It writes")
    seen = []
    assert does(app_, lambda: seen.append(backend_of_session()), method).status_code in (200, 201)
    sql(f"SELECT pg_terminate_backend({seen[0]}, 5000)")
    response = does(app_, lambda: work(), method)
    assert response.status_code in (200, 201)
    assert does(app_, lambda: seen.append(backend_of_session()), method).status_code in (200, 201)
    assert seen[0] != seen[1]
    assert stored() == (["x"] if work.__name__ == "<lambda>" else [])


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_connection_that_is_lost_within_a_request_is_503(app_, sql, method, stored):
    def work():
        fetched()
        sql(f"SELECT pg_terminate_backend({backend_of_session()}, 5000)")
        loaded()

    response = does(app_, work, method)
    assert response.status_code == 503 if method == "GET" else response.status_code in (201, 503)
    assert does(app_, use_both, method).status_code in (200, 201)


@pytest.mark.parametrize("use", [loaded, fetched])
def test_a_lost_connection_that_is_swallowed_commits_nothing(app_, sql, stored, use):
    def work():
        fetch(new_memo(text="a"))
        sql(f"SELECT pg_terminate_backend({backend_of_fetch()}, 5000)")
        with pytest.raises((psycopg2.Error, DBAPIError)):
            use()

    app_.testing = False
    assert does(app_, work, "POST").status_code == (500 if use is loaded else 503)
    assert stored() == []


# Limits


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_limit_of_a_statement_holds(make, method, settings):
    if not settings["DATABASE_LIMITS"]:
        pytest.skip("Not through PgBouncer, where the role has the limits")
    app = make(STATEMENT_TIMEOUT=0.2, LOCK_TIMEOUT=0.1)
    began = time.monotonic()
    response = does(app, lambda: db.session.execute(text("SELECT pg_sleep(4)")), method)
    assert response.status_code == 503
    assert time.monotonic() - began < 3
    assert does(app, use_both, method).status_code in (200, 201)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_deadline_of_the_request_holds(make, method):
    app = make(DATABASE_TIMEOUT=0.5, STATEMENT_TIMEOUT=0.4, LOCK_TIMEOUT=0.1, POOL_TIMEOUT=0.1)

    def work():
        for _ in range(10):
            db.session.execute(text("SELECT pg_sleep(0.1)"))

    assert does(app, work, method).status_code == 503
    assert does(app, use_both, method).status_code in (200, 201)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_it_waits_for_a_connection_of_the_pool_no_longer_than_the_pool_says(make, method):
    app = make(POOL_TIMEOUT=0.1)
    with app.app_context():
        taken = app.extensions["pool"].acquire(1)
    assert does(app, lambda: loaded(), method).status_code == 503
    app.extensions["pool"].release(taken)
    assert does(app, lambda: loaded(), method).status_code in (200, 201)


BROKEN = [
    lambda: db.session.execute(text("SELECT 1 / 0")),
    lambda: add(None),
    lambda: [loaded(), abort(404)],
    lambda: [loaded(), 1 / 0],
    lambda: [fetched(), loaded(), db.session.execute(text("nonsense"))],
    lambda: db.session.commit(),
    lambda: fetch(sql_text("nonsense")),
    lambda: [nested(lambda: loaded()), 1 / 0],
]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_no_connection_leaks(make, method):
    app = make()
    app.testing = False
    for number in range(50):
        status = does(app, BROKEN[number % len(BROKEN)], method).status_code
        assert 400 <= status <= 500, number
        assert_returned(app)
        assert does(app, use_both, method).status_code in (200, 201)


def test_no_connection_leaks_under_threads(make, stored):
    app = make(POOL_SIZE=2, POOL_TIMEOUT=20, DATABASE_TIMEOUT=30)
    app.testing = False

    def work():
        if request.method == "POST":
            add(request.headers["number"])
        seen = loaded() and fetched()
        if request.headers.get("fail"):
            BROKEN[int(request.headers["fail"])]()
        return {"seen": len(seen)}

    app.work = work

    def send(number):
        method = "POST" if number % 2 else "GET"
        headers = {"number": str(number)}
        if number % 3 == 0:
            headers["fail"] = str(number // 2 % len(BROKEN))
        return app.test_client().open(URL, method=method, headers=headers).status_code

    with ThreadPoolExecutor(8) as threads:
        statuses = list(threads.map(send, range(120)))
    assert {status for n, status in enumerate(statuses) if n % 3} == {200, 201}
    assert 503 not in statuses
    assert stored() == sorted(str(number) for number in range(1, 120, 2) if number % 3)
    assert_returned(app)


# Objects stay in their request


def test_nothing_leaks_from_one_request_into_the_next(app_, stored, sql):
    sql("INSERT INTO session_memos (text) VALUES ('a')")
    seen = []

    def work():
        session = db.session()
        seen.append((len(session.identity_map), len(session.new)))
        kept.append((session, memo("a")))
        add("b")
        abort(409)

    kept = []
    with app_.app_context():  # as pytest-flask keeps one
        outer = db.session()
        for _ in range(3):
            does(app_, work, "POST")
        assert db.session() is outer
        db.session.remove()
    assert seen == [(0, 0)] * 3
    assert len({id(session) for session, _ in kept} | {id(outer)}) == 4


def test_a_test_may_use_it_around_requests_in_one_app_context(app_, stored):
    with app_.app_context():
        add("of the test")
        db.session.commit()
        mine = memo("of the test")
        assert does(app_, lambda: add("of the view"), "POST").status_code == 201
        assert does(app_, lambda: {"seen": loaded()}, "GET").json == {
            "seen": ["of the test", "of the view"]
        }
        assert mine.text == "of the test"
        add("again")
        assert does(app_, lambda: abort(404), "POST").status_code == 404
        db.session.commit()
    assert stored() == ["again", "of the test", "of the view"]


def test_a_client_that_keeps_its_context_may_read_and_write_after_the_request(app_, stored):
    app_.work = lambda: [add("a"), {}][1]
    with app_.test_client() as client:
        assert client.post(URL).status_code == 201
        assert loaded() == ["a"]
        add("b")
        db.session.commit()
        assert client.post(URL).status_code == 409
    assert stored() == ["a", "b"]


# Views that only read

READ_ONLY = r"Only a view for POST, PUT, PATCH or DELETE can write: .*fetch_autocommit\(\)"


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("reads_before", [True, False])
def test_a_view_for_get_cannot_write(get, stored, write, reads_before):
    def work():
        if reads_before:
            use_both()
        WRITES[write]()

    with pytest.raises(RuntimeError, match=READ_ONLY):
        get(work)
    assert stored() == []


@pytest.mark.parametrize(
    "write",
    [
        lambda: setattr(memo("a"), "text", "b"),
        lambda: db.session.delete(memo("a")),
        lambda: fetch(changed_memo(text="a", new="b")),
        lambda: fetch(changed_in_cte(text="b")),
        lambda: fetch(sql_text("UPDATE session_memos SET text = 'b'")),
    ],
)
def test_a_view_for_get_cannot_change(get, stored, sql, write):
    sql("INSERT INTO session_memos (text) VALUES ('a')")
    with pytest.raises(RuntimeError, match=READ_ONLY):
        get(write)
    assert stored() == ["a"]


def test_a_view_for_get_may_set_what_is_there_already(get, stored, sql):
    sql("INSERT INTO session_memos (text) VALUES ('a')")
    assert get(lambda: setattr(memo("a"), "text", "a")).status_code == 200


def test_a_view_for_get_writes_by_fetch_autocommit_on_the_same_connection(get, stored):
    def work():
        before = backend_of_session()
        fetch_autocommit(new_memo(text="a"))
        assert backend_of_session() == backend_of_fetch() == before
        assert loaded() == ["a"]
        fetch_autocommit(new_memo(text="b"))
        abort(404)

    assert get(work).status_code == 404
    assert stored() == ["a", "b"]


def test_many_rows_can_be_read_in_parts(get, stored, sql):
    sql("INSERT INTO session_memos (text) SELECT n::text FROM generate_series(100, 199) n")

    def work():
        rows = db.session.scalars(select(Memo).execution_options(yield_per=10))
        return {"count": len({row.id for row in rows})}

    assert get(work).json == {"count": 100}


# Around views


def test_a_handler_may_read_before_the_view(app_, stored, sql):
    sql("INSERT INTO session_memos (text) VALUES ('a')")
    seen = []

    @app_.before_request
    def load():
        g.memo = memo("a")

    def change():
        seen.append((g.memo.text, backend_of_session() == backend_of_fetch()))
        g.memo.text = "b"

    assert does(app_, lambda: {"text": g.memo.text, "seen": fetched()}, "GET").json == {
        "text": "a",
        "seen": ["a"],
    }
    assert does(app_, change, "POST").status_code == 201
    assert stored() == ["b"]
    assert seen == [("a", True)]


def test_a_handler_before_a_view_with_a_token_needs_no_second_connection(make, anna):
    app = make()

    @app.before_request
    def load():
        loaded()

    headers = {"Authorization": f"Bearer {anna.token}"}
    client = app.test_client()
    assert client.get("/api/users/me/", headers=headers).status_code == 200
    change = {"profile_update": {"full_name": "Anna"}}
    response = client.patch("/api/profiles/me/", json=change, headers=headers)
    assert response.status_code == 200


@pytest.mark.parametrize("flush", [True, False])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_handler_before_the_view_cannot_write(app_, stored, method, flush):
    @app_.before_request
    def write():
        add("a")
        if flush:
            db.session.flush()

    with pytest.raises(RuntimeError, match=READ_ONLY):
        does(app_, lambda: None, method)
    assert stored() == []


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_handlers_after_the_view_may_read(app_, stored, method):
    seen = []

    @app_.after_request
    def after(response):
        seen.append(loaded())
        return response

    @app_.teardown_request
    def teardown(_error):
        seen.append(loaded())

    @app_.teardown_appcontext
    def end(_error):
        if request:
            return
        seen.append(loaded())

    does(app_, lambda: add("a") if method == "POST" else None, method)
    assert seen == [["a"] if method == "POST" else []] * 3


# Elsewhere


def test_in_an_app_context_it_commits_as_always(app_, stored):
    with app_.app_context():
        add("a")
        db.session.commit()
        add("b")
        db.session.flush()
        db.session.rollback()
        with db.session.begin():
            add("c")
        assert loaded() == ["a", "c"]
        assert db.engine.pool.checkedout() == 1
        add("lost")
    assert stored() == ["a", "c"]


def test_in_a_command_it_commits_as_always(app_, stored):
    @app_.cli.command("add-memo")
    def add_memo():
        add("a")
        db.session.commit()
        fetch(new_memo(text="b"))

    assert app_.test_cli_runner().invoke(args=["add-memo"]).exit_code == 0
    assert stored() == ["a", "b"]


def test_in_a_plain_route_it_commits_as_always(make, stored):
    app: Flask = make()

    @app.post("/plain/")
    def plain():
        add("a")
        db.session.commit()
        add("lost")
        return {"seen": loaded()}

    assert app.test_client().post("/plain/").json == {"seen": ["a", "lost"]}
    assert stored() == ["a"]


# What it costs


def test_a_request_that_does_not_use_it_makes_none(app_, monkeypatch):
    made = []
    monkeypatch.setattr("phresh.database.session.ViewSession.__init__", lambda *_: made.append(1))
    for method in ("GET", "POST"):
        does(app_, lambda: {"seen": fetched()}, method)
    assert made == []
