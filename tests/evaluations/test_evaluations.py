"""Evaluations over HTTP: validation, lists, statistics and the constraints of the database."""

import pytest
from sqlalchemy.exc import IntegrityError

from tests.tools.helpers import next_page
from tests.tools.marketplace import Story, standing

LIST = "/api/users/ben/evaluations/"


@pytest.fixture
def make_story(make_user, make_cleaning):
    return lambda state: Story(make_user, make_cleaning, state)


def rate(story, **values):
    body = {"evaluation_create": {"overall_rating": 4, **values}}
    return story.anna.client.post(story.evaluation, json=body)


def test_a_new_evaluation_is_returned_in_full(make_story, client):
    story = make_story("taken")
    full = {
        "professionalism": 1,
        "completeness": 2,
        "efficiency": 3,
        "overall_rating": 5,
        "headline": "Spotless",
        "comment": "Even the cat approves.",
        "no_show": True,
    }
    response = rate(story, **full)
    assert response.status_code == 201
    people = {"cleaner": {"username": "ben"}, "owner": {"username": "anna"}}
    assert response.json == {
        "cleaning_id": story.job,
        **people,
        **full,
        "is_hidden": False,
        "created_at": response.json["created_at"],
    }
    assert response.headers["Location"] == story.evaluation
    assert client.get(story.evaluation).json == response.json
    assert client.get(LIST).json == [response.json]


def test_an_evaluation_completes_the_cleaning_and_the_offer(make_story, client, sql):
    story = make_story("taken")
    assert rate(story).status_code == 201
    assert standing(sql) == ("completed", {"ben": "completed", "cleo": "rejected"})
    assert client.get(story.url).json["status"] == "completed"
    again = rate(story)
    assert (again.status_code, again.json["detail"]) == (
        409,
        "You have already rated this cleaning.",
    )


@pytest.mark.parametrize(
    ("state", "status", "detail"),
    [
        ("open", 404, "This user has not made an offer on this cleaning."),
        ("pending", 409, "Only an accepted cleaner can be rated; this offer is pending."),
        ("cancelled", 409, "Only an accepted cleaner can be rated; this offer is cancelled."),
    ],
)
def test_a_bidder_without_an_accepted_offer_cannot_be_rated(make_story, sql, state, status, detail):
    response = rate(make_story(state))
    assert (response.status_code, response.json["detail"]) == (status, detail)
    assert sql("SELECT * FROM evaluations") == []


@pytest.mark.parametrize("caller", ["ben", "cleo", "dora"])
def test_only_the_owner_can_rate(make_story, client, sql, caller):
    story = make_story("taken")
    body = {"evaluation_create": {"overall_rating": 5}}
    assert client.post(story.evaluation, json=body).status_code == 401
    response = story.who(caller).client.post(story.evaluation, json=body)
    assert response.status_code == 403
    assert response.json["detail"] == "Only the owner can rate a cleaning."
    assert sql("SELECT * FROM evaluations") == []


@pytest.mark.parametrize("stars", [1, 2, 3, 4, 5])
def test_every_rating_from_1_to_5_is_accepted(make_story, stars):
    names = ("overall_rating", "professionalism", "completeness", "efficiency")
    response = rate(make_story("taken"), **dict.fromkeys(names, stars))
    assert [response.json[name] for name in names] == [stars] * 4


def test_text_is_stored_as_sent(make_story):
    longest = {"headline": "🧹" * 200, "comment": "x\n" * 5_000}
    response = rate(make_story("taken"), **longest)
    assert {name: response.json[name] for name in longest} == longest


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({}, 415),
        ({"content_type": "application/json"}, 400),
        ({"data": "{", "content_type": "application/json"}, 400),
        ({"json": {}}, 422),
        ({"json": {"evaluation_create": None}}, 422),
        ({"json": {"overall_rating": 5}}, 422),
    ],
)
def test_a_missing_or_malformed_body_is_rejected(make_story, sql, options, status):
    story = make_story("taken")
    assert story.anna.client.post(story.evaluation, **options).status_code == status
    assert standing(sql)[0] == "taken"


def test_omitted_ratings_and_texts_are_null(make_story):
    response = rate(make_story("taken")).json
    omitted = ("professionalism", "completeness", "efficiency", "headline", "comment")
    assert [response[name] for name in omitted] == [None] * 5
    assert response["no_show"] is False


