"""The feed: events of posted and changed cleanings, newest first, in pages."""

import itertools
import re
import threading
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from phresh.cleanings.queries import hidden_cleaning
from phresh.feed.queries import event_page
from phresh.feed.schemas import FeedSchema
from phresh.web.pages import Page, encode_cursor
from tests.tools.helpers import next_page
from tests.tools.plans import nodes_of

FEED = "/api/feed/cleanings/"
LIST = "/api/cleanings/"
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def feed(client, **query):
    response = client.get(FEED, query_string=query)
    assert response.status_code == 200, response.json
    return response.json


def names_and_types(events):
    return [(event["name"], event["event_type"]) for event in events]


def read_all_pages(client, **query):
    """Yield the events of all pages, one page at a time."""
    url = FEED
    while url:
        response = client.get(url, query_string=query)
        assert response.status_code == 200, response.json
        yield from response.json
        before, url, query = url, next_page(response), None
        assert url != before


def event_time(event):
    return datetime.fromisoformat(event["event_timestamp"])


@pytest.fixture
def post(make_cleaning):
    """Insert cleanings that were posted, and changed, the given numbers of seconds after noon."""

    def make(name, posted, changed=None, **values):
        changed = posted if changed is None else changed
        times = {"created_at": NOON + posted * SECOND, "updated_at": NOON + changed * SECOND}
        return make_cleaning(name=name, **times, **values)

    return make


@pytest.fixture
def expected_events(post):
    """Insert cleanings; return the names and types of their events as the feed orders them."""
    post("Attic", 0, 3)
    post("Barn", 1)
    post("Cellar", 2, 4)
    create, update = "is_create", "is_update"
    return [
        *(("Cellar", update), ("Attic", update)),
        *(("Cellar", create), ("Barn", create), ("Attic", create)),
    ]


def test_the_feed_without_cleanings_is_empty(client):
    response = client.get(FEED)
    assert (response.status_code, response.json) == (200, [])
    assert "Link" not in response.headers


def test_events_are_sorted_newest_first(client, expected_events):
    assert names_and_types(feed(client)) == expected_events


def test_an_event_is_the_cleaning_with_event_type_and_timestamp(client, post):
    job = post("Attic", 0, 1)
    cleaning = client.get(f"{LIST}{job}/").json
    assert feed(client) == [
        {**cleaning, "event_type": "is_update", "event_timestamp": cleaning["updated_at"]},
        {**cleaning, "event_type": "is_create", "event_timestamp": cleaning["created_at"]},
    ]


def test_both_events_show_the_current_state_of_the_cleaning(client, anna):
    new = {"new_cleaning": {"name": "Attic", "price": 20}}
    job = anna.client.post(LIST, json=new).headers["Location"]
    assert names_and_types(feed(client)) == [("Attic", "is_create")]
    for name in ("Loft", "Garret"):
        anna.client.patch(job, json={"cleaning_update": {"name": name}})
    events = feed(client)
    assert names_and_types(events) == [("Garret", "is_update"), ("Garret", "is_create")]
    assert [event["owner"] for event in events] == [{"username": "anna"}] * 2
    assert event_time(events[0]) > event_time(events[1])


def test_an_update_without_changes_adds_no_event(client, anna, make_cleaning):
    job = make_cleaning(owner_id=anna.id)
    assert anna.client.patch(f"{LIST}{job}/", json={"cleaning_update": {}}).status_code == 200
    assert [event["event_type"] for event in feed(client)] == ["is_create"]


def test_a_changed_cleaning_moves_to_the_top(client, anna, post):
    job = post("Attic", 0, 1, owner_id=anna.id)
    post("Barn", 2)
    anna.client.patch(f"{LIST}{job}/", json={"cleaning_update": {"price": 30}})
    events = [("Attic", "is_update"), ("Barn", "is_create"), ("Attic", "is_create")]
    assert names_and_types(feed(client)) == events


def test_deleting_a_cleaning_removes_all_its_events(client, anna, post):
    job = post("Attic", 0, 2, owner_id=anna.id)
    post("Barn", 1)
    assert anna.client.delete(f"{LIST}{job}/").status_code == 204
    assert names_and_types(feed(client)) == [("Barn", "is_create")]


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 100])
def test_the_feed_is_the_same_for_any_page_size(client, expected_events, limit):
    assert names_and_types(read_all_pages(client, limit=limit)) == expected_events


def test_a_page_has_20_events_or_the_given_limit(client, post):
    for i in range(11):
        post("Attic", i, i + 60)
    assert len(feed(client)) == 20
    assert len(feed(client, limit=21)) == 21
    assert len(feed(client, limit=100)) == 22


