"""Who may do what: nobody, another user and the owner, on every method of every route."""

import pytest
from flask.views import MethodView

from phresh.accounts.tokens import login_not_required, login_required
from phresh.web.blueprint import Blueprint
from tests.tools.contract import body_of, contract_of, document_example
from tests.tools.features import (
    NOBODY,
    OTHER,
    OWNER,
    WHO,
    features,
    is_page,
    path_of,
    routes,
)

USERS = "/api/users/"
ME = f"{USERS}me/"
LIST = "/api/cleanings/"
NEW = {"json": {"new_cleaning": {"name": "Job", "price": 20}}}
CHANGE = {"json": {"cleaning_update": {"name": "Taken over"}}}
ME_CHANGE = {"json": {"user_update": {"username": "renamed"}}}
WRONG_TOKEN = {"Authorization": "Bearer wrong"}

CASES = [
    pytest.param(feature, route, who, status, id=f"{route}-{who}-{status}")
    for feature, route in routes()
    for who, status in zip(WHO, route.statuses, strict=True)
]
# The first route of each method of each rule.
FIRST = {str(route): (feature, route) for feature, route in reversed([*routes()])}


def test_every_route_has_a_line_in_the_table_of_its_feature(app):
    tables = {(route.method, route.rule) for _, route in routes()}
    found = {
        (method, rule.rule)
        for rule in app.url_map.iter_rules()
        for method in rule.methods - {"OPTIONS"}
    }
    missing = sorted(found - tables)
    assert not missing, f"Say who may use these in tests/<feature>/routes.py: {missing}"
    unknown = sorted(tables - found)
    assert not unknown, f"A tests/<feature>/routes.py has routes that the app does not: {unknown}"


def test_some_caller_succeeds_on_every_route(app):
    """Otherwise, a route that rejects everyone would pass."""
    succeeding = {(route.method, route.rule) for _, route in routes() if min(route.statuses) < 300}
    failing = sorted({(route.method, route.rule) for _, route in routes()} - succeeding)
    assert not failing, f"Add a Route with which these succeed for some caller: {failing}"


@pytest.mark.parametrize(("feature", "route", "who", "status"), CASES)
def test_each_route_responds_to_each_caller_as_its_table_says(
    app, clients, world, tables, feature, route, who, status
):
    path = path_of(feature, route, world)
    before = tables()
    response = clients[who].open(path, method=route.method, buffered=True, **body_of(app, route))
    assert response.status_code == status, response.data
    if status >= 400 or route.method in ("GET", "HEAD"):
        assert tables() == before
    elif route.rule.startswith("/api/"):
        assert tables() != before


def announced(view):
    """Return what a view function says of who may use it: tokens, or that it is public."""
    security = getattr(view, "_apidoc", {}).get("manual_doc", {}).get("security")
    said = {"a token": security is not None, "public": getattr(view, "is_public", False)}
    return [name for name, is_said in said.items() if is_said]


def views_of(app):
    """Yield the name and the function of every view of the API, and of each method of a class."""
    for endpoint, view in app.view_functions.items():
        view_class = getattr(view, "view_class", None)
        if is_page(endpoint):
            continue
        if view_class is None:
            yield endpoint, view
        else:
            for method in view_class.methods:
                yield f"{endpoint}.{method.lower()}", getattr(view_class, method.lower())


def silent_views(app):
    return {name for name, view in views_of(app) if len(announced(view)) != 1}


def test_every_view_says_who_may_use_it(app):
    assert not silent_views(app), (
        "Put one of login_required, login_optional, login_to_post, login_not_required "
        f"(phresh/accounts/tokens.py) below the route of {sorted(silent_views(app))}."
    )


