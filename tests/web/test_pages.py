"""Pages of lists: their size in bytes, and which statements clients can choose."""

from itertools import product

import pytest
from sqlalchemy import insert

from phresh.cleanings.models import Cleaning
from phresh.database.base import db
from phresh.database.pool import PREPARED_MAX
from phresh.database.statements import STATEMENTS_MAX
from phresh.database.transactions import UnitOfWork
from phresh.web import pages
from phresh.web.pages import CURSOR_EXAMPLES, PAGE_MAX, PageSchema, encode_cursor
from tests.tools.features import World, features, path_of
from tests.tools.helpers import next_page

LIST = "/api/cleanings/"
FEED = "/api/feed/cleanings/"


@pytest.fixture
def world(anna, ben, make_user, make_cleaning, sql):
    return World(anna, ben, make_user, make_cleaning, sql)


def page_schema(app, rule, method="GET"):
    """Return the schema of a list's query, None for a route that is no list."""
    for each in app.url_map.iter_rules():
        if each.rule == rule and method in each.methods:
            arguments = getattr(app.view_functions[each.endpoint], "_apidoc", {})
            for parameter in arguments.get("arguments", {}).get("parameters", []):
                if isinstance(parameter.get("schema"), PageSchema):
                    return parameter["schema"]
    return None


GETS = {
    route.rule: (feature, route)
    for feature in features().values()
    for route in feature.routes
    if route.method == "GET"
}


def queries_of(schema, filters):
    """Yield a query for each combination of what can be sent to a list.

    :param filters: values of each filter
    """
    names = sorted(set(schema.fields) - {"limit", "after", "sort"})
    assert set(names) == filters.keys(), "The list's Route needs values of each of its filters."
    for (name, order), is_first, *values in product(
        schema.ORDERS.items(), (True, False), *(filters[name] for name in names)
    ):
        query = {n: v for n, v in zip(names, values, strict=True) if v is not None}
        if not is_first:
            examples = [CURSOR_EXAMPLES[kind] for _, kind in order.keys]
            query["after"] = encode_cursor(name, examples)
        yield {**query, **({"sort": name} if "sort" in schema.fields else {})}


@pytest.mark.parametrize("rule", GETS)
def test_clients_choose_among_few_statements(app, world, monkeypatch, rule):
    """Otherwise each request could make the worker compile another one."""
    schema = page_schema(app, rule)
    if schema is None:
        pytest.skip("no list")
    found = {}
    run = UnitOfWork.run

    def noted(unit, query):
        if "_fetch_limit" not in query.values:
            return run(unit, query)  # the token, or whether something exists
        found[query.statement] = query.statement.text
        return []

    feature, route = GETS[rule]
    path = path_of(feature, route, world)
    monkeypatch.setattr(UnitOfWork, "run", noted)
    for number, query in enumerate([*queries_of(schema, route.filters)] * 2):
        query["limit"] = 1 + number * 7 % 100
        response = world.owner.client.get(path, query_string=query)
        assert response.status_code == 200, response.json
    expected = route.statements or 2 * len(schema.ORDERS)
    assert len(found) == len(set(found.values())) == expected <= STATEMENTS_MAX
    assert all(statement.is_prepared for statement in found)
    assert expected < PREPARED_MAX / 2


@pytest.mark.parametrize(
    ("path", "envelope", "values"),
    [
        (
            "/api/cleanings/{}/",
            "cleaning_update",
            {"name": "x", "description": "x", "cleaning_type": "dust_up", "price": 1},
        ),
    ],
)
def test_the_order_of_fields_in_a_body_makes_no_other_statement(
    anna, make_cleaning, monkeypatch, path, envelope, values
):
    url = path.format(make_cleaning(owner_id=anna.id))
    seen = set()
    run = UnitOfWork.run
    monkeypatch.setattr(
        UnitOfWork, "run", lambda unit, query: seen.add(query.statement) or run(unit, query)
    )
    assert anna.client.patch(url, json={envelope: values}).status_code == 200
    before = set(seen)
    backwards = dict(reversed(values.items()))
    assert anna.client.patch(url, json={envelope: backwards}).status_code == 200
    assert seen == before


# The size of a page in bytes

# The longest rows that there can be: each character has 4 bytes, or 6 in JSON, as in old rows.
LONG = {"plain": "x" * 10_000, "wide": "\U0001f9f9" * 10_000, "escaped": "\u0001" * 10_000}


@pytest.fixture
def long_cleanings(app, anna):
    """Make cleanings with long descriptions; return a function that does."""

    def make(description, count=100, **values):
        rows = [
            {"name": f"Job {n}", "price": 1, "description": description, **values}
            for n in range(count)
        ]
        with app.app_context(), db.engine.begin() as connection:
            connection.execute(insert(Cleaning), rows)

    return make


