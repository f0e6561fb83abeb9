"""An evaluation that an operator has hidden: who still sees it, and where it does not count."""

import pytest

from phresh.evaluations.queries import hidden_evaluation
from tests.tools.marketplace import Story

LIST = "/api/users/ben/evaluations/"
PROFILE = "/api/profiles/ben/"
EXPORT = "/api/users/me/export/"


@pytest.fixture
def hide(write):
    """Return a function that hides the evaluation for a cleaning, or shows it again."""
    return lambda job, is_hidden=True: write(
        hidden_evaluation(cleaning_id=job, is_hidden=is_hidden)
    )


@pytest.fixture
def story(make_user, make_cleaning):
    return Story(make_user, make_cleaning, "completed")


def test_hiding_returns_the_author_and_restoring_too(story, hide, make_cleaning):
    for is_hidden in (True, True, False, False):
        assert hide(story.job, is_hidden) == [(story.anna.id,)]
    assert hide(make_cleaning()) == []


def test_only_its_author_sees_it(story, hide, client):
    missing = client.get(f"{LIST}2147483647/")
    before = client.get(story.evaluation)
    assert before.json["is_hidden"] is False
    hide(story.job)
    assert story.anna.client.get(story.evaluation).json == {**before.json, "is_hidden": True}
    known = {"If-None-Match": before.headers["ETag"]}
    for viewer in (client, story.ben.client, story.dora.client):
        response = viewer.get(story.evaluation, headers=known)
        assert response.status_code == 404
        assert response.json["detail"] == missing.json["detail"]
    hide(story.job, is_hidden=False)
    assert client.get(story.evaluation, headers=known).status_code == 304


def test_the_response_to_its_author_is_private(story, hide, client):
    hide(story.job)
    response = story.anna.client.get(story.evaluation)
    assert response.headers["Cache-Control"] == "private, no-cache"
    assert response.headers["Vary"] == "Origin, Authorization"
    known = {"If-None-Match": response.headers["ETag"]}
    assert client.get(story.evaluation, headers=known).status_code == 404


def test_no_list_has_it_and_nothing_counts_it(story, hide, client, sql, make_cleaning):
    other = make_cleaning(owner_id=story.anna.id)
    sql(
        "INSERT INTO evaluations (cleaning_id, cleaner_id, owner_id, overall_rating, efficiency, "
        "no_show) VALUES (:job, :ben, :anna, 1, 1, true)",
        job=other,
        ben=story.ben.id,
        anna=story.anna.id,
    )
    urls = (LIST, f"{LIST}stats/", PROFILE)
    before = {url: client.get(url) for url in urls}
    hide(other)
    after = {
        url: client.get(url, headers={"If-None-Match": before[url].headers["ETag"]}) for url in urls
    }
    assert [response.status_code for response in after.values()] == [200, 200, 200]
    assert [row["cleaning_id"] for row in after[LIST].json] == [story.job]
    stats = after[f"{LIST}stats/"].json
    assert (stats["total_evaluations"], stats["total_no_show"], stats["one_stars"]) == (1, 0, 0)
    assert (stats["avg_overall_rating"], stats["min_overall_rating"]) == (4.0, 4)
    assert stats["avg_efficiency"] is None
    for viewer in (client, story.anna.client, story.ben.client):
        profile = viewer.get(PROFILE).json
        assert (profile["avg_overall_rating"], profile["total_evaluations"]) == (4.0, 1)
        assert [row["cleaning_id"] for row in viewer.get(LIST).json] == [story.job]
    hide(other, is_hidden=False)
    assert client.get(LIST).data == before[LIST].data


def test_the_cleaning_cannot_be_rated_again(story, hide):
    hide(story.job)
    rating = {"evaluation_create": {"overall_rating": 1}}
    assert story.anna.client.post(story.evaluation, json=rating).status_code == 409


def test_an_idempotency_key_returns_it_to_its_author(make_user, make_cleaning, hide):
    story = Story(make_user, make_cleaning, "taken")
    sent = {
        "json": {"evaluation_create": {"overall_rating": 1}},
        "headers": {"Idempotency-Key": "k"},
    }
    first = story.anna.client.post(story.evaluation, **sent)
    hide(story.job)
    again = story.anna.client.post(story.evaluation, **sent)
    assert (again.status_code, again.data) == (201, first.data)
    assert story.ben.client.post(story.evaluation, **sent).status_code == 403


def test_both_sides_have_it_in_their_export(story, hide):
    hide(story.job)
    [written] = story.anna.client.get(EXPORT).json["evaluations_written"]
    [received] = story.ben.client.get(EXPORT).json["evaluations_received"]
    assert written == received
    assert written["is_hidden"] is True


@pytest.mark.parametrize(("who", "expected"), [("nobody", 2), ("anna", 3), ("ben", 3)])
def test_reading_one_takes_two_statements_and_one_for_the_token(
    story, client, statements, who, expected
):
    viewer = client if who == "nobody" else story.who(who).client
    statements.clear()
    assert viewer.get(story.evaluation).status_code == 200
    assert len(statements) == expected
