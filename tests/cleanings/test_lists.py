"""The list of cleanings: filters, orders, pages, and what they cost."""

import re
import threading
from itertools import pairwise
from urllib.parse import parse_qs, urlsplit

import pytest
from sqlalchemy import select
from sqlalchemy.dialects import postgresql

from phresh.cleanings import queries
from phresh.cleanings.models import Cleaning
from phresh.database.base import db
from phresh.web.pages import encode_cursor
from tests.tools.helpers import next_page

LIST = "/api/cleanings/"


def names(response):
    assert response.status_code == 200, response.json
    return [cleaning["name"] for cleaning in response.json]


def listed(client, **query):
    return names(client.get(LIST, query_string=query))


def walk(client, **query):
    """All rows of all pages."""
    url, rows = LIST, []
    while url:
        response = client.get(url, query_string=query)
        assert response.status_code == 200, response.json
        rows += response.json
        url, query = next_page(response), None
    return rows


@pytest.fixture
def jobs(make_cleaning):
    """A few that differ in everything."""
    make_cleaning(name="Rose Street", cleaning_type="dust_up", price="10.00")
    make_cleaning(name="Mill Lane", cleaning_type="full_clean", price="30.00", description="rose")
    make_cleaning(name="Harbour", cleaning_type="spot_clean", price="20.00", description="a 청소")
    make_cleaning(name="대청소 도와", cleaning_type="dust_up", price="20.00")
    make_cleaning(name="Élan (petit)", cleaning_type="full_clean", price="99999999.99")


@pytest.mark.parametrize(
    ("sort", "expected"),
    [
        ("-id", ["Élan (petit)", "대청소 도와", "Harbour", "Mill Lane", "Rose Street"]),
        ("id", ["Rose Street", "Mill Lane", "Harbour", "대청소 도와", "Élan (petit)"]),
        ("price", ["Rose Street", "Harbour", "대청소 도와", "Mill Lane", "Élan (petit)"]),
        ("-price", ["Élan (petit)", "Mill Lane", "대청소 도와", "Harbour", "Rose Street"]),
    ],
)
@pytest.mark.parametrize("limit", [1, 2, 3, 5, 100])
def test_every_order_is_the_same_in_pages_of_any_size(client, jobs, sort, expected, limit):
    assert [row["name"] for row in walk(client, sort=sort, limit=limit)] == expected


def test_newest_first_is_the_default(client, jobs):
    assert listed(client) == listed(client, sort="-id")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"cleaning_type": "dust_up"}, {"Rose Street", "대청소 도와"}),
        ({"cleaning_type": ["dust_up", "spot_clean"]}, {"Rose Street", "대청소 도와", "Harbour"}),
        ({"cleaning_type": ["dust_up", "dust_up"]}, {"Rose Street", "대청소 도와"}),
        ({"price_min": "20"}, {"Mill Lane", "Harbour", "대청소 도와", "Élan (petit)"}),
        ({"price_max": "20.00"}, {"Rose Street", "Harbour", "대청소 도와"}),
        ({"price_min": "20", "price_max": "30"}, {"Mill Lane", "Harbour", "대청소 도와"}),
        ({"price_min": "31", "price_max": "30"}, set()),
        ({"q": "rose"}, {"Rose Street", "Mill Lane"}),
        ({"q": "ROSE"}, {"Rose Street", "Mill Lane"}),
        ({"q": "tree"}, {"Rose Street"}),
        ({"q": "street rose"}, {"Rose Street"}),
        ({"q": "lane rose"}, {"Mill Lane"}),
        ({"q": "rose harbour"}, set()),
        ({"q": "청소"}, {"Harbour"}),
        ({"q": "대청소"}, {"대청소 도와"}),
        ({"q": "도"}, {"대청소 도와"}),
        ({"q": "élan"}, {"Élan (petit)"}),
        ({"q": "ÉLAN"}, {"Élan (petit)"}),
        ({"q": "é"}, {"Élan (petit)"}),
        ({"q": "pe"}, {"Élan (petit)"}),
        ({"q": "os"}, set()),
        ({"q": "_ose"}, set()),
        ({"q": "r%e"}, set()),
        ({"q": "rose", "cleaning_type": "dust_up", "price_max": "10"}, {"Rose Street"}),
    ],
)
@pytest.mark.parametrize("sort", ["-id", "price"])
def test_filters_find_and_combine(client, jobs, query, expected, sort):
    assert set(listed(client, sort=sort, **query)) == expected
    assert {row["name"] for row in walk(client, sort=sort, limit=1, **query)} == expected


