"""Cleanings over HTTP: representation, creation, updates, deletion and validation errors."""

import json
from functools import partial

import pytest

from phresh import create_app
from tests.tools.contract import TIME

LIST = "/api/cleanings/"
FULL = {
    "name": "Clean my house",
    "description": "Three rooms and a cat.",
    "cleaning_type": "full_clean",
    "price": 29.99,
}


@pytest.fixture
def client(anna):
    """Return a client that sends Anna's token."""
    return anna.client


@pytest.fixture
def make_cleaning(make_cleaning, anna):
    """Make cleanings that Anna owns."""
    return partial(make_cleaning, owner_id=anna.id)


def post(client, **values):
    return client.post(LIST, json={"new_cleaning": {"name": "A job", "price": 20, **values}})


def patch(client, cleaning_id, **changes):
    return client.patch(f"{LIST}{cleaning_id}/", json={"cleaning_update": changes})


def errors(response):
    assert response.status_code == 422
    assert response.content_type == "application/problem+json"
    return {
        error.get("pointer", error.get("parameter")): error["detail"]
        for error in response.json["errors"]
    }


def names(response):
    assert response.status_code == 200
    return [cleaning["name"] for cleaning in response.json]


def test_a_new_cleaning_is_returned_in_full(client):
    response = client.post(LIST, json={"new_cleaning": FULL})
    assert response.status_code == 201
    assert response.content_type == "application/json"
    body = json.loads(response.data)
    assert list(body) == [
        *("id", "name", "description", "cleaning_type", "price", "status"),
        *("owner", "is_hidden", "created_at", "updated_at"),
    ]
    expected = {"id": body["id"], **FULL, "status": "open", "owner": {"username": "anna"}}
    expected["is_hidden"] = False
    assert body == expected | {name: body[name] for name in ("created_at", "updated_at")}
    assert response.headers["Location"] == f"{LIST}{body['id']}/"
    assert client.get(response.headers["Location"]).data == response.data


def test_omitted_fields_have_their_defaults(client):
    body = json.loads(post(client).data)
    assert body["description"] is None
    assert body["cleaning_type"] == "spot_clean"


def test_the_list_is_an_array_newest_first(client, make_cleaning):
    assert client.get(LIST).json == []
    first, second = make_cleaning(name="First"), make_cleaning(name="Second")
    assert [cleaning["id"] for cleaning in client.get(LIST).json] == [second, first]


def test_a_page_has_20_cleanings_or_the_given_limit(client, make_cleaning):
    for _ in range(21):
        make_cleaning()
    assert len(client.get(LIST).json) == 20
    assert len(client.get(f"{LIST}?limit=1").json) == 1
    assert len(client.get(f"{LIST}?limit=100").json) == 21


@pytest.mark.parametrize(
    "limit", ["0", "101", "-1", "+5", "1_0", "٥", "5.0", "", "all", "9" * 5000]
)
def test_an_invalid_limit_is_rejected(client, limit):
    assert list(errors(client.get(LIST, query_string={"limit": limit}))) == ["limit"]


@pytest.mark.parametrize("rows", [1, 100])
def test_the_list_sends_one_sql_statement(client, make_cleaning, statements, rows):
    for _ in range(rows):
        make_cleaning()
    statements.clear()
    assert len(client.get(f"{LIST}?limit=100").json) == rows
    assert len(statements) == 1


@pytest.mark.parametrize("method", ["patch", "put"])
def test_an_update_changes_only_the_given_fields(client, make_cleaning, method):
    cleaning_id = make_cleaning(description="Old", cleaning_type="dust_up", price="12.50")
    url = f"{LIST}{cleaning_id}/"
    response = getattr(client, method)(url, json={"cleaning_update": {"name": "New"}})
    assert response.status_code == 200
    expected = {"id": cleaning_id, "name": "New", "description": "Old"}
    expected |= {"cleaning_type": "dust_up", "price": 12.5, "owner": {"username": "anna"}}
    assert json.loads(response.data) == response.json | expected
    assert client.get(url).data == response.data


def test_an_update_without_fields_changes_nothing(client, make_cleaning):
    cleaning_id = make_cleaning(name="As it was")
    response = patch(client, cleaning_id)
    assert response.status_code == 200
    assert response.json["name"] == "As it was"


def test_only_a_change_advances_updated_at(client):
    posted = post(client).json
    assert TIME.fullmatch(posted["created_at"])
    assert posted["updated_at"] == posted["created_at"]
    assert patch(client, posted["id"]).json == posted
    changed = patch(client, posted["id"], name="New").json
    assert changed["created_at"] == posted["created_at"]
    assert TIME.fullmatch(changed["updated_at"])
    assert changed["updated_at"] > posted["updated_at"]


