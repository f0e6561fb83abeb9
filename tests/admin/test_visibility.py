"""What operators hide and show again: who sees it, and what the audit log says."""

import pytest

from tests.tools.marketplace import Story

ADMIN = "/api/admin"
HIDE = {"visibility": {"is_hidden": True, "reason": "Spam."}}
SHOW = {"visibility": {"is_hidden": False}}


@pytest.fixture
def story(make_user, make_cleaning):
    """A job that was done and rated."""
    return Story(make_user, make_cleaning, "completed")


def test_a_cleaning_is_hidden_and_shown_again(client, olga, anna, make_cleaning, actions):
    cleaning_id = make_cleaning(owner_id=anna.id)
    path = f"/api/cleanings/{cleaning_id}/"
    admin = f"{ADMIN}/cleanings/{cleaning_id}/"
    assert olga.client.patch(admin, json=HIDE).status_code == 204
    assert client.get(path).status_code == 404
    assert anna.client.get(path).json["is_hidden"] is True
    assert olga.client.patch(admin, json=SHOW).status_code == 204
    assert client.get(path).json["is_hidden"] is False
    assert actions() == [
        ("cleaning_hidden", olga.id, anna.id, "Spam."),
        ("cleaning_shown", olga.id, anna.id, None),
    ]


def test_a_cleaning_of_a_guest_is_hidden(client, olga, make_cleaning, actions):
    cleaning_id = make_cleaning()
    admin = f"{ADMIN}/cleanings/{cleaning_id}/"
    assert olga.client.patch(admin, json=HIDE).status_code == 204
    assert client.get(f"/api/cleanings/{cleaning_id}/").status_code == 404
    assert actions() == [("cleaning_hidden", olga.id, None, "Spam.")]


def test_an_evaluation_is_hidden_and_shown_again(client, olga, story, actions):
    admin = f"{ADMIN}/evaluations/{story.evaluation.rstrip('/').rpartition('/')[2]}/"
    assert olga.client.patch(admin, json=HIDE).status_code == 204
    assert client.get(story.evaluation).status_code == 404
    assert olga.client.patch(admin, json=SHOW).status_code == 204
    assert client.get(story.evaluation).status_code == 200
    assert actions()[-2:] == [
        ("evaluation_hidden", olga.id, story.anna.id, "Spam."),
        ("evaluation_shown", olga.id, story.anna.id, None),
    ]


def test_a_profile_is_hidden_and_shown_again(client, olga, anna, actions):
    admin = f"{ADMIN}/profiles/anna/"
    assert olga.client.patch(admin, json=HIDE).status_code == 204
    assert client.get("/api/profiles/anna/").status_code == 404
    assert anna.client.get("/api/profiles/me/").json["is_hidden"] is True
    assert olga.client.patch(admin, json=SHOW).status_code == 204
    assert client.get("/api/profiles/anna/").status_code == 200
    assert actions() == [
        ("profile_hidden", olga.id, anna.id, "Spam."),
        ("profile_shown", olga.id, anna.id, None),
    ]


@pytest.mark.parametrize("path", ["cleanings/7/", "evaluations/7/", "profiles/nobody/"])
def test_what_is_not_there_is_404(olga, path):
    assert olga.client.patch(f"{ADMIN}/{path}", json=HIDE).status_code == 404


@pytest.mark.parametrize("path", ["cleanings/7/", "evaluations/7/", "profiles/olga/"])
def test_nothing_is_hidden_without_a_reason(olga, path):
    body = {"visibility": {"is_hidden": True}}
    response = olga.client.patch(f"{ADMIN}/{path}", json=body)
    assert response.status_code == 422
    assert response.json["errors"][0]["pointer"] == "/visibility/reason"