def test_a_rating_of_3_point_0_is_accepted_as_3(make_story):
    """Found by schemathesis: for JSON Schema, 3.0 is an integer."""
    story = make_story("taken")
    body = '{"evaluation_create": {"overall_rating": 3.0}}'
    response = story.anna.client.post(story.evaluation, data=body, content_type="application/json")
    assert (response.status_code, response.json["overall_rating"]) == (201, 3)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("overall_rating", value) for value in (0, 6, -1, 1.5, "5", True, None, [5], 1e300)),
        *(("efficiency", value) for value in (0, 6, 2.5, "3", False)),
        *(("headline", value) for value in ("x" * 201, "\0", 1)),
        *(("comment", value) for value in ("x" * 10_001, "\ud800")),
        *(("no_show", value) for value in ("true", 1, 0, None)),
        ("cleaner", "cleo"),
    ],
)
def test_an_invalid_field_is_rejected(make_story, sql, field, value):
    response = rate(make_story("taken"), **{field: value})
    assert response.status_code == 422
    pointers = [error["pointer"] for error in response.json["errors"]]
    assert pointers == [f"/evaluation_create/{field}"]
    assert standing(sql)[0] == "taken"


def test_the_overall_rating_is_required(make_story):
    story = make_story("taken")
    response = story.anna.client.post(story.evaluation, json={"evaluation_create": {}})
    assert [error["pointer"] for error in response.json["errors"]] == [
        "/evaluation_create/overall_rating"
    ]


@pytest.mark.parametrize("username", ["cleo", "dora", "anna"])
def test_only_the_accepted_cleaner_can_be_rated(make_story, sql, username):
    story = make_story("taken")
    story.evaluation = f"/api/users/{username}/evaluations/{story.job}/"
    assert rate(story).status_code == (409 if username == "cleo" else 404)
    assert standing(sql)[0] == "taken"


def test_a_missing_user_or_cleaning_is_404_with_its_own_detail(make_story, client):
    story = make_story("taken")
    story.evaluation = f"/api/users/nobody/evaluations/{story.job}/"
    assert rate(story).json["detail"] == "No user has this username."
    story.evaluation = "/api/users/ben/evaluations/2147483647/"
    assert rate(story).json["detail"] == "No cleaning has this id."
    assert client.get("/api/users/nobody/evaluations/").status_code == 404
    assert client.get("/api/users/nobody/evaluations/stats/").status_code == 404
    assert client.get(f"{LIST}{story.job}/").status_code == 404


def test_an_evaluation_is_found_only_under_its_cleaner(make_story, client):
    story = make_story("completed")
    assert client.get(story.evaluation).status_code == 200
    assert client.get(f"/api/users/cleo/evaluations/{story.job}/").status_code == 404


@pytest.fixture
def make_ratings(anna, ben, make_cleaning, sql):
    """Make ratings of Ben; each is (overall rating, efficiency, no-show)."""

    def make(*ratings):
        for overall, efficiency, no_show in ratings:
            job = make_cleaning(owner_id=anna.id)
            people = {"job": job, "ben": ben.id, "anna": anna.id}
            sql(
                "INSERT INTO offers (cleaning_id, user_id, status) "
                "VALUES (:job, :ben, 'completed')",
                job=job,
                ben=ben.id,
            )
            sql(
                "INSERT INTO evaluations (cleaning_id, cleaner_id, owner_id, overall_rating, "
                "efficiency, no_show) VALUES (:job, :ben, :anna, :overall, :efficiency, :no_show)",
                **people,
                overall=overall,
                efficiency=efficiency,
                no_show=no_show,
            )

    return make


def test_the_stats_summarize_all_ratings(client, make_ratings):
    make_ratings((5, None, False), (4, 2, False), (4, 5, True), (1, None, True))
    assert client.get(f"{LIST}stats/").json == {
        "total_evaluations": 4,
        "total_no_show": 2,
        "one_stars": 1,
        "two_stars": 0,
        "three_stars": 0,
        "four_stars": 2,
        "five_stars": 1,
        "avg_overall_rating": 3.5,
        "min_overall_rating": 1,
        "max_overall_rating": 5,
        "avg_professionalism": None,
        "avg_completeness": None,
        "avg_efficiency": 3.5,
    }


