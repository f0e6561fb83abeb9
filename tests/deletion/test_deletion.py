"""What goes with an account, in each state of what it was a part of."""

import pytest

from phresh.database.base import db
from phresh.deletion.queries import locked_cleanings
from tests.tools.marketplace import STATES, Story, standing

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


@pytest.mark.parametrize("who", ["anna", "ben", "cleo"])
def test_the_jobs_of_others_stay_as_they_are(story, make_cleaning, sql, who):
    """Those on which an offer of who goes was rejected or cancelled too."""
    told = story("taken")
    others = [told.who(name) for name in ("anna", "ben", "cleo") if name != who]
    statuses = [("pending", "pending"), ("accepted", "rejected"), ("accepted", "cancelled")]
    for taken, of_who_goes in statuses:
        job = make_cleaning(owner_id=others[0].id)
        offers = {others[1].id: taken, told.who(who).id: of_who_goes}
        offers[told.dora.id] = "pending" if taken == "pending" else "rejected"
        for user, status in offers.items():
            insert = "INSERT INTO offers (cleaning_id, user_id, status) VALUES (:job, :user, :is)"
            sql(insert, job=job, user=user, **{"is": status})
    make_cleaning()
    standing_elsewhere = (
        "SELECT cleanings.id, cleanings.status, cleanings.updated_at, user_id, offers.status, "
        "offers.updated_at FROM cleanings LEFT JOIN offers ON cleaning_id = cleanings.id "
        "WHERE cleanings.id <> :job AND user_id IS DISTINCT FROM :who ORDER BY 1, 4"
    )
    values = {"job": told.job, "who": told.who(who).id}
    before = sql(standing_elsewhere, **values)
    assert told.who(who).client.delete(ME).status_code == 204
    assert sql(standing_elsewhere, **values) == before
    assert len(before) == 7


def test_who_was_rejected_can_be_taken_when_who_was_accepted_is_gone(story, client):
    told = story("taken")
    assert told.ben.client.delete(ME).status_code == 204
    assert client.get("/api/cleanings/?status=open").json[0]["id"] == told.job
    assert told.anna.client.put(f"{told.offers}cleo/").json["status"] == "accepted"


@pytest.mark.parametrize("count", [1, 100])
def test_it_takes_as_many_statements_for_one_as_for_100(
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
    assert len(statements) == 7
    assert sql("SELECT DISTINCT status FROM cleanings") == [("open",)]
    assert sql("SELECT count(*) FROM cleanings") == [(count,)]
    assert sql("SELECT * FROM offers") == []


def test_it_reads_only_what_is_its_own(app, story, sql):
    """By indexes, however many other cleanings there are."""
    told = story("taken")
    sql("INSERT INTO cleanings (name, price) SELECT 'x', 1 FROM generate_series(1, 5000)")
    sql("ANALYZE cleanings")
    query = locked_cleanings(user_id=told.ben.id)
    text, values = query.to_send(prepared=False)
    with app.app_context(), db.engine.begin() as connection:
        cursor = connection.connection.cursor()
        cursor.execute(f"EXPLAIN {text}", values)
        plan = "\n".join(row[0] for row in cursor.fetchall())
    assert "Seq Scan on cleanings" not in plan
