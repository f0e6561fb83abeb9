"""Conditional requests (RFC 9110, 13): ETag, If-None-Match, If-Match."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import marshmallow as ma
import pytest
from flask import g
from flask_smorest import abort

from phresh.accounts.models import Profile
from phresh.accounts.tokens import current_account, login_not_required, login_required
from phresh.database.base import db
from phresh.database.deadlines import has_deadline
from phresh.database.transactions import fetch
from phresh.web.blueprint import Blueprint
from tests.tools.helpers import sql_text
from tests.tools.processes import wait_until

LIST = "/api/cleanings/"
CACHED = ("no-cache", "private, no-cache")  # the list, which ignores the token; one, which reads it


@pytest.fixture
def client(anna):
    """Return a client that sends Anna's token."""
    return anna.client


@pytest.fixture
def make_cleaning(make_cleaning, anna):
    """Make cleanings that Anna owns."""
    return partial(make_cleaning, owner_id=anna.id)


def patch(client, url, changes, **headers):
    return client.patch(url, json={"cleaning_update": changes}, headers=headers)


@pytest.fixture
def table(sql):
    """Make a table, and return what runs SQL on it in a view."""
    sql("CREATE TABLE slots (key text PRIMARY KEY, note text NOT NULL)")
    yield lambda statement: fetch(sql_text(statement))
    sql("DROP TABLE slots")


@pytest.fixture
def url(make_cleaning):
    return f"{LIST}{make_cleaning(name='As it was')}/"


def test_a_get_response_has_a_strong_etag_and_must_be_revalidated(client, url):
    for path in (url, LIST):
        response = client.get(path)
        assert response.headers["ETag"].startswith('"')
        assert response.headers["Cache-Control"] == CACHED[path == url]
        assert client.get(path).headers["ETag"] == response.headers["ETag"]


def test_head_has_the_headers_of_get(client, url):
    for path in (url, LIST):
        head, get = client.head(path), client.get(path)
        assert head.data == b""
        get.headers["X-Request-Id"] = head.headers["X-Request-Id"]
        assert dict(head.headers) == dict(get.headers)


