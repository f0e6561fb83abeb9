"""Text: in Unicode's normalization form C, without control characters; names can be seen."""

import json
import re
import unicodedata
from types import SimpleNamespace

import pytest
from marshmallow import ValidationError

from phresh.accounts.schemas import NewPassword
from phresh.web import fields
from phresh.web.fields import MARKS_MAX, Text

LIST = "/api/cleanings/"
ME = "/api/profiles/me/"
COMPOSED, DECOMPOSED = "Z\u00fcrich \u1ec7 \ud55c", "Zu\u0308rich e\u0323\u0302 \u1112\u1161\u11ab"
CONTROLS = [
    *(code for code in range(0x20) if chr(code) not in "\t\n\r"),
    *range(0x7F, 0xA0),
]
CONTROLS_DETAIL = "Must not contain control characters other than tabs and line breaks."


def details(response):
    assert response.status_code == 422, response.text[:500]
    return {
        error.get("pointer", error.get("parameter")): error["detail"]
        for error in response.json["errors"]
    }


def post(client, **values):
    return client.post(LIST, json={"new_cleaning": {"name": "Job", "price": 1, **values}})


def test_text_is_normalized_to_form_c(client, anna, ben, make_cleaning):
    assert unicodedata.normalize("NFC", DECOMPOSED) == COMPOSED != DECOMPOSED
    cleaning = post(client, name=DECOMPOSED, description=DECOMPOSED).json
    assert (cleaning["name"], cleaning["description"]) == (COMPOSED, COMPOSED)

    profile = dict.fromkeys(("full_name", "bio", "phone_number"), DECOMPOSED)
    changed = anna.client.patch(ME, json={"profile_update": profile}).json
    assert [changed[name] for name in profile] == [COMPOSED] * 3

    job = f"{LIST}{make_cleaning(owner_id=anna.id)}/offers/"
    offer = ben.client.post(job, json={"new_offer": {"message": DECOMPOSED}}).json
    assert offer["message"] == COMPOSED
    anna.client.put(f"{job}ben/")
    rating = {"overall_rating": 5, "headline": DECOMPOSED, "comment": DECOMPOSED}
    path = f"/api/users/ben/evaluations/{offer['cleaning_id']}/"
    evaluation = anna.client.post(path, json={"evaluation_create": rating}).json
    assert (evaluation["headline"], evaluation["comment"]) == (COMPOSED, COMPOSED)


@pytest.mark.parametrize("ensure_ascii", [True, False])
def test_escaped_text_is_normalized_too(client, ensure_ascii):
    body = {"new_cleaning": {"name": DECOMPOSED, "price": 1}}
    data = json.dumps(body, ensure_ascii=ensure_ascii).encode()
    response = client.post(LIST, data=data, content_type="application/json")
    assert response.json["name"] == COMPOSED


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("other", ["NFC", "NFD"])
def test_a_search_finds_text_in_either_form(client, form, other):
    """Case 23 of the public reports."""
    word = "Z\u00fcrichberg"
    cleaning = post(client, name=unicodedata.normalize(form, word)).json
    found = client.get(LIST, query_string={"q": unicodedata.normalize(other, word)}).json
    assert [each["id"] for each in found] == [cleaning["id"]]


def test_a_request_in_another_form_is_the_same_for_an_idempotency_key(client):
    headers = {"Idempotency-Key": "k"}
    first, second = (
        client.post(LIST, json={"new_cleaning": {"name": name, "price": 1}}, headers=headers)
        for name in (COMPOSED, DECOMPOSED)
    )
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json == second.json


def test_the_length_is_checked_before_and_after_normalization(client):
    twice = "\u0958"  # one character, which form C has as two
    assert len(unicodedata.normalize("NFC", twice)) == 2
    assert post(client, name=twice * 100).json["name"] == unicodedata.normalize("NFC", twice * 100)
    for name in (twice * 101, "e\u0301" * 101):
        assert details(post(client, name=name)) == {
            "/new_cleaning/name": "Length must be between 1 and 200."
        }
    assert details(client.get(LIST, query_string={"q": twice * 51})) == {
        "q": "Length must be between 1 and 100."
    }


def test_a_password_is_not_normalized(client):
    field = NewPassword()
    for password in (DECOMPOSED, COMPOSED, "\x01\x02 \t\x7f\x85 ab", "\u0300" * 100):
        assert field.deserialize(password) == password
    user = {"email": "a@phresh.example", "username": "anna", "password": DECOMPOSED}
    assert client.post("/api/users/", json={"new_user": user}).status_code == 201
    for password, status in ((DECOMPOSED, 200), (COMPOSED, 400)):
        form = {"username": user["email"], "password": password}
        assert client.post("/api/users/login/token/", data=form).status_code == status


@pytest.mark.parametrize("code", CONTROLS, ids=hex)
def test_a_control_character_is_rejected(anna, code):
    text = f"a{chr(code)}b"
    expected = "Must not contain the character NUL." if code == 0 else CONTROLS_DETAIL
    response = post(anna.client, name=text, description=text)
    assert details(response) == {
        "/new_cleaning/name": expected,
        "/new_cleaning/description": expected,
    }
    assert details(anna.client.get(LIST, query_string={"q": text})) == {"q": expected}
    image = f"https://phresh.example/{text}"
    response = anna.client.patch(ME, json={"profile_update": {"bio": text, "image": image}})
    assert details(response) == {
        "/profile_update/bio": expected,
        "/profile_update/image": expected,
    }


def test_tabs_line_breaks_and_joiners_are_kept(client):
    persian, scientist = (
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        "\U0001f469\u200d\U0001f52c",
    )
    text = f"a\tb\r\nc\nd\u2028e {persian} {scientist}"
    cleaning = post(client, name=text, description=text).json
    assert (cleaning["name"], cleaning["description"]) == (text, text)


