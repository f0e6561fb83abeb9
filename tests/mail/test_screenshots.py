"""Every mail in a browser: it fits the window, can be read light and dark, and loads nothing."""

import json
from urllib.parse import urlsplit

import pytest

from phresh.accounts.mails import page_url
from phresh.accounts.models import EMAIL_MAX, PURPOSES
from phresh.cli import mail
from phresh.mail import messages
from phresh.web.fields import USERNAME_MAX
from phresh.web.languages import LANGUAGES
from tests.tools.browser import listening

WIDTHS = (700, 360)
CONTRAST_MIN = 4.5  # WCAG 2.2, 1.4.3
LONGEST = {
    "username": "w" * USERNAME_MAX,
    "email": "w" * (EMAIL_MAX - len("@phresh.example")) + "@phresh.example",
    "address": "2001:0db8:85a3:0000:0000:8a2e:0370:7334",
}

# The contrast of each text to what is behind it (WCAG 2.2). What no element paints, the browser
# does: white, or a dark grey where the mail allows dark colors.
READ = """
const rgba = (color) => {
  const [red, green, blue, alpha = 1] = color.match(/[0-9.]+/g).map(Number);
  return [red, green, blue, alpha];
};
const over = ([red, green, blue, alpha], behind) =>
  [red, green, blue].map((value, index) => alpha * value + (1 - alpha) * behind[index]);
const luminance = (color) => {
  const [red, green, blue] = color
    .map((value) => value / 255)
    .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4));
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
};
const probe = document.body.appendChild(document.createElement("i"));
probe.style.backgroundColor = "Canvas";
const canvas = over(rgba(getComputedStyle(probe).backgroundColor), [255, 255, 255]);
probe.remove();
const painted = (element) => {
  if (!element) return canvas;
  return over(rgba(getComputedStyle(element).backgroundColor), painted(element.parentElement));
};
const opacity = (element) =>
  element ? getComputedStyle(element).opacity * opacity(element.parentElement) : 1;
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
const contrasts = {};
for (let node; (node = walker.nextNode()); ) {
  if (!node.data.trim()) continue;
  const element = node.parentElement;
  const [red, green, blue, alpha] = rgba(getComputedStyle(element).color);
  const behind = painted(element);
  const text = over([red, green, blue, alpha * opacity(element)], behind);
  const [low, high] = [luminance(text), luminance(behind)].sort((a, b) => a - b);
  contrasts[node.data.trim()] = (high + 0.05) / (low + 0.05);
}
return {
  contrasts,
  canvas,
  width: document.documentElement.scrollWidth,
  links: [...document.querySelectorAll("[href]")].map((link) => link.getAttribute("href")),
};
"""


@pytest.fixture
def preview(run, tmp_path, monkeypatch):
    """Write every mail with these values; gives the files."""

    def write(**values):
        monkeypatch.setattr(mail, "VALUES", mail.VALUES | values)
        code, printed = run("mail", "preview", str(tmp_path / "mails"))
        assert code == 0, printed
        return sorted((tmp_path / "mails").glob("*.html"))

    return write


@pytest.fixture
def opened(chromium):
    """Open a file in the browser; gives what is read there."""

    def open_in(path, width, scheme):
        command = chromium.execute_cdp_cmd
        size = {"width": width, "height": 600, "deviceScaleFactor": 1, "mobile": width < 600}
        command("Emulation.setDeviceMetricsOverride", size)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        command("Emulation.setEmulatedMedia", {"features": [feature]})
        chromium.get_log("performance")  # of the page before
        chromium.get(path.as_uri())
        return chromium.execute_script(READ)

    return open_in


def requested(chromium):
    """Return the URLs that a page has requested."""
    logged = [json.loads(entry["message"])["message"] for entry in chromium.get_log("performance")]
    sent = [each for each in logged if each["method"] == "Network.requestWillBeSent"]
    return [each["params"]["request"]["url"] for each in sent]


@pytest.mark.browser
@pytest.mark.parametrize("values", [{}, LONGEST], ids=["preview", "longest"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_every_mail_fits_the_window_and_can_be_read(
    preview, opened, chromium, tmp_path, width, scheme, values
):
    paths = preview(**values)
    assert len(paths) == len(messages.names()) * len(LANGUAGES)
    for path in paths:
        seen = opened(path, width, scheme)
        chromium.save_screenshot(tmp_path / f"{path.stem}.png")
        assert seen["width"] <= width, path.name
        assert (sum(seen["canvas"]) / 3 < 128) == (scheme == "dark"), path.name
        assert len(seen["contrasts"]) > 2, path.name
        low = {text: ratio for text, ratio in seen["contrasts"].items() if ratio < CONTRAST_MIN}
        assert low == {}, path.name
        for link in seen["links"]:
            assert urlsplit(link).scheme in ("http", "https"), path.name
            assert urlsplit(link).netloc, path.name
        assert requested(chromium) == [path.as_uri()]


@pytest.mark.browser
def test_every_page_that_a_mail_leads_to_exists(make_app, chromium):
    app = make_app(ACCOUNT_URL=None, PUBLIC_URL="http://localhost")
    with listening(app) as address, app.app_context():
        app.config["PUBLIC_URL"] = address
        for purpose in PURPOSES:
            url = page_url(purpose)
            chromium.get_log("performance")
            chromium.get(f"{url}#token=x")
            assert chromium.title
            assert statuses(chromium)[url] == 200


def statuses(chromium):
    """Return the status of each URL that a page has requested."""
    logged = [json.loads(entry["message"])["message"] for entry in chromium.get_log("performance")]
    received = [each["params"] for each in logged if each["method"] == "Network.responseReceived"]
    return {each["response"]["url"]: each["response"]["status"] for each in received}
