"""MAIL_URL: how mail is sent."""

from pathlib import Path

import pytest

from phresh.config import ConfigError, MailServer, read_settings

PUBLIC = {"PUBLIC_URL": "https://phresh.example"}


def read(url):
    return read_settings({"MAIL_URL": url, **PUBLIC})["MAIL_URL"]


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("smtp://mail.example", MailServer("smtp", "mail.example", 25)),
        ("smtp://mail.example:2525/", MailServer("smtp", "mail.example", 2525)),
        ("smtp://[::1]:2525", MailServer("smtp", "::1", 2525)),
        ("smtps://mail.example", MailServer("smtps", "mail.example", 465)),
        (
            "smtp://a%40b.example:p%2F%3A%40@mail.example:587?starttls=true",
            MailServer("smtp", "mail.example", 587, "a@b.example", "p/:@", True),
        ),
        ("smtps://u:p@h", MailServer("smtps", "h", 465, "u", "p")),
        ("smtp://u:p@localhost", MailServer("smtp", "localhost", 25, "u", "p")),
        ("file:/a/folder%20b", MailServer("file", folder=Path("/a/folder b"))),
        ("file:///a", MailServer("file", folder=Path("/a"))),
        ("memory:", MailServer("memory")),
    ],
)
def test_a_url_is_read(url, server):
    assert read(url) == server


@pytest.mark.parametrize(
    "url",
    [
        *("nonsense", "http://h", "smtp://", "smtp://h:x", "smtp://h:99999", "smtp://h/path"),
        *("file:relative", "file://host/a", "memory:x", "smtp://h#x", "smtp://h?starttls=yes"),
        *("smtp://h?tls=true", "smtps://h?starttls=true", "smtp://topsecret@h"),
        "smtp://u:topsecret@mail.example",  # in clear text
        "smtp://u:topsecret@mail.example:x",
    ],
)
def test_a_url_that_cannot_be_used_is_rejected_without_showing_it(url):
    with pytest.raises(ConfigError, match=r"^MAIL_URL: ") as raised:
        read(url)
    assert "topsecret" not in raised.value.message


def test_links_in_mails_need_the_public_url():
    with pytest.raises(ConfigError, match=r"^MAIL_URL: Needs PUBLIC_URL"):
        read_settings({"MAIL_URL": "memory:"})


def test_a_front_end_may_have_the_pages():
    pages = {"ACCOUNT_URL": "https://example.com/me"}
    assert read_settings({"MAIL_URL": "memory:", **pages})["MAIL_URL"] == MailServer("memory")


def test_without_a_url_no_mail_is_sent():
    assert read_settings(PUBLIC)["MAIL_URL"] is None
