"""The docs pages, Swagger UI and Redoc: their responses, and what they do in a browser."""

import base64
import hashlib
import json
import re
from urllib.parse import urlsplit

import pyotp
import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from phresh.accounts.schemas import NewPassword
from phresh.config import ROOT
from tests.tools.browser import listening
from tests.tools.users import CHEAP

PATHS = ["/docs/", "/redoc/"]
REDOC = ROOT / "phresh" / "web" / "static" / "redoc"
# Of redoc@3.0.1: docs/development.md says how to renew it.
REDOC_HASH = "8c70c2de83d33e33a75b225e573d6d9fe851f066f824b44b1637d831d52d7543"
ANNA = {"username": "anna", "email": "anna@phresh.example"}
# What the example of a password in the document says, and README.
PASSWORD = NewPassword().metadata["example"]


@pytest.mark.parametrize("path", [*PATHS, "/docs", "/redoc"])
def test_a_page_allows_no_other_host_and_no_script_or_style_in_place(client, path):
    response = client.get(path)
    assert (response.status_code, response.mimetype) == (200, "text/html")
    policy = response.headers["Content-Security-Policy"]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == rules["connect-src"] == "'self'"
    assert "unsafe" not in policy
    assert set(re.findall(r"[a-z]+:", policy)) == {"data:"}
    assert not re.search(rb"//|<style|style=|<script>", response.data)
    assert f"\n{policy}\n" in (ROOT / "docs" / "security.md").read_text()


def test_the_only_style_in_place_that_is_allowed_is_empty(client):
    policy = client.get("/docs/").headers["Content-Security-Policy"]
    empty = base64.b64encode(hashlib.sha256(b"").digest()).decode()
    assert re.findall("'sha256-(.+?)'", policy) == [empty]


@pytest.mark.parametrize("path", PATHS)
def test_a_page_links_to_the_other_and_to_the_document(client, path):
    links = set(re.findall('<a href="(.+?)"', client.get(path).text))
    assert links == {*PATHS, "/openapi.json"}
    assert f'<a href="{path}" aria-current="page">' in client.get(path).text


@pytest.mark.parametrize("path", PATHS)
def test_a_page_and_what_it_loads_are_validated_by_their_etags(client, path):
    page = client.get(path)
    files = re.findall('(?:src|href)="(/(?:static|docs/swagger-ui)/.+?)"', page.text)
    assert len(files) >= 3
    if path == "/redoc/":
        files.append("/static/redoc/redoc.standalone.js")
    for url in [path, *files]:
        with client.get(url) as response:
            assert response.status_code == 200
            assert response.headers["Cache-Control"] == "no-cache"
            known = {"If-None-Match": response.headers["ETag"]}
        with client.get(url, headers=known) as response:
            assert response.status_code == 304


def test_redoc_is_what_its_authors_publish_with_their_licence(client):
    bundle = (REDOC / "redoc.standalone.js").read_bytes()
    assert hashlib.sha256(bundle).hexdigest() == REDOC_HASH
    version = re.search(rb"Version: ([0-9.]+)", bundle)[1].decode()
    assert f"redoc@{version}" in (ROOT / "docs" / "development.md").read_text()
    for licence in ("/static/redoc/LICENSE", "/docs/swagger-ui/LICENSE"):
        with client.get(licence) as response:
            assert response.status_code == 200
    assert "MIT" in (REDOC / "LICENSE").read_text()


@pytest.fixture
def served(app):
    """The address of the app on a real socket: another for each test, so it shares no storage."""
    with listening(app) as address:
        yield address


class Page:
    """A page in the browser, with what it requested and logged."""

    def __init__(self, chromium, address):
        self.chromium, self.address, self.urls = chromium, address, []
        self.wait = WebDriverWait(chromium, 20, poll_frequency=0.05)
        for log in ("performance", "browser"):
            chromium.get_log(log)  # of the page before

    def find(self, selector):
        return self.wait.until(lambda browser: browser.find_element(By.CSS_SELECTOR, selector))

    def all(self, selector):
        return self.chromium.find_elements(By.CSS_SELECTOR, selector)

    def open(self, path, loaded, *, width=1300, scheme="light"):
        command = self.chromium.execute_cdp_cmd
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        command("Emulation.setDeviceMetricsOverride", size)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        command("Emulation.setEmulatedMedia", {"features": [feature]})
        self.chromium.get(self.address + path)
        self.find(loaded)

    def click(self, selector):
        self.chromium.execute_script("arguments[0].click()", self.find(selector))

    def hosts(self):
        """Yield the hosts that the page sent requests to."""
        for entry in self.chromium.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                url = urlsplit(message["params"]["request"]["url"])
                if url.scheme in ("http", "https", "ws", "wss"):
                    yield url.netloc

    def errors(self, statuses="none"):
        """Return what is wrong by the console, but for responses with these statuses."""
        logged = self.chromium.get_log("browser")
        found = [entry["message"] for entry in logged if entry["level"] in ("WARNING", "SEVERE")]
        return [each for each in found if not re.search(f"status of ({statuses})", each)]

    def width(self):
        return self.chromium.execute_script("return document.documentElement.scrollWidth")

    def brightness(self, selector):
        """Return how bright the text of an element is, from 0 to 255."""
        script = "return getComputedStyle(arguments[0]).color"
        color = self.chromium.execute_script(script, self.find(selector))
        return sum(map(int, re.findall("[0-9]+", color)[:3])) / 3

    def log_in(self, password=PASSWORD):
        self.click(".auth-wrapper .authorize")
        self.find("#oauth_username").send_keys(ANNA["email"])
        self.find("#oauth_password").send_keys(password)
        self.click(".auth-container:has(#oauth_username) .authorize")

    def paste(self, token):
        self.click(".auth-wrapper .authorize")
        self.find("#auth-bearer-value").send_keys(token)
        self.click(".auth-container:has(#auth-bearer-value) .authorize")
        self.click(".auth-container .btn-done")

    def execute(self, operation):
        """Press Execute on an operation as it stands, and return the status of the response."""
        self.click(f"#{operation} .opblock-summary-control")
        self.click(f"#{operation} .execute")
        status = self.find(
            f"#{operation} .live-responses-table .response .response-col_status"
        ).text
        self.urls.append(self.find(f"#{operation} .request-url").text)
        # The more is open, the longer the page takes for each.
        self.click(f"#{operation} .opblock-summary-control")
        return status.split()[0]

    def locks(self):
        """Return how many operations have an open lock, and how many a closed one."""
        return tuple(
            len(self.all(f".authorization__btn .{name}")) for name in ("unlocked", "locked")
        )


