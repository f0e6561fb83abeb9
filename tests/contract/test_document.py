"""The OpenAPI document and the docs page."""

import json
import re
import shutil
from threading import Thread
from urllib.parse import urlsplit

import pytest
from openapi_spec_validator import validate
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait
from werkzeug.serving import make_server

import phresh
from phresh.accounts.schemas import NewPassword, UserSchema
from phresh.cleanings.schemas import CleaningSchema
from tests.tools.users import CHEAP

METHODS = {"get", "post", "put", "patch", "delete"}


@pytest.fixture
def document(client):
    response = client.get("/openapi.json")
    assert response.content_type == "application/json"
    return json.loads(response.data)


def operations(document):
    for path, item in document["paths"].items():
        for method in METHODS & set(item):
            yield path, method, item[method]


def test_the_document_is_valid_openapi_3_1(document):
    validate(document)
    assert document["openapi"].startswith("3.1.")
    assert document["info"] == {"title": "Phresh", "version": phresh.__version__}


def test_every_operation_has_a_summary_and_an_id_of_its_own(document):
    found = [operation for *_, operation in operations(document)]
    assert all(operation["summary"] for operation in found)
    ids = [operation["operationId"] for operation in found]
    assert len(set(ids)) == len(ids)
    assert {"update_cleaning_patch", "update_cleaning_put"} < set(ids)


def test_every_operation_names_every_status(document):
    body = {"400", "413", "415", "422", "500", "503"}
    one, me = "/api/cleanings/{cleaning_id}/", "/api/users/me/"
    offers, offer = f"{one}offers/", f"{one}offers/{{username}}/"
    evaluations = "/api/users/{username}/evaluations/"
    evaluation = f"{evaluations}{{cleaning_id}}/"
    any_of_api = {"422", "500", "503"}
    expected = {
        ("/healthz", "get"): {"200", "500"},
        ("/readyz", "get"): {"200", "500", "503"},
        ("/api/users/", "post"): {"201", "409", "429", *body},
        ("/api/users/login/token/", "post"): {"200", "401", "429", *body},
        ("/api/users/logout/", "post"): {"204", "401", *any_of_api},
        (me, "get"): {"200", "304", "401", *any_of_api},
        (me, "patch"): {"200", "401", "403", "409", "429", *body},
        (me, "delete"): {"204", "401", *any_of_api},
        ("/api/cleanings/", "get"): {"200", "304", *any_of_api},
        ("/api/cleanings/", "post"): {"201", "401", "409", *body},
        (one, "get"): {"200", "304", "404", *any_of_api},
        (one, "put"): {"200", "401", "403", "404", "409", "412", *body},
        (one, "patch"): {"200", "401", "403", "404", "409", "412", *body},
        (one, "delete"): {"204", "401", "403", "404", "409", "412", *any_of_api},
        ("/api/profiles/{username}/", "get"): {"200", "304", "401", "404", *any_of_api},
        ("/api/profiles/me/", "patch"): {"200", "401", *body},
        ("/api/profiles/me/", "put"): {"200", "401", *body},
        (offers, "get"): {"200", "304", "401", "403", "404", *any_of_api},
        (offers, "post"): {"201", "401", "404", "409", *body},
        (offers, "put"): {"200", "401", "404", "409", *any_of_api},
        (offers, "delete"): {"204", "401", "404", "409", *any_of_api},
        (offer, "get"): {"200", "304", "401", "403", "404", *any_of_api},
        (offer, "put"): {"200", "401", "403", "404", "409", *any_of_api},
        (f"{me}offers/", "get"): {"200", "304", "401", *any_of_api},
        (evaluations, "get"): {"200", "304", "404", *any_of_api},
        (f"{evaluations}stats/", "get"): {"200", "304", "404", *any_of_api},
        (evaluation, "get"): {"200", "304", "404", *any_of_api},
        (evaluation, "post"): {"201", "401", "403", "404", "409", *body},
        ("/api/feed/cleanings/", "get"): {"200", "304", *any_of_api},
    }
    found = {(path, method): set(item["responses"]) for path, method, item in operations(document)}
    assert found == expected


def test_the_operations_that_take_a_token_say_so_and_no_other(document):
    one, me = "/api/cleanings/{cleaning_id}/", "/api/users/me/"
    evaluation = "/api/users/{username}/evaluations/{cleaning_id}/"
    token = [{"login": []}, {"bearer": []}]
    found = {
        (path, method): item["security"]
        for path, method, item in operations(document)
        if "security" in item
    }
    assert found == {
        ("/api/users/logout/", "post"): token,
        **{(me, method): token for method in ("get", "patch", "delete")},
        ("/api/cleanings/", "post"): [*token, {}],
        **{(one, method): token for method in ("put", "patch", "delete")},
        ("/api/profiles/{username}/", "get"): [*token, {}],
        **{("/api/profiles/me/", method): token for method in ("put", "patch")},
        **{(f"{one}offers/", method): token for method in ("get", "post", "put", "delete")},
        **{(f"{one}offers/{{username}}/", method): token for method in ("get", "put")},
        (f"{me}offers/", "get"): token,
        (evaluation, "post"): token,
    }
    schemes = document["components"]["securitySchemes"]
    assert schemes["bearer"] == {"type": "http", "scheme": "bearer"}
    assert schemes["login"]["flows"]["password"]["tokenUrl"] == "/api/users/login/token/"