def test_a_view_that_does_not_say_who_may_use_it_is_found(make_app):
    blp = Blueprint("made_up", __name__, url_prefix="/api/made-up")

    @blp.get("/silent/")
    @blp.response(204)
    def silent(): ...

    @blp.get("/both/")
    @login_not_required
    @login_required
    @blp.response(204)
    def both(): ...

    @blp.get("/required/")
    @login_required
    @blp.response(204)
    def required(): ...

    @blp.route("/things/")
    class Things(MethodView):
        @login_not_required
        @blp.response(204)
        def get(self): ...

        @blp.response(204)
        def post(self): ...

    app = make_app()
    app.register_blueprint(blp)
    assert silent_views(app) == {"made_up.silent", "made_up.both", "made_up.Things.post"}


def test_only_the_document_its_pages_and_static_files_are_no_part_of_the_api(app):
    assert {endpoint for endpoint in app.view_functions if is_page(endpoint)} == {
        "static",
        "account.show_confirmation",
        "account.show_recovery",
        "docs.static",
        "docs.show_index",
        "docs.show_docs",
        "docs.show_redoc",
        "api-docs.openapi_json",
    }


@pytest.mark.parametrize("name", FIRST)
def test_the_document_says_where_a_token_is_needed_and_where_it_is_read(
    app, clients, world, tables, name
):
    feature, route = FIRST[name]
    operation = contract_of(app).operation(route.rule, route.method)
    security = [] if operation is None else operation["security"]
    path = path_of(feature, route, world)
    assert (security == [{"bearer": []}]) == (route.statuses[0] == 401)
    assert security in ([], [{"bearer": []}], [{"bearer": []}, {}])
    if security:
        before = tables()
        response = clients[NOBODY].open(path, method=route.method, headers=WRONG_TOKEN)
        assert response.status_code == 401
        assert tables() == before
    else:
        sent = {"headers": WRONG_TOKEN, **body_of(app, route)}
        response = clients[NOBODY].open(path, method=route.method, buffered=True, **sent)
        assert response.status_code == route.statuses[0]


BODIES = [
    name for name, (_, route) in FIRST.items() if route.method in ("POST", "PUT", "PATCH", "DELETE")
]


@pytest.mark.parametrize("name", BODIES)
def test_the_example_of_each_body_is_accepted_as_it_stands(app, clients, world, name):
    """What "Execute" sends on the docs page, which makes its bodies in the same way."""
    feature, route = FIRST[name]
    operation = contract_of(app).operation(route.rule, route.method)
    if "requestBody" not in operation:
        assert route.example is None, "The operation has no body."
        return
    path = path_of(feature, route, world)
    who = WHO[min(range(3), key=lambda number: route.statuses[number])]
    example = document_example(operation)
    response = clients[who].open(path, method=route.method, **example)
    expected = route.example or min(route.statuses)
    assert response.status_code == expected, response.text


WRITING = [("PATCH", CHANGE), ("PUT", CHANGE), ("DELETE", {})]
ONE = f"{LIST}<id:cleaning_id>/"


def test_the_methods_that_change_a_cleaning_are_these():
    methods = {route.method for route in features()["cleanings"].routes if route.rule == ONE}
    assert methods - {"GET"} == {method for method, _ in WRITING}


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
@pytest.mark.parametrize("tag", ["*", '"other"', "current"])
def test_another_user_changes_nothing_with_any_if_match(clients, tables, method, options, tag):
    path = clients[OWNER].post(LIST, **NEW).headers["Location"]
    before = tables()
    tag = clients[OTHER].get(path).headers["ETag"] if tag == "current" else tag
    response = clients[OTHER].open(path, method=method, headers={"If-Match": tag}, **options)
    assert response.status_code == 403
    assert tables() == before


@pytest.mark.parametrize("who", [OTHER, OWNER])
def test_the_user_who_posts_a_cleaning_owns_and_changes_it(clients, anna, ben, who):
    someone = {OTHER: ben, OWNER: anna}[who]
    response = clients[who].post(LIST, **NEW)
    assert response.json["owner"] == {"username": someone.username}
    path = response.headers["Location"]
    assert clients[who].patch(path, **CHANGE).json["owner"] == {"username": someone.username}
    assert clients[who].put(path, **CHANGE).status_code == 200
    assert clients[who].delete(path).status_code == 204


