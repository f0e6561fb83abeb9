"""Evaluations over HTTP: what is taken, what is listed, what it comes to."""

import pytest
from sqlalchemy.exc import IntegrityError

from tests.tools.helpers import next_page
from tests.tools.marketplace import Story, standing

LIST = "/api/users/ben/evaluations/"


@pytest.fixture
def story(make_user, make_cleaning):
    return lambda state: Story(make_user, make_cleaning, state)


def rate(told, **values):
    body = {"evaluation_create": {"overall_rating": 4, **values}}
    return told.anna.client.post(told.evaluation, json=body)


def test_an_evaluation_is_answered_in_full(story, client):
    told = story("taken")
    full = {
        "professionalism": 1,
        "completeness": 2,
        "efficiency": 3,
        "overall_rating": 5,
        "headline": "Spotless",
        "comment": "Even the cat approves.",
        "no_show": True,
    }
    answer = rate(told, **full)
    assert answer.status_code == 201
    people = {"cleaner": {"username": "ben"}, "owner": {"username": "anna"}}
    assert answer.json == {
        "cleaning_id": told.job,
        **people,
        **full,
        "created_at": answer.json["created_at"],
    }
    assert answer.headers["Location"] == told.evaluation
    assert client.get(told.evaluation).json == answer.json
    assert client.get(LIST).json == [answer.json]


def test_it_completes_the_job_and_the_offer(story, client, sql):
    told = story("taken")
    assert rate(told).status_code == 201
    assert standing(sql) == ("completed", {"ben": "completed", "cleo": "rejected"})
    assert client.get(told.url).json["status"] == "completed"
    again = rate(told)
    assert (again.status_code, again.json["detail"]) == (
        409,
        "You have already rated this cleaning.",
    )


@pytest.mark.parametrize(
    ("state", "status", "why"),
    [
        ("open", 404, "This user has not made an offer on this cleaning."),
        ("pending", 409, "Only an accepted cleaner can be rated; this offer is pending."),
        ("cancelled", 409, "Only an accepted cleaner can be rated; this offer is cancelled."),
    ],
)
def test_nobody_is_rated_before_they_are_taken(story, sql, state, status, why):
    answer = rate(story(state))
    assert (answer.status_code, answer.json["detail"]) == (status, why)
    assert sql("SELECT * FROM evaluations") == []


@pytest.mark.parametrize("who", ["ben", "cleo", "dora"])
def test_only_the_owner_rates(story, client, sql, who):
    told = story("taken")
    body = {"evaluation_create": {"overall_rating": 5}}
    assert client.post(told.evaluation, json=body).status_code == 401
    answer = told.who(who).client.post(told.evaluation, json=body)
    assert answer.status_code == 403
    assert answer.json["detail"] == "Only the owner can rate a cleaning."
    assert sql("SELECT * FROM evaluations") == []


@pytest.mark.parametrize("stars", [1, 2, 3, 4, 5])
def test_each_number_of_stars_is_taken(story, stars):
    names = ("overall_rating", "professionalism", "completeness", "efficiency")
    answer = rate(story("taken"), **dict.fromkeys(names, stars))
    assert [answer.json[name] for name in names] == [stars] * 4


def test_text_is_as_it_was_sent(story):
    longest = {"headline": "🧹" * 200, "comment": "x\n" * 5_000}
    answer = rate(story("taken"), **longest)
    assert {name: answer.json[name] for name in longest} == longest


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
def test_there_has_to_be_a_body(story, sql, options, status):
    told = story("taken")
    assert told.anna.client.post(told.evaluation, **options).status_code == status
    assert standing(sql)[0] == "taken"


def test_what_is_left_out_is_null(story):
    answer = rate(story("taken")).json
    left_out = ("professionalism", "completeness", "efficiency", "headline", "comment")
    assert [answer[name] for name in left_out] == [None] * 5
    assert answer["no_show"] is False


def test_a_whole_number_may_have_a_point(story):
    """Found by schemathesis: in JSON Schema 3.0 is an integer."""
    told = story("taken")
    body = '{"evaluation_create": {"overall_rating": 3.0}}'
    answer = told.anna.client.post(told.evaluation, data=body, content_type="application/json")
    assert (answer.status_code, answer.json["overall_rating"]) == (201, 3)


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
def test_what_is_no_rating_is_refused(story, sql, field, value):
    answer = rate(story("taken"), **{field: value})
    assert answer.status_code == 422
    pointers = [error["pointer"] for error in answer.json["errors"]]
    assert pointers == [f"/evaluation_create/{field}"]
    assert standing(sql)[0] == "taken"


