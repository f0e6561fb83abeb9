"""What goes with an account, in each state of what it was a part of."""

import pytest
from marketplace import STATES, Story, standing

from phresh.cleanings.queries import locked_jobs
from phresh.db import db

ME = "/api/users/me/"


@pytest.fixture
def story(make_user, make_cleaning):
    return lambda state: Story(make_user, make_cleaning, state)


GONE = (None, {})
# Who goes, and how the job and its offers stand then, for each state of STATES.
TABLE = {
    "anna": (GONE, GONE, GONE, GONE, ("completed", {"ben": "completed", "cleo": "rejected"})),
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
    (who, state, after)
    for who, row in TABLE.items()
    for state, after in zip(STATES, row, strict=True)
]


@pytest.mark.parametrize(("who", "state", "after"), CASES)
def test_an_account_goes_in_any_state(story, sql, who, state, after):
    told = story(state)
    assert told.who(who).client.delete(ME).status_code == 204
    assert standing(sql) == after
    assert told.who(who).client.get(ME).status_code == 401
    for table in ("users", "profiles", "tokens"):
        assert sql(f"SELECT count(*) FROM {table}") == [(3,)]


def test_what_was_completed_stays_without_the_names(story, client):
    told = story("completed")
    assert told.anna.client.delete(ME).status_code == 204
    assert client.get(told.url).json["owner"] is None
    evaluation = client.get(told.evaluation).json
    assert (evaluation["owner"], evaluation["cleaner"]) == (None, {"username": "ben"})
    assert client.get("/api/profiles/ben/").json["total_evaluations"] == 1


def test_an_evaluation_stays_when_its_cleaner_goes(story, client, sql):
    told = story("completed")
    assert told.ben.client.delete(ME).status_code == 204
    assert client.get(told.evaluation).status_code == 404
    assert sql("SELECT cleaner_id, overall_rating FROM evaluations") == [(None, 4)]
    assert told.anna.client.get(told.offers).json[1]["user"] is None


def test_when_both_are_gone_the_job_is_still_there(story, client, sql):
    told = story("completed")
    for someone in (told.ben, told.anna):
        assert someone.client.delete(ME).status_code == 204
    assert client.get(told.url).json["status"] == "completed"
    assert sql("SELECT cleaner_id, owner_id FROM evaluations") == [(None, None)]


def test_an_account_that_goes_twice_is_gone(story):
    told = story("open")
    assert told.anna.client.delete(ME).status_code == 204
    assert told.anna.client.delete(ME).status_code == 401


def test_it_reads_only_what_is_its_own(app, story, sql):
    """By indexes, however many other cleanings there are."""
    told = story("taken")
    sql("INSERT INTO cleanings (name, price) SELECT 'x', 1 FROM generate_series(1, 5000)")
    sql("ANALYZE cleanings")
    query = locked_jobs(user_id=told.ben.id)
    text, values = query.to_send(prepared=False)
    with app.app_context(), db.engine.begin() as connection:
        cursor = connection.connection.cursor()
        cursor.execute(f"EXPLAIN {text}", values)
        plan = "\n".join(row[0] for row in cursor.fetchall())
    assert "Seq Scan on cleanings" not in plan