INVISIBLE = {
    "zero width space": "\u200b",
    "joiners": "\u200c\u200d\u2060",
    "byte order mark": "\ufeff",
    "soft hyphen": "\xad",
    "combining": "\u0301\u0323",
    "combining grapheme joiner": "\u034f",
    "enclosing": "\u20dd",
    "Devanagari vowel sign": "\u093e",
    "variation selectors": "\ufe0f\ufe00\U000e0100",
    "Hangul fillers": "\u115f\u1160\u3164\uffa0",
    "braille pattern blank": "\u2800",
    "Mongolian separator": "\u180e\u180b",
    "Khmer inherent vowel": "\u17b4\u17b5",
    "marks of direction": "\u200e\u200f\u061c",
    "invisible operators": "\u2061\u2062\u2063\u2064",
    "deprecated format": "\u206a\u206f",
    "interlinear": "\ufff9\ufffa\ufffb",
    "tags": "\U000e0001\U000e0061\U000e007f",
    "shorthand format": "\U0001bca0",
    "null notehead": "\U0001d159",
    "musical format": "\U0001d173",
    "Egyptian format": "\U00013430",
    "private use": "\ue000",
    "unassigned": "\u0378",
    "with white space": " \u200b\n\u3164\t\u3000",
}


@pytest.mark.parametrize("text", INVISIBLE.values(), ids=INVISIBLE)
def test_a_name_without_a_visible_character_is_rejected(anna, make_cleaning, text):
    """A description or a comment may have nothing to see."""
    expected = "Must have a visible character: a letter, a digit, punctuation or a symbol."
    assert details(post(anna.client, name=text)) == {"/new_cleaning/name": expected}
    one = f"{LIST}{make_cleaning(owner_id=anna.id)}/"
    response = anna.client.patch(one, json={"cleaning_update": {"name": text}})
    assert details(response) == {"/cleaning_update/name": expected}
    response = anna.client.patch(ME, json={"profile_update": {"full_name": text}})
    assert details(response) == {"/profile_update/full_name": expected}
    assert "q" in details(anna.client.get(LIST, query_string={"q": text}))
    assert post(anna.client, name=f"{text}!", description=text).status_code == 201


@pytest.mark.parametrize("text", [" ", "\t\r\n", "\u3000\u00a0\u2028"])
def test_a_name_of_white_space_is_rejected(anna, text):
    assert details(post(anna.client, name=text)) == {"/new_cleaning/name": "Must not be blank."}
    response = anna.client.patch(ME, json={"profile_update": {"full_name": text}})
    assert details(response) == {"/profile_update/full_name": "Must not be blank."}


@pytest.mark.parametrize(
    "text", ["x", "7", "?", "+", "\u20ac", "\u2603", "\U0001f9f9", "\u3042", "\u05d0", "a\u0301"]
)
def test_a_name_has_one_visible_character(anna, text):
    assert post(anna.client, name=text).status_code == 201
    response = anna.client.patch(ME, json={"profile_update": {"full_name": text}})
    assert response.status_code == 200


def test_a_full_name_may_be_empty(anna):
    """As in 1.0."""
    response = anna.client.patch(ME, json={"profile_update": {"full_name": ""}})
    assert response.json["full_name"] == ""


@pytest.mark.parametrize("code", [*range(0x202A, 0x202F), *range(0x2066, 0x206A)], ids=hex)
def test_a_name_does_not_change_the_direction_of_what_follows(anna, code):
    text = f"moc{chr(code)}elpmaxe"
    [(pointer, detail)] = details(post(anna.client, name=text)).items()
    assert pointer == "/new_cleaning/name"
    assert "change the direction of writing" in detail
    assert post(anna.client, name="\u200f\u05d0\u200e", description=text).status_code == 201
    response = anna.client.patch(ME, json={"profile_update": {"phone_number": text}})
    assert response.status_code == 200


def test_many_combining_marks_in_a_row_are_rejected_before_they_are_normalized(client, monkeypatch):
    """Found by measuring: a description of 10,000 took 0.8 seconds."""
    zalgo = "a" + "\u0316\u0300" * (MARKS_MAX // 2)
    assert post(client, description=f"{zalgo}b{zalgo}").status_code == 201
    known = {"category": unicodedata.category, "combining": unicodedata.combining}
    monkeypatch.setattr(fields, "unicodedata", SimpleNamespace(**known, normalize=pytest.fail))
    for text in (f"x{zalgo}\u0300", "a" + "\u0316\u0300" * 4_999, "\u0300\u0316" * 5_000):
        assert details(post(client, description=text)) == {
            "/new_cleaning/description": "Must not have more than 30 combining marks in a row."
        }


def test_the_pattern_of_a_text_is_what_is_accepted():
    """In the planes that a range can name without the flag u of ECMA-262."""
    for field in (Text(max_length=9), Text(max_length=9, blank=False)):
        pattern = re.compile(field.metadata["pattern"])
        looser = set()
        for code in range(0x10000):
            if 0xD800 <= code < 0xE000:
                continue
            character = chr(code)
            try:
                field.deserialize(character)
            except ValidationError:
                if pattern.search(character) and character not in fields.FILLERS:
                    looser.add(unicodedata.category(character))
            else:
                assert pattern.search(character), hex(code)
        assert looser <= ({"Mn", "Mc", "Me", "Cf", "Cn", "Co"} if not field.blank else set())


def test_no_control_character_matches_the_pattern_of_a_text():
    for field in (Text(max_length=9), Text(max_length=9, blank=False)):
        for code in CONTROLS:
            for text in (chr(code), f"a{chr(code)}", f"{chr(code)}a"):
                assert not re.search(field.metadata["pattern"], text)
