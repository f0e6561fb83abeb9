"""The list of cleanings: filters, sort orders, pages and the number of SQL statements."""

import re
import threading
from itertools import pairwise
from urllib.parse import parse_qs, urlsplit

import pytest

from phresh.web.pages import encode_cursor
from tests.tools.helpers import next_page

LIST = "/api/cleanings/"


def names(response):
    assert response.status_code == 200, response.json
    return [cleaning["name"] for cleaning in response.json]


def list_names(client, **query):
    return names(client.get(LIST, query_string=query))


def read_all_pages(client, **query):
    """Return the rows of all pages."""
    url, rows = LIST, []
    while url:
        response = client.get(url, query_string=query)
        assert response.status_code == 200, response.json
        rows += response.json
        url, query = next_page(response), None
    return rows


@pytest.fixture
def varied_cleanings(make_cleaning):
    """Make cleanings that differ in name, description, type and price."""
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
def test_every_sort_order_is_the_same_for_any_page_size(
    client, varied_cleanings, sort, expected, limit
):
    assert [row["name"] for row in read_all_pages(client, sort=sort, limit=limit)] == expected


def test_newest_first_is_the_default(client, varied_cleanings):
    assert list_names(client) == list_names(client, sort="-id")


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
def test_filters_return_all_matches_and_combine(client, varied_cleanings, query, expected, sort):
    assert set(list_names(client, sort=sort, **query)) == expected
    assert {row["name"] for row in read_all_pages(client, sort=sort, limit=1, **query)} == expected


@pytest.mark.parametrize("text", ["50% off", "a_b", "back\\slash", "it's", "q?:x", "%s"])
def test_a_search_matches_special_characters_literally(client, make_cleaning, text):
    make_cleaning(name=text)
    make_cleaning(name="50 off aXb backslash its")
    assert list_names(client, q=text) == [text]


@pytest.mark.parametrize("before", ["", "x ", "x\n", "x ("])
def test_a_short_search_word_matches_only_the_start_of_a_word(client, make_cleaning, before):
    make_cleaning(name=f"{before}ab")
    make_cleaning(name="xab x-ab x.ab")
    assert list_names(client, q="AB") == [f"{before}ab"]


def test_the_next_link_keeps_every_filter_and_the_last_page_has_none(client, make_cleaning):
    for _ in range(4):
        make_cleaning(name="Rose & Lane", cleaning_type="dust_up")
    query = {"q": ["rose lane"], "cleaning_type": ["dust_up", "full_clean"], "price_min": ["1"]}
    query |= {"price_max": ["99.5"], "sort": ["-price"], "limit": ["2"]}
    first = client.get(LIST, query_string=query)
    link = urlsplit(next_page(first))
    assert link.path == LIST
    parameters = parse_qs(link.query)
    assert len(parameters.pop("after")) == 1
    assert parameters == query
    second = client.get(next_page(first))
    assert names(first) + names(second) == ["Rose & Lane"] * 4
    assert next_page(second) is None


@pytest.mark.parametrize("rows", [1, 100])
@pytest.mark.parametrize("query", [{}, {"q": "job"}, {"cleaning_type": ["dust_up", "spot_clean"]}])
def test_a_list_sends_one_sql_statement_with_any_filter(
    client, make_cleaning, statements, rows, query
):
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
        *(
            {"price_max": "1.005"},
            {"price_min": "1e2"},
            {"price_min": "2e-299"},
            {"price_min": "NaN"},
            {"q": ""},
        ),
        *({"q": " "}, {"q": "!!"}, {"q": "a -"}, {"q": "a\0b"}, {"q": "x" * 101}, {"page": "1"}),
        *(
            {"after": ""},
            {"after": "x"},
            {"after": "LWlkIDEw\n"},
            {"after": "é"},
            {"after": "AAAA"},
            {"after": "A" * 201},
        ),
    ],
)
def test_an_invalid_query_parameter_is_rejected_by_name(client, query):
    response = client.get(LIST, query_string=query)
    assert response.status_code == 422
    assert [error["parameter"] for error in response.json["errors"]] == list(query)


def test_a_cursor_of_another_sort_order_is_rejected(client, make_cleaning):
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
def test_a_well_formed_cursor_with_invalid_values_is_rejected(client, values):
    cursor = encode_cursor("-id", values)
    response = client.get(LIST, query_string={"after": cursor})
    assert response.status_code == 422
    assert response.json["errors"][0]["parameter"] == "after"


