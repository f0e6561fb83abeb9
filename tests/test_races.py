"""What happens at the same time, with real commits: one goes through, all others are told so."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from marketplace import Story

RATING = {"evaluation_create": {"overall_rating": 5}}
ROUNDS = [
    pytest.param(5, id="few"),
    pytest.param(60, id="many", marks=pytest.mark.slow),
]

ACTIONS = {
    "accept": lambda told: told.anna.make_client().put(f"{told.offers}{told.ben.username}/"),
    "accept other": lambda told: told.anna.make_client().put(f"{told.offers}{told.cleo.username}/"),
    "cancel": lambda told: told.ben.make_client().put(told.offers),
    "rescind": lambda told: told.ben.make_client().delete(told.offers),
    "offer": lambda told: told.dora.make_client().post(told.offers),
    "rate": lambda told: told.anna.make_client().post(told.evaluation, json=RATING),
    "change": lambda told: told.anna.make_client().patch(
        told.url, json={"cleaning_update": {"price": 99}}
    ),
    "delete job": lambda told: told.anna.make_client().delete(told.url),
    "delete owner": lambda told: told.anna.make_client().delete("/api/users/me/"),
    "delete cleaner": lambda told: told.ben.make_client().delete("/api/users/me/"),
    "delete other": lambda told: told.cleo.make_client().delete("/api/users/me/"),
}

# What is wrong in the tables: nothing, whatever happened.
WRONG = """
    SELECT 'taken twice' FROM offers WHERE status IN ('accepted', 'completed')
    GROUP BY cleaning_id HAVING count(*) > 1
    UNION ALL
    SELECT 'status' FROM cleanings WHERE status <> coalesce((
        SELECT CASE offers.status WHEN 'accepted' THEN 'taken' ELSE 'completed' END FROM offers
        WHERE cleaning_id = cleanings.id AND offers.status IN ('accepted', 'completed')
    ), 'open')
    UNION ALL
    SELECT 'rejected for nobody' FROM offers JOIN cleanings ON cleanings.id = cleaning_id
    WHERE offers.status = 'rejected' AND cleanings.status = 'open'
    UNION ALL
    SELECT 'pending beside a taker' FROM offers JOIN cleanings ON cleanings.id = cleaning_id
    WHERE offers.status = 'pending' AND cleanings.status <> 'open'
    UNION ALL
    SELECT 'completed without a rating' FROM cleanings
    LEFT JOIN evaluations ON evaluations.cleaning_id = cleanings.id
    WHERE (cleanings.status = 'completed') <> (evaluations.id IS NOT NULL)
"""
DEADLOCKS = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"


@pytest.fixture
def race(make_user, make_cleaning, sql, monkeypatch):
    """Have actions begin at once, in a new story each round; gives each round's statuses."""
    collided = []
    monkeypatch.setattr("phresh.db.random.uniform", lambda *_: collided.append(1) or 0)

    def run(state, actions, rounds):
        for number in range(rounds):
            names = iter([f"{name}-{number}" for name in ("anna", "ben", "cleo", "dora")])
            told = Story(lambda _, names=names: make_user(next(names)), make_cleaning, "open")
            told.evaluation = f"/api/users/{told.ben.username}/evaluations/{told.job}/"
            prepare(told, state)
            start = Barrier(len(actions))

            def act(name, told=told, start=start):
                start.wait()
                return ACTIONS[name](told).status_code

            with ThreadPoolExecutor(len(actions)) as pool:
                statuses = list(pool.map(act, actions))
            assert set(statuses) <= {200, 201, 204, 401, 403, 404, 409}, statuses
            assert sql(WRONG) == []
            yield list(zip(actions, statuses, strict=True))
        assert collided == [], "something had to be tried again"
        assert sql(DEADLOCKS) == [(0,)]

    return run


def prepare(told, state):
    for bidder in (told.ben, told.cleo):
        assert bidder.client.post(told.offers).status_code == 201
    if state == "taken":
        path = f"{told.offers}{told.ben.username}/"
        assert told.anna.client.put(path).status_code == 200


def went_through(results, *names):
    return [name for name, status in results if name in names and status < 300]


@pytest.mark.parametrize("rounds", ROUNDS)
def test_8_accepts_at_once_accept_one(race, rounds):
    for results in race("pending", ["accept", "accept other"] * 4, rounds):
        assert sorted(status for _, status in results) == [200] + [409] * 7


@pytest.mark.parametrize("rounds", ROUNDS)
@pytest.mark.parametrize(
    "actions",
    [
        ["accept", "rescind"],
        ["accept", "delete job"],
        ["accept", "delete owner"],
        ["accept", "delete cleaner"],
        ["accept", "accept other", "delete other"],
        ["accept", "offer", "change"],
        ["rescind", "delete job", "offer"],
        ["delete owner", "delete cleaner", "delete other"],
        ["offer", "delete owner"],
    ],
    ids="-".join,
)
def test_with_a_pending_offer_anything_may_meet(race, actions, rounds):
    for results in race("pending", actions, rounds):
        assert results[0][1] != 409 or went_through(results[1:], *actions)


@pytest.mark.parametrize("rounds", ROUNDS)
@pytest.mark.parametrize(
    "actions",
    [
        ["cancel", "accept other"],
        ["cancel", "rate"],
        ["cancel", "delete cleaner"],
        ["cancel", "delete owner"],
        ["cancel", "delete job"],
        ["rate", "delete cleaner"],
        ["rate", "delete owner"],
        ["rate", "change"],
        ["delete owner", "delete cleaner"],
        ["delete cleaner", "accept other"],
    ],
    ids="-".join,
)
def test_with_an_accepted_offer_anything_may_meet(race, actions, rounds):
    for results in race("taken", actions, rounds):
        assert went_through(results, *actions)


@pytest.mark.parametrize("rounds", ROUNDS)
def test_a_job_is_rated_once_by_two_at_once(race, rounds):
    for results in race("taken", ["rate"] * 4, rounds):
        assert sorted(status for _, status in results) == [201, 409, 409, 409]


@pytest.mark.parametrize("rounds", ROUNDS)
def test_a_user_offers_once_by_several_at_once(race, rounds):
    for results in race("pending", ["offer"] * 4, rounds):
        assert sorted(status for _, status in results) == [201, 409, 409, 409]


@pytest.mark.parametrize("rounds", ROUNDS)
def test_an_offer_is_cancelled_or_its_job_completed(race, rounds):
    for results in race("taken", ["cancel", "rate", "cancel", "rate"], rounds):
        assert len(went_through(results, "cancel", "rate")) == 1