def test_times_are_in_utc_whatever_the_time_zone_of_the_database(settings, make_cleaning, sql):
    cleaning_id = make_cleaning()
    name = sql("SELECT current_database()")[0][0]
    sql(f"ALTER DATABASE {name} SET TimeZone = 'Asia/Kathmandu'")
    try:
        response = create_app(settings).test_client().get(f"{LIST}{cleaning_id}/")
    finally:
        sql(f"ALTER DATABASE {name} RESET TimeZone")
    assert TIME.fullmatch(response.json["created_at"])


def test_a_description_can_be_set_to_null(client, make_cleaning):
    assert (
        patch(client, make_cleaning(description="Old"), description=None).json["description"]
        is None
    )


@pytest.mark.parametrize("field", ["name", "price", "cleaning_type"])
def test_null_is_rejected_for_a_field_that_needs_a_value(client, make_cleaning, field):
    cleaning_id = make_cleaning()
    assert list(errors(patch(client, cleaning_id, **{field: None}))) == [
        f"/cleaning_update/{field}"
    ]
    assert list(errors(post(client, **{field: None}))) == [f"/new_cleaning/{field}"]


def test_a_deleted_cleaning_is_404(client, make_cleaning):
    url = f"{LIST}{make_cleaning()}/"
    response = client.delete(url)
    assert (response.status_code, response.data) == (204, b"")
    assert "Content-Type" not in response.headers
    assert client.get(url).status_code == 404
    assert client.delete(url).status_code == 404


@pytest.mark.parametrize("method", ["get", "patch", "put", "delete"])
def test_a_missing_cleaning_is_404_with_its_own_detail(client, method):
    body = {"cleaning_update": {"name": "New"}} if method in ("patch", "put") else None
    response = getattr(client, method)(f"{LIST}2147483647/", json=body)
    assert response.status_code == 404
    assert response.json["detail"] == "No cleaning has this id."


@pytest.mark.parametrize(
    "cleaning_id", ["0", "01", "-1", "+1", "%201", "١", "2147483648", "9" * 30, "x"]
)
def test_an_invalid_id_is_404(client, cleaning_id):
    response = client.get(f"{LIST}{cleaning_id}/")
    assert response.status_code == 404
    assert response.json["detail"] == "Not Found"


@pytest.mark.parametrize("method", ["GET", "PATCH", "PUT", "DELETE"])
@pytest.mark.parametrize("cleaning_id", ["0", "2147483648", "9999999999"])
def test_an_invalid_id_is_404_for_every_method(client, method, cleaning_id):
    """Found by schemathesis: such an id returned 405 when another method's rule came first."""
    body = None if method == "GET" else {"cleaning_update": {}}
    response = client.open(f"{LIST}{cleaning_id}/", method=method, json=body)
    assert response.status_code == 404
    assert response.json["detail"] == "Not Found"


def test_the_trailing_slash_of_a_path_is_optional(client, make_cleaning):
    cleaning_id = make_cleaning()
    assert client.get("/api/cleanings").data == client.get(LIST).data
    assert client.get(f"/api/cleanings/{cleaning_id}").status_code == 200
    assert client.post("/api/cleanings", json={"new_cleaning": FULL}).status_code == 201
    assert (
        patch(client, cleaning_id).data
        == client.patch(f"/api/cleanings/{cleaning_id}", json={"cleaning_update": {}}).data
    )
    assert client.delete(f"/api/cleanings/{cleaning_id}").status_code == 204


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ("29.99", 29.99),
        ("29.990", 29.99),
        ("2.999e1", 29.99),
        ("0", 0),
        ("-0.0", 0),
        ("99999999.99", 99999999.99),
        ('"29.99"', 29.99),
        ('"5"', 5),
        ('"5.5"', 5.5),
        ('"00000005"', 5),
    ],
)
def test_a_price_is_accepted_in_every_valid_notation(client, sent, stored):
    body = f'{{"new_cleaning": {{"name": "A job", "price": {sent}}}}}'
    response = client.post(LIST, data=body, content_type="application/json")
    assert response.status_code == 201
    assert json.loads(response.data)["price"] == stored
    assert client.get(response.headers["Location"]).data == response.data


