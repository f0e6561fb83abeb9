"""Conditional requests (RFC 9110, 13): ETag, If-None-Match, If-Match."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from phresh.database.base import db
from tests.tools.processes import wait_until

LIST = "/api/cleanings/"


@pytest.fixture
def client(anna):
    """A client that is logged in."""
    return anna.client


@pytest.fixture
def make_cleaning(make_cleaning, anna):
    """Make cleanings that are hers."""
    return partial(make_cleaning, owner_id=anna.id)


def patch(client, url, changes, **headers):
    return client.patch(url, json={"cleaning_update": changes}, headers=headers)


@pytest.fixture
def url(make_cleaning):
    return f"{LIST}{make_cleaning(name='As it was')}/"


def test_what_is_read_has_a_strong_etag_and_is_asked_for_again(client, url):
    for path in (url, LIST):
        response = client.get(path)
        assert response.headers["ETag"].startswith('"')
        assert response.headers["Cache-Control"] == "no-cache"
        assert client.get(path).headers["ETag"] == response.headers["ETag"]


def test_head_has_the_headers_of_get(client, url):
    for path in (url, LIST):
        head, get = client.head(path), client.get(path)
        assert head.data == b""
        get.headers["X-Request-Id"] = head.headers["X-Request-Id"]
        assert dict(head.headers) == dict(get.headers)


@pytest.mark.parametrize("form", ["{}", "W/{}", '"other", {}', '"other", W/{}', "*"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_who_has_the_state_gets_304(client, url, form, method):
    for path in (url, LIST):
        etag = client.get(path).headers["ETag"]
        headers = {"If-None-Match": form.format(etag)}
        response = client.open(path, method=method, headers=headers)
        assert (response.status_code, response.data) == (304, b"")
        assert response.headers["ETag"] == etag
        assert response.headers["Cache-Control"] == "no-cache"
        assert "Content-Type" not in response.headers


def test_who_has_another_state_gets_this_one(client, url):
    etags = {path: client.get(path).headers["ETag"] for path in (url, LIST)}
    assert patch(client, url, {"name": "New"}).status_code == 200
    for path, etag in etags.items():
        response = client.get(path, headers={"If-None-Match": etag})
        assert response.status_code == 200
        assert response.headers["ETag"] != etag


def test_a_new_next_page_is_a_new_state(client, make_cleaning):
    make_cleaning()
    query = {"limit": 1, "sort": "id"}
    before = client.get(LIST, query_string=query)
    make_cleaning()
    after = client.get(LIST, query_string=query, headers={"If-None-Match": before.headers["ETag"]})
    assert (after.status_code, after.data) == (200, before.data)
    assert "Link" in after.headers


def test_a_304_has_its_link(client, make_cleaning):
    make_cleaning()
    make_cleaning()
    first = client.get(f"{LIST}?limit=1")
    again = client.get(f"{LIST}?limit=1", headers={"If-None-Match": first.headers["ETag"]})
    assert again.status_code == 304
    assert again.headers["Link"] == first.headers["Link"]


@pytest.mark.parametrize("form", ["{}", '"other", {}', "*"])
@pytest.mark.parametrize("method", ["patch", "put", "delete"])
def test_a_write_goes_through_when_nothing_changed(client, url, form, method):
    headers = {"If-Match": form.format(client.get(url).headers["ETag"])}
    body = {"cleaning_update": {"name": "New"}} if method != "delete" else None
    assert getattr(client, method)(url, json=body, headers=headers).status_code in (200, 204)


@pytest.mark.parametrize("condition", ['"other"', "", "garbage", 'W/"x"'])
@pytest.mark.parametrize("method", ["patch", "put", "delete"])
def test_a_write_is_412_when_it_changed(client, url, condition, method):
    body = {"cleaning_update": {"name": "New"}} if method != "delete" else None
    response = getattr(client, method)(url, json=body, headers={"If-Match": condition})
    assert response.status_code == 412
    assert response.json["detail"] == "The resource has changed since you read it (If-Match)."
    assert client.get(url).json["name"] == "As it was"


def test_a_weak_etag_is_no_match_for_a_write(client, url):
    etag = client.get(url).headers["ETag"]
    assert patch(client, url, {"name": "New"}, **{"If-Match": f"W/{etag}"}).status_code == 412


def test_a_missing_row_is_404_before_412(client):
    assert client.delete(f"{LIST}2147483647/", headers={"If-Match": "*"}).status_code == 404
    assert client.delete(f"{LIST}2147483647/", headers={"If-Match": '"x"'}).status_code == 404


def test_a_bad_body_is_422_before_412(client, url):
    assert patch(client, url, {"name": ""}, **{"If-Match": '"x"'}).status_code == 422


def test_the_check_and_the_write_are_one_step(app, anna, client, url, sql):
    """All have the right ETag when they come, and wait for the row at the same time."""
    headers = {"If-Match": client.get(url).headers["ETag"]}
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    with app.app_context(), ThreadPoolExecutor(3) as pool:
        with db.engine.connect() as holder:
            holder.exec_driver_sql("SELECT FROM cleanings FOR UPDATE")
            writes = [
                pool.submit(patch, anna.make_client(), url, {"name": f"Writer {n}"}, **headers)
                for n in range(3)
            ]
            assert wait_until(lambda: sql(waiting) == [(3,)])
            holder.rollback()
        statuses = sorted(write.result().status_code for write in writes)
    assert statuses == [200, 412, 412]


def test_of_20_writes_at_once_with_one_etag_one_goes_through(anna, client, url):
    etag = client.get(url).headers["ETag"]

    def write(number):
        changes = {"name": f"Writer {number}"}
        return patch(anna.make_client(), url, changes, **{"If-Match": etag}).status_code

    with ThreadPoolExecutor(20) as pool:
        statuses = sorted(pool.map(write, range(20)))
    assert statuses == [200] + [412] * 19
