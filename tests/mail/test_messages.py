"""Mails: every one in every language, with nothing of a value that is more than text."""

import email
import re
from email.policy import SMTP

import pytest
from jinja2 import UndefinedError, meta

from phresh.mail import messages
from phresh.web.languages import LANGUAGES

VALUES = {
    "username": "anna",
    "email": "anna@phresh.example",
    "link": "https://phresh.example/account/recovery/#token=abc",
    "days": 7,
    "minutes": 60,
    "address": "192.0.2.1",
    "at": "2026-11-27 19:04 UTC",
}


def make(name="recovery", language="en", to="anna@phresh.example", **values):
    sender = "Phresh <phresh@phresh.example>"
    return messages.make(name, language, to=to, sender=sender, **{**VALUES, **values})


def parts(message):
    """Return the subject, the text and the HTML as a mail program reads them."""
    read = email.message_from_bytes(message.as_bytes(), policy=SMTP)
    return read["Subject"], *(part.get_content() for part in read.iter_parts())


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", messages.names())
def test_every_mail_is_there_in_every_language(name, language):
    subject, text, html = parts(make(name, language))
    assert subject
    assert "\n" not in subject
    for body in (text, html):
        assert "anna" in body
        assert bool(re.search("[가-힣]", body)) == (language == "ko")
    assert f'<html lang="{language}">' in html
    # The text and the HTML say the same.
    shown = re.sub(r"<[^>]*>", " ", html.partition("<body")[2].partition(">")[2])
    for word in re.findall(r"\w{3,}", text.replace(VALUES["link"], "")):
        assert word in shown


@pytest.mark.parametrize("name", messages.names())
def test_a_mail_uses_the_same_values_in_every_language(name):
    environment = messages.environment()
    used = {}
    for template in environment.list_templates(filter_func=lambda each: each.startswith(name)):
        source, _, _ = environment.loader.get_source(environment, template)
        kind = template.partition(".")[2]
        found = meta.find_undeclared_variables(environment.parse(source)) - {"language"}
        used.setdefault(kind, []).append(found)
    assert set(used) == {"subject.txt", "txt", "html"}
    assert all(len(found) == len(LANGUAGES) for found in used.values())
    for found in used.values():
        assert all(each == found[0] for each in found)


@pytest.mark.parametrize("name", messages.names())
def test_links_stay_whole_in_the_file_of_an_english_mail(name):
    message = make(name)
    shown = sum(part.get_content().count(VALUES["link"]) for part in message.iter_parts())
    assert message.as_bytes().count(VALUES["link"].encode()) == shown


def test_a_value_that_is_missing_is_an_error():
    with pytest.raises(UndefinedError):
        messages.make("recovery", "en", to="a@b.example", sender="a@b.example", username="anna")


def test_a_value_is_text_in_html():
    _, text, html = parts(make(username="<b>anna</b>"))
    assert "<b>anna</b>" in text
    assert "&lt;b&gt;anna&lt;/b&gt;" in html
    assert "<b>anna" not in html


@pytest.mark.parametrize("to", ["a@b.example\nBcc: c@d.example", "a@b.example\r\n\r\nx"])
def test_no_address_adds_a_header(to):
    with pytest.raises(ValueError, match=r"(?i)linefeed|cr|invalid|newline|defect"):
        make(to=to)


@pytest.mark.parametrize(
    "to",
    ["anna@phresh.example", '"a b,c"@phresh.example', "zoë@zürich.example", "a+b'c@phresh.example"],
)
def test_each_address_is_one_recipient(to):
    [address] = make(to=to)["To"].addresses
    assert address.domain == to.rpartition("@")[2]


def test_the_headers_of_a_mail():
    message = make()
    assert re.fullmatch(r"<[^@<>\s]+@phresh\.example>", message["Message-ID"])
    assert message["Message-ID"] != make()["Message-ID"]
    assert message["Date"].datetime.tzinfo is not None
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["From"] == "Phresh <phresh@phresh.example>"
    assert all(len(line) <= 998 for line in message.as_bytes().splitlines())
