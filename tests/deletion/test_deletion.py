"""Account deletion: what happens to jobs, offers and evaluations, in each state of a job."""

import pytest

from phresh.database.base import db
from phresh.deletion.queries import locked_cleanings
from phresh.deletion.services import delete_some
from tests.tools.marketplace import STATES, Story, standing

ME = "/api/users/me/"


@pytest.fixture
def make_story(make_user, make_cleaning):
    return lambda state: Story(make_user, make_cleaning, state)


DELETED = (None, {})
# By deleted account: the statuses of the job and of its offers afterwards, for each of STATES.
EXPECTED = {
    "anna": (
        DELETED,
        DELETED,
        DELETED,
        DELETED,
        ("completed", {"ben": "completed", "cleo": "rejected"}),
    ),
    "ben": (
        ("open", {}),
        ("open", {"cleo": "pending"}),
        ("open", {"cleo": "pending"}),
        ("open", {"cleo": "pending"}),
        ("completed", {None: "completed", "cleo": "rejected"}),
    ),
    "cleo": (
        ("open", {}),
        ("open", {"ben": "pending"}),
        ("taken", {"ben": "accepted"}),
        ("open", {"ben": "cancelled"}),
        ("completed", {"ben": "completed"}),
    ),
}
CASES = [
    (username, state, expected)
    for username, row in EXPECTED.items()
    for state, expected in zip(STATES, row, strict=True)
]


@pytest.mark.parametrize(("username", "state", "expected"), CASES)
def test_deleting_an_account_works_in_every_state_of_a_job(
    make_story, sql, username, state, expected
):
    story = make_story(state)
    assert story.who(username).client.delete(ME).status_code == 204
    assert standing(sql) == expected
    assert story.who(username).client.get(ME).status_code == 401
    for table in ("users", "profiles", "tokens"):
        assert sql(f"SELECT count(*) FROM {table}") == [(3,)]


def test_a_completed_job_stays_without_the_name_of_its_deleted_owner(make_story, client):
    story = make_story("completed")
    assert story.anna.client.delete(ME).status_code == 204
    assert client.get(story.url).json["owner"] is None
    evaluation = client.get(story.evaluation).json
    assert (evaluation["owner"], evaluation["cleaner"]) == (None, {"username": "ben"})
    assert client.get("/api/profiles/ben/").json["total_evaluations"] == 1


def test_an_evaluation_is_kept_without_its_deleted_cleaner(make_story, client, sql):
    story = make_story("completed")
    assert story.ben.client.delete(ME).status_code == 204
    assert client.get(story.evaluation).status_code == 404
    assert sql("SELECT cleaner_id, overall_rating FROM evaluations") == [(None, 4)]
    assert story.anna.client.get(story.offers).json[1]["user"] is None


def test_a_completed_job_stays_after_owner_and_cleaner_are_deleted(make_story, client, sql):
    story = make_story("completed")
    for someone in (story.ben, story.anna):
        assert someone.client.delete(ME).status_code == 204
    assert client.get(story.url).json["status"] == "completed"
    assert sql("SELECT cleaner_id, owner_id FROM evaluations") == [(None, None)]


def test_deleting_an_account_twice_returns_401(make_story):
    story = make_story("open")
    assert story.anna.client.delete(ME).status_code == 204
    assert story.anna.client.delete(ME).status_code == 401


@pytest.mark.parametrize("username", ["anna", "ben", "cleo"])
def test_deleting_an_account_leaves_the_jobs_of_others_unchanged(
    make_story, make_cleaning, sql, username
):
    """Jobs with a rejected or cancelled offer of the deleted account are unchanged too."""
    story = make_story("taken")
    others = [story.who(name) for name in ("anna", "ben", "cleo") if name != username]
    statuses = [("pending", "pending"), ("accepted", "rejected"), ("accepted", "cancelled")]
    for status_of_other, status_of_deleted in statuses:
        job = make_cleaning(owner_id=others[0].id)
        offers = {others[1].id: status_of_other, story.who(username).id: status_of_deleted}
        offers[story.dora.id] = "pending" if status_of_other == "pending" else "rejected"
        for user, status in offers.items():
            insert = "INSERT INTO offers (cleaning_id, user_id, status) VALUES (:job, :user, :is)"
            sql(insert, job=job, user=user, **{"is": status})
    make_cleaning()
    other_jobs = (
        "SELECT cleanings.id, cleanings.status, cleanings.updated_at, user_id, offers.status, "
        "offers.updated_at FROM cleanings LEFT JOIN offers ON cleaning_id = cleanings.id "
        "WHERE cleanings.id <> :job AND user_id IS DISTINCT FROM :user ORDER BY 1, 4"
    )
    values = {"job": story.job, "user": story.who(username).id}
    before = sql(other_jobs, **values)
    assert story.who(username).client.delete(ME).status_code == 204
    assert sql(other_jobs, **values) == before
    assert len(before) == 7


def test_a_rejected_bidder_can_be_accepted_after_the_cleaner_is_deleted(make_story, client):
    story = make_story("taken")
    assert story.ben.client.delete(ME).status_code == 204
    assert client.get("/api/cleanings/?status=open").json[0]["id"] == story.job
    assert story.anna.client.put(f"{story.offers}cleo/").json["status"] == "accepted"


