"""A cleaning that an operator has hidden: who still sees it, and where it is left out."""

import pytest

from phresh.cleanings.queries import cleaning_page, hidden_cleaning
from phresh.cleanings.schemas import CleaningListSchema
from phresh.web.pages import Page
from tests.tools.marketplace import Story
from tests.tools.plans import nodes_of

LIST = "/api/cleanings/"
CHANGE = {"cleaning_update": {"name": "Another name"}}
ROWS = 20_000


@pytest.fixture
def hide(write):
    """Return a function that hides a cleaning, or shows it again."""
    return lambda number, is_hidden=True: write(
        hidden_cleaning(cleaning_id=number, is_hidden=is_hidden)
    )


@pytest.fixture
def make_story(make_user, make_cleaning, hide):
    """Return a function that makes a hidden cleaning in a state."""

    def make(state):
        story = Story(make_user, make_cleaning, state)
        hide(story.job)
        return story

    return make


def test_hiding_returns_the_owner_and_restoring_too(anna, make_cleaning, hide):
    job = make_cleaning(owner_id=anna.id)
    for is_hidden in (True, True, False, False):
        assert hide(job, is_hidden) == [(anna.id,)]
    assert hide(make_cleaning()) == [(None,)]
    assert hide(2**31 - 1) == []


@pytest.mark.parametrize("state", ["pending", "taken", "cancelled", "completed"])
def test_only_the_owner_and_the_accepted_cleaner_see_it(make_story, client, state):
    story = make_story(state)
    seen = {
        name
        for name in ("anna", "ben", "cleo", "dora")
        if story.who(name).client.get(story.url).status_code == 200
    }
    assert seen == ({"anna", "ben"} if state in ("taken", "completed") else {"anna"})
    assert story.anna.client.get(story.url).json["is_hidden"] is True
    missing = client.get(f"{LIST}2147483647/")
    for viewer in (client, story.dora.client):
        response = viewer.get(story.url)
        assert response.status_code == 404
        assert response.json["detail"] == missing.json["detail"]


def test_one_of_a_guest_is_seen_by_nobody(client, anna, make_cleaning, hide):
    job = make_cleaning()
    assert client.get(f"{LIST}{job}/").json["is_hidden"] is False
    hide(job)
    for viewer in (client, anna.client):
        assert viewer.get(f"{LIST}{job}/").status_code == 404


def test_it_is_as_before_when_it_is_restored(client, anna, make_cleaning, hide):
    url = f"{LIST}{make_cleaning(owner_id=anna.id)}/"
    before, number = client.get(url), int(url.split("/")[-2])
    hide(number)
    hide(number, is_hidden=False)
    after = client.get(url)
    assert (after.data, after.headers["ETag"]) == (before.data, before.headers["ETag"])


@pytest.mark.parametrize(
    "query",
    [
        *({}, {"sort": "id"}, {"sort": "price"}, {"sort": "-price"}, {"limit": 1}),
        *({"status": "open"}, {"status": "open", "sort": "price"}, {"price_min": 1}),
        *({"cleaning_type": "spot_clean"}, {"cleaning_type": ["spot_clean", "dust_up"]}),
        *({"owner": "anna"}, {"q": "attic"}, {"q": "attic", "sort": "price", "owner": "anna"}),
    ],
)
def test_no_list_has_it(client, anna, make_cleaning, hide, query):
    """Not the owner's either: lists ignore the token."""
    shown = make_cleaning(name="Attic", owner_id=anna.id)
    hide(make_cleaning(name="Attic", owner_id=anna.id))
    for viewer in (client, anna.client):
        response = viewer.get(LIST, query_string=query)
        assert [row["id"] for row in response.json] == [shown]
        assert "Link" not in response.headers


def test_a_page_is_full_without_it(client, make_cleaning, hide):
    ids = [make_cleaning() for _ in range(6)]
    for number in ids[1::2]:
        hide(number)
    first = client.get(LIST, query_string={"limit": 2})
    assert [row["id"] for row in first.json] == [ids[4], ids[2]]
    second = client.get(first.headers["Link"].split("<")[1].split(">")[0])
    assert [row["id"] for row in second.json] == [ids[0]]


@pytest.mark.parametrize("url", ["{}", LIST, "/api/feed/cleanings/"])
def test_no_stored_response_is_confirmed_to_others(client, anna, make_cleaning, hide, url):
    job = make_cleaning(owner_id=anna.id)
    url = url.format(f"{LIST}{job}/")
    known = {"If-None-Match": client.get(url).headers["ETag"]}
    assert client.get(url, headers=known).status_code == 304
    hide(job)
    response = client.get(url, headers=known)
    assert response.status_code == (404 if str(job) in url else 200)
    assert response.headers["Cache-Control"] == ("no-store" if str(job) in url else "no-cache")


