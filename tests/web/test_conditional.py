"""Conditional requests (RFC 9110, 13): ETag, If-None-Match, If-Match."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from phresh.database.base import db
from tests.tools.processes import wait_until

LIST = "/api/cleanings/"


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
def url(make_cleaning):
    return f"{LIST}{make_cleaning(name='As it was')}/"


def test_a_get_response_has_a_strong_etag_and_must_be_revalidated(client, url):
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
def test_a_matching_if_none_match_is_304(client, url, form, method):
    for path in (url, LIST):
        etag = client.get(path).headers["ETag"]
        headers = {"If-None-Match": form.format(etag)}
        response = client.open(path, method=method, headers=headers)
        assert (response.status_code, response.data) == (304, b"")
        assert response.headers["ETag"] == etag
        assert response.headers["Cache-Control"] == "no-cache"
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


@pytest.mark.parametrize("condition", ['"other"', "", "garbage", 'W/"x"'])
@pytest.mark.parametrize("method", ["patch", "put", "delete"])
def test_a_write_with_another_if_match_is_412(client, url, condition, method):
    body = {"cleaning_update": {"name": "New"}} if method != "delete" else None
    response = getattr(client, method)(url, json=body, headers={"If-Match": condition})
    assert response.status_code == 412
    assert response.json["detail"] == "The resource has changed since you read it (If-Match)."
    assert client.get(url).json["name"] == "As it was"


def test_a_write_with_a_weak_etag_is_412(client, url):
    etag = client.get(url).headers["ETag"]
    assert patch(client, url, {"name": "New"}, **{"If-Match": f"W/{etag}"}).status_code == 412


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
