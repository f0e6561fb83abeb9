"""The pages that links in mails lead to: in a browser, and what they do not do by being opened."""

import re

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from tests.tools.browser import listening
from tests.tools.jobs import run_jobs
from tests.tools.users import PASSWORD

PATHS = ["/account/confirmation/", "/account/recovery/"]
NEW = "four cats on a roof"


@pytest.mark.parametrize("path", PATHS)
def test_a_page_loads_nothing_from_elsewhere_and_has_no_script_in_place(client, path):
    response = client.get(path)
    assert response.mimetype == "text/html"
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert response.headers["Referrer-Policy"] == "no-referrer"
    assert not re.search(rb"//|<style|style=|<script>", response.data)


class Reader:
    """Somebody with a browser, who gets mail."""

    def __init__(self, app, browser):
        self.app, self.browser = app, browser
        self.wait = WebDriverWait(browser, 20, poll_frequency=0.05)

    def link(self):
        """Return the link in the newest mail."""
        run_jobs(self.app)
        text = self.app.extensions["mail"][-1].get_body(("plain",)).get_content()
        return re.search(r"^http\S+$", text, re.MULTILINE)[0]

    def open(self, url):
        self.browser.get("about:blank")
        self.browser.get(url)

    def send(self, **values):
        for name, value in values.items():
            self.field(name).send_keys(value)
        self.browser.find_element(By.CSS_SELECTOR, "form:not([hidden]) button").click()

    def field(self, name):
        return self.browser.find_element(By.CSS_SELECTOR, f"form:not([hidden]) [name={name}]")

    def reads(self, role, text):
        shown = f"[role={role}]"
        assert self.wait.until(
            lambda browser: text in browser.find_element(By.CSS_SELECTOR, shown).text
        )

    def errors(self):
        logged = self.browser.get_log("browser")
        found = [entry["message"] for entry in logged if entry["level"] in ("WARNING", "SEVERE")]
        return [each for each in found if "favicon" not in each and "422" not in each]


@pytest.fixture
def reader(make_app, chromium):
    app = make_app(ACCOUNT_URL=None, PUBLIC_URL="http://localhost")
    with listening(app) as address:
        app.config["PUBLIC_URL"] = address
        reader = Reader(app, chromium)
        reader.errors()
        yield reader


@pytest.mark.browser
def test_a_password_is_set_and_an_address_confirmed(reader, anna, sql):
    page = f"{reader.app.config['PUBLIC_URL']}/account/recovery/"
    reader.open(page)
    reader.send(email=anna.email)
    reader.reads("status", "a mail is on its way")
    link = reader.link()
    assert link.startswith(page)
    reader.open(link)
    assert "token" not in reader.browser.current_url
    reader.send(password="password123")
    reader.reads("alert", "too common")
    reader.field("password").clear()
    reader.send(password=NEW)
    reader.reads("status", "Your password is set.")
    form = {"username": anna.email, "password": NEW}
    client = reader.app.test_client()
    assert client.post("/api/users/login/token/", data=form).status_code == 200
    reader.open(link)
    reader.send(password=NEW)
    reader.reads("alert", "The link is no longer valid. Ask for another one.")
    assert reader.errors() == []


@pytest.mark.browser
def test_opening_a_link_confirms_nothing_and_its_button_does(reader, sql):
    client = reader.app.test_client()
    new = {"email": "carl@phresh.example", "username": "carl", "password": PASSWORD}
    assert client.post("/api/users/", json={"new_user": new}).status_code == 201
    reader.open(reader.link())
    confirmed = "SELECT confirmed_key = email_key FROM users"
    assert sql(confirmed) == [(None,)]
    reader.send()
    reader.reads("status", "Your address is confirmed.")
    assert sql(confirmed) == [(True,)]
    assert reader.errors() == []