def test_a_cursor_is_accepted_anywhere_in_a_query_string(client, make_cleaning):
    ids = [make_cleaning(price=f"{price}.00") for price in range(7)]
    query = urlsplit(next_page(client.get(LIST, query_string={"limit": 2, "sort": "price"}))).query
    [cursor] = re.findall("after=[^&]+", query)
    rest = "limit=3&sort=price"
    for text in (f"{cursor}&{rest}", f"{rest}&{cursor}", f"limit=3&{cursor}&sort=price"):
        for variant in (text, text.replace("after", "%61fter"), f"{text}&"):
            response = client.get(LIST, query_string=variant)
            assert [row["id"] for row in response.json] == ids[2:5]
    # Parsed query strings are cached: a cached one must not change the result of another.
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
def test_a_repeated_or_malformed_cursor_is_rejected(client, query):
    cursor = f"after={encode_cursor('-id', ['5'])}"
    assert client.get(LIST, query_string=cursor).json == []
    response = client.get(LIST, query_string=query.format(cursor))
    assert response.status_code == 422
    assert response.json["errors"][0]["parameter"] == "after"


def test_invalid_parameters_beside_a_cursor_are_rejected(client):
    cursor = f"after={encode_cursor('-id', ['5'])}"
    rejected = {f"{cursor}&limit=0": "limit", f"x=1&{cursor}": "x", f"x{cursor}": "xafter"}
    for query, name in rejected.items():
        response = client.get(LIST, query_string=query)
        assert response.status_code == 422
        assert [error["parameter"] for error in response.json["errors"]] == [name]


def test_a_cursor_whose_row_was_deleted_still_works(client, make_cleaning, sql):
    ids = [make_cleaning() for _ in range(4)]
    url = next_page(client.get(LIST, query_string={"limit": 2}))
    sql("DELETE FROM cleanings WHERE id = :id", id=ids[2])
    assert [row["id"] for row in client.get(url).json] == [ids[1], ids[0]]


@pytest.fixture
def owned_cleanings(make_cleaning, anna, ben):
    """Make cleanings of two users and a guest."""
    for number in range(4):
        make_cleaning(name=f"Anna {number}", owner_id=anna.id, price=f"{number % 2}.00")
        make_cleaning(name=f"Ben {number}", owner_id=ben.id)
        make_cleaning(name=f"Guest {number}")


@pytest.mark.parametrize("owner", ["anna", "ANNA", "Anna"])
def test_the_owner_filter_returns_only_cleanings_of_that_user(client, owned_cleanings, owner):
    assert list_names(client, owner=owner) == ["Anna 3", "Anna 2", "Anna 1", "Anna 0"]


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
def test_the_owner_filter_combines_with_other_filters_and_orders(
    client, owned_cleanings, query, expected
):
    assert list_names(client, owner="anna", **query) == expected
    assert [
        row["name"] for row in read_all_pages(client, owner="anna", limit=1, **query)
    ] == expected


def test_the_owner_filter_returns_nothing_for_an_unknown_user(client, owned_cleanings):
    assert list_names(client, owner="nobody") == []


@pytest.mark.parametrize("owner", ["", "an", "a" * 31, "an na", "änna", "anna\0"])
def test_an_invalid_owner_is_rejected(client, owner):
    response = client.get(LIST, query_string={"owner": owner})
    assert response.status_code == 422
    assert response.json["errors"][0]["parameter"] == "owner"


@pytest.mark.parametrize("rows", [1, 100])
def test_the_owner_filter_sends_one_sql_statement(client, anna, make_cleaning, statements, rows):
    for _ in range(rows):
        make_cleaning(owner_id=anna.id)
    statements.clear()
    assert len(list_names(client, owner="anna", limit=100)) == rows
    assert len(statements) == 1


@pytest.mark.parametrize("sort", ["-id", "id", "price", "-price"])
def test_pages_skip_and_repeat_nothing_during_concurrent_writes(client, anna, make_cleaning, sort):
    permanent_ids = {make_cleaning(name="Stays", price=f"{i % 7}.50") for i in range(60)}
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
            rows = read_all_pages(client, sort=sort, limit=3)
            seen = [row["id"] for row in rows]
            assert len(set(seen)) == len(seen)
            assert permanent_ids <= set(seen)
            keys = [(row["price"], row["id"]) if "price" in sort else row["id"] for row in rows]
            ordered = [(b < a) if sort.startswith("-") else (a < b) for a, b in pairwise(keys)]
            assert all(ordered)
    finally:
        done.set()
        for writer in writers:
            writer.join()
    assert failures == []