def test_each_average_uses_its_own_ratings(make_story, client):
    ratings = {"overall_rating": 2, "professionalism": 3, "completeness": 4, "efficiency": 5}
    assert rate(make_story("taken"), **ratings).status_code == 201
    stats = client.get(f"{LIST}stats/").json
    assert {name: stats[f"avg_{name}"] for name in ratings} == ratings
    assert [stats[f"{number}_stars"] for number in ("one", "two", "three")] == [0, 1, 0]


def test_an_average_is_not_rounded(client, make_ratings):
    make_ratings((4, None, False), (4, None, False), (5, None, False))
    stats = client.get(f"{LIST}stats/").json
    assert float(stats["avg_overall_rating"]) == pytest.approx(13 / 3)


def test_ratings_of_another_cleaner_do_not_count(make_story, client):
    story = make_story("completed")
    other_list = "/api/users/cleo/evaluations/"
    assert client.get(other_list).json == []
    assert client.get(f"{other_list}stats/").json["total_evaluations"] == 0
    assert client.get(f"{other_list}stats/").json["max_overall_rating"] is None
    assert len(client.get(f"{LIST.replace('ben', 'BEN')}").json) == 1
    assert client.get(f"{LIST}{story.job}/").json["overall_rating"] == 4


def test_the_stats_of_an_unrated_user_are_zero_or_null(client, ben):
    stats = client.get(f"{LIST}stats/").json
    for name, value in stats.items():
        assert value == (0 if name.startswith("total") or name.endswith("stars") else None), name
    assert client.get(LIST).json == []


def test_evaluations_are_in_pages_newest_first(client, make_ratings):
    make_ratings(*[(1 + i % 5, None, False) for i in range(5)])
    rows, page = [], f"{LIST}?limit=2"
    while page:
        response = client.get(page)
        rows += response.json
        page = next_page(response)
    jobs = [row["cleaning_id"] for row in rows]
    assert jobs == sorted(jobs, reverse=True)
    assert len(jobs) == 5


@pytest.mark.parametrize(
    ("parameter", "value"), [("limit", "0"), ("limit", "101"), ("after", "x"), ("sort", "id")]
)
def test_an_invalid_query_parameter_is_rejected_by_name(client, ben, parameter, value):
    response = client.get(LIST, query_string={parameter: value})
    assert response.status_code == 422
    assert [error["parameter"] for error in response.json["errors"]] == [parameter]


@pytest.mark.parametrize("count", [1, 100])
def test_reading_evaluations_sends_two_sql_statements(client, make_ratings, statements, count):
    make_ratings(*[(5, None, False)] * count)
    statements.clear()
    rows = client.get(f"{LIST}?limit=100").json
    assert len(rows) == count
    assert len(statements) == 2
    for url in (f"{LIST}stats/", f"{LIST}{rows[0]['cleaning_id']}/"):
        statements.clear()
        assert client.get(url).status_code == 200
        assert len(statements) == 2


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        ("overall_rating = 0", "ck_evaluations_overall_rating"),
        ("overall_rating = 6", "ck_evaluations_overall_rating"),
        ("professionalism = 6", "ck_evaluations_professionalism"),
        ("completeness = 0", "ck_evaluations_completeness"),
        ("efficiency = 0", "ck_evaluations_efficiency"),
        ("headline = repeat('x', 201)", "ck_evaluations_headline_length"),
        ("comment = repeat('x', 10001)", "ck_evaluations_comment_length"),
    ],
)
def test_a_database_constraint_rejects_an_invalid_evaluation(make_story, sql, change, constraint):
    make_story("completed")
    with pytest.raises(IntegrityError, match=f'"{constraint}"'):
        sql(f"UPDATE evaluations SET {change}")


def test_the_database_rejects_a_second_evaluation_of_a_cleaning(make_story, sql):
    make_story("completed")
    again = "INSERT INTO evaluations (cleaning_id, overall_rating) SELECT id, 1 FROM cleanings"
    with pytest.raises(IntegrityError, match='"uq_evaluations_cleaning_id"'):
        sql(again)