@pytest.mark.parametrize("name", ["owner", "owner_id", "user_id", "id", "created_at"])
@pytest.mark.parametrize("value", [None, 1, "ben", {"username": "ben"}])
def test_a_cleaning_cannot_be_given_to_another_user(clients, tables, name, value):
    path = clients[OWNER].post(LIST, **NEW).headers["Location"]
    before = tables()
    for method, where, key in (("POST", LIST, "new_cleaning"), ("PATCH", path, "cleaning_update")):
        body = {key: {"name": "Job", "price": 20, name: value}}
        response = clients[OWNER].open(where, method=method, json=body)
        assert response.status_code == 422
        assert [error["pointer"] for error in response.json["errors"]] == [f"/{key}/{name}"]
    assert tables() == before


def test_a_user_sees_and_changes_only_their_own_account(clients, anna, ben):
    for who, someone in ((OWNER, anna), (OTHER, ben)):
        assert clients[who].get(ME).json["email"] == someone.email
    assert clients[OTHER].patch(ME, **ME_CHANGE).status_code == 200
    assert clients[OWNER].get(ME).json["username"] == "anna"
    assert clients[OTHER].delete(ME).status_code == 204
    assert clients[OTHER].get(ME).status_code == 401
    assert clients[OWNER].get(ME).status_code == 200


def test_a_user_finds_no_path_to_another_account(clients, anna, ben):
    for path in (f"{USERS}{anna.id}/", f"{USERS}anna/", f"{USERS}{anna.email}/"):
        for method in ("GET", "PATCH", "DELETE"):
            assert clients[OTHER].open(path, method=method).status_code == 404
    assert clients[OTHER].get(USERS).status_code == 405


def test_an_idempotency_key_of_another_user_returns_none_of_their_responses(clients):
    headers = {"Idempotency-Key": "shared"}
    responses = [clients[who].post(LIST, headers=headers, **NEW).json for who in WHO]
    assert len({response["id"] for response in responses}) == 3
    owners = [response["owner"] for response in responses]
    assert owners == [None, {"username": "ben"}, {"username": "anna"}]


def test_a_cleaning_shows_no_email_of_its_owner(clients, anna, make_cleaning):
    path = clients[OWNER].post(LIST, **NEW).headers["Location"]
    responses = [
        *(clients[who].get(where) for who in WHO for where in (path, LIST, f"{LIST}?owner=anna")),
        clients[OWNER].patch(path, **CHANGE),
        clients[OWNER].post(LIST, **NEW),
    ]
    for response in responses:
        assert "@" not in response.text
        jobs = response.json if isinstance(response.json, list) else [response.json]
        assert [job["owner"] for job in jobs] == [{"username": "anna"}]


@pytest.mark.parametrize("name", ["anna", "ANNA"])
def test_the_list_of_an_owner_has_only_their_cleanings(clients, anna, ben, make_cleaning, name):
    hers = [make_cleaning(owner_id=anna.id) for _ in range(2)]
    make_cleaning(owner_id=ben.id)
    make_cleaning()
    jobs = clients[NOBODY].get(LIST, query_string={"owner": name}).json
    assert [job["id"] for job in jobs] == hers[::-1]


def test_the_list_of_an_unknown_owner_is_empty(clients, make_cleaning):
    make_cleaning()
    assert clients[NOBODY].get(f"{LIST}?owner=carl").json == []
    for name in ("", "a", "a b", "null"):
        response = clients[NOBODY].get(LIST, query_string={"owner": name})
        assert (response.status_code, response.json) == (200, []) or response.status_code == 422


def test_nobody_changes_the_cleanings_of_a_disabled_account(clients, anna, sql):
    path = clients[OWNER].post(LIST, **NEW).headers["Location"]
    sql("UPDATE users SET is_active = false WHERE id = :id", id=anna.id)
    assert clients[OWNER].patch(path, **CHANGE).status_code == 401
    assert clients[OTHER].patch(path, **CHANGE).status_code == 403
    assert clients[NOBODY].get(path).json["owner"] == {"username": "anna"}