def test_where_guests_may_not_post_the_document_says_so(make_app):
    document = make_app(GUEST_POSTING=False).test_client().get("/openapi.json").json
    assert {} not in document["paths"]["/api/cleanings/"]["post"]["security"]


def test_no_filter_has_an_example(document):
    """The docs page would send it when nothing was typed."""
    for path, method, operation in operations(document):
        for parameter in operation.get("parameters", []):
            assert "example" not in parameter.get("schema", {}), f"{method} {path}"


def test_every_operation_names_its_headers(document):
    found = {}
    for path, method, operation in operations(document):
        for parameter in operation.get("parameters", []):
            if "$ref" in parameter:
                name = parameter["$ref"].rpartition("/")[2]
                parameter = document["components"]["parameters"][name]
            if parameter["in"] == "header":
                assert not parameter.get("required")
                found.setdefault(parameter["name"], set()).add((path, method))
    one = "/api/cleanings/{cleaning_id}/"
    assert found == {
        "If-None-Match": {
            (path, method)
            for path, method, _ in operations(document)
            if method == "get" and path.startswith("/api/")
        },
        "If-Match": {(one, "put"), (one, "patch"), (one, "delete")},
        "Idempotency-Key": {("/api/cleanings/", "post")},
    }


def test_every_route_is_in_the_document(app, document):
    """All but the docs page with its assets, the document itself, and Flask's static folder."""
    routes = {
        (re.sub(r"<(?:[^:>]+:)?(\w+)>", r"{\1}", rule.rule), method.lower())
        for rule in app.url_map.iter_rules()
        if not re.fullmatch(r"docs\..+|api-docs\.openapi_json|static", rule.endpoint)
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }
    assert routes == {(path, method) for path, method, _ in operations(document)}


def test_every_error_is_a_problem(document):
    for *_, operation in operations(document):
        for status, response in operation["responses"].items():
            if int(status) >= 400:
                name = response["$ref"].rpartition("/")[2]
                content = document["components"]["responses"][name]["content"]
                assert set(content) == {"application/problem+json"}


def test_the_document_says_what_is_taken(document):
    schemas = document["components"]["schemas"]
    price = schemas["CleaningCreate"]["properties"]["price"]
    assert [kind["type"] for kind in price["anyOf"]] == ["number", "string"]
    assert price["anyOf"][0]["multipleOf"] == 0.01
    assert schemas["Cleaning"]["properties"]["price"]["type"] == "number"
    assert schemas["CleaningCreate"]["required"] == ["name", "price"]
    assert schemas["CleaningCreate"]["properties"]["description"]["type"] == ["string", "null"]
    assert r"\u0000" in schemas["CleaningCreate"]["properties"]["name"]["pattern"]


@pytest.mark.parametrize("text", ["\0", "\0a", "a\0", " \0 "])
def test_no_pattern_of_text_takes_nul(document, text):
    """Found by schemathesis: the one character that is not blank could be NUL."""
    schemas = document["components"]["schemas"]
    for name in ("name", "description"):
        assert not re.search(schemas["CleaningCreate"]["properties"][name]["pattern"], text)


def test_the_pattern_of_a_key_is_what_is_taken(client, document):
    """Found by schemathesis: the document said that any string is a key."""
    [key] = document["paths"]["/api/cleanings/"]["post"]["parameters"]
    new = {"new_cleaning": {"name": "Job", "price": 1}}
    for text in (
        "k",
        '"k"',
        r'"\""',
        "x" * 255,
        "",
        '""',
        "a b",
        '"a b"',
        '"a',
        '"a"b"',
        "é",
        "x" * 256,
    ):
        answer = client.post("/api/cleanings/", json=new, headers={key["name"]: text})
        assert (answer.status_code == 201) == bool(re.search(key["schema"]["pattern"], text)), text