@pytest.mark.parametrize("form", ["{}", "W/{}", '"other", {}', '"other", W/{}', "*"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_matching_if_none_match_is_304(client, url, form, method):
    for path in (url, LIST):
        etag = client.get(path).headers["ETag"]
        headers = {"If-None-Match": form.format(etag)}
        response = client.open(path, method=method, headers=headers)
        assert (response.status_code, response.data) == (304, b"")
        assert response.headers["ETag"] == etag
        assert response.headers["Cache-Control"] == CACHED[path == url]
        assert "Content-Type" not in response.headers


def test_a_stale_if_none_match_is_200_with_the_current_state(client, url):
    etags = {path: client.get(path).headers["ETag"] for path in (url, LIST)}
    assert patch(client, url, {"name": "New"}).status_code == 200
    for path, etag in etags.items():
        response = client.get(path, headers={"If-None-Match": etag})
        assert response.status_code == 200
        assert response.headers["ETag"] != etag


def test_a_new_next_link_changes_the_etag(client, make_cleaning):
    make_cleaning()
    query = {"limit": 1, "sort": "id"}
    before = client.get(LIST, query_string=query)
    make_cleaning()
    after = client.get(LIST, query_string=query, headers={"If-None-Match": before.headers["ETag"]})
    assert (after.status_code, after.data) == (200, before.data)
    assert "Link" in after.headers


def test_a_304_keeps_the_link_header(client, make_cleaning):
    make_cleaning()
    make_cleaning()
    first = client.get(f"{LIST}?limit=1")
    again = client.get(f"{LIST}?limit=1", headers={"If-None-Match": first.headers["ETag"]})
    assert again.status_code == 304
    assert again.headers["Link"] == first.headers["Link"]


@pytest.mark.parametrize("form", ["{}", '"other", {}', "*"])
@pytest.mark.parametrize("method", ["patch", "put", "delete"])
def test_a_write_with_a_matching_if_match_succeeds(client, url, form, method):
    headers = {"If-Match": form.format(client.get(url).headers["ETag"])}
    body = {"cleaning_update": {"name": "New"}} if method != "delete" else None
    assert getattr(client, method)(url, json=body, headers=headers).status_code in (200, 204)


MALFORMED = "If-Match is not valid: send *"
WEAK = "a proxy has weakened this one"


@pytest.mark.parametrize(
    ("condition", "reason"),
    [
        ('"other"', "The resource has changed since you read it (If-Match)."),
        ('"other", "more"', "The resource has changed since you read it (If-Match)."),
        ('W/"x"', "The resource has also changed since you read it."),
        ("", MALFORMED),
        ("garbage", MALFORMED),
        ('"a" "b"', MALFORMED),
        ('"a', MALFORMED),
        ('"a b"', MALFORMED),
        ('w/"x"', MALFORMED),
        ('*, "x"', MALFORMED),
    ],
)
@pytest.mark.parametrize("method", ["patch", "put", "delete"])
def test_a_write_with_another_if_match_is_412(client, url, condition, reason, method):
    body = {"cleaning_update": {"name": "New"}} if method != "delete" else None
    response = getattr(client, method)(url, json=body, headers={"If-Match": condition})
    assert response.status_code == 412
    assert reason in response.json["detail"]
    assert client.get(url).json["name"] == "As it was"


def test_a_write_with_an_unquoted_etag_is_412(client, url):
    etag = client.get(url).headers["ETag"].strip('"')
    response = patch(client, url, {"name": "New"}, **{"If-Match": etag})
    assert response.status_code == 412
    assert MALFORMED in response.json["detail"]


@pytest.mark.parametrize("form", ["W/{}", '"other", W/{}'])
def test_a_write_with_a_weak_etag_is_412_and_says_why(client, url, form):
    """As it is behind nginx, which weakens the ETag of what it compresses."""
    headers = {"If-Match": form.format(client.get(url).headers["ETag"])}
    response = patch(client, url, {"name": "New"}, **headers)
    assert response.status_code == 412
    assert WEAK in response.json["detail"]
    assert "has also changed" not in response.json["detail"]


def test_dates_are_ignored_since_nothing_has_one(client, url):
    """RFC 9110 13.1.3, 13.1.4: ignored for a resource without a modification date."""
    for name in ("If-Modified-Since", "If-Unmodified-Since"):
        date = {name: "Sat, 01 Jan 2000 00:00:00 GMT"}
        assert client.get(url, headers=date).status_code == 200
        assert patch(client, url, {"name": "New"}, **date).status_code == 200


def test_a_put_that_creates_is_412_with_if_none_match_where_there_is_one(make_app, table):
    blp = Blueprint("slots", __name__, url_prefix="/api/slots")

    class SlotSchema(ma.Schema):
        note = ma.fields.String(required=True)

    @blp.get("/<key>/")
    @login_not_required
    @blp.response(200, SlotSchema)
    @blp.alt_response(404)
    def get_slot(key):
        if not (rows := table(f"SELECT note FROM slots WHERE key = '{key}'")):
            abort(404)
        return {"note": rows[0][0]}

    @blp.put("/<key>/")
    @login_not_required
    @blp.arguments(SlotSchema)
    @blp.response(200, SlotSchema)
    def put_slot(slot, key):
        table(f"""
            INSERT INTO slots VALUES ('{key}', '{slot["note"]}')
            ON CONFLICT (key) DO UPDATE SET note = excluded.note
        """)
        return slot

    app = make_app()
    app.extensions["flask-smorest"]["apis"][""]["ext_obj"].register_blueprint(blp)
    client = app.test_client()
    new = {"If-None-Match": "*"}
    first = client.put("/api/slots/a/", json={"note": "first"}, headers=new)
    assert first.status_code == 200
    second = client.put("/api/slots/a/", json={"note": "second"}, headers=new)
    assert second.status_code == 412
    assert client.get("/api/slots/a/").json == {"note": "first"}
    assert client.get("/api/slots/a/").headers["ETag"] == first.headers["ETag"]
    missing = client.put("/api/slots/b/", json={"note": "x"}, headers={"If-Match": "*"})
    assert missing.status_code == 412
    assert "nothing that you can read" in missing.json["detail"]
    assert client.get("/api/slots/b/").status_code == 404

    def create(number):
        note = {"note": f"{number}"}
        return app.test_client().put("/api/slots/c/", json=note, headers=new).status_code

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(create, range(8))) == [200] + [412] * 7
    with app.app_context():
        db.engine.dispose()


def test_a_missing_cleaning_is_404_before_412(client):
    assert client.delete(f"{LIST}2147483647/", headers={"If-Match": "*"}).status_code == 404
    assert client.delete(f"{LIST}2147483647/", headers={"If-Match": '"x"'}).status_code == 404


def test_an_invalid_body_is_422_before_412(client, url):
    assert patch(client, url, {"name": ""}, **{"If-Match": '"x"'}).status_code == 422


def test_if_match_is_checked_under_the_row_lock(app, anna, client, url, sql):
    """All writes send the current ETag and wait for the same row lock."""
    headers = {"If-Match": client.get(url).headers["ETag"]}
    count_waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    with app.app_context(), ThreadPoolExecutor(3) as pool:
        with db.engine.connect() as holder:
            holder.exec_driver_sql("SELECT FROM cleanings FOR UPDATE")
            writes = [
                pool.submit(patch, anna.make_client(), url, {"name": f"Writer {n}"}, **headers)
                for n in range(3)
            ]
            assert wait_until(lambda: sql(count_waiting) == [(3,)])
            holder.rollback()
        statuses = sorted(write.result().status_code for write in writes)
    assert statuses == [200, 412, 412]


def test_one_of_20_concurrent_writes_with_the_same_etag_succeeds(anna, client, url):
    etag = client.get(url).headers["ETag"]

    def write(number):
        changes = {"name": f"Writer {number}"}
        return patch(anna.make_client(), url, changes, **{"If-Match": etag}).status_code

    with ThreadPoolExecutor(20) as pool:
        statuses = sorted(pool.map(write, range(20)))
    assert statuses == [200] + [412] * 19


def test_no_update_is_lost_whatever_resource_it_is(anna, make_user, make_cleaning):
    """Several clients read the same state, and all write it back with If-Match."""
    cleo = make_user("cleo")
    job = f"{LIST}{make_cleaning(owner_id=anna.id)}/"
    assert cleo.client.post(f"{job}offers/").status_code == 201
    profile, me = "/api/profiles/me/", "/api/users/me/"
    requests = [
        (
            "/api/profiles/anna/",
            lambda c, n, h: c.patch(
                profile, json={"profile_update": {"bio": f"Bio {n}"}}, headers=h
            ),
        ),
        (
            me,
            lambda c, n, h: c.patch(me, json={"user_update": {"username": f"anna-{n}"}}, headers=h),
        ),
        (f"{job}offers/cleo/", lambda c, n, h: c.put(f"{job}offers/cleo/", headers=h)),
    ]
    for path, send in requests:
        headers = {"If-Match": anna.client.get(path).headers["ETag"]}
        with ThreadPoolExecutor(8) as pool:
            writes = [pool.submit(send, anna.make_client(), n, headers) for n in range(8)]
            responses = [write.result() for write in writes]
        statuses = sorted(response.status_code for response in responses)
        assert statuses == [200] + [412] * 7, path


def test_a_failed_precondition_is_found_also_where_the_state_does_not_allow_the_write(
    anna, ben, make_cleaning
):
    """Whoever knows an older state learns that, not only what the new state forbids."""
    job = f"{LIST}{make_cleaning(owner_id=anna.id)}/"
    stale = anna.client.get(job).headers["ETag"]
    ben.client.post(f"{job}offers/")
    assert anna.client.put(f"{job}offers/ben/").status_code == 200
    current = anna.client.get(job).headers["ETag"]
    assert patch(anna.client, job, {"price": 1}, **{"If-Match": stale}).status_code == 412
    assert patch(anna.client, job, {"price": 1}, **{"If-Match": current}).status_code == 409


def test_a_conditional_write_needs_no_second_connection_of_the_pool(make_app, anna, url):
    """Otherwise as many of them as there are connections would wait for each other."""
    app = make_app(POOL_SIZE=1, POOL_TIMEOUT=1)
    client = app.test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {anna.token}"
    etag = client.get(url).headers["ETag"]
    for number in range(3):
        response = patch(client, url, {"name": f"New {number}"}, **{"If-Match": etag})
        assert response.status_code == 200
        etag = response.headers["ETag"]
    for name in ("pool", "pool for reading"):
        assert len(app.extensions[name]._idle) == 1
    with app.app_context():
        db.engine.dispose()


def test_a_conditional_write_leaves_the_session_and_the_deadline_alone(make_app, sql, anna):
    """The precondition is looked at in a request inside of the request."""
    blp = Blueprint("inside", __name__, url_prefix="/api/inside")

    seen = []

    class NameSchema(ma.Schema):
        full_name = ma.fields.String(required=True)

    @blp.get("/")
    @login_required
    @blp.response(200, NameSchema)
    def get_name():
        return db.session.get(Profile, current_account().user_id)

    @blp.put("/")
    @login_required
    @blp.arguments(NameSchema)
    @blp.response(200, NameSchema)
    def put_name(values):
        profile = db.session.get(Profile, current_account().user_id, with_for_update=True)
        profile.full_name = values["full_name"]
        g.kept = "kept"
        return profile

    app = make_app()
    app.extensions["flask-smorest"]["apis"][""]["ext_obj"].register_blueprint(blp)

    @app.after_request
    def look(response):
        seen.append(f"{g.get('kept')} {has_deadline()} {g.account.username}")
        return response

    sql("UPDATE profiles SET full_name = 'Anna' WHERE user_id = :id", id=anna.id)
    client = app.test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {anna.token}"
    first = client.get("/api/inside/").headers["ETag"]
    sent = {"json": {"full_name": "Anna B."}, "headers": {"If-Match": first}}
    response = client.put("/api/inside/", **sent)
    assert response.status_code == 200
    assert seen[-1] == "kept True anna"
    assert response.headers["ETag"] == client.get("/api/inside/").headers["ETag"]
    assert sql("SELECT full_name FROM profiles") == [("Anna B.",)]
    assert client.put("/api/inside/", **sent).status_code == 412
    with app.app_context():
        db.engine.dispose()
