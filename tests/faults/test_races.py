"""Concurrent requests with real commits end as if they had run one after the other."""

from concurrent.futures import ThreadPoolExecutor
from itertools import count, permutations
from threading import Barrier

import pytest

from tests.tools.marketplace import Story

ME = "/api/users/me/"
RATING = {"evaluation_create": {"overall_rating": 5}}
CHANGE = {"cleaning_update": {"price": 99}}
ROUNDS = [
    pytest.param(5, id="few"),
    pytest.param(30, id="many", marks=pytest.mark.slow),
]

# The user who sends the request of an action, and the request.
ACTIONS = {
    "accept": ("anna", lambda story, client: client.put(f"{story.offers}{story.ben.username}/")),
    "accept other": (
        "anna",
        lambda story, client: client.put(f"{story.offers}{story.cleo.username}/"),
    ),
    "cancel": ("ben", lambda story, client: client.put(story.offers)),
    "rescind": ("ben", lambda story, client: client.delete(story.offers)),
    "offer": ("dora", lambda story, client: client.post(story.offers)),
    "offer again": ("ben", lambda story, client: client.post(story.offers)),
    "rate": ("anna", lambda story, client: client.post(story.evaluation, json=RATING)),
    "change": ("anna", lambda story, client: client.patch(story.url, json=CHANGE)),
    "delete job": ("anna", lambda story, client: client.delete(story.url)),
    "delete owner": ("anna", lambda story, client: client.delete(ME)),
    "delete cleaner": ("ben", lambda story, client: client.delete(ME)),
    "delete other": ("cleo", lambda story, client: client.delete(ME)),
    "delete bidder": ("dora", lambda story, client: client.delete(ME)),
}

# Rows that contradict each other: there must be none.
VIOLATIONS = """
    SELECT 'two accepted offers' FROM offers WHERE status IN ('accepted', 'completed')
    GROUP BY cleaning_id HAVING count(*) > 1
    UNION ALL
    SELECT 'status differs from the offers' FROM cleanings WHERE status <> coalesce((
        SELECT CASE offers.status WHEN 'accepted' THEN 'taken' ELSE 'completed' END FROM offers
        WHERE cleaning_id = cleanings.id AND offers.status IN ('accepted', 'completed')
    ), 'open')
    UNION ALL
    SELECT 'rejected while open' FROM offers JOIN cleanings ON cleanings.id = cleaning_id
    WHERE offers.status = 'rejected' AND cleanings.status = 'open'
    UNION ALL
    SELECT 'pending while not open' FROM offers JOIN cleanings ON cleanings.id = cleaning_id
    WHERE offers.status = 'pending' AND cleanings.status <> 'open'
    UNION ALL
    SELECT 'completed or evaluated, not both' FROM cleanings
    LEFT JOIN evaluations ON evaluations.cleaning_id = cleanings.id
    WHERE (cleanings.status = 'completed') <> (evaluations.id IS NOT NULL)
"""
DEADLOCKS = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"


@pytest.fixture
def run_concurrently(sql, monkeypatch):
    """Call functions concurrently and return the status codes of their responses."""
    retries = []
    monkeypatch.setattr(
        "phresh.database.transactions.random.uniform", lambda *_: retries.append(1) or 0
    )

    def run(functions):
        start = Barrier(len(functions))

        def call(function):
            start.wait()
            return function().status_code

        with ThreadPoolExecutor(len(functions)) as pool:
            statuses = list(pool.map(call, functions))
        assert set(statuses) <= {200, 201, 204, 401, 403, 404, 409}, statuses
        assert sql(VIOLATIONS) == []
        assert retries == [], "a transaction was retried"
        return statuses

    yield run
    assert sql(DEADLOCKS) == [(0,)]


@pytest.fixture
def make_story(make_user, make_cleaning):
    """Make another story, in which Ben and Cleo have made offers, and Ben may be accepted."""
    numbers = count()

    def make(state):
        number = next(numbers)
        story = Story(lambda name: make_user(f"{name}-{number}"), make_cleaning, "open")
        story.evaluation = f"/api/users/{story.ben.username}/evaluations/{story.job}/"
        for bidder in (story.ben, story.cleo):
            assert bidder.client.post(story.offers).status_code == 201
        if state == "taken":
            assert act(story, "accept").status_code == 200
        return story

    return make


def act(story, action):
    role, send = ACTIONS[action]
    return send(story, story.who(role).make_client())


@pytest.fixture
def outcome(sql):
    """Return the outcome of a story: the status of each action, the job and the offers."""

    def read(story, actions, statuses):
        # A deleted account gets 401, or 404 if its token was checked before the deletion.
        responses = sorted(zip(actions, (404 if s == 401 else s for s in statuses), strict=True))
        job = sql("SELECT status, price FROM cleanings WHERE id = :id", id=story.job)
        offers = sql(
            "SELECT split_part(username, '-', 1), status FROM offers "
            "LEFT JOIN users ON users.id = user_id WHERE cleaning_id = :id ORDER BY 1",
            id=story.job,
        )
        return str((responses, job, offers))

    return read