def test_examples_are_accepted_as_they_stand(anna, make_user, make_cleaning, document):
    """What "Execute" sends when nothing was typed; the page makes its bodies the same way."""

    def example(schema):
        if "$ref" in schema:
            schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        if "properties" not in schema:
            return schema.get("example", schema.get("default", schema.get("enum", [None])[0]))
        return {name: example(value) for name, value in schema["properties"].items()}

    refused = {}
    for path, method, operation in operations(document):
        someone = make_user()
        for parameter in document["paths"][path].get("parameters", []):
            value = example(parameter["schema"])
            if parameter["name"] == "cleaning_id":  # else it would be anyone's, or none
                value = make_cleaning(owner_id=someone.id)
            path = path.replace(f"{{{parameter['name']}}}", str(value))
        body = operation.get("requestBody", {"content": {}})["content"]
        ((kind, schema),) = body.items() or ((None, None),)
        sent = example(schema["schema"]) if schema else None
        options = {"data" if kind == "application/x-www-form-urlencoded" else "json": sent}
        status = someone.client.open(path, method=method, **options).status_code
        if status >= 300:
            refused[operation["operationId"]] = status
    assert refused == {
        "create_user": 409,  # there is anna already, with another email
        "create_token": 401,
        "update_me": 403,
        "create_offer": 409,  # on one's own
        **dict.fromkeys(("get_offer", "accept_offer", "cancel_offer", "delete_offer"), 404),
        **dict.fromkeys(("get_evaluation", "create_evaluation"), 404),
    }


def test_what_is_answered_is_what_the_schemas_say(client, anna, make_cleaning):
    """PostgreSQL renders the answers; this holds them to the schema that documents them."""
    schema = CleaningSchema()
    make_cleaning(description="x", price="0.10", owner_id=anna.id)
    make_cleaning(name="청소", price="99999999.99")
    answered = [(schema, cleaning) for cleaning in client.get("/api/cleanings/").json]
    answered.append((UserSchema(), anna.client.get("/api/users/me/").json))
    for schema, row in answered:
        assert list(row) == list(schema.fields)
        assert schema.validate(row) == {}
        assert schema.load(schema.dump(schema.load(row))) == schema.load(row)


def test_the_docs_page_needs_no_other_host(client):
    for path in ("/docs", "/docs/"):
        response = client.get(path)
        assert response.status_code == 200
        policy = response.headers["Content-Security-Policy"]
        assert "script-src 'self';" in policy
        assert "default-src 'none'" in policy
        assert b"//" not in response.data


@pytest.mark.parametrize(
    "name", ["swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png", "LICENSE"]
)
def test_the_assets_are_served_from_here(client, name):
    with client.get(f"/docs/swagger-ui/{name}") as response:
        assert response.status_code == 200


@pytest.fixture
def served(app):
    """The address of the app on a real socket."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def browser(tmp_path):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("No Chromium: on Debian, apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    for argument in (
        *("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-sync"),
        *("disable-background-networking", "disable-component-update", "disable-dev-shm-usage"),
        *(f"user-data-dir={tmp_path}", "window-size=1200,2000"),
    ):
        options.add_argument(f"--{argument}")
    chrome = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield chrome
    chrome.quit()


def requested_hosts(browser):
    """The hosts that the page asked for something."""
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            url = urlsplit(message["params"]["request"]["url"])
            if url.scheme in ("http", "https", "ws", "wss"):
                yield url.netloc


# What the example of a password on the page says.
EXAMPLE = NewPassword().metadata["example"]
# The example is registered already; and without an account there is no token.
REFUSED = {"create_user": "409", "delete_token": "401"}


@pytest.mark.browser
def test_one_can_log_in_and_do_everything_on_the_docs_page(browser, served, make_user):
    make_user("anna", email="anna@phresh.io", password_hash=CHEAP.hash(EXAMPLE))
    wait = WebDriverWait(browser, 20)

    def find(selector):
        return wait.until(lambda b: b.find_element(By.CSS_SELECTOR, selector))

    def execute(operation):
        find(f"#{operation} .opblock-summary-control").click()
        find(f"#{operation} .execute").click()
        answer = f"#{operation} .live-responses-table tr.response"
        return find(f"{answer} .response-col_status").text.split()[0], find(answer).text

    browser.get(f"{served}/docs")
    find(".auth-wrapper .authorize").click()
    find("#oauth_username").send_keys("anna@phresh.io")
    find("#oauth_password").send_keys(EXAMPLE)
    find(".auth-container:has(#oauth_username) .authorize").click()
    assert "Authorized" in find(".auth-container h6").text
    find(".auth-container .btn-done").click()

    status, answer = execute("operations-cleanings-create_cleaning")
    assert status == "201"
    assert "Clean my house" in answer
    assert re.search(r'"owner": {\s*"username": "anna"', answer)

    blocks = browser.find_elements(By.CSS_SELECTOR, ".opblock")
    names = [block.get_attribute("id") for block in blocks]
    names.remove("operations-cleanings-create_cleaning")
    ending = ["operations-users-delete_me", "operations-users-delete_token"]
    for name in [*(name for name in names if name not in ending), *ending]:
        status, _ = execute(name)
        expected = REFUSED.get(name.rpartition("-")[2])
        assert status == expected or status[0] == "2" or status == "404", f"{name}: {status}"

    assert set(requested_hosts(browser)) == {urlsplit(served).netloc}
    errors = [e["message"] for e in browser.get_log("browser") if e["level"] == "SEVERE"]
    assert [e for e in errors if not re.search("status of (401|404|409)", e)] == []
