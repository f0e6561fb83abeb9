"""The feed: which cleanings were posted and changed, newest first, in pages."""

import re
import threading
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from phresh.database.base import db
from phresh.feed.queries import event_page
from phresh.feed.schemas import FeedSchema
from phresh.web.pages import Page, encode_cursor
from tests.tools.helpers import next_page

FEED = "/api/feed/cleanings/"
LIST = "/api/cleanings/"
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def feed(client, **query):
    response = client.get(FEED, query_string=query)
    assert response.status_code == 200, response.json
    return response.json


def shown(events):
    return [(event["name"], event["event_type"]) for event in events]


def walk(client, **query):
    """All events of all pages, a page at a time."""
    url = FEED
    while url:
        response = client.get(url, query_string=query)
        assert response.status_code == 200, response.json
        yield from response.json
        before, url, query = url, next_page(response), None
        assert url != before


def read_time(event):
    return datetime.fromisoformat(event["event_timestamp"])


@pytest.fixture
def post(make_cleaning):
    """Put cleanings into the table as if posted, and changed, so many seconds after noon."""

    def make(name, posted, changed=None, **values):
        changed = posted if changed is None else changed
        times = {"created_at": NOON + posted * SECOND, "updated_at": NOON + changed * SECOND}
        return make_cleaning(name=name, **times, **values)

    return make


@pytest.fixture
def some(post):
    """Posted and changed in turn: what the feed shows of them."""
    post("Attic", 0, 3)
    post("Barn", 1)
    post("Cellar", 2, 4)
    create, update = "is_create", "is_update"
    return [
        *(("Cellar", update), ("Attic", update)),
        *(("Cellar", create), ("Barn", create), ("Attic", create)),
    ]


def test_it_is_empty_where_nothing_is(client):
    response = client.get(FEED)
    assert (response.status_code, response.json) == (200, [])
    assert "Link" not in response.headers


def test_what_happened_last_comes_first(client, some):
    assert shown(feed(client)) == some


def test_an_event_is_the_cleaning_and_what_happened_when(client, post):
    job = post("Attic", 0, 1)
    cleaning = client.get(f"{LIST}{job}/").json
    assert feed(client) == [
        {**cleaning, "event_type": "is_update", "event_timestamp": cleaning["updated_at"]},
        {**cleaning, "event_type": "is_create", "event_timestamp": cleaning["created_at"]},
    ]


def test_both_events_show_the_cleaning_as_it_is_now(client, anna):
    new = {"new_cleaning": {"name": "Attic", "price": 20}}
    job = anna.client.post(LIST, json=new).headers["Location"]
    assert shown(feed(client)) == [("Attic", "is_create")]
    for name in ("Loft", "Garret"):
        anna.client.patch(job, json={"cleaning_update": {"name": name}})
    events = feed(client)
    assert shown(events) == [("Garret", "is_update"), ("Garret", "is_create")]
    assert [event["owner"] for event in events] == [{"username": "anna"}] * 2
    assert read_time(events[0]) > read_time(events[1])


def test_an_update_without_changes_is_no_event(client, anna, make_cleaning):
    job = make_cleaning(owner_id=anna.id)
    assert anna.client.patch(f"{LIST}{job}/", json={"cleaning_update": {}}).status_code == 200
    assert [event["event_type"] for event in feed(client)] == ["is_create"]


def test_a_change_brings_it_to_the_top(client, anna, post):
    job = post("Attic", 0, 1, owner_id=anna.id)
    post("Barn", 2)
    anna.client.patch(f"{LIST}{job}/", json={"cleaning_update": {"price": 30}})
    events = [("Attic", "is_update"), ("Barn", "is_create"), ("Attic", "is_create")]
    assert shown(feed(client)) == events


def test_what_is_deleted_vanishes_with_all_its_events(client, anna, post):
    job = post("Attic", 0, 2, owner_id=anna.id)
    post("Barn", 1)
    assert anna.client.delete(f"{LIST}{job}/").status_code == 204
    assert shown(feed(client)) == [("Barn", "is_create")]


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 100])
def test_it_is_the_same_in_pages_of_any_size(client, some, limit):
    assert shown(walk(client, limit=limit)) == some


def test_a_page_has_20_events_unless_asked_otherwise(client, post):
    for i in range(11):
        post("Attic", i, i + 60)
    assert len(feed(client)) == 20
    assert len(feed(client, limit=21)) == 21
    assert len(feed(client, limit=100)) == 22


