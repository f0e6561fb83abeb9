"""Offers on a cleaning that an operator has hidden."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from phresh.cleanings.queries import hidden_cleaning
from tests.tools.marketplace import Story

MINE = "/api/users/me/offers/"
RATING = {"evaluation_create": {"overall_rating": 4}}


@pytest.fixture
def make_story(make_user, make_cleaning, write):
    """Return a function that makes a hidden cleaning in a state."""

    def make(state):
        story = Story(make_user, make_cleaning, state)
        write(hidden_cleaning(cleaning_id=story.job, is_hidden=True))
        return story

    return make


@pytest.mark.parametrize("state", ["open", "pending", "taken", "cancelled", "completed"])
def test_for_who_has_no_offer_there_is_no_cleaning(make_story, sql, state):
    story = make_story(state)
    before = sql("SELECT count(*) FROM offers")
    dora = story.dora.client
    responses = [
        *(dora.open(story.offers, method=method) for method in ("POST", "GET", "PUT", "DELETE")),
        *(dora.open(f"{story.offers}ben/", method=method) for method in ("GET", "PUT")),
        dora.post(story.evaluation, json=RATING),
    ]
    for response in responses:
        assert response.status_code == 404
        assert response.json["detail"] == "No cleaning has this id."
    assert sql("SELECT count(*) FROM offers") == before


def test_an_offer_that_waits_for_the_hiding_is_not_made(
    make_user, make_cleaning, owner_engine, sql
):
    story = Story(make_user, make_cleaning, "open")
    operator = owner_engine.execution_options(isolation_level="READ COMMITTED")
    with ThreadPoolExecutor() as executor, operator.connect() as connection:
        hide = text("UPDATE cleanings SET hidden_at = now() WHERE id = :id")
        connection.execute(hide, {"id": story.job})
        waiting = executor.submit(story.dora.client.post, story.offers)
        while not sql("SELECT FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'"):
            assert not waiting.done()
        connection.commit()
        assert waiting.result().status_code == 404
    assert sql("SELECT FROM offers") == []


def test_it_gets_no_second_offer_of_who_had_one(make_story):
    story = make_story("pending")
    ben = story.ben.client
    assert ben.post(story.offers).status_code == 409
    assert ben.delete(story.offers).status_code == 204
    assert ben.post(story.offers).status_code == 404
    assert story.anna.client.post(story.offers).status_code == 409


def test_a_bidder_still_has_the_own_offer_and_can_rescind_it(make_story):
    story = make_story("pending")
    ben = story.ben.client
    assert [offer["cleaning_id"] for offer in ben.get(MINE).json] == [story.job]
    assert ben.get(f"{story.offers}ben/").status_code == 200
    assert ben.get(f"{story.offers}cleo/").status_code == 403
    assert ben.get(story.offers).status_code == 403
    assert ben.delete(story.offers, headers={"If-Match": "*"}).status_code == 204


def test_the_owner_sees_its_offers_and_accepts_none_until_it_is_restored(make_story, write):
    story = make_story("pending")
    anna = story.anna.client
    assert len(anna.get(story.offers).json) == 2
    response = anna.put(f"{story.offers}ben/")
    assert response.status_code == 409
    assert "hidden" in response.json["detail"]
    assert "email" not in anna.get("/api/profiles/ben/").json
    write(hidden_cleaning(cleaning_id=story.job, is_hidden=False))
    assert anna.put(f"{story.offers}ben/").status_code == 200


def test_an_agreement_goes_on(make_story, client):
    story = make_story("taken")
    rated = story.anna.client.post(story.evaluation, json=RATING)
    assert rated.status_code == 201
    assert story.ben.client.get(story.url).json["status"] == "completed"
    assert client.get(story.evaluation).status_code == 200


def test_the_cleaner_can_cancel_and_sees_it_no_more(make_story):
    story = make_story("taken")
    assert story.ben.client.put(story.offers).status_code == 200
    assert story.ben.client.get(story.url).status_code == 404
    assert story.anna.client.get(story.url).json["status"] == "open"


def test_an_idempotency_key_returns_an_offer_that_was_made_before(
    make_user, make_cleaning, write, sql
):
    story = Story(make_user, make_cleaning, "open")
    headers = {"Idempotency-Key": "k"}
    first = story.ben.client.post(story.offers, headers=headers)
    write(hidden_cleaning(cleaning_id=story.job, is_hidden=True))
    again = story.ben.client.post(story.offers, headers=headers)
    assert (again.status_code, again.data) == (201, first.data)
    assert story.dora.client.post(story.offers, headers=headers).status_code == 404
    assert sql("SELECT count(*) FROM offers") == [(1,)]
