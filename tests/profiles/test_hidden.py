"""A profile that an operator has hidden: only its user sees it."""

import pytest

from phresh.profiles.queries import hidden_profile
from tests.tools.marketplace import Story

ME, ANNA = "/api/profiles/me/", "/api/profiles/anna/"


@pytest.fixture
def hide(write):
    """Return a function that hides a profile, or shows it again."""
    return lambda username, is_hidden=True: write(
        hidden_profile(username=username, is_hidden=is_hidden)
    )


def test_hiding_returns_the_user_and_restoring_too(anna, ben, hide):
    for is_hidden in (True, True, False, False):
        assert hide("ANNA", is_hidden) == [(anna.id,)]
    assert hide("nobody") == []


@pytest.mark.parametrize("has_row", [True, False])
def test_only_its_user_sees_it(client, anna, ben, hide, sql, has_row):
    if not has_row:
        sql("DELETE FROM profiles")
    missing = client.get("/api/profiles/nobody/")
    before = {viewer: viewer.get(ANNA) for viewer in (client, ben.client, anna.client)}
    assert [response.json["is_hidden"] for response in before.values()] == [False] * 3
    hide("anna")
    for viewer in (client, ben.client):
        known = {"If-None-Match": before[viewer].headers["ETag"]}
        response = viewer.get(ANNA, headers=known)
        assert response.status_code == 404
        assert response.json["detail"] == missing.json["detail"]
    assert anna.client.get("/api/users/me/").json["profile"]["is_hidden"] is True
    for url in (ANNA, ME):
        assert anna.client.get(url).json == {**before[anna.client].json, "is_hidden": True}
    hide("anna", is_hidden=False)
    assert client.get(ANNA).data == before[client].data


def test_a_change_leaves_it_hidden_and_hiding_changes_nothing_else(client, anna, hide):
    sent = {"profile_update": {"bio": "Hello", "full_name": "Anna"}}
    assert anna.client.patch(ME, json=sent).status_code == 200
    hide("anna")
    changed = anna.client.patch(ME, json={"profile_update": {"bio": "Hello again"}})
    assert (changed.json["bio"], changed.json["full_name"]) == ("Hello again", "Anna")
    assert changed.json["is_hidden"] is True
    assert client.get(ANNA).status_code == 404


def test_the_other_side_of_a_job_does_not_see_it_either(make_user, make_cleaning, hide):
    story = Story(make_user, make_cleaning, "taken")
    assert "email" in story.ben.client.get(ANNA).json
    hide("anna")
    assert story.ben.client.get(ANNA).status_code == 404


def test_what_the_user_has_posted_stays(make_user, make_cleaning, client, hide):
    story = Story(make_user, make_cleaning, "completed")
    hide("anna")
    hide("ben")
    assert client.get(story.url).json["owner"] == {"username": "anna"}
    assert client.get("/api/cleanings/?owner=anna").json != []
    assert client.get(story.evaluation).json["cleaner"] == {"username": "ben"}
    assert client.get("/api/users/ben/evaluations/stats/").json["total_evaluations"] == 1
    assert story.ben.client.get("/api/users/me/offers/").json != []


def test_the_user_sees_it_in_the_export(anna, hide):
    hide("anna")
    assert anna.client.get("/api/users/me/export/").json["profile"]["is_hidden"] is True