@pytest.mark.parametrize("count", [1, 100])
def test_deleting_an_account_takes_as_many_statements_for_1_job_as_for_100(
    anna, ben, make_cleaning, sql, statements, count
):
    for _ in range(count):
        make_cleaning(owner_id=anna.id)
        make_cleaning(owner_id=ben.id)
    sql(
        "INSERT INTO offers (cleaning_id, user_id, status) "
        "SELECT id, CASE owner_id WHEN :anna THEN :ben ELSE :anna END, 'accepted' FROM cleanings",
        anna=anna.id,
        ben=ben.id,
    )
    statements.clear()
    assert anna.client.delete(ME).status_code == 204
    assert len(statements) == 12
    assert sql("SELECT DISTINCT status FROM cleanings") == [("open",)]
    assert sql("SELECT count(*) FROM cleanings") == [(count,)]
    assert sql("SELECT * FROM offers") == []


def test_deleting_an_account_finds_its_cleanings_by_index(app, make_story, sql):
    """The plan has no sequential scan, however many other cleanings there are."""
    story = make_story("taken")
    sql("INSERT INTO cleanings (name, price) SELECT 'x', 1 FROM generate_series(1, 5000)")
    sql("ANALYZE cleanings")
    query = locked_cleanings(5_001, user_id=story.ben.id)
    text, values = query.to_send(prepared=False)
    with app.app_context(), db.engine.begin() as connection:
        cursor = connection.connection.cursor()
        cursor.execute(f"EXPLAIN {text}", values)
        plan = "\n".join(row[0] for row in cursor.fetchall())
    assert "Seq Scan on cleanings" not in plan


@pytest.fixture
def many(anna, ben, sql):
    """Make 25 cleanings of Anna's and 25 of Ben's; each has an offer of the other, in any state."""
    sql(
        "INSERT INTO cleanings (name, price, owner_id) "
        "SELECT 'Job', 1, CASE WHEN n % 2 = 0 THEN CAST(:anna AS int) ELSE :ben END "
        "FROM generate_series(1, 50) n",
        anna=anna.id,
        ben=ben.id,
    )
    sql(
        "INSERT INTO offers (cleaning_id, user_id, status) "
        "SELECT id, CASE owner_id WHEN :anna THEN :ben ELSE :anna END, "
        "(ARRAY['pending', 'accepted', 'rejected', 'cancelled', 'completed'])[id % 5 + 1] "
        "FROM cleanings",
        anna=anna.id,
        ben=ben.id,
    )
    sql(
        "INSERT INTO evaluations (cleaning_id, cleaner_id, owner_id, overall_rating) "
        "SELECT cleaning_id, user_id, owner_id, 5 FROM offers "
        "JOIN cleanings ON cleanings.id = cleaning_id WHERE offers.status = 'completed'"
    )


# What is left of both: statuses and who is named, ignoring ids.
LEFT = """
    SELECT cleanings.status, owner.username, offers.status, cleaner.username, count(*),
        count(evaluations.owner_id), count(evaluations.cleaner_id), count(evaluations.id)
    FROM cleanings LEFT JOIN users owner ON owner.id = owner_id
    LEFT JOIN offers ON offers.cleaning_id = cleanings.id
    LEFT JOIN users cleaner ON cleaner.id = offers.user_id
    LEFT JOIN evaluations ON evaluations.cleaning_id = cleanings.id
    GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
"""


def test_an_operator_deletes_an_account_of_any_size_in_steps(run, anna, many, sql, monkeypatch):
    """What is left is what the API leaves."""
    steps = []
    monkeypatch.setattr(
        "phresh.cli.operators.delete_some",
        lambda user_id, _: steps.append(delete_some(user_id, 7)) or steps[-1],
    )
    assert run("delete-account", "ANNA") == (0, "Deleted ANNA.\n")
    assert steps == [7, 7, 7, 7, 7, 7, 7, 1, 0]
    assert sql("SELECT username FROM users") == [("ben",)]
    assert anna.client.get(ME).status_code == 401
    assert sql(LEFT) == [
        ("completed", "ben", "completed", None, 5, 5, 0, 5),
        ("completed", None, "completed", "ben", 5, 0, 5, 5),
        ("open", "ben", None, None, 20, 0, 0, 0),
    ]


def test_the_api_leaves_the_same(anna, many, sql):
    assert anna.client.delete(ME).status_code == 204
    assert sql(LEFT) == [
        ("completed", "ben", "completed", None, 5, 5, 0, 5),
        ("completed", None, "completed", "ben", 5, 0, 5, 5),
        ("open", "ben", None, None, 20, 0, 0, 0),
    ]


def test_an_account_that_is_too_large_for_one_request_is_409(anna, many, sql, monkeypatch):
    monkeypatch.setattr("phresh.deletion.services.MOST", 49)
    response = anna.client.delete(ME)
    assert response.status_code == 409
    assert "write to the operator" in response.json["detail"]
    assert sql("SELECT count(*) FROM cleanings") == [(50,)]
    assert sql("SELECT count(*) FROM offers") == [(50,)]
    monkeypatch.setattr("phresh.deletion.services.MOST", 50)
    assert anna.client.delete(ME).status_code == 204