@pytest.mark.parametrize("text", ["50% off", "a_b", "back\\slash", "it's", "q?:x", "%s"])
def test_every_character_is_itself(client, make_cleaning, text):
    make_cleaning(name=text)
    make_cleaning(name="50 off aXb backslash its")
    assert listed(client, q=text) == [text]


@pytest.mark.parametrize("before", ["", "x ", "x\n", "x ("])
def test_a_short_word_is_found_where_a_word_starts(client, make_cleaning, before):
    make_cleaning(name=f"{before}ab")
    make_cleaning(name="xab x-ab x.ab")
    assert listed(client, q="AB") == [f"{before}ab"]


NASTY = [
    "ab",
    "a",
    "a--",
    "--a",
    "x..",
    "(ab",
    "a-b",
    "1/2",
    "청소",
    "é",
    "½ab",
    "a½½",
    "u2",
    "-abc",
    "ａ",
]


@pytest.mark.parametrize("q", [*NASTY, "abc", "a-b c-d", "대청소"])
def test_the_index_knows_every_word(app, sql, q):
    """Else it gives every row, which is a scan of the table."""
    sql("INSERT INTO cleanings (name, price) SELECT 'Zzz ' || n, 1 FROM generate_series(1, 50) n")
    sql("ANALYZE cleanings")
    words = [queries._patterns(word) for word in q.split()]
    values = {f"_word_{i}_{j}": text for i, word in enumerate(words) for j, text in enumerate(word)}
    found = select(Cleaning.id).where(*queries._have_words(Cleaning, [len(word) for word in words]))
    compiled = found.params(values).compile(
        dialect=postgresql.dialect(paramstyle="named"), compile_kwargs={"literal_binds": True}
    )
    off = "SET LOCAL enable_seqscan = off; SET LOCAL enable_indexscan = off"
    with app.app_context(), db.engine.begin() as connection:
        connection.exec_driver_sql(off)
        explain = f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) {compiled}".replace("%", "%%")
        plan = "\n".join(connection.exec_driver_sql(explain).scalars())
    assert "Bitmap Index Scan on ix_cleanings_search" in plan
    assert "Rows Removed by Index Recheck" not in plan


@pytest.mark.parametrize("q", ["½", "²²²", "①①①", "--", "a ½"])
def test_a_word_that_no_index_knows_is_refused(client, q):
    assert client.get(LIST, query_string={"q": q}).status_code == 422


def test_a_word_that_is_rare_is_found_beyond_what_is_nearby(client, make_cleaning, monkeypatch):
    """The list looks through the nearest rows first, then asks the index of words."""
    monkeypatch.setattr("phresh.cleanings.queries.NEARBY", 3)
    expected = [make_cleaning(name=f"Rare {i}") and f"Rare {i}" for i in range(5)]
    for _ in range(5):
        make_cleaning(name="Common")
    assert listed(client, q="rare", sort="id", limit=2) == expected[:2]
    assert listed(client, q="rare") == expected[::-1]
    for limit in (1, 2, 3, 4):
        assert [row["name"] for row in walk(client, q="rare", limit=limit)] == expected[::-1]
        assert len(walk(client, q="rare", limit=limit, sort="-price")) == 5


def test_the_link_keeps_every_filter_and_is_not_on_the_last_page(client, make_cleaning):
    for _ in range(4):
        make_cleaning(name="Rose & Lane", cleaning_type="dust_up")
    query = {"q": ["rose lane"], "cleaning_type": ["dust_up", "full_clean"], "price_min": ["1"]}
    query |= {"price_max": ["99.5"], "sort": ["-price"], "limit": ["2"]}
    first = client.get(LIST, query_string=query)
    link = urlsplit(next_page(first))
    assert link.path == LIST
    kept = parse_qs(link.query)
    assert len(kept.pop("after")) == 1
    assert kept == query
    second = client.get(next_page(first))
    assert names(first) + names(second) == ["Rose & Lane"] * 4
    assert next_page(second) is None