@pytest.fixture
def page(chromium, served):
    return Page(chromium, served)


LOADED = {"/docs/": ".opblock", "/redoc/": "#docs h1"}


@pytest.mark.browser
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("width", [1300, 400])
def test_the_pages_work_without_an_error_or_another_host(page, served, path, width):
    bright = {}
    for scheme in ("light", "dark"):
        page.open(path, LOADED[path], width=width, scheme=scheme)
        assert page.width() <= width
        bright[scheme] = [page.brightness("nav a"), page.brightness("#docs :is(h1, .info .title)")]
    assert max(bright["light"]) < 128 < min(bright["dark"])
    assert set(page.hosts()) == {urlsplit(served).netloc}
    assert page.errors() == []


@pytest.mark.browser
def test_redoc_shows_operations_and_finds_them(page, served):
    def shows(text):
        page.wait.until(lambda _: text in page.find("body").text)

    page.open("/redoc/#/cleanings/create_cleaning", "#docs h2")
    shows("new_cleaning")
    search = "//*[contains(text(), 'Search')]"
    page.wait.until(lambda browser: browser.find_element(By.XPATH, search)).click()
    page.wait.until(lambda browser: browser.switch_to.active_element.tag_name == "input")
    page.chromium.switch_to.active_element.send_keys("rate a cleaner")
    shows("/api/users/{username}/evaluations/{cleaning_id}/")
    assert set(page.hosts()) == {urlsplit(served).netloc}
    assert page.errors() == []


@pytest.mark.browser
def test_a_user_logs_in_and_stays_logged_in_after_a_reload(page, make_user):
    make_user(**ANNA, password_hash=CHEAP.hash(PASSWORD))
    page.open("/docs/", ".opblock")
    is_open, is_closed = page.locks()
    assert is_open > 10
    assert is_closed == 0

    page.log_in("wrong password")
    dialog = ".auth-container:has(#oauth_username)"
    assert page.find(f"{dialog} [role=alert]").text == "Wrong email or password."
    assert "your email address" in page.find("label[for=oauth_username]").text
    fields = [element.get_attribute("name") for element in page.all(f"{dialog} input")]
    assert fields == ["username", "password"]
    assert page.find("#oauth_password").get_attribute("type") == "password"
    assert page.find("#oauth_password").get_attribute("autocomplete") == "current-password"

    page.find("#oauth_password").clear()
    page.find("#oauth_password").send_keys(PASSWORD)
    page.click(f"{dialog} .authorize")
    page.wait.until(lambda _: page.find(".auth-container h6").text == "Authorized")
    page.click(".auth-container .btn-done")
    assert page.locks() == (0, is_open)

    page.chromium.refresh()
    page.wait.until(lambda _: page.locks() == (0, is_open))
    assert page.execute("operations-users-get_me") == "200"
    # A token, which ends, and not the password, which does not.
    stored = page.chromium.execute_script("return [{...localStorage}, {...sessionStorage}]")
    assert stored[0] == {}
    assert set(stored[1]) == {"phresh.token"}
    assert PASSWORD not in str(stored)

    page.click(".auth-wrapper .authorize")
    page.click(".auth-container .auth:not(.btn-done)")
    page.find("#oauth_username")
    page.chromium.refresh()
    page.wait.until(lambda _: page.locks() == (is_open, 0))


