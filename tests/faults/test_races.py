"""What happens at the same time, with real commits, ends as if one had gone after the other."""

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

# Who does it, and what.
ACTIONS = {
    "accept": ("anna", lambda told, client: client.put(f"{told.offers}{told.ben.username}/")),
    "accept other": (
        "anna",
        lambda told, client: client.put(f"{told.offers}{told.cleo.username}/"),
    ),
    "cancel": ("ben", lambda told, client: client.put(told.offers)),
    "rescind": ("ben", lambda told, client: client.delete(told.offers)),
    "offer": ("dora", lambda told, client: client.post(told.offers)),
    "offer again": ("ben", lambda told, client: client.post(told.offers)),
    "rate": ("anna", lambda told, client: client.post(told.evaluation, json=RATING)),
    "change": ("anna", lambda told, client: client.patch(told.url, json=CHANGE)),
    "delete job": ("anna", lambda told, client: client.delete(told.url)),
    "delete owner": ("anna", lambda told, client: client.delete(ME)),
    "delete cleaner": ("ben", lambda told, client: client.delete(ME)),
    "delete other": ("cleo", lambda told, client: client.delete(ME)),
    "delete bidder": ("dora", lambda told, client: client.delete(ME)),
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
def at_once(sql, monkeypatch):
    """Call functions at once; gives the statuses of their answers."""
    collided = []
    monkeypatch.setattr(
        "phresh.database.transactions.random.uniform", lambda *_: collided.append(1) or 0
    )

    def run(functions):
        start = Barrier(len(functions))

        def begin(function):
            start.wait()
            return function().status_code

        with ThreadPoolExecutor(len(functions)) as pool:
            statuses = list(pool.map(begin, functions))
        assert set(statuses) <= {200, 201, 204, 401, 403, 404, 409}, statuses
        assert sql(WRONG) == []
        assert collided == [], "something had to be tried again"
        return statuses

    yield run
    assert sql(DEADLOCKS) == [(0,)]


@pytest.fixture
def tell(make_user, make_cleaning):
    """Make another story, in which Ben and Cleo have made offers."""
    numbers = count()

    def make(state):
        number = next(numbers)
        told = Story(lambda name: make_user(f"{name}-{number}"), make_cleaning, "open")
        told.evaluation = f"/api/users/{told.ben.username}/evaluations/{told.job}/"
        for bidder in (told.ben, told.cleo):
            assert bidder.client.post(told.offers).status_code == 201
        if state == "taken":
            assert act(told, "accept").status_code == 200
        return told

    return make


def act(told, action):
    who, do = ACTIONS[action]
    return do(told, told.who(who).make_client())


@pytest.fixture
def ending(sql):
    """How a story ends: the answers to its actions, then its job and each offer."""

    def read(told, actions, statuses):
        # Whose token just ended is gone by another name.
        answers = sorted(zip(actions, (404 if s == 401 else s for s in statuses), strict=True))
        job = sql("SELECT status, price FROM cleanings WHERE id = :id", id=told.job)
        offers = sql(
            "SELECT split_part(username, '-', 1), status FROM offers "
            "LEFT JOIN users ON users.id = user_id WHERE cleaning_id = :id ORDER BY 1",
            id=told.job,
        )
        return str((answers, job, offers))

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
def test_it_ends_as_if_one_went_after_the_other(at_once, tell, ending, state, actions, rounds):
    possible = set()
    for order in permutations(actions):
        told = tell(state)
        possible.add(ending(told, order, [act(told, each).status_code for each in order]))
    for _ in range(rounds):
        told = tell(state)
        statuses = at_once([lambda told=told, each=each: act(told, each) for each in actions])
        assert ending(told, actions, statuses) in possible


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
def test_of_several_at_once_one_goes_through(at_once, tell, state, actions, expected, rounds):
    for _ in range(rounds):
        told = tell(state)
        statuses = at_once([lambda told=told, each=each: act(told, each) for each in actions])
        assert sorted(statuses) == expected


@pytest.mark.parametrize("rounds", ROUNDS)
def test_an_offer_is_cancelled_or_its_job_completed(at_once, tell, rounds):
    actions = ["cancel", "rate", "cancel", "rate"]
    for _ in range(rounds):
        told = tell("taken")
        statuses = at_once([lambda told=told, each=each: act(told, each) for each in actions])
        assert sorted(statuses) in ([200, 409, 409, 409], [201, 409, 409, 409])


@pytest.fixture
def make_ring(make_user, make_cleaning, sql):
    """Make three users, each with a job for each of the others, whose offers stand like that."""
    offer = "INSERT INTO offers (cleaning_id, user_id, status) VALUES (:job, :cleaner, :status)"
    rating = (
        "INSERT INTO evaluations (cleaning_id, cleaner_id, owner_id, overall_rating) "
        "VALUES (:job, :cleaner, :owner, 5)"
    )

    def make(status):
        people = [make_user() for _ in range(3)]
        for cleaner, owner in permutations(people, 2):
            job = make_cleaning(owner_id=owner.id)
            sql(offer, job=job, cleaner=cleaner.id, status=status)
            if status == "completed":
                sql(rating, job=job, cleaner=cleaner.id, owner=owner.id)
        return people

    return make


@pytest.mark.parametrize("rounds", ROUNDS)
@pytest.mark.parametrize("status", ["pending", "accepted", "completed"])
def test_who_work_for_each_other_may_all_go_at_once(at_once, make_ring, sql, status, rounds):
    for _ in range(rounds):
        people = make_ring(status)
        going = [lambda each=each: each.make_client().delete(ME) for each in people]
        assert at_once(going) == [204, 204, 204]
    left = 6 * rounds if status == "completed" else 0
    for table in ("cleanings", "offers", "evaluations"):
        assert sql(f"SELECT count(*) FROM {table}") == [(left,)]
    assert sql("SELECT count(*) FROM users") == [(0,)]


@pytest.mark.parametrize("rounds", ROUNDS)
def test_who_work_for_each_other_may_be_rated_as_they_go(at_once, make_ring, sql, rounds):
    jobs = (
        "SELECT cleanings.id, cleaner.username FROM cleanings "
        "JOIN offers ON cleaning_id = cleanings.id JOIN users cleaner ON cleaner.id = user_id "
        "WHERE owner_id = :owner"
    )
    for _ in range(rounds):
        people = make_ring("accepted")
        urls = [
            (owner, f"/api/users/{username}/evaluations/{job}/")
            for owner in people
            for job, username in sql(jobs, owner=owner.id)
        ]
        rating = [
            lambda owner=owner, url=url: owner.make_client().post(url, json=RATING)
            for owner, url in urls
        ]
        going = [lambda each=each: each.make_client().delete(ME) for each in people[:2]]
        statuses = at_once([*rating, *going])
        assert statuses[6:] == [204, 204]
        assert set(statuses[:6]) <= {201, 401, 404}