@pytest.mark.parametrize("limit", [1, 2, 7, 100])
def test_events_of_the_same_moment_come_by_id(client, post, limit):
    ids = [post(f"Job {i}", 0, 1) for i in range(5)] + [post(f"Job {i}", 1) for i in range(5)]
    updated, created = ids[:5], ids[5:]
    expected = [(i, "is_create") for i in created[::-1]] + [(i, "is_update") for i in updated[::-1]]
    expected += [(i, "is_create") for i in updated[::-1]]
    walked = [(event["id"], event["event_type"]) for event in walk(client, limit=limit)]
    assert walked == expected


@pytest.mark.parametrize("microsecond", [0, 1, 100_000, 999_999])
def test_a_place_is_exact_to_the_microsecond(client, make_cleaning, microsecond):
    moment = NOON.replace(microsecond=microsecond)
    for i in range(-1, 2):
        at = moment + timedelta(microseconds=i)
        make_cleaning(name=f"Job {i}", created_at=at, updated_at=at)
    events = list(walk(client, limit=1))
    assert [event["name"] for event in events] == ["Job 1", "Job 0", "Job -1"]
    assert read_time(events[1]) == moment


def test_a_place_whose_event_is_gone_still_shows_the_way(client, anna, post):
    ids = [post(f"Job {i}", i, owner_id=anna.id) for i in range(4)]
    url = next_page(client.get(FEED, query_string={"limit": 2}))
    anna.client.patch(f"{LIST}{ids[2]}/", json={"cleaning_update": {"name": "New"}})
    assert [event["name"] for event in client.get(url).json] == ["Job 1", "Job 0"]


def test_the_link_keeps_the_limit_and_is_not_on_the_last_page(client, some):
    first = client.get(FEED, query_string={"limit": 3})
    assert next_page(first).startswith(f"{FEED}?limit=3&after=")
    second = client.get(next_page(first))
    assert shown(first.json + second.json) == some
    assert next_page(second) is None


@pytest.mark.parametrize("cursor", ["", "x", "AAAA", "é", "LXRpbWUg\n"])
def test_what_is_no_cursor_is_refused(client, cursor):
    assert_refused(client.get(FEED, query_string={"after": cursor}), "after")


def assert_refused(response, parameter):
    assert response.status_code == 422
    assert [error["parameter"] for error in response.json["errors"]] == [parameter]


GOOD_TIME = "2026-01-02T12:00:00+00:00"


def test_a_cursor_of_our_making_is_good(client):
    for text in (GOOD_TIME, "2026-01-02T12:00:00.000001+00:00", "0001-01-01T00:00:00+00:00"):
        assert feed(client, after=encode_cursor("-time", [text, "1"])) == []


@pytest.mark.parametrize(
    "values",
    [
        *([], [GOOD_TIME], ["1"], ["1", GOOD_TIME], [GOOD_TIME, "1", "1"], [GOOD_TIME, "-1"]),
        *([GOOD_TIME, "2147483648"], [GOOD_TIME, "x"], ["", "1"], ["20.00", "1"]),
        *(
            [time, "1"]
            for time in (
                *("2026-02-30T12:00:00+00:00", "2026-13-01T12:00:00+00:00"),
                *("2026-01-02T24:00:01+00:00", "2026-01-02T12:60:00+00:00"),
                *("0000-01-02T12:00:00+00:00", "----------T12:00:00+00:00"),
                *("2026-01-02T::::::::+00:00", "2026-01-02T12:00:00"),
                *("2026-01-02T12:00:00Z", "2026-01-02T12:00:00+01:00"),
                *("2026-01-02T12:00:00-00:00", "2026-01-02T12:00:00.1+00:00"),
                *("2026-01-02T12:00:00.0000001+00:00", "2026-01-02 12:00:00+00:00"),
                *("2026-01-02", "infinity", "now", "1767355200"),
                "٢026-01-02T12:00:00+00:00",
            )
        ),
    ],
)
def test_a_cursor_of_our_making_with_other_values_is_refused(client, values):
    assert_refused(
        client.get(FEED, query_string={"after": encode_cursor("-time", values)}), "after"
    )


@pytest.mark.parametrize("sort", ["-id", "id", "price", "-price"])
def test_a_cursor_of_another_list_is_refused(client, some, sort):
    url = next_page(client.get(LIST, query_string={"limit": 1, "sort": sort}))
    cursor = re.search("after=([^&]+)", url)[1]
    assert_refused(client.get(FEED, query_string={"after": cursor}), "after")


def test_a_cursor_with_the_name_of_another_order_is_refused(client):
    cursor = encode_cursor("time", [GOOD_TIME, "1"])
    assert_refused(client.get(FEED, query_string={"after": cursor}), "after")


def test_its_cursor_is_refused_by_another_list(client, some):
    cursor = re.search("after=([^&]+)", next_page(client.get(FEED, query_string={"limit": 1})))[1]
    assert_refused(client.get(LIST, query_string={"after": cursor}), "after")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("limit", value) for value in ("0", "101", "-1", "x", "", "1.5", "٣")),
        *(("sort", "-time"), ("page_chunk_size", "20"), ("starting_date", GOOD_TIME)),
    ],
)
def test_a_bad_parameter_is_refused_by_name(client, name, value):
    assert_refused(client.get(FEED, query_string={name: value}), name)


