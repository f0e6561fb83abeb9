"""Offers over HTTP: each transition, each refusal, and what the database judges by itself."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy.exc import IntegrityError

from phresh.database.transactions import UnitOfWork
from tests.tools.helpers import next_page
from tests.tools.marketplace import STATES, Story, standing

MY_OFFERS = "/api/users/me/offers/"


@pytest.fixture
def story(make_user, make_cleaning):
    return lambda state: Story(make_user, make_cleaning, state)


PENDING = {"ben": "pending", "cleo": "pending"}
TAKEN = {"ben": "accepted", "cleo": "rejected"}
CANCELLED = {"ben": "cancelled", "cleo": "pending"}
COMPLETED = {"ben": "completed", "cleo": "rejected"}
BEFORE = {
    "open": ("open", {}),
    "pending": ("open", PENDING),
    "taken": ("taken", TAKEN),
    "cancelled": ("open", CANCELLED),
    "completed": ("completed", COMPLETED),
}
GONE = (None, {})

# Who does what, and for each state of STATES the status of the answer.
ALL_GONE = (204, 204, 409, 204, 409)
TABLE = {
    ("dora", "make"): (201, 201, 409, 201, 409),
    ("ben", "make"): (201, 409, 409, 409, 409),
    ("anna", "make"): (409, 409, 409, 409, 409),
    ("anna", "list"): (200, 200, 200, 200, 200),
    ("ben", "list"): (403, 403, 403, 403, 403),
    ("dora", "list"): (403, 403, 403, 403, 403),
    ("anna", "see"): (404, 200, 200, 200, 200),
    ("ben", "see"): (404, 200, 200, 200, 200),
    ("cleo", "see"): (403, 403, 403, 403, 403),
    ("dora", "see"): (403, 403, 403, 403, 403),
    ("anna", "accept"): (404, 200, 409, 409, 409),
    ("anna", "accept other"): (404, 200, 409, 200, 409),
    ("ben", "accept"): (403, 403, 403, 403, 403),
    ("cleo", "accept"): (403, 403, 403, 403, 403),
    ("cleo", "accept other"): (403, 403, 403, 403, 403),
    ("dora", "accept"): (403, 403, 403, 403, 403),
    ("anna", "cancel"): (404, 404, 404, 404, 404),
    ("ben", "cancel"): (404, 409, 200, 409, 409),
    ("cleo", "cancel"): (404, 409, 409, 409, 409),
    ("dora", "cancel"): (404, 404, 404, 404, 404),
    ("anna", "rescind"): (404, 404, 404, 404, 404),
    ("ben", "rescind"): (404, 204, 409, 409, 409),
    ("cleo", "rescind"): (404, 204, 409, 204, 409),
    ("dora", "rescind"): (404, 404, 404, 404, 404),
    ("anna", "rate"): (404, 409, 201, 409, 409),
    ("ben", "rate"): (403, 403, 403, 403, 403),
    ("dora", "rate"): (403, 403, 403, 403, 403),
    ("anna", "change price"): (200, 200, 409, 200, 409),
    ("anna", "change type"): (200, 200, 409, 200, 409),
    ("anna", "keep price"): (200, 200, 200, 200, 200),
    ("anna", "change name"): (200, 200, 200, 200, 200),
    ("anna", "change nothing"): (200, 200, 200, 200, 200),
    ("anna", "delete"): ALL_GONE,
    ("ben", "delete"): (403, 403, 403, 403, 403),
    ("ben", "change price"): (403, 403, 403, 403, 403),
    ("dora", "change nothing"): (403, 403, 403, 403, 403),
    ("dora", "change name"): (403, 403, 403, 403, 403),
    ("dora", "delete"): (403, 403, 403, 403, 403),
}
# How the job and its offers stand after what was allowed.
AFTER = {
    ("make", "dora"): lambda job, offers: (job, {**offers, "dora": "pending"}),
    ("make", "ben"): lambda job, offers: (job, {**offers, "ben": "pending"}),
    ("accept", "anna"): lambda job, offers: ("taken", TAKEN),
    ("accept other", "anna"): lambda job, offers: (
        "taken",
        {"ben": "rejected" if offers["ben"] == "pending" else offers["ben"], "cleo": "accepted"},
    ),
    ("cancel", "ben"): lambda job, offers: ("open", CANCELLED),
    ("rescind", "ben"): lambda job, offers: (job, {"cleo": offers["cleo"]}),
    ("rescind", "cleo"): lambda job, offers: (job, {"ben": offers["ben"]}),
    ("rate", "anna"): lambda job, offers: ("completed", COMPLETED),
    ("delete", "anna"): lambda job, offers: GONE,
}
CASES = [
    (state, who, action, status)
    for (who, action), statuses in TABLE.items()
    for state, status in zip(STATES, statuses, strict=True)
]


def act(story, who, action):
    client = story.who(who).client

    def change(**changes):
        return client.patch(story.url, json={"cleaning_update": changes})

    rating = {"evaluation_create": {"overall_rating": 5}}
    return {
        "make": lambda: client.post(story.offers),
        "list": lambda: client.get(story.offers),
        "see": lambda: client.get(f"{story.offers}ben/"),
        "accept": lambda: client.put(f"{story.offers}ben/"),
        "accept other": lambda: client.put(f"{story.offers}cleo/"),
        "cancel": lambda: client.put(story.offers),
        "rescind": lambda: client.delete(story.offers),
        "rate": lambda: client.post(story.evaluation, json=rating),
        "change price": lambda: change(price=30),
        "change type": lambda: change(cleaning_type="full_clean"),
        "keep price": lambda: change(price="20.00", cleaning_type="dust_up"),
        "change nothing": change,
        "change name": lambda: change(name="New"),
        "delete": lambda: client.delete(story.url),
    }[action]()


@pytest.mark.parametrize(("state", "who", "action", "status"), CASES)
def test_each_may_do_what_the_state_allows(story, sql, state, who, action, status):
    told = story(state)
    assert standing(sql) == BEFORE[state]
    answer = act(told, who, action)
    assert answer.status_code == status, answer.data
    after = AFTER.get((action, who), lambda *before: before) if status < 300 else None
    assert standing(sql) == (after(*BEFORE[state]) if after else BEFORE[state])
    if status >= 400:
        assert answer.json["detail"].endswith((".", "!"))


NEED_A_TOKEN = sorted({action for _, action in TABLE})


@pytest.mark.parametrize("action", NEED_A_TOKEN)
@pytest.mark.parametrize("state", STATES)
def test_nobody_does_anything_without_a_token(story, client, sql, state, action):
    told = story(state)
    told.anna.client = client
    assert act(told, "anna", action).status_code == 401
    assert standing(sql) == BEFORE[state]


def test_nobody_offers_on_a_guest_s_cleaning(anna, make_cleaning):
    answer = anna.client.post(f"/api/cleanings/{make_cleaning()}/offers/")
    assert answer.status_code == 409
    assert "guest" in answer.json["detail"]


@pytest.mark.parametrize(
    ("state", "who", "action", "why"),
    [
        ("open", "anna", "make", "You can't make an offer on your own cleaning."),
        ("taken", "dora", "make", "The cleaning is already taken."),
        ("completed", "dora", "make", "The cleaning is already completed."),
        ("pending", "ben", "make", "You have already made an offer on this cleaning."),
        ("cancelled", "ben", "make", "You have already made an offer on this cleaning."),
        ("open", "anna", "accept", "This user has not made an offer on this cleaning."),
        ("taken", "anna", "accept other", "The cleaning is already taken."),
        ("completed", "anna", "accept", "The cleaning is already completed."),
        (
            *("cancelled", "anna", "accept"),
            "Only a pending offer can be accepted; this one is cancelled.",
        ),
        ("open", "ben", "cancel", "You have not made an offer on this cleaning."),
        (
            *("pending", "ben", "cancel"),
            "Only an accepted offer can be cancelled; yours is pending.",
        ),
        (
            *("taken", "cleo", "rescind"),
            "Only a pending offer can be rescinded; yours is rejected.",
        ),
        ("taken", "anna", "delete", "The cleaning is taken; it can no longer be deleted."),
        ("completed", "anna", "change price", "The cleaning is completed; its type and price can no longer change."),
        ("pending", "cleo", "list", "Only the owner can see all offers on a cleaning."),
    ],
)
def test_a_refusal_says_why(story, state, who, action, why):
    assert act(story(state), who, action).json["detail"] == why


def test_a_completed_job_is_no_guest_s_when_its_owner_is_gone(story):
    told = story("completed")
    assert told.anna.client.delete("/api/users/me/").status_code == 204
    answer = act(told, "dora", "make")
    assert answer.status_code == 409
    assert answer.json["detail"] == "The cleaning is already completed."


def test_others_are_not_told_whether_there_is_an_offer(story):
    told = story("pending")
    answers = [
        told.dora.client.get(f"{told.offers}{name}/") for name in ("ben", "anna", "nobody-at-all")
    ]
    for answer in answers:
        assert answer.status_code == 403
        assert answer.json["detail"] == answers[0].json["detail"]
    assert told.dora.client.get(f"{told.offers}dora/").status_code == 404
    assert told.anna.client.get(f"{told.offers}nobody-at-all/").status_code == 404


@pytest.mark.parametrize("method", ["get", "put"])
def test_an_offer_on_a_missing_cleaning_is_404(anna, method):
    answer = getattr(anna.client, method)("/api/cleanings/2147483647/offers/anna/")
    assert answer.status_code == 404
    assert answer.json["detail"] == "No cleaning has this id."


@pytest.mark.parametrize("action", ["accept", "cancel", "rescind", "rate"])
def test_other_jobs_and_their_offers_stay_as_they_are(story, make_cleaning, sql, action):
    told = story("taken" if action in ("cancel", "rate") else "pending")
    jobs = [make_cleaning(owner_id=told.anna.id) for _ in range(2)]
    statuses = (("accepted", "rejected", "cancelled"), ("pending", "pending", "cancelled"))
    for job, each in zip(jobs, statuses, strict=True):
        for bidder, status in zip((told.ben, told.cleo, told.dora), each, strict=True):
            insert = "INSERT INTO offers (cleaning_id, user_id, status) VALUES (:job, :user, :is)"
            sql(insert, job=job, user=bidder.id, **{"is": status})
    others = (
        "SELECT offers::text, cleanings::text FROM offers "
        "JOIN cleanings ON cleanings.id = cleaning_id WHERE cleanings.id <> :job ORDER BY 1"
    )
    before = sql(others, job=told.job)
    who = "ben" if action in ("cancel", "rescind") else "anna"
    assert act(told, who, action).status_code < 300
    assert sql(others, job=told.job) == before


def test_what_changes_an_offer_is_seen_by_its_time(story, sql):
    told = story("pending")
    for who, action in (("anna", "accept"), ("ben", "cancel")):
        sql("UPDATE offers SET created_at = 'epoch', updated_at = 'epoch'")
        assert act(told, who, action).status_code == 200
        assert sql("SELECT count(*) FROM offers WHERE updated_at > 'epoch'") == [(2,)]


@pytest.mark.parametrize(
    ("state", "who", "action", "changes"),
    [
        ("pending", "dora", "make", False),
        ("pending", "ben", "rescind", False),
        ("pending", "anna", "accept", True),
        ("taken", "ben", "cancel", True),
        ("taken", "anna", "rate", True),
    ],
)
def test_a_job_has_changed_when_its_status_has(story, sql, state, who, action, changes):
    told = story(state)
    sql("UPDATE cleanings SET created_at = 'epoch', updated_at = 'epoch'")
    assert act(told, who, action).status_code < 300
    assert sql("SELECT updated_at > 'epoch' FROM cleanings") == [(changes,)]


def test_a_name_in_any_case_is_the_same_name(story):
    told = story("pending")
    answer = told.anna.client.put(f"{told.offers}BEN/")
    assert (answer.status_code, answer.json["user"]) == (200, {"username": "ben"})


@pytest.mark.parametrize("options", [{}, {"content_type": "text/plain"}, {"json": {}}])
@pytest.mark.parametrize(
    ("state", "who", "method", "path"),
    [
        ("pending", "anna", "put", "offers/ben/"),
        ("taken", "ben", "put", "offers/"),
        ("pending", "ben", "delete", "offers/"),
    ],
)
def test_what_takes_no_body_looks_at_none(story, state, who, method, path, options):
    told = story(state)
    send = getattr(told.who(who).client, method)
    assert send(f"{told.url}{path}", **options).status_code in (200, 204)


def test_who_rescinded_can_offer_again(story):
    told = story("pending")
    assert act(told, "ben", "rescind").status_code == 204
    assert act(told, "ben", "make").status_code == 201


def test_an_offer_is_answered_in_full(story):
    told = story("open")
    new = {"new_offer": {"message": "Friday?"}}
    answer = told.ben.client.post(told.offers, json=new)
    assert answer.headers["Location"] == f"{told.offers}ben/"
    assert answer.json == answer.json | {
        "cleaning_id": told.job,
        "user": {"username": "ben"},
        "message": "Friday?",
        "status": "pending",
    }
    assert told.anna.client.get(answer.headers["Location"]).json == answer.json
    assert told.ben.client.get(f"{told.offers}BEN/").json == answer.json


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"headers": {"Content-Type": "application/json"}},
        {"json": {}},
        {"json": {"new_offer": {}}},
        {"json": {"new_offer": {"message": None}}},
    ],
)
def test_no_message_is_needed(story, options):
    told = story("open")
    answer = told.ben.client.post(told.offers, **options)
    assert (answer.status_code, answer.json["message"]) == (201, None)


@pytest.mark.parametrize("message", ["", "x" * 2_000, "Ünï 🧹\n"])
def test_a_message_is_as_it_was_sent(story, message):
    told = story("open")
    new = {"new_offer": {"message": message}}
    assert told.ben.client.post(told.offers, json=new).json["message"] == message
    assert told.anna.client.get(told.offers).json[0]["message"] == message


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"json": {"new_offer": None}}, 422),
        ({"json": {"new_offer": {}, "offer": {}}}, 422),
        ({"json": {"new_offer": {"message": "\ud800"}}}, 422),
        ({"json": {"new_offer": {"message": "x" * 2_001}}}, 422),
        ({"json": {"new_offer": {"message": "\0"}}}, 422),
        ({"json": {"new_offer": {"message": 1}}}, 422),
        ({"json": {"new_offer": {"price": 1}}}, 422),
        ({"json": {"message": "x"}}, 422),
        ({"json": []}, 422),
        ({"data": "{", "content_type": "application/json"}, 400),
        ({"data": "{}", "content_type": "text/plain"}, 415),
        ({"data": "x" * 70_000, "content_type": "application/json"}, 413),
    ],
)
def test_what_is_sent_with_it_has_to_be_right(story, sql, options, status):
    told = story("open")
    assert told.ben.client.post(told.offers, **options).status_code == status
    assert standing(sql) == ("open", {})


def test_a_body_that_is_cut_off_is_not_none(story, sql):
    told = story("open")
    environ = {"CONTENT_LENGTH": "30", "wsgi.input_terminated": True}
    headers = {"Content-Type": "application/json"}
    answer = told.ben.client.post(told.offers, environ_overrides=environ, headers=headers)
    assert answer.status_code == 400
    assert standing(sql) == ("open", {})


@pytest.mark.parametrize("method", ["get", "post", "put", "delete"])
def test_a_missing_cleaning_is_404(anna, method):
    answer = getattr(anna.client, method)("/api/cleanings/2147483647/offers/")
    assert answer.status_code == 404
    assert answer.json["detail"] == "No cleaning has this id."


@pytest.fixture
def many(anna, make_user, make_cleaning, sql):
    """Offers of as many users on a job of Anna's, and as many of Ben's on jobs of hers."""

    def make(count):
        job = make_cleaning(owner_id=anna.id)
        ben = make_user("ben")
        for _ in range(count):
            make_cleaning(owner_id=anna.id)
        sql(
            "INSERT INTO offers (cleaning_id, user_id, status) SELECT id, :ben, "
            "CASE id % 2 WHEN 0 THEN 'accepted' ELSE 'pending' END FROM cleanings WHERE id > :job",
            ben=ben.id,
            job=job,
        )
        for _ in range(count):
            bidder = make_user()
            insert = "INSERT INTO offers (cleaning_id, user_id) VALUES (:job, :user)"
            sql(insert, job=job, user=bidder.id)
        return f"/api/cleanings/{job}/offers/", ben

    return make


def test_offers_are_in_pages_newest_first(anna, many):
    offers, ben = many(5)
    for client, url in ((anna.client, offers), (ben.client, MY_OFFERS)):
        rows, page = [], f"{url}?limit=2"
        while page:
            answer = client.get(page)
            assert answer.status_code == 200
            assert len(answer.json) <= 2
            rows += answer.json
            page = next_page(answer)
        assert len(rows) == 5
        assert rows == sorted(rows, key=lambda row: -row["id"]) == client.get(url).json


def test_one_s_own_are_filtered_by_status(many):
    _, ben = many(5)
    by_status = {
        status: ben.client.get(f"{MY_OFFERS}?status={status}").json
        for status in ("pending", "accepted", "completed")
    }
    assert {row["status"] for row in by_status["pending"]} == {"pending"}
    assert {row["status"] for row in by_status["accepted"]} == {"accepted"}
    assert [len(rows) for rows in by_status.values()] in ([2, 3, 0], [3, 2, 0])
    assert ben.client.get(f"{MY_OFFERS}?status=open").status_code == 422


def test_the_link_keeps_the_filter(many):
    _, ben = many(6)
    for status in ("pending", "accepted"):
        rows, page = [], f"{MY_OFFERS}?status={status}&limit=1"
        while page:
            answer = ben.client.get(page)
            rows += answer.json
            page = next_page(answer)
        assert [row["status"] for row in rows] == [status] * 3


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("limit", "0"),
        ("limit", "101"),
        ("limit", "x"),
        ("after", "x"),
        ("after", "cHJpY2UgMS4wMCAx"),
        ("sort", "id"),
    ],
)
def test_a_parameter_that_no_list_has_is_refused(anna, many, parameter, value):
    offers, ben = many(1)
    for client, url in ((anna.client, offers), (ben.client, MY_OFFERS)):
        answer = client.get(url, query_string={parameter: value})
        assert answer.status_code == 422
        assert [error["parameter"] for error in answer.json["errors"]] == [parameter]


@pytest.mark.parametrize("others", [1, 100])
def test_a_transition_takes_as_many_statements_for_one_as_for_100(
    story, make_user, sql, statements, others
):
    told = story("pending")
    for _ in range(others - 1):
        insert = "INSERT INTO offers (cleaning_id, user_id) VALUES (:job, :user)"
        sql(insert, job=told.job, user=make_user().id)
    taken = {}
    for who, action in (
        *(("dora", "make"), ("dora", "see"), ("dora", "rescind"), ("anna", "accept")),
        *(("ben", "cancel"), ("anna", "accept other"), ("anna", "see")),
    ):
        statements.clear()
        answer = act(told, who, action)
        assert answer.status_code < 300 or (who, action) == ("dora", "see")
        taken[who, action] = len(statements)
    assert taken == {
        ("dora", "make"): 4,
        ("dora", "see"): 2,
        ("dora", "rescind"): 4,
        ("anna", "accept"): 5,
        ("ben", "cancel"): 5,
        ("anna", "accept other"): 5,
        ("anna", "see"): 3,
    }


@pytest.mark.parametrize(
    ("who", "action", "environ", "expected"),
    [
        ("anna", "change price", {}, 2),
        ("anna", "change price", {"HTTP_IF_MATCH": "*"}, 3),
        ("dora", "change price", {}, 3),
        ("anna", "delete", {}, 2),
        ("dora", "delete", {}, 3),
    ],
)
def test_a_write_takes_the_token_and_what_it_writes(
    story, statements, who, action, environ, expected
):
    told = story("pending")
    told.who(who).client.environ_base.update(environ)
    statements.clear()
    act(told, who, action)
    assert len(statements) == expected


@pytest.mark.parametrize(("action", "status"), [("change price", 200), ("delete", 204)])
def test_what_is_opened_this_moment_can_be_written(story, sql, monkeypatch, action, status):
    told = story("taken")
    run = UnitOfWork.run

    def cancelled_after(session, query):
        rows = run(session, query)
        if query.statement.text.startswith(("UPDATE cleanings", "DELETE FROM cleanings")):
            monkeypatch.undo()
            with ThreadPoolExecutor() as another:
                assert another.submit(act, told, "ben", "cancel").result().status_code == 200
        return rows

    monkeypatch.setattr(UnitOfWork, "run", cancelled_after)
    assert act(told, "anna", action).status_code == status
    assert standing(sql) == (GONE if action == "delete" else BEFORE["cancelled"])
    assert sql("SELECT price FROM cleanings") == ([] if action == "delete" else [(30,)])


@pytest.mark.parametrize("count", [1, 100])
def test_a_list_takes_as_many_statements_for_one_as_for_100(anna, many, statements, count):
    offers, ben = many(count)
    for client, url, expected in ((anna.client, offers, 2), (ben.client, MY_OFFERS, 2)):
        statements.clear()
        assert len(client.get(f"{url}?limit=100").json) == count
        assert len(statements) == expected


@pytest.mark.parametrize(
    ("statement", "constraint"),
    [
        ("UPDATE offers SET status = 'accepted'", "uq_offers_taking"),
        ("UPDATE offers SET status = 'sold'", "ck_offers_status"),
        ("UPDATE offers SET message = repeat('x', 2001)", "ck_offers_message_length"),
        ("UPDATE offers SET user_id = NULL", "ck_offers_user_id"),
        (
            "INSERT INTO offers (cleaning_id, user_id) SELECT cleaning_id, user_id FROM offers",
            "uq_offers_cleaning_id_user_id",
        ),
        ("UPDATE cleanings SET owner_id = NULL", "ck_cleanings_owner_id"),
        ("DELETE FROM users WHERE username = 'anna'", "ck_cleanings_owner_id"),
        ("DELETE FROM users WHERE username = 'cleo'", "ck_offers_user_id"),
        ("UPDATE cleanings SET id = id + 1", "fk_offers_cleaning_id"),
    ],
)
def test_the_database_judges(story, sql, statement, constraint):
    story("taken")
    with pytest.raises(IntegrityError, match=f'"{constraint}"'):
        sql(statement)
    assert standing(sql) == BEFORE["taken"]


@pytest.mark.parametrize(
    ("state", "statement", "status"),
    [
        (
            "pending",
            "UPDATE offers SET status = 'accepted' WHERE id IN (SELECT min(id) FROM offers)",
            "taken",
        ),
        (
            "open",
            "INSERT INTO offers (cleaning_id, user_id, status) SELECT cleanings.id, users.id, "
            "'accepted' FROM cleanings, users WHERE username = 'dora'",
            "taken",
        ),
        ("taken", "DELETE FROM offers WHERE status = 'accepted'", "open"),
        ("completed", "UPDATE offers SET status = 'accepted' WHERE status = 'completed'", "taken"),
        ("taken", "UPDATE offers SET status = 'completed' WHERE status = 'accepted'", "completed"),
        ("taken", "UPDATE offers SET status = 'rejected'", "open"),
        ("completed", "DELETE FROM offers", "open"),
        ("taken", "UPDATE cleanings SET status = 'open'", "taken"),
        ("pending", "UPDATE cleanings SET status = 'completed'", "open"),
    ],
)
def test_the_status_of_a_job_follows_its_offers_whoever_changes_them(
    story, sql, state, statement, status
):
    story(state)
    sql(statement)
    assert sql("SELECT status FROM cleanings") == [(status,)]


def test_a_job_begins_open_and_an_offer_that_moves_takes_its_status_along(story, sql):
    told = story("taken")
    insert = "INSERT INTO cleanings (name, price, status, owner_id) VALUES ('B', 1, 'taken', :anna)"
    sql(insert, anna=told.anna.id)
    assert sql("SELECT status FROM cleanings ORDER BY id") == [("taken",), ("open",)]
    sql("UPDATE offers SET cleaning_id = (SELECT max(id) FROM cleanings) WHERE status = 'accepted'")
    assert sql("SELECT status FROM cleanings ORDER BY id") == [("open",), ("taken",)]