@pytest.mark.parametrize("rows", [1, 100])
@pytest.mark.parametrize("query", [{}, {"q": "job"}, {"cleaning_type": ["dust_up", "spot_clean"]}])
def test_every_list_takes_one_statement(client, make_cleaning, statements, rows, query):
    for _ in range(rows):
        make_cleaning()
    statements.clear()
    response = client.get(LIST, query_string={"limit": 100, **query})
    assert len(response.json) == rows
    assert len(statements) == 1
    assert not re.search(r"OFFSET|count\(\*\) FROM cleanings", statements[0])


@pytest.mark.parametrize(
    "query",
    [
        *({"sort": "name"}, {"sort": ""}, {"cleaning_type": "deep"}, {"price_min": "-1"}),
        *({"price_max": "1.005"}, {"price_min": "1e2"}, {"price_min": "NaN"}, {"q": ""}),
        *({"q": " "}, {"q": "!!"}, {"q": "a -"}, {"q": "a\0b"}, {"q": "x" * 101}, {"page": "1"}),
        *(
            {"after": ""},
            {"after": "x"},
            {"after": "LWlkIDEw\n"},
            {"after": "é"},
            {"after": "AAAA"},
        ),
    ],
)
def test_a_bad_parameter_is_refused_by_name(client, query):
    response = client.get(LIST, query_string=query)
    assert response.status_code == 422
    assert [error["parameter"] for error in response.json["errors"]] == list(query)


def test_a_cursor_of_another_order_is_refused(client, make_cleaning):
    make_cleaning()
    make_cleaning()
    url = next_page(client.get(LIST, query_string={"limit": 1, "sort": "price"}))
    assert client.get(url).status_code == 200
    for sort in ("-price", "id", "-id"):
        response = client.get(url.replace("sort=price", f"sort={sort}"))
        assert response.status_code == 422
        assert response.json["errors"][0]["parameter"] == "after"


@pytest.mark.parametrize(
    "values", [["x"], [""], ["1", "2"], [], ["-1"], ["9" * 11], ["9" * 10], ["1.5"], ["١"]]
)
def test_a_cursor_of_our_making_with_other_values_is_refused(client, values):
    cursor = encode_cursor("-id", values)
    response = client.get(LIST, query_string={"after": cursor})
    assert response.status_code == 422
    assert response.json["errors"][0]["parameter"] == "after"


def test_a_place_may_stand_anywhere_in_a_query(client, make_cleaning):
    ids = [make_cleaning(price=f"{price}.00") for price in range(7)]
    query = urlsplit(next_page(client.get(LIST, query_string={"limit": 2, "sort": "price"}))).query
    [place] = re.findall("after=[^&]+", query)
    rest = "limit=3&sort=price"
    for text in (f"{place}&{rest}", f"{rest}&{place}", f"limit=3&{place}&sort=price"):
        for given in (text, text.replace("after", "%61fter"), f"{text}&"):
            response = client.get(LIST, query_string=given)
            assert [row["id"] for row in response.json] == ids[2:5]
    # What was read of a query holds for no other.
    assert [row["id"] for row in client.get(LIST, query_string=rest).json] == ids[:3]
    other = f"{rest}&after={encode_cursor('price', ['3.00', ids[3]])}"
    assert [row["id"] for row in client.get(LIST, query_string=other).json] == ids[4:]


@pytest.mark.parametrize(
    "query",
    [
        "{0}&{0}",
        "{0}&after=",
        "after=&{0}",
        "{0}&%61fter=x",
        "{0}%0A",
        "{0}+",
        "after={0}",
        "sort=price&{0}",
        "{0}&after",
    ],
)
def test_what_is_no_single_place_is_refused(client, query):
    place = f"after={encode_cursor('-id', ['5'])}"
    assert client.get(LIST, query_string=place).json == []
    response = client.get(LIST, query_string=query.format(place))
    assert response.status_code == 422
    assert response.json["errors"][0]["parameter"] == "after"