@pytest.mark.parametrize(
    "sent",
    [
        *("-1", "-0.01", "100000000", "99999999.991", "99999999.995", "1e400", "1e9999999"),
        *("1.005", "0.30000000000000004", "1e-9999999", "29.999", "true", "null", "[]", "{}"),
        *('""', '"-1"', '"1_0"', '"١٢"', '" 12 "', '"12\\n"', '"1e1"', '"29.990"', '"+1"', '".5"'),
        *('"5."', '"NaN"', '"Infinity"', '"999999999"', '"abc"'),
    ],
)
def test_an_invalid_price_is_rejected_and_never_rounded(client, sql, sent):
    body = f'{{"new_cleaning": {{"name": "A job", "price": {sent}}}}}'
    response = client.post(LIST, data=body, content_type="application/json")
    assert list(errors(response)) == ["/new_cleaning/price"]
    assert sql("SELECT * FROM cleanings") == []


BLANK = ["", " ", "\n\t", "\u00a0", "\u3000\u2003", "\x1c\x1f", "\ufeff", "\x85"]
UNSTORABLE = ["a\0b", "\ud800", "x\udfff"]


@pytest.mark.parametrize("name", [*BLANK, *UNSTORABLE, "x" * 201, 1, True, ["x"], {}])
def test_an_invalid_name_is_rejected(client, name):
    assert list(errors(post(client, name=name))) == ["/new_cleaning/name"]


@pytest.mark.parametrize("description", [*UNSTORABLE, "x" * 10_001, 1, ["x"]])
def test_an_invalid_description_is_rejected(client, make_cleaning, description):
    response = patch(client, make_cleaning(), description=description)
    assert list(errors(response)) == ["/cleaning_update/description"]


@pytest.mark.parametrize(
    "text", ["  kept as sent  ", "청소", "É", "𝒳" * 200, "a\nb", "'; --", "%s :x"]
)
def test_text_is_stored_as_sent(client, text):
    body = post(client, name=text, description=text).json
    assert (body["name"], body["description"]) == (text, text)
    assert client.get(f"{LIST}{body['id']}/").json["name"] == text


def test_descriptions_of_0_and_10000_characters_are_accepted(client):
    assert post(client, description="").json["description"] == ""
    assert post(client, description="x" * 10_000).status_code == 201


@pytest.mark.parametrize("cleaning_type", ["", "Dust_up", "deep_clean", 1, ["dust_up"]])
def test_an_unknown_cleaning_type_is_rejected(client, cleaning_type):
    response = post(client, cleaning_type=cleaning_type)
    assert list(errors(response)) == ["/new_cleaning/cleaning_type"]


def test_all_invalid_fields_are_reported_at_once(client):
    assert set(errors(post(client, name="", price=-1, id=7, **{"a/b~c": 1}))) == {
        "/new_cleaning/name",
        "/new_cleaning/price",
        "/new_cleaning/id",
        "/new_cleaning/a~1b~0c",
    }


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({}, ["/new_cleaning"]),
        ({"new_cleaning": None}, ["/new_cleaning"]),
        ({"new_cleaning": []}, ["/new_cleaning"]),
        ({"new_cleaning": {}}, ["/new_cleaning/name", "/new_cleaning/price"]),
        ({"new_cleaning": FULL, "more": 1}, ["/more"]),
        ([], [""]),
        ("text", [""]),
        (None, [""]),
    ],
)
def test_a_body_of_the_wrong_structure_is_rejected(client, body, pointers):
    response = client.post(LIST, data=json.dumps(body), content_type="application/json")
    assert sorted(errors(response)) == pointers


@pytest.mark.parametrize("method", ["get", "post", "patch", "put", "delete"])
def test_an_unknown_query_parameter_is_rejected(client, make_cleaning, method):
    url = LIST if method == "post" else f"{LIST}{make_cleaning()}/"
    key = {"post": "new_cleaning", "patch": "cleaning_update", "put": "cleaning_update"}.get(method)
    response = getattr(client, method)(f"{url}?x=1", json={key: FULL} if key else None)
    assert list(errors(response)) == ["x"]
    assert response.json["errors"][0]["in"] == "query"
    assert list(errors(client.get(f"{LIST}?x=1&limit=5"))) == ["x"]


def test_a_repeated_query_parameter_is_rejected(client):
    assert errors(client.get(f"{LIST}?limit=1&limit=2")) == {"limit": "Given more than once."}


def test_head_responds_like_get_without_a_body(client, make_cleaning):
    make_cleaning()
    head, get = client.head(LIST), client.get(LIST)
    assert (head.status_code, head.data) == (200, b"")
    assert head.headers["Content-Length"] == get.headers["Content-Length"]