def read_pages(client, path, **query):
    """Return the rows and the size of each page."""
    found = []
    url = path
    while url:
        response = client.get(url, query_string=query if url == path else None)
        assert response.status_code == 200
        found.append((response.json, len(response.data)))
        url = next_page(response)
    return found


@pytest.mark.parametrize("kind", LONG)
@pytest.mark.parametrize(
    ("path", "query"), [(LIST, {}), (FEED, {}), (LIST, {"sort": "price"}), (LIST, {"q": "job"})]
)
@pytest.mark.parametrize("limit", [20, 100])
def test_a_page_ends_early_and_its_link_goes_on_from_there(
    make_app, long_cleanings, kind, path, query, limit
):
    client = make_app(SEARCH_TIMEOUT=50).test_client()
    long_cleanings(LONG[kind])
    longest = len(client.get(path, query_string={"limit": 1}).data) + 2
    found = read_pages(client, path, limit=limit, **query)
    sizes = [size for _, size in found]
    assert max(sizes) <= PAGE_MAX
    if kind != "plain":  # a page of 20 that is short enough does not end early
        assert all(size > PAGE_MAX - longest for size in sizes[:-1])
    names = [row["name"] for rows, _ in found for row in rows]
    assert sorted(names) == sorted(f"Job {n}" for n in range(100))


def test_at_least_one_row_comes_however_long_it_is(client, long_cleanings, monkeypatch):
    long_cleanings("x" * 9_000, count=3)
    monkeypatch.setattr(pages, "PAGE_MAX", 1_000)
    monkeypatch.setattr(pages, "FETCH_MAX", 4_000)
    assert [len(rows) for rows, _ in read_pages(client, LIST)] == [1, 1, 1]
    assert [len(rows) for rows, _ in read_pages(client, LIST, limit=1)] == [1, 1, 1]


@pytest.mark.parametrize("limit", [5, 6, 7, 20])
def test_a_page_of_exactly_the_size_does_not_end_early(client, long_cleanings, monkeypatch, limit):
    long_cleanings("x" * 100, count=6)
    whole = client.get(LIST, query_string={"limit": 6}).data
    for missing, counts in ((0, [6]), (1, [5, 1])):
        monkeypatch.setattr(pages, "PAGE_MAX", len(whole) - missing)
        found = [len(rows) for rows, _ in read_pages(client, LIST, limit=limit)]
        assert found == (counts if limit > 5 else [5, 1])


def test_long_rows_are_not_fetched(client, long_cleanings, monkeypatch):
    """Of rows that do not fit, PostgreSQL sends the size: not 4 MB, most of them for nothing."""
    long_cleanings(LONG["wide"])
    fetched = []
    run = UnitOfWork.run

    def noted(unit, query):
        rows = run(unit, query)
        fetched.append(sum(len(row[0].encode()) for row in rows))
        return rows

    monkeypatch.setattr(UnitOfWork, "run", noted)
    response = client.get(LIST, query_string={"limit": 100})
    assert len(response.json) == 6
    assert len(fetched) == 2
    assert fetched[0] < 1_000
    assert fetched[1] < PAGE_MAX + 50_000


@pytest.mark.parametrize("limit", [1, 20, 100])
def test_rows_of_usual_length_take_one_statement(client, long_cleanings, statements, limit):
    long_cleanings("é" * 1_000)
    statements.clear()
    assert len(client.get(LIST, query_string={"limit": limit}).json) == limit
    assert len(statements) == 1


def test_a_page_that_ends_early_has_another_entity_tag_than_the_whole_one(
    client, long_cleanings, monkeypatch
):
    """The link to the next page belongs to the representation."""
    long_cleanings("x", count=2)
    whole = client.get(LIST, query_string={"limit": 1})
    monkeypatch.setattr(pages, "PAGE_MAX", 10)
    assert client.get(LIST, query_string={"limit": 1}).headers["ETag"] == whole.headers["ETag"]
    early = client.get(LIST)
    assert early.data == whole.data
    assert early.headers["ETag"] != whole.headers["ETag"]


def test_pages_of_offers_end_early_too(sql, anna, make_cleaning, make_user):
    cleaning = make_cleaning(owner_id=anna.id)
    for _ in range(12):
        message = "INSERT INTO offers (cleaning_id, user_id, message) VALUES (:job, :user, :text)"
        sql(message, job=cleaning, user=make_user().id, text="\U0001f9f9" * 1_000)
    found = read_pages(anna.client, f"{LIST}{cleaning}/offers/", limit=100)
    assert [len(rows) for rows, _ in found] == [12]
    assert found[0][1] < PAGE_MAX