@pytest.mark.parametrize("limit", [1, 2, 7, 100])
def test_events_with_the_same_time_are_sorted_by_id(client, post, limit):
    ids = [post(f"Job {i}", 0, 1) for i in range(5)] + [post(f"Job {i}", 1) for i in range(5)]
    updated, created = ids[:5], ids[5:]
    expected = [(i, "is_create") for i in created[::-1]] + [(i, "is_update") for i in updated[::-1]]
    expected += [(i, "is_create") for i in updated[::-1]]
    received = [(event["id"], event["event_type"]) for event in read_all_pages(client, limit=limit)]
    assert received == expected


@pytest.mark.parametrize("microsecond", [0, 1, 100_000, 999_999])
def test_a_cursor_is_exact_to_the_microsecond(client, make_cleaning, microsecond):
    moment = NOON.replace(microsecond=microsecond)
    for i in range(-1, 2):
        at = moment + timedelta(microseconds=i)
        make_cleaning(name=f"Job {i}", created_at=at, updated_at=at)
    events = list(read_all_pages(client, limit=1))
    assert [event["name"] for event in events] == ["Job 1", "Job 0", "Job -1"]
    assert event_time(events[1]) == moment


def test_a_cursor_still_works_after_its_cleaning_has_changed(client, anna, post):
    ids = [post(f"Job {i}", i, owner_id=anna.id) for i in range(4)]
    url = next_page(client.get(FEED, query_string={"limit": 2}))
    anna.client.patch(f"{LIST}{ids[2]}/", json={"cleaning_update": {"name": "New"}})
    assert [event["name"] for event in client.get(url).json] == ["Job 1", "Job 0"]


def test_the_next_link_keeps_the_limit_and_the_last_page_has_none(client, expected_events):
    first = client.get(FEED, query_string={"limit": 3})
    assert next_page(first).startswith(f"{FEED}?limit=3&after=")
    second = client.get(next_page(first))
    assert names_and_types(first.json + second.json) == expected_events
    assert next_page(second) is None


@pytest.mark.parametrize("cursor", ["", "x", "AAAA", "é", "LXRpbWUg\n"])
def test_a_malformed_cursor_is_rejected(client, cursor):
    assert_rejected(client.get(FEED, query_string={"after": cursor}), "after")


def assert_rejected(response, parameter):
    assert response.status_code == 422
    assert [error["parameter"] for error in response.json["errors"]] == [parameter]


GOOD_TIME = "2026-01-02T12:00:00+00:00"


OLD_TIMES = (GOOD_TIME, "2026-01-02T12:00:00.000001+00:00", "0001-01-01T00:00:00+00:00")


@pytest.mark.parametrize("text", [*OLD_TIMES, "2026-01-02T12:00:00.000001Z"])
def test_a_well_formed_cursor_is_accepted(client, text):
    assert feed(client, after=encode_cursor("-time", [text, "1"])) == []


def test_a_cursor_of_version_1_means_the_same(client, make_cleaning):
    for second in range(3):
        at = NOON + second * SECOND
        make_cleaning(created_at=at, updated_at=at)
    first, after = feed(client), encode_cursor("-time", [NOON + 2 * SECOND, 2**31 - 1])
    assert feed(client, after=after) == first
    old = encode_cursor("-time", [(NOON + SECOND).isoformat(), 2**31 - 1])
    assert feed(client, after=old) == first[1:]


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
def test_a_well_formed_cursor_with_invalid_values_is_rejected(client, values):
    assert_rejected(
        client.get(FEED, query_string={"after": encode_cursor("-time", values)}), "after"
    )


@pytest.mark.parametrize("sort", ["-id", "id", "price", "-price"])
def test_a_cursor_of_the_list_of_cleanings_is_rejected(client, expected_events, sort):
    url = next_page(client.get(LIST, query_string={"limit": 1, "sort": sort}))
    cursor = re.search("after=([^&]+)", url)[1]
    assert_rejected(client.get(FEED, query_string={"after": cursor}), "after")


def test_a_cursor_with_the_name_of_another_sort_order_is_rejected(client):
    cursor = encode_cursor("time", [GOOD_TIME, "1"])
    assert_rejected(client.get(FEED, query_string={"after": cursor}), "after")


def test_the_list_of_cleanings_rejects_a_cursor_of_the_feed(client, expected_events):
    cursor = re.search("after=([^&]+)", next_page(client.get(FEED, query_string={"limit": 1})))[1]
    assert_rejected(client.get(LIST, query_string={"after": cursor}), "after")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("limit", value) for value in ("0", "101", "-1", "x", "", "1.5", "٣")),
        *(("sort", "-time"), ("page_chunk_size", "20"), ("starting_date", GOOD_TIME)),
    ],
)
def test_an_invalid_query_parameter_is_rejected_by_name(client, name, value):
    assert_rejected(client.get(FEED, query_string={name: value}), name)


