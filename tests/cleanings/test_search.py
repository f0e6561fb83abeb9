"""Searching cleanings for words: what is found, by which index, and at what cost."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from sqlalchemy import select, text

from phresh.cleanings import queries
from phresh.cleanings.models import SEARCHED, Cleaning
from phresh.database.base import db
from phresh.database.transactions import fetch
from tests.cleanings.test_lists import LIST, list_names, read_all_pages
from tests.tools.helpers import sql_text

# Seconds: nothing here waits as long.
LONG = {"LOCK_TIMEOUT": 50, "STATEMENT_TIMEOUT": 55, "SEARCH_TIMEOUT": 55, "DATABASE_TIMEOUT": 58}


def search(client, q, **query):
    return client.get(LIST, query_string={"q": q, **query})


EDGE_CASE_WORDS = [
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


@pytest.mark.parametrize("q", [*EDGE_CASE_WORDS, "abc", "a-b c-d", "대청소", "%_%a", "a" * 100])
def test_the_search_index_finds_every_word_without_rechecks(app, sql, q):
    """Without a usable word the index returns every row, which is as slow as a table scan."""
    sql("INSERT INTO cleanings (name, price) SELECT 'Zzz ' || n, 1 FROM generate_series(1, 50) n")
    sql("ANALYZE cleanings")
    patterns = [queries._pattern(word) for word in q.split()]
    matches = select(Cleaning.id).where(*queries._match(SEARCHED, patterns))
    disable_other_scans = "SET LOCAL enable_seqscan = off; SET LOCAL enable_indexscan = off"
    with app.app_context(), db.engine.begin() as connection:
        connection.exec_driver_sql(disable_other_scans)
        sent = matches.compile(db.engine)
        explain = f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) {sent}"
        plan = "\n".join(connection.exec_driver_sql(explain, sent.params).scalars())
    assert "Bitmap Index Scan on ix_cleanings_searched" in plan
    assert "Rows Removed by Index Recheck" not in plan


@pytest.mark.parametrize("q", ["½", "²²²", "①①①", "--", "a ½"])
def test_a_search_word_without_indexable_characters_is_rejected(client, q):
    assert client.get(LIST, query_string={"q": q}).status_code == 422


def test_a_rare_word_is_found_beyond_the_nearest_rows(client, make_cleaning, monkeypatch):
    """The query searches the nearest rows first, then the search index."""
    monkeypatch.setattr("phresh.cleanings.queries.NEARBY", 3)
    expected = [make_cleaning(name=f"Rare {i}") and f"Rare {i}" for i in range(5)]
    for _ in range(5):
        make_cleaning(name="Common")
    assert list_names(client, q="rare", sort="id", limit=2) == expected[:2]
    assert list_names(client, q="rare") == expected[::-1]
    for limit in (1, 2, 3, 4):
        assert [row["name"] for row in read_all_pages(client, q="rare", limit=limit)] == expected[
            ::-1
        ]
        assert len(read_all_pages(client, q="rare", limit=limit, sort="-price")) == 5


@pytest.mark.parametrize("mark", list("\\.^$*+?()[]{}|%_'\"#&-!:=<>~@/`,;"))
@pytest.mark.parametrize("form", ["ab{}cd", "{}ab", "ab{}", "{0}{0}{0}a", "***{}a", "(?i){}ab"])
def test_no_character_has_a_meaning_in_a_search(client, make_cleaning, mark, form):
    word = form.format(mark)
    for name in (word, f"x {word}y", f"({word}", f"x\n{word.upper()}"):
        make_cleaning(name=name)
    make_cleaning(name="abXcd ab cd a i x")
    assert len(search(client, word).json) == 4


def test_words_of_the_description_are_found_in_its_first_500_characters(client, make_cleaning):
    make_cleaning(name="In", description="é" * 495 + " roof" + "s" * 9_000)
    make_cleaning(name="Cut", description="é" * 496 + " roof")
    make_cleaning(name="Out", description="é" * 500 + " roof")
    make_cleaning(name="None", description=None)
    assert list_names(client, q="roof") == ["In"]
    assert list_names(client, q="roo") == ["Cut", "In"]
    assert list_names(client, q="one") == ["None"]


def test_a_word_is_not_found_across_name_and_description(client, make_cleaning):
    make_cleaning(name="Sun", description="flower")
    assert list_names(client, q="sunflower") == []
    assert list_names(client, q="sun flower") == ["Sun"]


def test_a_search_has_at_most_8_words(client, make_cleaning):
    make_cleaning(name="a b c d e f g h i")
    assert search(client, "a b c d e f g h").json[0]["name"] == "a b c d e f g h i"
    assert search(client, "  a\u3000b\nc d e f g h ").status_code == 200
    response = search(client, "a b c d e f g h i")
    assert response.status_code == 422
    [error] = response.json["errors"]
    assert (error["parameter"], error["detail"]) == ("q", "Must have at most 8 words.")


def test_a_word_that_occurs_twice_is_found_in_a_text_that_has_it_once(client, make_cleaning):
    make_cleaning(name="Rose")
    assert list_names(client, q="rose rose ro ro") == ["Rose"]


# The budget of searches


@contextmanager
def locked_table(app):
    """Let each search wait, and other requests that read no cleaning go on."""
    with app.app_context(), db.engine.begin() as connection:
        connection.execute(text("LOCK TABLE cleanings"))
        yield


def are_waiting(sql, count):
    waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    while sql(waits) != [(count,)]:
        pass


def test_searches_beyond_the_budget_get_503_and_other_requests_are_served(
    make_app, app, sql, make_cleaning, anna
):
    make_cleaning()
    busy = make_app(SEARCHES_AT_ONCE=2, POOL_SIZE=3, **LONG)
    with ThreadPoolExecutor(2) as pool:
        with locked_table(app):
            running = [pool.submit(search, busy.test_client(), "job") for _ in range(2)]
            are_waiting(sql, 2)
            for _ in range(3):
                response = search(busy.test_client(), "job")
                assert response.status_code == 503
                assert response.content_type == "application/problem+json"
                assert response.json["detail"] == "Too many searches at once. Try again soon."
                assert int(response.headers["Retry-After"]) > 0
            assert busy.test_client().get("/readyz").status_code == 200
            assert busy.test_client().get("/api/profiles/anna/").status_code == 200
        assert [future.result().status_code for future in running] == [200, 200]
    assert search(busy.test_client(), "job").status_code == 200


def test_a_green_thread_waits_for_its_turn(make_app, app, sql, monkeypatch, make_cleaning):
    make_cleaning()
    busy = make_app(SEARCHES_AT_ONCE=1, **LONG)
    monkeypatch.setattr("phresh.cleanings.services.monkey.is_module_patched", lambda _: True)
    with ThreadPoolExecutor(3) as pool:
        with locked_table(app):
            running = [pool.submit(search, busy.test_client(), "job") for _ in range(3)]
            are_waiting(sql, 1)
            assert not any(future.done() for future in running)
        assert [future.result().status_code for future in running] == [200] * 3


def test_a_search_that_takes_too_long_gets_503_and_says_what_to_do(make_app, app, make_cleaning):
    make_cleaning()
    hurried = make_app(SEARCHES_AT_ONCE=1, SEARCH_TIMEOUT=0.1, POOL_SIZE=1)
    client = hurried.test_client()
    for _ in range(2):
        with locked_table(app):
            response = search(client, "job")
        assert response.status_code == 503
        assert "Use fewer or longer words" in response.json["detail"]
        assert int(response.headers["Retry-After"]) > 0
        assert search(client, "job").status_code == 200


def test_the_limit_of_a_search_is_that_of_no_other_statement(make_app, make_cleaning, monkeypatch):
    make_cleaning()
    app = make_app(POOL_SIZE=1, SEARCH_TIMEOUT=0.7)
    seen = []

    def noting(page, query, run):
        seen.append(run(sql_text("SHOW statement_timeout")))
        return page_respond(page, query, run)

    page_respond = queries.Page.respond
    with monkeypatch.context() as patched:
        patched.setattr(queries.Page, "respond", noting)
        assert search(app.test_client(), "job").status_code == 200
    assert seen == [[("700ms",)]]
    with app.app_context():
        assert fetch(sql_text("SHOW statement_timeout")) != [("700ms",)]


def test_a_view_that_has_read_by_the_session_can_search_too(make_app, make_cleaning):
    """The limit holds, and the session goes on in its transaction."""
    from phresh.database.transactions import fetch_within
    from phresh.web.blueprint import Blueprint

    make_cleaning()
    app = make_app(POOL_SIZE=1)
    blp = Blueprint("mixing", __name__)

    @blp.get("/mix/")
    @blp.response(200)
    def mix():
        before = db.session.scalars(select(Cleaning.name)).all()
        limit = fetch_within(0.7, sql_text("SHOW statement_timeout"))[0][0]
        after = db.session.scalar(text("SHOW statement_timeout"))
        return {"names": [*before, *db.session.scalars(select(Cleaning.name))], "t": [limit, after]}

    app.register_blueprint(blp)
    response = app.test_client().get("/mix/").json
    assert response["names"] == ["Job 1", "Job 1"]
    assert response["t"][0] == "700ms" != response["t"][1]
