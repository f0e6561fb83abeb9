"""Who may do what: nobody, another user and the owner, on every verb of every route."""

import json

import pytest

from phresh.database.base import db
from tests.tools.users import PASSWORD

USERS = "/api/users/"
ME = f"{USERS}me/"
LIST = "/api/cleanings/"
ONE = f"{LIST}<id:cleaning_id>/"
OFFERS = f"{ONE}offers/"
PROFILES = "/api/profiles/"
EVALUATIONS = f"{USERS}<username:username>/evaluations/"
NEW = {"json": {"new_cleaning": {"name": "Job", "price": 20}}}
CHANGE = {"json": {"cleaning_update": {"name": "Taken over"}}}
ME_CHANGE = {"json": {"user_update": {"username": "renamed"}}}
REGISTRATION = {"json": {"new_user": {"email": "carl@phresh.io", "username": "carl"}}}
REGISTRATION["json"]["new_user"]["password"] = PASSWORD
PROFILE = {"json": {"profile_update": {"bio": "New"}}}
RATING = {"json": {"evaluation_create": {"overall_rating": 5}}}
FORM = {"data": {"username": "anna@phresh.example", "password": PASSWORD}}

NOBODY, OTHER, OWNER = WHO = ("nobody", "other", "owner")
EVERYONE, ACCOUNTS, OWNERS = (200, 200, 200), (401, 200, 200), (401, 403, 200)
# A cleaning of the owner's, on which cleo has made an offer.
TABLE = {
    ("GET", "/healthz"): (EVERYONE, {}),
    ("GET", "/readyz"): (EVERYONE, {}),
    ("GET", "/openapi.json"): (EVERYONE, {}),
    ("GET", "/docs/"): (EVERYONE, {}),
    ("GET", "/docs/swagger-ui/<path:filename>"): (EVERYONE, {}),
    ("GET", "/static/<path:filename>"): (EVERYONE, {}),
    ("POST", USERS): ((201, 201, 201), REGISTRATION),
    ("POST", f"{USERS}login/token/"): (EVERYONE, FORM),
    ("POST", f"{USERS}logout/"): ((401, 204, 204), {}),
    ("GET", ME): (ACCOUNTS, {}),
    ("PATCH", ME): (ACCOUNTS, ME_CHANGE),
    ("DELETE", ME): ((401, 204, 204), {}),
    ("GET", LIST): (EVERYONE, {}),
    ("POST", LIST): ((201, 201, 201), NEW),
    ("GET", ONE): (EVERYONE, {}),
    ("PATCH", ONE): (OWNERS, CHANGE),
    ("PUT", ONE): (OWNERS, CHANGE),
    ("DELETE", ONE): ((401, 403, 204), {}),
    ("GET", f"{PROFILES}<username:username>/"): (EVERYONE, {}),
    ("PATCH", f"{PROFILES}me/"): (ACCOUNTS, PROFILE),
    ("PUT", f"{PROFILES}me/"): (ACCOUNTS, PROFILE),
    ("GET", OFFERS): (OWNERS, {}),
    ("POST", OFFERS): ((401, 201, 409), {}),
    ("PUT", OFFERS): ((401, 404, 404), {}),
    ("DELETE", OFFERS): ((401, 404, 404), {}),
    ("GET", f"{OFFERS}<username:username>/"): (OWNERS, {}),
    ("PUT", f"{OFFERS}<username:username>/"): (OWNERS, {}),
    ("GET", f"{ME}offers/"): (ACCOUNTS, {}),
    ("GET", EVALUATIONS): (EVERYONE, {}),
    ("GET", f"{EVALUATIONS}stats/"): (EVERYONE, {}),
    ("GET", f"{EVALUATIONS}<id:cleaning_id>/"): ((404, 404, 404), {}),
    ("POST", f"{EVALUATIONS}<id:cleaning_id>/"): ((401, 403, 409), RATING),
    ("GET", "/api/feed/cleanings/"): (EVERYONE, {}),
}
TABLE |= {("HEAD", rule): row for (method, rule), row in TABLE.items() if method == "GET"}
CASES = [
    (who, method, rule, statuses[number], options)
    for (method, rule), (statuses, options) in TABLE.items()
    for number, who in enumerate(WHO)
]