@pytest.mark.browser
def test_a_user_with_a_second_factor_is_asked_for_the_code(page, make_user, sql):
    make_user(**ANNA, password_hash=CHEAP.hash(PASSWORD))
    secret = pyotp.random_base32()
    sql(
        "INSERT INTO two_factors (user_id, secret, confirmed_at) "
        "SELECT id, :secret, now() FROM users",
        secret=secret,
    )
    page.open("/docs/", ".opblock")
    page.log_in()
    page.find("#oauth_otp").send_keys(pyotp.TOTP(secret).now())
    page.click(".auth-container:has(#oauth_username) .authorize")
    page.wait.until(lambda _: page.find(".auth-container h6").text == "Authorized")


@pytest.mark.browser
def test_a_token_can_be_pasted(page, make_user):
    anna = make_user(**ANNA)
    page.open("/docs/", ".opblock")
    page.paste(anna.token)
    assert page.execute("operations-users-get_me") == "200"


# What README works with: an account, its profile, and its jobs with what belongs to them.
KEPT = """
    SELECT users.*, profiles.*, cleanings.*, offers.*, evaluations.* FROM users
    JOIN profiles ON profiles.user_id = users.id
    JOIN cleanings ON cleanings.owner_id = users.id AND cleanings.id = 1
    LEFT JOIN offers ON offers.cleaning_id = cleanings.id
    LEFT JOIN evaluations ON evaluations.cleaning_id = cleanings.id
"""


@pytest.mark.browser
def test_execute_changes_nothing_that_exists_for_the_user_of_readme(
    page, served, client, make_user, sql
):
    new = {**ANNA, "password": PASSWORD}
    token = client.post("/api/users/", json={"new_user": new}).json["access_token"]["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    profile = {"profile_update": {"full_name": "Anna", "bio": "Mine."}}
    assert client.patch("/api/profiles/me/", json=profile, headers=headers).status_code == 200
    # The page fills in this id.
    new = {"owner": sql("SELECT id FROM users")[0][0], "bidder": make_user("ben").id}
    sql("INSERT INTO cleanings (id, name, price, owner_id) VALUES (1, 'Attic', 25, :owner)", **new)
    sql("INSERT INTO offers (cleaning_id, user_id) VALUES (1, :bidder)", bidder=new["bidder"])
    sql("SELECT setval(pg_get_serial_sequence('cleanings', 'id'), 1)")
    before = sql(KEPT)
    assert len(before) == 1

    page.open("/docs/", ".opblock")
    page.log_in()
    page.find(".auth-container h6")
    page.click(".auth-container .btn-done")
    tags = [f"#{tag.get_attribute('id')}" for tag in page.all(".opblock-tag")]
    logout = "operations-users-delete_token"
    statuses = {}
    for tag in tags:
        page.click(tag)  # the less is shown, the faster is the page
    for tag in tags:
        page.click(tag)
        for name in [block.get_attribute("id") for block in page.all(".opblock")]:
            if name != logout:  # without a token, the others would be rejected anyway
                statuses[name.rpartition("-")[2]] = page.execute(name)
        page.click(tag)
    page.click("#operations-tag-users")
    assert page.execute(logout) == "204"
    documented = client.get("/openapi.json").json["paths"].values()
    assert (
        len(statuses)
        == sum("operationId" in each for item in documented for each in item.values()) - 1
    )

    assert sql(KEPT) == before
    login = {"username": ANNA["email"], "password": PASSWORD}
    assert client.post("/api/users/login/token/", data=login).status_code == 200
    # Nobody has the link or the code of the examples.
    invalid = {name for name, status in statuses.items() if status == "422"}
    assert invalid == {"recover_account", "confirm_two_factor"}
    allowed = {"200", "201", "204", "403", "404", "409", "412", "422"}
    assert {*statuses.values()} <= allowed, statuses
    assert statuses["create_cleaning"] == "201"
    for name in ("update_me", "delete_me", "delete_cleaning", "create_offer"):
        assert statuses[name] == "412", name
    for name in ("get_me", "list_cleanings", "get_cleaning", "list_offers", "get_profile"):
        assert statuses[name] == "200", name
    # Of what is optional, only defaults are sent.
    [query] = re.findall(r"/api/cleanings/\?(\S+)", "\n".join(page.urls))
    assert query == "limit=20&sort=-id"
    assert set(page.hosts()) == {urlsplit(served).netloc}
    assert page.errors("403|404|409|412|422") == []


@pytest.mark.browser
def test_a_write_is_executed_without_the_condition_that_the_page_fills_in(
    page, make_user, make_cleaning, sql
):
    anna = make_user(**ANNA)
    make_cleaning(id=1, owner_id=anna.id)
    page.open("/docs/", ".opblock")
    page.paste(anna.token)
    name = "#operations-cleanings-delete_cleaning"
    page.click(f"{name} .opblock-summary-control")
    condition = page.find(f'{name} [data-param-name="If-Match"] input')
    assert condition.get_attribute("value").startswith('"')
    # Leaving the field, as who presses Execute does, ends the wait for more keys.
    condition.send_keys(Keys.CONTROL, "a", Keys.NULL, Keys.BACKSPACE, Keys.TAB)
    page.click(f"{name} .execute")
    page.find(f"{name} .live-responses-table .response")
    assert sql("SELECT id FROM cleanings") == []
