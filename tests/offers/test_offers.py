"""Offers over HTTP: each transition, each rejection and the constraints of the database."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy.exc import IntegrityError

from phresh.database.transactions import UnitOfWork
from tests.tools.helpers import next_page
from tests.tools.marketplace import STATES, Story, standing

MY_OFFERS = "/api/users/me/offers/"


@pytest.fixture
def make_story(make_user, make_cleaning):
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
DELETED = (None, {})

DELETE_CODES = (204, 204, 409, 204, 409)
# The status code of the response for each state of STATES, by caller and action.
STATUS_CODES = {
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
    ("anna", "delete"): DELETE_CODES,
    ("ben", "delete"): (403, 403, 403, 403, 403),
    ("ben", "change price"): (403, 403, 403, 403, 403),
    ("dora", "change nothing"): (403, 403, 403, 403, 403),
    ("dora", "change name"): (403, 403, 403, 403, 403),
    ("dora", "delete"): (403, 403, 403, 403, 403),
}
# The statuses of the cleaning and its offers after a successful action; others change nothing.
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
    ("delete", "anna"): lambda job, offers: DELETED,
}
CASES = [
    (state, caller, action, status)
    for (caller, action), statuses in STATUS_CODES.items()
    for state, status in zip(STATES, statuses, strict=True)
]


def perform(story, caller, action):
    client = story.who(caller).client

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


@pytest.mark.parametrize(("state", "caller", "action", "status"), CASES)
def test_each_action_returns_the_expected_status_in_each_state(
    make_story, sql, state, caller, action, status
):
    story = make_story(state)
    assert standing(sql) == BEFORE[state]
    response = perform(story, caller, action)
    assert response.status_code == status, response.data
    after = AFTER.get((action, caller), lambda *before: before) if status < 300 else None
    assert standing(sql) == (after(*BEFORE[state]) if after else BEFORE[state])
    if status >= 400:
        assert response.json["detail"].endswith((".", "!"))


ACTIONS = sorted({action for _, action in STATUS_CODES})


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("state", STATES)
def test_every_action_without_a_token_is_401(make_story, client, sql, state, action):
    story = make_story(state)
    story.anna.client = client
    assert perform(story, "anna", action).status_code == 401
    assert standing(sql) == BEFORE[state]


def test_an_offer_on_a_cleaning_of_a_guest_is_409(anna, make_cleaning):
    response = anna.client.post(f"/api/cleanings/{make_cleaning()}/offers/")
    assert response.status_code == 409
    assert "Guest" in response.json["detail"]


@pytest.mark.parametrize(
    ("state", "caller", "action", "detail"),
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
        (
            "completed",
            "anna",
            "change price",
            "The cleaning is completed; its type and price can no longer change.",
        ),
        ("pending", "cleo", "list", "Only the owner can see all offers on a cleaning."),
    ],
)
def test_a_rejected_action_returns_the_reason(make_story, state, caller, action, detail):
    assert perform(make_story(state), caller, action).json["detail"] == detail


def test_an_offer_on_a_completed_cleaning_of_a_deleted_owner_is_409(make_story):
    story = make_story("completed")
    assert story.anna.client.delete("/api/users/me/").status_code == 204
    response = perform(story, "dora", "make")
    assert response.status_code == 409
    assert response.json["detail"] == "The cleaning is already completed."


def test_other_users_cannot_find_out_whether_an_offer_exists(make_story):
    story = make_story("pending")
    responses = [
        story.dora.client.get(f"{story.offers}{name}/") for name in ("ben", "anna", "nobody-at-all")
    ]
    for response in responses:
        assert response.status_code == 403
        assert response.json["detail"] == responses[0].json["detail"]
    assert story.dora.client.get(f"{story.offers}dora/").status_code == 404
    assert story.anna.client.get(f"{story.offers}nobody-at-all/").status_code == 404


@pytest.mark.parametrize("method", ["get", "put"])
def test_an_offer_on_a_missing_cleaning_is_404(anna, method):
    response = getattr(anna.client, method)("/api/cleanings/2147483647/offers/anna/")
    assert response.status_code == 404
    assert response.json["detail"] == "No cleaning has this id."


@pytest.mark.parametrize("action", ["accept", "cancel", "rescind", "rate"])
def test_an_action_does_not_change_other_cleanings_or_their_offers(
    make_story, make_cleaning, sql, action
):
    story = make_story("taken" if action in ("cancel", "rate") else "pending")
    jobs = [make_cleaning(owner_id=story.anna.id) for _ in range(2)]
    statuses_of_jobs = (
        ("accepted", "rejected", "cancelled"),
        ("pending", "pending", "cancelled"),
    )
    for job, statuses in zip(jobs, statuses_of_jobs, strict=True):
        for bidder, status in zip((story.ben, story.cleo, story.dora), statuses, strict=True):
            insert = "INSERT INTO offers (cleaning_id, user_id, status) VALUES (:job, :user, :is)"
            sql(insert, job=job, user=bidder.id, **{"is": status})
    others = (
        "SELECT offers::text, cleanings::text FROM offers "
        "JOIN cleanings ON cleanings.id = cleaning_id WHERE cleanings.id <> :job ORDER BY 1"
    )
    before = sql(others, job=story.job)
    caller = "ben" if action in ("cancel", "rescind") else "anna"
    assert perform(story, caller, action).status_code < 300
    assert sql(others, job=story.job) == before


def test_accepting_and_cancelling_set_updated_at_of_the_changed_offers(make_story, sql):
    story = make_story("pending")
    for caller, action in (("anna", "accept"), ("ben", "cancel")):
        sql("UPDATE offers SET created_at = 'epoch', updated_at = 'epoch'")
        assert perform(story, caller, action).status_code == 200
        assert sql("SELECT count(*) FROM offers WHERE updated_at > 'epoch'") == [(2,)]


@pytest.mark.parametrize(
    ("state", "caller", "action", "changes"),
    [
        ("pending", "dora", "make", False),
        ("pending", "ben", "rescind", False),
        ("pending", "anna", "accept", True),
        ("taken", "ben", "cancel", True),
        ("taken", "anna", "rate", True),
    ],
)
def test_updated_at_of_a_cleaning_changes_only_with_its_status(
    make_story, sql, state, caller, action, changes
):
    story = make_story(state)
    sql("UPDATE cleanings SET created_at = 'epoch', updated_at = 'epoch'")
    assert perform(story, caller, action).status_code < 300
    assert sql("SELECT updated_at > 'epoch' FROM cleanings") == [(changes,)]


def test_the_username_in_an_offer_url_ignores_case(make_story):
    story = make_story("pending")
    response = story.anna.client.put(f"{story.offers}BEN/")
    assert (response.status_code, response.json["user"]) == (200, {"username": "ben"})


@pytest.mark.parametrize("options", [{}, {"content_type": "text/plain"}, {"json": {}}])
@pytest.mark.parametrize(
    ("state", "caller", "method", "path"),
    [
        ("pending", "anna", "put", "offers/ben/"),
        ("taken", "ben", "put", "offers/"),
        ("pending", "ben", "delete", "offers/"),
    ],
)
def test_an_operation_without_a_body_ignores_body_and_content_type(
    make_story, state, caller, method, path, options
):
    story = make_story(state)
    send = getattr(story.who(caller).client, method)
    assert send(f"{story.url}{path}", **options).status_code in (200, 204)


def test_a_bidder_can_offer_again_after_rescinding(make_story):
    story = make_story("pending")
    assert perform(story, "ben", "rescind").status_code == 204
    assert perform(story, "ben", "make").status_code == 201


def test_a_new_offer_is_returned_in_full(make_story):
    story = make_story("open")
    new = {"new_offer": {"message": "Friday?"}}
    response = story.ben.client.post(story.offers, json=new)
    assert response.headers["Location"] == f"{story.offers}ben/"
    assert response.json == response.json | {
        "cleaning_id": story.job,
        "user": {"username": "ben"},
        "message": "Friday?",
        "status": "pending",
    }
    assert story.anna.client.get(response.headers["Location"]).json == response.json
    assert story.ben.client.get(f"{story.offers}BEN/").json == response.json


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
def test_the_message_of_an_offer_is_optional(make_story, options):
    story = make_story("open")
    response = story.ben.client.post(story.offers, **options)
    assert (response.status_code, response.json["message"]) == (201, None)


@pytest.mark.parametrize("message", ["", "x" * 2_000, "Ünï 🧹\n"])
def test_the_message_of_an_offer_is_stored_as_sent(make_story, message):
    story = make_story("open")
    new = {"new_offer": {"message": message}}
    assert story.ben.client.post(story.offers, json=new).json["message"] == message
    assert story.anna.client.get(story.offers).json[0]["message"] == message


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
def test_an_invalid_offer_body_is_rejected(make_story, sql, options, status):
    story = make_story("open")
    assert story.ben.client.post(story.offers, **options).status_code == status
    assert standing(sql) == ("open", {})


def test_a_truncated_offer_body_is_400_and_not_treated_as_omitted(make_story, sql):
    story = make_story("open")
    environ = {"CONTENT_LENGTH": "30", "wsgi.input_terminated": True}
    headers = {"Content-Type": "application/json"}
    response = story.ben.client.post(story.offers, environ_overrides=environ, headers=headers)
    assert response.status_code == 400
    assert standing(sql) == ("open", {})


@pytest.mark.parametrize("method", ["get", "post", "put", "delete"])
def test_the_offers_of_a_missing_cleaning_are_404(anna, method):
    response = getattr(anna.client, method)("/api/cleanings/2147483647/offers/")
    assert response.status_code == 404
    assert response.json["detail"] == "No cleaning has this id."


@pytest.fixture
def make_many_offers(anna, make_user, make_cleaning, sql):
    """Make offers of many users on one cleaning of Anna, and as many by Ben on others of hers."""

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


def test_offers_are_in_pages_newest_first(anna, make_many_offers):
    offers, ben = make_many_offers(5)
    for client, url in ((anna.client, offers), (ben.client, MY_OFFERS)):
        rows, page = [], f"{url}?limit=2"
        while page:
            response = client.get(page)
            assert response.status_code == 200
            assert len(response.json) <= 2
            rows += response.json
            page = next_page(response)
        assert len(rows) == 5
        assert rows == sorted(rows, key=lambda row: -row["id"]) == client.get(url).json


def test_offers_of_the_current_user_are_filtered_by_status(make_many_offers):
    _, ben = make_many_offers(5)
    by_status = {
        status: ben.client.get(f"{MY_OFFERS}?status={status}").json
        for status in ("pending", "accepted", "completed")
    }
    assert {row["status"] for row in by_status["pending"]} == {"pending"}
    assert {row["status"] for row in by_status["accepted"]} == {"accepted"}
    assert [len(rows) for rows in by_status.values()] in ([2, 3, 0], [3, 2, 0])
    assert ben.client.get(f"{MY_OFFERS}?status=open").status_code == 422


def test_the_next_link_keeps_the_status_filter(make_many_offers):
    _, ben = make_many_offers(6)
    for status in ("pending", "accepted"):
        rows, page = [], f"{MY_OFFERS}?status={status}&limit=1"
        while page:
            response = ben.client.get(page)
            rows += response.json
            page = next_page(response)
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
def test_an_invalid_query_parameter_is_rejected_by_name(anna, make_many_offers, parameter, value):
    offers, ben = make_many_offers(1)
    for client, url in ((anna.client, offers), (ben.client, MY_OFFERS)):
        response = client.get(url, query_string={parameter: value})
        assert response.status_code == 422
        assert [error["parameter"] for error in response.json["errors"]] == [parameter]


@pytest.mark.parametrize("count", [1, 100])
def test_an_action_sends_as_many_sql_statements_for_100_offers_as_for_one(
    make_story, make_user, sql, statements, count
):
    story = make_story("pending")
    for _ in range(count - 1):
        insert = "INSERT INTO offers (cleaning_id, user_id) VALUES (:job, :user)"
        sql(insert, job=story.job, user=make_user().id)
    counts = {}
    for caller, action in (
        *(("dora", "make"), ("dora", "see"), ("dora", "rescind"), ("anna", "accept")),
        *(("ben", "cancel"), ("anna", "accept other"), ("anna", "see")),
    ):
        statements.clear()
        response = perform(story, caller, action)
        assert response.status_code < 300 or (caller, action) == ("dora", "see")
        counts[caller, action] = len(statements)
    assert counts == {
        ("dora", "make"): 4,
        ("dora", "see"): 3,
        ("dora", "rescind"): 4,
        ("anna", "accept"): 5,
        ("ben", "cancel"): 5,
        ("anna", "accept other"): 5,
        ("anna", "see"): 3,
    }


@pytest.mark.parametrize(
    ("caller", "action", "environ", "expected"),
    [
        ("anna", "change price", {}, 2),
        # With the token of the GET inside.
        ("anna", "change price", {"HTTP_IF_MATCH": "*"}, 4),
        ("dora", "change price", {}, 3),
        ("anna", "delete", {}, 2),
        ("dora", "delete", {}, 3),
    ],
)
def test_a_write_of_a_cleaning_sends_the_expected_number_of_sql_statements(
    make_story, statements, caller, action, environ, expected
):
    story = make_story("pending")
    story.who(caller).client.environ_base.update(environ)
    statements.clear()
    perform(story, caller, action)
    assert len(statements) == expected


@pytest.mark.parametrize(("action", "status"), [("change price", 200), ("delete", 204)])
def test_a_write_succeeds_when_a_concurrent_cancellation_opens_the_cleaning(
    make_story, sql, monkeypatch, action, status
):
    story = make_story("taken")
    run = UnitOfWork.run

    def run_then_cancel(unit, query):
        rows = run(unit, query)
        if query.statement.text.startswith(("UPDATE cleanings", "DELETE FROM cleanings")):
            monkeypatch.undo()
            with ThreadPoolExecutor() as executor:
                assert executor.submit(perform, story, "ben", "cancel").result().status_code == 200
        return rows

    monkeypatch.setattr(UnitOfWork, "run", run_then_cancel)
    assert perform(story, "anna", action).status_code == status
    assert standing(sql) == (DELETED if action == "delete" else BEFORE["cancelled"])
    assert sql("SELECT price FROM cleanings") == ([] if action == "delete" else [(30,)])


@pytest.mark.parametrize("count", [1, 100])
def test_a_list_sends_two_sql_statements_for_one_offer_and_for_100(
    anna, make_many_offers, statements, count
):
    offers, ben = make_many_offers(count)
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
def test_a_database_constraint_rejects_an_inconsistent_change(
    make_story, sql, statement, constraint
):
    make_story("taken")
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
def test_the_database_derives_the_status_of_a_cleaning_from_its_offers(
    make_story, sql, state, statement, status
):
    make_story(state)
    sql(statement)
    assert sql("SELECT status FROM cleanings") == [(status,)]


def test_a_new_cleaning_is_open_and_a_moved_offer_updates_both_cleanings(make_story, sql):
    story = make_story("taken")
    insert = "INSERT INTO cleanings (name, price, status, owner_id) VALUES ('B', 1, 'taken', :anna)"
    sql(insert, anna=story.anna.id)
    assert sql("SELECT status FROM cleanings ORDER BY id") == [("taken",), ("open",)]
    sql("UPDATE offers SET cleaning_id = (SELECT max(id) FROM cleanings) WHERE status = 'accepted'")
    assert sql("SELECT status FROM cleanings ORDER BY id") == [("open",), ("taken",)]