def test_other_parameters_are_refused_with_a_place_too(client):
    place = f"after={encode_cursor('-id', ['5'])}"
    refused = {f"{place}&limit=0": "limit", f"x=1&{place}": "x", f"x{place}": "xafter"}
    for query, name in refused.items():
        response = client.get(LIST, query_string=query)
        assert response.status_code == 422
        assert [error["parameter"] for error in response.json["errors"]] == [name]


def test_a_cursor_whose_row_is_gone_still_shows_the_way(client, make_cleaning, sql):
    ids = [make_cleaning() for _ in range(4)]
    url = next_page(client.get(LIST, query_string={"limit": 2}))
    sql("DELETE FROM cleanings WHERE id = :id", id=ids[2])
    assert [row["id"] for row in client.get(url).json] == [ids[1], ids[0]]


@pytest.fixture
def owned(make_cleaning, anna, ben):
    """Jobs of two people and a guest."""
    for number in range(4):
        make_cleaning(name=f"Anna {number}", owner_id=anna.id, price=f"{number % 2}.00")
        make_cleaning(name=f"Ben {number}", owner_id=ben.id)
        make_cleaning(name=f"Guest {number}")


@pytest.mark.parametrize("owner", ["anna", "ANNA", "Anna"])
def test_the_jobs_of_one_person_are_listed(client, owned, owner):
    assert listed(client, owner=owner) == ["Anna 3", "Anna 2", "Anna 1", "Anna 0"]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"sort": "price"}, ["Anna 0", "Anna 2", "Anna 1", "Anna 3"]),
        ({"sort": "-price", "price_min": 1}, ["Anna 3", "Anna 1"]),
        ({"q": "2"}, ["Anna 2"]),
        ({"cleaning_type": "dust_up"}, []),
        ({"cleaning_type": ["dust_up", "spot_clean"], "price_max": 0}, ["Anna 2", "Anna 0"]),
    ],
)
def test_an_owner_goes_with_every_filter_and_order(client, owned, query, expected):
    assert listed(client, owner="anna", **query) == expected
    assert [row["name"] for row in walk(client, owner="anna", limit=1, **query)] == expected


def test_nobody_has_no_jobs(client, owned):
    assert listed(client, owner="nobody") == []


@pytest.mark.parametrize("owner", ["", "an", "a" * 31, "an na", "änna", "anna\0"])
def test_what_is_no_username_owns_nothing(client, owner):
    response = client.get(LIST, query_string={"owner": owner})
    assert response.status_code == 422
    assert response.json["errors"][0]["parameter"] == "owner"


@pytest.mark.parametrize("rows", [1, 100])
def test_the_list_of_a_person_takes_one_statement(client, anna, make_cleaning, statements, rows):
    for _ in range(rows):
        make_cleaning(owner_id=anna.id)
    statements.clear()
    assert len(listed(client, owner="anna", limit=100)) == rows
    assert len(statements) == 1


@pytest.mark.parametrize("sort", ["-id", "id", "price", "-price"])
def test_a_walk_skips_and_repeats_nothing_while_others_write(client, anna, make_cleaning, sort):
    stay = {make_cleaning(name="Stays", price=f"{i % 7}.50") for i in range(60)}
    done = threading.Event()
    failures = []

    def write():
        writer = anna.make_client()
        while not done.is_set():
            new = {"name": "Comes and goes", "price": "3.50"}
            response = writer.post(LIST, json={"new_cleaning": new})
            if (
                response.status_code != 201
                or writer.delete(response.headers["Location"]).status_code != 204
            ):
                failures.append(response)

    writers = [threading.Thread(target=write) for _ in range(3)]
    for writer in writers:
        writer.start()
    try:
        for _ in range(5):
            rows = walk(client, sort=sort, limit=3)
            seen = [row["id"] for row in rows]
            assert len(set(seen)) == len(seen)
            assert stay <= set(seen)
            keys = [(row["price"], row["id"]) if "price" in sort else row["id"] for row in rows]
            ordered = [(b < a) if sort.startswith("-") else (a < b) for a, b in pairwise(keys)]
            assert all(ordered)
    finally:
        done.set()
        for writer in writers:
            writer.join()
    assert failures == []