def test_the_response_to_its_owner_is_stored_by_nobody_else(client, anna, make_cleaning, hide):
    job = make_cleaning(owner_id=anna.id)
    url = f"{LIST}{job}/"
    before = anna.client.get(url).headers["ETag"]
    hide(job)
    response = anna.client.get(url, headers={"If-None-Match": before})
    assert response.status_code == 200
    assert response.headers["Cache-Control"] == "private, no-cache"
    assert response.headers["Vary"] == "Origin, Authorization"
    known = {"If-None-Match": response.headers["ETag"]}
    assert anna.client.get(url, headers=known).status_code == 304
    missing = client.get(url, headers=known)
    assert missing.status_code == 404
    assert missing.headers["Vary"] == client.get(f"{LIST}2147483647/").headers["Vary"]


def test_a_token_that_is_not_valid_is_401(client, make_cleaning):
    headers = {"Authorization": "Bearer x"}
    assert client.get(f"{LIST}{make_cleaning()}/", headers=headers).status_code == 401


def test_the_owner_changes_and_deletes_it(make_story, client):
    story = make_story("pending")
    changed = story.anna.client.patch(story.url, json=CHANGE, headers={"If-Match": "*"})
    assert (changed.status_code, changed.json["is_hidden"]) == (200, True)
    assert changed.headers["ETag"] == story.anna.client.get(story.url).headers["ETag"]
    assert client.get(story.url).status_code == 404
    assert story.anna.client.delete(story.url).status_code == 204


@pytest.mark.parametrize("headers", [{}, {"If-Match": "*"}, {"If-None-Match": "*"}])
def test_for_others_a_write_finds_nothing(make_story, headers):
    story = make_story("pending")
    for method, sent in (("PATCH", {"json": CHANGE}), ("PUT", {"json": CHANGE}), ("DELETE", {})):
        response = story.dora.client.open(story.url, method=method, headers=headers, **sent)
        assert response.status_code == 404
        assert response.json["detail"] == "No cleaning has this id."


def test_hiding_makes_an_older_etag_of_the_owner_outdated(anna, make_cleaning, hide):
    job = make_cleaning(owner_id=anna.id)
    etag = anna.client.get(f"{LIST}{job}/").headers["ETag"]
    hide(job)
    response = anna.client.patch(f"{LIST}{job}/", json=CHANGE, headers={"If-Match": etag})
    assert response.status_code == 412


def test_an_idempotency_key_returns_the_first_response_to_who_sent_it(client, anna, ben, hide):
    new, headers = {"new_cleaning": {"name": "Attic", "price": 20}}, {"Idempotency-Key": "k"}
    first = anna.client.post(LIST, json=new, headers=headers)
    hide(first.json["id"])
    again = anna.client.post(LIST, json=new, headers=headers)
    assert (again.status_code, again.data) == (201, first.data)
    for other in (client, ben.client):
        response = other.post(LIST, json=new, headers=headers)
        assert response.json["id"] != first.json["id"]
    assert client.get(first.headers["Location"]).status_code == 404


@pytest.mark.parametrize(("who", "expected"), [("nobody", 1), ("owner", 2), ("other", 2)])
def test_reading_one_takes_one_statement_and_one_for_the_token(
    client, anna, ben, make_cleaning, statements, who, expected
):
    job = make_cleaning(owner_id=anna.id)
    viewer = {"nobody": client, "owner": anna.client, "other": ben.client}[who]
    statements.clear()
    assert viewer.get(f"{LIST}{job}/").status_code == 200
    assert len(statements) == expected


ORDERED = {
    "-id": "pk_cleanings",
    "id": "pk_cleanings",
    "price": "ix_cleanings_price_id",
    "-price": "ix_cleanings_price_id",
}


def test_a_page_reads_in_the_order_of_its_index_and_skips_what_is_hidden(app, sql):
    """One test for all orders: filling the table takes a second."""
    sql(
        "INSERT INTO cleanings (name, price, hidden_at) "
        "SELECT 'Job ' || n, n % 97, CASE WHEN n % 1000 = 0 THEN now() END "
        "FROM generate_series(1, :count) n",
        count=ROWS,
    )
    sql("ANALYZE cleanings")
    for name, index in ORDERED.items():
        query = cleaning_page(Page(name, CleaningListSchema.ORDERS[name], 20))
        [scan] = [node for node in nodes_of(app, query) if node.get("Relation Name") == "cleanings"]
        assert (scan["Node Type"], scan["Index Name"]) == ("Index Scan", index)
        # LIMIT of the statement, however long the page is, and the hidden rows among them.
        assert scan["Actual Rows"] + scan.get("Rows Removed by Filter", 0) <= 22