@pytest.mark.parametrize("rounds", ROUNDS)
@pytest.mark.parametrize(
    ("state", "actions"),
    [
        ("pending", ["accept", "rescind"]),
        ("pending", ["accept", "delete job"]),
        ("pending", ["accept", "delete owner"]),
        ("pending", ["accept", "delete cleaner"]),
        ("pending", ["accept", "accept other", "delete other"]),
        ("pending", ["accept", "offer", "change"]),
        ("pending", ["accept", "cancel", "rate"]),
        ("pending", ["rescind", "delete job", "offer"]),
        ("pending", ["rescind", "offer again", "accept"]),
        ("pending", ["delete owner", "delete cleaner", "delete other"]),
        ("pending", ["offer", "delete owner"]),
        ("pending", ["offer", "delete bidder"]),
        ("pending", ["offer again", "delete cleaner"]),
        ("taken", ["cancel", "accept other"]),
        ("taken", ["cancel", "rate"]),
        ("taken", ["cancel", "delete cleaner"]),
        ("taken", ["cancel", "delete owner"]),
        ("taken", ["cancel", "delete job"]),
        ("taken", ["cancel", "change"]),
        ("taken", ["rate", "delete cleaner"]),
        ("taken", ["rate", "delete owner"]),
        ("taken", ["rate", "delete other"]),
        ("taken", ["rate", "change"]),
        ("taken", ["rate", "cancel", "delete owner", "delete cleaner"]),
        ("taken", ["delete owner", "delete cleaner"]),
        ("taken", ["delete cleaner", "accept other"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_concurrent_actions_end_like_some_serial_order(
    run_concurrently, make_story, outcome, state, actions, rounds
):
    possible = set()
    for order in permutations(actions):
        story = make_story(state)
        possible.add(outcome(story, order, [act(story, each).status_code for each in order]))
    for _ in range(rounds):
        story = make_story(state)
        statuses = run_concurrently(
            [lambda story=story, each=each: act(story, each) for each in actions]
        )
        assert outcome(story, actions, statuses) in possible


@pytest.mark.parametrize("rounds", ROUNDS)
@pytest.mark.parametrize(
    ("state", "actions", "expected"),
    [
        ("pending", ["accept", "accept other"] * 4, [200] + [409] * 7),
        ("pending", ["accept"] * 4, [200] + [409] * 3),
        ("pending", ["rescind"] * 4, [204] + [404] * 3),
        ("pending", ["offer"] * 4, [201] + [409] * 3),
        ("taken", ["cancel"] * 4, [200] + [409] * 3),
        ("taken", ["rate"] * 4, [201] + [409] * 3),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value)),
)
def test_exactly_one_of_several_concurrent_actions_succeeds(
    run_concurrently, make_story, state, actions, expected, rounds
):
    for _ in range(rounds):
        story = make_story(state)
        statuses = run_concurrently(
            [lambda story=story, each=each: act(story, each) for each in actions]
        )
        assert sorted(statuses) == expected


@pytest.mark.parametrize("rounds", ROUNDS)
def test_concurrent_cancellation_and_evaluation_do_not_both_succeed(
    run_concurrently, make_story, rounds
):
    actions = ["cancel", "rate", "cancel", "rate"]
    for _ in range(rounds):
        story = make_story("taken")
        statuses = run_concurrently(
            [lambda story=story, each=each: act(story, each) for each in actions]
        )
        assert sorted(statuses) in ([200, 409, 409, 409], [201, 409, 409, 409])


@pytest.fixture
def make_mutual_cleaners(make_user, make_cleaning, sql):
    """Make three users, each with a job for each of the others: offers with the given status."""
    offer = "INSERT INTO offers (cleaning_id, user_id, status) VALUES (:job, :cleaner, :status)"
    rating = (
        "INSERT INTO evaluations (cleaning_id, cleaner_id, owner_id, overall_rating) "
        "VALUES (:job, :cleaner, :owner, 5)"
    )

    def make(status):
        users = [make_user() for _ in range(3)]
        for cleaner, owner in permutations(users, 2):
            job = make_cleaning(owner_id=owner.id)
            sql(offer, job=job, cleaner=cleaner.id, status=status)
            if status == "completed":
                sql(rating, job=job, cleaner=cleaner.id, owner=owner.id)
        return users

    return make


@pytest.mark.parametrize("rounds", ROUNDS)
@pytest.mark.parametrize("status", ["pending", "accepted", "completed"])
def test_users_who_work_for_each_other_can_delete_their_accounts_concurrently(
    run_concurrently, make_mutual_cleaners, sql, status, rounds
):
    for _ in range(rounds):
        users = make_mutual_cleaners(status)
        deletions = [lambda each=each: each.make_client().delete(ME) for each in users]
        assert run_concurrently(deletions) == [204, 204, 204]
    remaining = 6 * rounds if status == "completed" else 0
    for table in ("cleanings", "offers", "evaluations"):
        assert sql(f"SELECT count(*) FROM {table}") == [(remaining,)]
    assert sql("SELECT count(*) FROM users") == [(0,)]


@pytest.mark.parametrize("rounds", ROUNDS)
def test_users_can_be_rated_while_they_delete_their_accounts(
    run_concurrently, make_mutual_cleaners, sql, rounds
):
    jobs = (
        "SELECT cleanings.id, cleaner.username FROM cleanings "
        "JOIN offers ON cleaning_id = cleanings.id JOIN users cleaner ON cleaner.id = user_id "
        "WHERE owner_id = :owner"
    )
    for _ in range(rounds):
        users = make_mutual_cleaners("accepted")
        urls = [
            (owner, f"/api/users/{username}/evaluations/{job}/")
            for owner in users
            for job, username in sql(jobs, owner=owner.id)
        ]
        rating = [
            lambda owner=owner, url=url: owner.make_client().post(url, json=RATING)
            for owner, url in urls
        ]
        deletions = [lambda each=each: each.make_client().delete(ME) for each in users[:2]]
        statuses = run_concurrently([*rating, *deletions])
        assert statuses[6:] == [204, 204]
        assert set(statuses[:6]) <= {201, 401, 404}