@pytest.fixture
def clients(client, anna, ben):
    return {NOBODY: client, OTHER: ben.client, OWNER: anna.client}


@pytest.fixture
def tables(sql):
    """What is in the tables that someone could change."""

    def read():
        return {
            name: sql(f"SELECT t::text FROM {name} t ORDER BY 1")
            for name in db.metadata.tables
            if name != "attempts"
        }

    return read


def test_no_route_is_without_a_line_in_the_table(app):
    routes = {
        (method, rule.rule)
        for rule in app.url_map.iter_rules()
        for method in rule.methods - {"OPTIONS"}
    }
    assert routes == set(TABLE)


@pytest.mark.parametrize(("who", "method", "rule", "status", "options"), CASES)
def test_each_verb_of_each_route_is_for_whom_it_is(
    clients, anna, make_user, make_cleaning, tables, who, method, rule, status, options
):
    cleaning_id = make_cleaning(owner_id=anna.id, name="Hers")
    cleo = make_user("cleo")
    assert cleo.client.post(f"{LIST}{cleaning_id}/offers/").status_code == 201
    path = rule.replace("<id:cleaning_id>", str(cleaning_id))
    path = path.replace("<username:username>", "cleo")
    path = path.replace("<path:filename>", "swagger-ui.css" if "swagger" in rule else "docs.js")
    before = tables()
    response = clients[who].open(path, method=method, buffered=True, **options)
    assert response.status_code == status, response.data
    if status >= 400 or method in ("GET", "HEAD"):
        assert tables() == before
    elif rule.startswith("/api/"):
        assert tables() != before


OF_ONE = [(method, options) for (method, rule), (_, options) in TABLE.items() if rule == ONE]
WRITING = [(method, options) for method, options in OF_ONE if method not in ("GET", "HEAD")]


@pytest.mark.parametrize(("method", "options"), WRITING)
def test_nobody_changes_what_a_guest_posted(clients, tables, method, options):
    path = clients[NOBODY].post(LIST, **NEW).headers["Location"]
    before = tables()
    for who, status in ((NOBODY, 401), (OTHER, 403), (OWNER, 403)):
        assert clients[who].open(path, method=method, **options).status_code == status
    assert tables() == before


@pytest.mark.parametrize(("method", "options"), WRITING)
def test_the_cleanings_of_a_deleted_account_are_not_found(clients, method, options):
    path = clients[OWNER].post(LIST, **NEW).headers["Location"]
    assert clients[OWNER].delete(ME).status_code == 204
    assert clients[OTHER].open(path, method=method, **options).status_code == 404


@pytest.mark.parametrize(("method", "options"), WRITING)
@pytest.mark.parametrize("tag", ["*", '"other"', "own"])
def test_no_if_match_lets_another_in(clients, tables, method, options, tag):
    path = clients[OWNER].post(LIST, **NEW).headers["Location"]
    before = tables()
    tag = clients[OTHER].get(path).headers["ETag"] if tag == "own" else tag
    response = clients[OTHER].open(path, method=method, headers={"If-Match": tag}, **options)
    assert response.status_code == 403
    assert tables() == before


@pytest.mark.parametrize("who", [OTHER, OWNER])
def test_who_posts_is_the_owner_and_changes_it(clients, anna, ben, who):
    someone = {OTHER: ben, OWNER: anna}[who]
    response = clients[who].post(LIST, **NEW)
    assert response.json["owner"] == {"username": someone.username}
    path = response.headers["Location"]
    assert clients[who].patch(path, **CHANGE).json["owner"] == {"username": someone.username}
    assert clients[who].put(path, **CHANGE).status_code == 200
    assert clients[who].delete(path).status_code == 204


@pytest.mark.parametrize("name", ["owner", "owner_id", "user_id", "id", "created_at"])
@pytest.mark.parametrize("value", [None, 1, "ben", {"username": "ben"}])
def test_a_cleaning_is_given_to_nobody(clients, tables, name, value):
    path = clients[OWNER].post(LIST, **NEW).headers["Location"]
    before = tables()
    for method, where, key in (("POST", LIST, "new_cleaning"), ("PATCH", path, "cleaning_update")):
        body = {key: {"name": "Job", "price": 20, name: value}}
        response = clients[OWNER].open(where, method=method, json=body)
        assert response.status_code == 422
        assert [error["pointer"] for error in response.json["errors"]] == [f"/{key}/{name}"]
    assert tables() == before