@pytest.mark.parametrize("rows", [1, 100])
def test_a_page_takes_one_statement(client, post, statements, rows):
    for i in range(rows):
        post("Attic", i, i + 600)
    url = FEED
    while url:
        statements.clear()
        response = client.get(url, query_string={"limit": 100} if url == FEED else None)
        assert response.status_code == 200
        assert len(statements) == 1
        url = next_page(response)


def test_who_has_the_page_gets_304_until_something_happens(client, post):
    job = post("Attic", 0)
    headers = {"If-None-Match": client.get(FEED).headers["ETag"]}
    assert client.get(FEED, headers=headers).status_code == 304
    post("Barn", 1)
    response = client.get(FEED, headers=headers)
    assert response.status_code == 200
    assert [event["id"] for event in response.json][1:] == [job]


def nodes(plan):
    yield plan
    for inner in plan.get("Plans", ()):
        yield from nodes(inner)


@pytest.fixture
def read_plan(app, sql):
    """Give what PostgreSQL does for a page, with a plan for any place, of some thousand rows."""
    sql(
        "INSERT INTO cleanings (name, price, created_at, updated_at) SELECT 'Job ' || n, 1,"
        " at, at + (n % 3) * interval '1 hour' FROM generate_series(1, 20000) n,"
        " LATERAL (SELECT timestamptz '2026-01-01 00:00Z' + n * interval '1 minute' AS at) times"
    )
    sql("ANALYZE cleanings")

    def read(limit, after):
        order = FeedSchema.ORDERS["-time"]
        query = event_page(Page("-time", order, limit, is_first=not after, after=after))
        execute, values = query.to_send(prepared=True)
        with app.app_context(), db.engine.begin() as connection:
            cursor = connection.connection.cursor()
            cursor.execute("SET LOCAL plan_cache_mode = force_generic_plan")
            cursor.execute(query.statement.prepare)
            cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {execute}", values)
            [[[explained]]] = cursor.fetchall()
            cursor.execute("DEALLOCATE ALL")
        return list(nodes(explained["Plan"]))

    return read


@pytest.mark.parametrize("limit", [20, 100])
@pytest.mark.parametrize("after", [(), (NOON, 2_000), (NOON + timedelta(days=9), 2**31 - 1)])
def test_a_page_reads_no_more_than_itself(read_plan, limit, after):
    """That is a page of both kinds of events, wherever it begins."""
    plan = [node for node in read_plan(limit, after) if node.get("Relation Name") != "users"]
    indexes = {node.get("Index Name") for node in plan}
    assert {"ix_cleanings_created_at_id", "ix_cleanings_changed"} <= indexes
    assert "Seq Scan" not in {node["Node Type"] for node in plan}
    for node in plan:
        read = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
        assert read * node["Actual Loops"] <= 2 * (limit + 1), node["Node Type"]


def test_a_walk_skips_and_repeats_nothing_while_others_write(client, anna, post):
    stay = {(post("Stays", i // 3, i // 3 + i % 2 * 90), i % 2) for i in range(60)}
    expected = {(job, "is_create") for job, _ in stay}
    expected |= {(job, "is_update") for job, is_changed in stay if is_changed}
    others = [post("Changes", i, owner_id=anna.id) for i in range(20)]
    done = threading.Event()
    failures = []

    def write(number):
        writer = anna.make_client()
        jobs = others[number::2]
        while not done.is_set():
            new = {"new_cleaning": {"name": "Comes and goes", "price": "3.50"}}
            posted = writer.post(LIST, json=new)
            changes = {"cleaning_update": {"price": "9.00"}}
            changed = writer.patch(f"{LIST}{jobs[0]}/", json=changes)
            jobs.append(jobs.pop(0))
            deleted = writer.delete(posted.headers["Location"])
            statuses = [answer.status_code for answer in (posted, changed, deleted)]
            if statuses != [201, 200, 204]:
                failures.append(statuses)

    writers = [threading.Thread(target=write, args=[number]) for number in range(2)]
    for writer in writers:
        writer.start()
    try:
        for _ in range(5):
            events = list(walk(client, limit=3))
            seen = [(event["id"], event["event_type"]) for event in events]
            stayed = [each for each in seen if each in expected]
            assert sorted(stayed) == sorted(expected)
            keys = [(read_time(event), event["id"]) for event in events]
            assert all(b < a for a, b in pairwise(keys))
    finally:
        done.set()
        for writer in writers:
            writer.join()
    assert failures == []