def test_an_overall_rating_is_needed(story):
    told = story("taken")
    answer = told.anna.client.post(told.evaluation, json={"evaluation_create": {}})
    assert [error["pointer"] for error in answer.json["errors"]] == [
        "/evaluation_create/overall_rating"
    ]


@pytest.mark.parametrize("username", ["cleo", "dora", "anna"])
def test_only_who_was_accepted_is_rated(story, sql, username):
    told = story("taken")
    told.evaluation = f"/api/users/{username}/evaluations/{told.job}/"
    assert rate(told).status_code == (409 if username == "cleo" else 404)
    assert standing(sql)[0] == "taken"


def test_what_is_not_there_is_404_that_says_which(story, client):
    told = story("taken")
    told.evaluation = f"/api/users/nobody/evaluations/{told.job}/"
    assert rate(told).json["detail"] == "No user has this username."
    told.evaluation = "/api/users/ben/evaluations/2147483647/"
    assert rate(told).json["detail"] == "No cleaning has this id."
    assert client.get("/api/users/nobody/evaluations/").status_code == 404
    assert client.get("/api/users/nobody/evaluations/stats/").status_code == 404
    assert client.get(f"{LIST}{told.job}/").status_code == 404


def test_one_is_of_its_cleaner_alone(story, client):
    told = story("completed")
    assert client.get(told.evaluation).status_code == 200
    assert client.get(f"/api/users/cleo/evaluations/{told.job}/").status_code == 404


@pytest.fixture
def rated(anna, ben, make_cleaning, sql):
    """Ben's ratings: overall, efficiency and whether he came."""

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


def test_the_ratings_come_to_their_stats(client, rated):
    rated((5, None, False), (4, 2, False), (4, 5, True), (1, None, True))
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


def test_each_average_is_of_its_own_ratings(story, client):
    ratings = {"overall_rating": 2, "professionalism": 3, "completeness": 4, "efficiency": 5}
    assert rate(story("taken"), **ratings).status_code == 201
    stats = client.get(f"{LIST}stats/").json
    assert {name: stats[f"avg_{name}"] for name in ratings} == ratings
    assert [stats[f"{number}_stars"] for number in ("one", "two", "three")] == [0, 1, 0]


def test_one_third_is_one_third(client, rated):
    rated((4, None, False), (4, None, False), (5, None, False))
    stats = client.get(f"{LIST}stats/").json
    assert float(stats["avg_overall_rating"]) == pytest.approx(13 / 3)


def test_what_others_got_counts_for_nobody_else(story, client):
    told = story("completed")
    theirs = "/api/users/cleo/evaluations/"
    assert client.get(theirs).json == []
    assert client.get(f"{theirs}stats/").json["total_evaluations"] == 0
    assert client.get(f"{theirs}stats/").json["max_overall_rating"] is None
    assert len(client.get(f"{LIST.replace('ben', 'BEN')}").json) == 1
    assert client.get(f"{LIST}{told.job}/").json["overall_rating"] == 4


def test_of_whom_nobody_rated_all_is_zero_or_null(client, ben):
    stats = client.get(f"{LIST}stats/").json
    for name, value in stats.items():
        assert value == (0 if name.startswith("total") or name.endswith("stars") else None), name
    assert client.get(LIST).json == []


def test_evaluations_are_in_pages_newest_first(client, rated):
    rated(*[(1 + i % 5, None, False) for i in range(5)])
    rows, page = [], f"{LIST}?limit=2"
    while page:
        answer = client.get(page)
        rows += answer.json
        page = next_page(answer)
    jobs = [row["cleaning_id"] for row in rows]
    assert jobs == sorted(jobs, reverse=True)
    assert len(jobs) == 5


@pytest.mark.parametrize(
    ("parameter", "value"), [("limit", "0"), ("limit", "101"), ("after", "x"), ("sort", "id")]
)
def test_a_parameter_that_the_list_has_not_is_refused(client, ben, parameter, value):
    answer = client.get(LIST, query_string={parameter: value})
    assert answer.status_code == 422
    assert [error["parameter"] for error in answer.json["errors"]] == [parameter]


@pytest.mark.parametrize("count", [1, 100])
def test_reading_takes_two_statements(client, rated, statements, count):
    rated(*[(5, None, False)] * count)
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
def test_the_database_judges(story, sql, change, constraint):
    story("completed")
    with pytest.raises(IntegrityError, match=f'"{constraint}"'):
        sql(f"UPDATE evaluations SET {change}")


def test_a_job_is_rated_once(story, sql):
    story("completed")
    again = "INSERT INTO evaluations (cleaning_id, overall_rating) SELECT id, 1 FROM cleanings"
    with pytest.raises(IntegrityError, match='"uq_evaluations_cleaning_id"'):
        sql(again)