def test_everyone_sees_and_changes_only_themselves(clients, anna, ben):
    for who, someone in ((OWNER, anna), (OTHER, ben)):
        assert clients[who].get(ME).json["email"] == someone.email
    assert clients[OTHER].patch(ME, **ME_CHANGE).status_code == 200
    assert clients[OWNER].get(ME).json["username"] == "anna"
    assert clients[OTHER].delete(ME).status_code == 204
    assert clients[OTHER].get(ME).status_code == 401
    assert clients[OWNER].get(ME).status_code == 200


def test_an_account_is_at_no_path_but_one_s_own(clients, anna, ben):
    for path in (f"{USERS}{anna.id}/", f"{USERS}anna/", f"{USERS}{anna.email}/"):
        for method in ("GET", "PATCH", "DELETE"):
            assert clients[OTHER].open(path, method=method).status_code == 404
    assert clients[OTHER].get(USERS).status_code == 405


def test_a_key_of_another_gives_no_answer_of_theirs(clients):
    headers = {"Idempotency-Key": "shared"}
    answers = [clients[who].post(LIST, headers=headers, **NEW).json for who in WHO]
    assert len({answer["id"] for answer in answers}) == 3
    owners = [answer["owner"] for answer in answers]
    assert owners == [None, {"username": "ben"}, {"username": "anna"}]


def test_no_email_is_shown_to_others(clients, anna, make_cleaning):
    path = clients[OWNER].post(LIST, **NEW).headers["Location"]
    answers = [
        *(clients[who].get(where) for who in WHO for where in (path, LIST, f"{LIST}?owner=anna")),
        clients[OWNER].patch(path, **CHANGE),
        clients[OWNER].post(LIST, **NEW),
    ]
    for answer in answers:
        assert "@" not in answer.text
        jobs = answer.json if isinstance(answer.json, list) else [answer.json]
        assert [job["owner"] for job in jobs] == [{"username": "anna"}]


@pytest.mark.parametrize("name", ["anna", "ANNA"])
def test_the_list_of_one_person_has_theirs_and_no_other(clients, anna, ben, make_cleaning, name):
    hers = [make_cleaning(owner_id=anna.id) for _ in range(2)]
    make_cleaning(owner_id=ben.id)
    make_cleaning()
    jobs = clients[NOBODY].get(LIST, query_string={"owner": name}).json
    assert [job["id"] for job in jobs] == hers[::-1]


def test_the_list_of_nobody_is_empty(clients, make_cleaning):
    make_cleaning()
    assert clients[NOBODY].get(f"{LIST}?owner=carl").json == []
    for name in ("", "a", "a b", "null"):
        response = clients[NOBODY].get(LIST, query_string={"owner": name})
        assert (response.status_code, response.json) == (200, []) or response.status_code == 422


def test_a_disabled_account_s_cleanings_stay_and_can_be_changed_by_nobody(clients, anna, sql):
    path = clients[OWNER].post(LIST, **NEW).headers["Location"]
    sql("UPDATE users SET is_active = false WHERE id = :id", id=anna.id)
    assert clients[OWNER].patch(path, **CHANGE).status_code == 401
    assert clients[OTHER].patch(path, **CHANGE).status_code == 403
    assert clients[NOBODY].get(path).json["owner"] == {"username": "anna"}


def test_the_document_says_where_a_token_is_needed(clients):
    paths = json.loads(clients[NOBODY].get("/openapi.json").data)["paths"]
    for (method, rule), (statuses, _) in TABLE.items():
        path = rule.replace("<id:cleaning_id>", "{cleaning_id}")
        if path not in paths or method == "HEAD":
            continue
        operation = paths[path][method.lower()]
        needed = {} not in operation.get("security", [{}])
        assert needed == (statuses[0] == 401), (method, rule)
        assert statuses[1] != 403 or "403" in operation["responses"], (method, rule)