@pytest.mark.parametrize("rows", [1, 100])
def test_a_page_sends_one_sql_statement(client, post, statements, rows):
    for i in range(rows):
        post("Attic", i, i + 600)
    url = FEED
    while url:
        statements.clear()
        response = client.get(url, query_string={"limit": 100} if url == FEED else None)
        assert response.status_code == 200
        assert len(statements) == 1
        url = next_page(response)


def test_an_unchanged_feed_is_304_until_an_event_is_added(client, post):
    job = post("Attic", 0)
    headers = {"If-None-Match": client.get(FEED).headers["ETag"]}
    assert client.get(FEED, headers=headers).status_code == 304
    post("Barn", 1)
    response = client.get(FEED, headers=headers)
    assert response.status_code == 200
    assert [event["id"] for event in response.json][1:] == [job]


def test_a_hidden_cleaning_is_in_no_event(client, post, write):
    job, other = post("Attic", 0, 600), post("Barn", 300)
    before = client.get(FEED)
    write(hidden_cleaning(cleaning_id=job, is_hidden=True))
    response = client.get(FEED, headers={"If-None-Match": before.headers["ETag"]})
    assert [event["id"] for event in response.json] == [other]
    write(hidden_cleaning(cleaning_id=job, is_hidden=False))
    # No event says that it was hidden.
    assert client.get(FEED).data == before.data


@pytest.fixture
def read_plan(app, sql):
    """Return a function that runs the query of a page on 60,000 rows and returns its plan nodes.

    The plan is the generic one, which PostgreSQL uses for every cursor.
    """
    for first in (1, 20_001, 40_001):  # each well within the time limit of a statement
        sql(
            "INSERT INTO cleanings (name, price, created_at, updated_at) SELECT 'Job ' || n, 1,"
            " at, at + (n % 3) * interval '1 hour' FROM generate_series(:first, :last) n,"
            " LATERAL (SELECT timestamptz '2026-01-01 00:00Z' + n * interval '1 minute' AS at) t",
            first=first,
            last=first + 19_999,
        )
    sql("ANALYZE cleanings")

    def read(limit, after):
        order = FeedSchema.ORDERS["-time"]
        query = event_page(Page("-time", order, limit, is_first=not after, after=after))
        return nodes_of(app, query)

    return read


def test_a_page_reads_no_more_rows_than_it_needs(read_plan):
    """It needs at most one page of each of the two event types, wherever the page starts.

    One test for all pages: filling the table takes seconds.
    """
    starts = [(), (NOON, 2_000), (NOON + timedelta(days=9), 2**31 - 1)]
    for limit, after in itertools.product([20, 100], starts):
        plan = [node for node in read_plan(limit, after) if node.get("Relation Name") != "users"]
        indexes = {node.get("Index Name") for node in plan}
        assert {"ix_cleanings_created_at_id", "ix_cleanings_changed"} <= indexes, (limit, after)
        assert "Seq Scan" not in {node["Node Type"] for node in plan}, (limit, after)
        for node in plan:
            read = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
            assert read * node["Actual Loops"] <= 2 * (limit + 1), (limit, after, node["Node Type"])


def test_pages_skip_and_repeat_nothing_during_concurrent_writes(client, anna, post):
    permanent = {(post("Stays", i // 3, i // 3 + i % 2 * 90), i % 2) for i in range(60)}
    expected = {(job, "is_create") for job, _ in permanent}
    expected |= {(job, "is_update") for job, is_changed in permanent if is_changed}
    changing = [post("Changes", i, owner_id=anna.id) for i in range(20)]
    done = threading.Event()
    failures = []

    def write(number):
        writer = anna.make_client()
        jobs = changing[number::2]
        while not done.is_set():
            new = {"new_cleaning": {"name": "Comes and goes", "price": "3.50"}}
            posted = writer.post(LIST, json=new)
            changes = {"cleaning_update": {"price": "9.00"}}
            changed = writer.patch(f"{LIST}{jobs[0]}/", json=changes)
            jobs.append(jobs.pop(0))
            deleted = writer.delete(posted.headers["Location"])
            statuses = [response.status_code for response in (posted, changed, deleted)]
            if statuses != [201, 200, 204]:
                failures.append(statuses)

    writers = [threading.Thread(target=write, args=[number]) for number in range(2)]
    for writer in writers:
        writer.start()
    try:
        for _ in range(5):
            events = list(read_all_pages(client, limit=3))
            seen = [(event["id"], event["event_type"]) for event in events]
            seen_expected = [event for event in seen if event in expected]
            assert sorted(seen_expected) == sorted(expected)
            keys = [(event_time(event), event["id"]) for event in events]
            assert all(b < a for a, b in pairwise(keys))
    finally:
        done.set()
        for writer in writers:
            writer.join()
    assert failures == []
