"""Settings with lists, hosts and origins."""

import pytest

from phresh import create_app
from phresh.config import ConfigError, read_settings

ALLOW = "Access-Control-Allow-Origin"


def read(name, value):
    return read_settings({name: value})[name]


def check_rejection(name, value, reason):
    """Check that a value is rejected in one line of printable ASCII."""
    with pytest.raises(ConfigError, match=rf"^{name}: {reason}") as raised:
        read(name, value)
    assert raised.value.message.isprintable()
    assert raised.value.message.isascii()


@pytest.mark.parametrize(
    "text", ["a.example, b.example", " a.example\t,\n b.example ", ",a.example,,b.example,"]
)
def test_spaces_and_empty_entries_of_a_list_do_not_count(text):
    assert read("TRUSTED_HOSTS", text) == ["a.example", "b.example"]
    origins = text.replace("a.", "https://a.").replace("b.", "https://b.")
    assert read("CORS_ORIGINS", origins) == ["https://a.example", "https://b.example"]


@pytest.mark.parametrize("name", ["TRUSTED_HOSTS", "CORS_ORIGINS"])
def test_a_list_without_entries_is_rejected(name):
    with pytest.raises(ConfigError, match=f"^{name}: Must have an entry, or be left out"):
        read(name, " , ")


@pytest.mark.parametrize(
    ("text", "host"),
    [
        *(("A.Example", "a.example"), (".a.example", ".a.example"), ("10.1.2.3", "10.1.2.3")),
        *(("b\u00fccher.example", "xn--bcher-kva.example"), ("my_pod-1", "my_pod-1")),
    ],
)
def test_a_trusted_host_is_compared_as_clients_send_it(text, host):
    assert read("TRUSTED_HOSTS", text) == [host]


@pytest.mark.parametrize(
    "text",
    [
        *("http://a.example", "a.example:8000", "a.example/x", "*", "*.a.example", "a b"),
        *(".", "a..b", "-a.example", "a" * 64, "1.2.3.400", "[::1]", "::1", "a\nb", "a\u202eb"),
    ],
)
def test_a_trusted_host_that_no_request_has_is_rejected_in_one_line(text):
    check_rejection("TRUSTED_HOSTS", text, "Not a host name: ")


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("HTTPS://A.Example:443", "https://a.example"),
        ("http://a.example:80", "http://a.example"),
        ("http://a.example:443", "http://a.example:443"),
        ("https://b\u00fccher.example", "https://xn--bcher-kva.example"),
        ("http://[0:0::1]:3000", "http://[::1]:3000"),
        ("capacitor://localhost", "capacitor://localhost"),
        ("null", "null"),
    ],
)
def test_an_origin_is_compared_as_browsers_send_it(settings, text, origin):
    assert read("CORS_ORIGINS", text) == [origin]
    client = create_app({**settings, "CORS_ORIGINS": text}).test_client()
    assert client.get("/healthz", headers={"Origin": origin}).headers[ALLOW] == origin


@pytest.mark.parametrize(
    "text",
    [
        *("a.example", "*.example", "https://", "file://", "https://a.example/", "//a.example"),
        *(
            "https://a.example/x",
            "https://a.example?x",
            "https://a.example#x",
            "https://u@a.example",
        ),
        *("https://a.example:x", "https://a.example:0", "https://a.example:65536", "http://[::1"),
        *(
            "https://*",
            "https://*:8000",
            "https://*.com",
            "https://*.example.",
            "https://a*.example",
        ),
        *(
            "https://*a.b.example",
            "https://*.*.b.example",
            "https://a.*.b.example",
            "https://**.b.c",
        ),
        *("http*://a.example", "https://*.10.0.0.1", "https://*.[::1]", "https://a.example:*"),
        *(r"https://.*\.b\.example", "https://a.example$", "https://a b.example", "*,https://a.b"),
    ],
)
def test_an_origin_that_no_browser_sends_is_rejected(text):
    with pytest.raises(ConfigError, match=r"^CORS_ORIGINS: "):
        read("CORS_ORIGINS", text)


@pytest.mark.parametrize(
    ("origin", "is_allowed"),
    [
        ("https://a.phresh.example", True),
        ("https://a-b_1.phresh.example", True),
        ("https://phresh.example", False),
        ("https://.phresh.example", False),
        ("https://a.b.phresh.example", False),
        ("https://a.phresh.example.evil.example", False),
        ("https://evil.example/a.phresh.example", False),
        ("https://evil.example#.phresh.example", False),
        ("https://aXphresh.example", False),
        ("http://a.phresh.example", False),
        ("https://a.phresh.example:8000", False),
        ("https://a.phresh.example\x0b", False),
    ],
)
def test_a_wildcard_stands_for_one_label(settings, origin, is_allowed):
    app = create_app({**settings, "CORS_ORIGINS": "https://*.phresh.example, https://b.example"})
    response = app.test_client().get("/healthz", headers={"Origin": origin})
    assert response.headers.get(ALLOW) == (origin if is_allowed else None)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://localhost:8000", "http://localhost:8000"),
        ("HTTPS://Phresh.Example:443/", "https://phresh.example"),
        ("http://phresh.example:80/API/v2.0/", "http://phresh.example/API/v2.0"),
        ("https://phresh.example:80", "https://phresh.example:80"),
        ("http://[::1]:8000", "http://[::1]:8000"),
        (
            "https://b\u00fccher.example/~anna/phresh_1",
            "https://xn--bcher-kva.example/~anna/phresh_1",
        ),
    ],
)
def test_the_public_url_has_one_form(text, url):
    assert read("PUBLIC_URL", text) == url


@pytest.mark.parametrize(
    "text",
    [
        *("phresh.example", "/phresh", "//phresh.example", "ftp://phresh.example", "https://"),
        *("https://phresh.example?a=1", "https://phresh.example/?", "https://phresh.example/#top"),
        *("https://anna@phresh.example", "https://anna:secret@phresh.example/", "*", "null"),
        *("https://*.phresh.example", "https://phresh.example//", "https://phresh.example/a//b"),
        *("https://phresh.example/a b", "https://phresh.example/../a", "https://phresh.example/."),
        *("https://phresh.example/%2e%2e", "https://phresh.example:0", "https://phresh.example:x"),
        *("https://phresh.example\n", "https://phresh.example/a\n", "https:///a", "https:/a"),
        *("https://[::1", "https://1.2.3.400", "https://phresh.example\\a", "https://a,b"),
    ],
)
def test_a_public_url_that_clients_cannot_use_is_rejected_in_one_line(text):
    check_rejection("PUBLIC_URL", text, "Not a ")
