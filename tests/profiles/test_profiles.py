"""Profiles over HTTP: who sees what of whom, each change and each refusal."""

import pytest
from flask_migrate import downgrade, upgrade
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from phresh import create_app
from phresh.database.base import db
from phresh.profiles import queries

PROFILES = "/api/profiles/"
ME = f"{PROFILES}me/"
BEFORE_PROFILES = "7c4e1a8d3f52"
LONE = "\ud800"
CONTACT = {"email", "phone_number"}
EMPTY = {"full_name": None, "bio": None, "image": None}
UNRATED = {"avg_overall_rating": None, "total_evaluations": 0}
FULL = {
    "full_name": "Anna Winter",
    "phone_number": "+49 30 1234567",
    "bio": "Quick, and kind to cats.\nAlways.",
    "image": "https://phresh.example/anna.jpg?size=2#top",
}


def url_of(someone):
    return f"{PROFILES}{someone.username}/"


def get(client, someone):
    response = client.get(url_of(someone))
    assert response.status_code == 200, response.json
    return response.json


def change(someone, method="patch", **changes):
    return getattr(someone.client, method)(ME, json={"profile_update": changes})


@pytest.fixture
def offer(sql, make_cleaning):
    """Have someone offer to clean for an owner; gives the id of the cleaning."""

    def make(owner, cleaner, status):
        job = make_cleaning(owner_id=owner.id)
        insert = "INSERT INTO offers (cleaning_id, user_id, status) VALUES (:job, :user, :status)"
        sql(insert, job=job, user=cleaner.id, status=status)
        return job

    return make


@pytest.fixture
def rate(sql, offer):
    """Have an owner rate a cleaner."""

    def make(owner, cleaner, stars):
        insert = (
            "INSERT INTO evaluations (cleaning_id, cleaner_id, owner_id, overall_rating)"
            " VALUES (:job, :cleaner, :owner, :stars)"
        )
        job = offer(owner, cleaner, "completed")
        sql(insert, job=job, cleaner=cleaner.id, owner=owner.id, stars=stars)

    return make


NEW = {"email": "anna@phresh.example", "username": "Anna", "password": "four cats on a roof"}


def test_it_is_made_with_the_account(client):
    assert client.post("/api/users/", json={"new_user": NEW}).status_code == 201
    response = client.get(f"{PROFILES}Anna/")
    assert (response.status_code, response.json) == (200, {"username": "Anna", **EMPTY, **UNRATED})


def test_without_it_there_is_no_account(client, sql, monkeypatch):
    """A database that refuses the profile refuses the user too."""
    nobody = queries.new_profile(user_id=0)
    monkeypatch.setattr("phresh.accounts.views.new_profile", lambda **_: nobody)
    assert client.post("/api/users/", json={"new_user": NEW}).status_code == 409
    assert sql("SELECT FROM users") == sql("SELECT FROM tokens") == []
    monkeypatch.undo()
    assert client.post("/api/users/", json={"new_user": NEW}).status_code == 201


def test_accounts_that_were_there_get_one_by_the_migration(make_database):
    app = create_app({"DATABASE_URL": make_database("profiles")})
    with app.app_context():
        upgrade()
        downgrade(revision=BEFORE_PROFILES)
        with db.engine.begin() as connection:
            connection.execute(
                text(
                    "INSERT INTO users (email, username, password_hash) SELECT"
                    " n || '@phresh.example', 'user-' || n, '!' FROM generate_series(1, 3) n"
                )
            )
        upgrade()
        answers = [app.test_client().get(f"{PROFILES}user-{n}/") for n in (1, 2, 3)]
        db.engine.dispose()
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert answers[0].json == {"username": "user-1", **EMPTY, **UNRATED}


def test_it_goes_with_the_account(client, anna, sql):
    assert anna.client.delete("/api/users/me/").status_code == 204
    assert client.get(url_of(anna)).status_code == 404
    assert sql("SELECT FROM profiles") == []


def test_everyone_sees_this_and_no_more(client, anna, ben):
    change(anna, **FULL)
    public = {name: value for name, value in FULL.items() if name not in CONTACT}
    for viewer in (client, ben.client):
        assert get(viewer, anna) == {"username": "anna", **public, **UNRATED}


def test_one_sees_all_of_oneself(anna):
    everything = {"username": "anna", "email": anna.email, **FULL, **UNRATED}
    assert change(anna, **FULL).json == everything
    assert get(anna.client, anna) == everything


@pytest.mark.parametrize(
    ("status", "is_shown"),
    [
        *(("accepted", True), ("completed", True)),
        *(("pending", False), ("rejected", False), ("cancelled", False)),
    ],
)
def test_owner_and_cleaner_can_reach_each_other(anna, ben, offer, status, is_shown):
    for person in (anna, ben):
        change(person, phone_number=f"Of {person.username}")
    offer(anna, ben, status)
    for viewer, person in ((anna, ben), (ben, anna)):
        seen = get(viewer.client, person)
        shown = {"email": person.email, "phone_number": f"Of {person.username}"}
        assert {name: seen[name] for name in CONTACT & seen.keys()} == (shown if is_shown else {})


def test_nobody_else_can_reach_them(client, make_user, anna, ben, offer):
    other, others_owner = make_user("other"), make_user("owner")
    offer(anna, ben, "accepted")
    offer(anna, other, "accepted")
    offer(others_owner, ben, "accepted")
    for viewer, person in ((other, ben), (ben, other), (anna, others_owner), (others_owner, anna)):
        assert get(viewer.client, person).keys().isdisjoint(CONTACT)
    for person in (anna, ben):
        assert get(client, person).keys().isdisjoint(CONTACT)


def test_what_was_gone_is_hidden_again(anna, ben, offer):
    job = offer(anna, ben, "pending")
    anna.client.put(f"/api/cleanings/{job}/offers/ben/")
    assert get(ben.client, anna).keys() >= CONTACT
    ben.client.put(f"/api/cleanings/{job}/offers/")
    for viewer, person in ((anna, ben), (ben, anna)):
        assert get(viewer.client, person).keys().isdisjoint(CONTACT)


def test_who_is_gone_shows_nothing(client, make_user, anna, ben, offer):
    cleaner = make_user("gone")
    offer(anna, cleaner, "completed")
    offer(cleaner, ben, "completed")
    assert cleaner.client.delete("/api/users/me/").status_code == 204
    for person in (anna, ben):
        assert get(client, person).keys().isdisjoint(CONTACT)
    assert get(anna.client, ben).keys().isdisjoint(CONTACT)


def test_a_token_that_is_not_good_is_refused(client, anna):
    for path, method in ((url_of(anna), "GET"), (ME, "PATCH"), (ME, "PUT")):
        body = None if method == "GET" else {"profile_update": {}}
        headers = {"Authorization": "Bearer x"}
        response = client.open(path, method=method, json=body, headers=headers)
        assert response.status_code == 401
        assert response.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'


@pytest.mark.parametrize("method", ["patch", "put"])
def test_a_change_takes_a_token(client, method):
    response = getattr(client, method)(ME, json={"profile_update": {"bio": "x"}})
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("method", ["patch", "put"])
def test_what_is_left_out_stays_and_null_takes_away(anna, method):
    def seen():
        return {name: get(anna.client, anna)[name] for name in FULL}

    assert change(anna, method, **FULL).status_code == 200
    assert change(anna, method).status_code == 200
    assert seen() == FULL
    for name in FULL:
        assert change(anna, method, **{name: None}).json[name] is None
        assert seen() == FULL | {name: None}
        assert change(anna, method, **{name: FULL[name]}).status_code == 200


def test_it_is_ones_own_that_changes(client, anna, ben):
    assert change(anna, bio="Of Anna").status_code == 200
    assert get(client, ben)["bio"] is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("full_name", "x" * 200), ("phone_number", "x" * 50), ("bio", "x" * 10_000)),
        *(("full_name", "😀" * 200), ("full_name", ""), ("bio", " \n\t"), ("bio", "청소")),
        ("image", "https://phresh.example/".ljust(2_000, "x")),
        *(("image", f"{scheme}://phresh.example") for scheme in ("http", "HTTPS", "hTTp")),
        *(("image", f"https://{host}/a.jpg") for host in ("127.0.0.1", "[::1]", "straße.example")),
    ],
)
def test_what_is_allowed_is_kept_as_it_is(anna, name, value):
    response = change(anna, **{name: value})
    assert response.status_code == 200, response.json
    assert response.json[name] == get(anna.client, anna)[name] == value


@pytest.mark.parametrize("method", ["patch", "put"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("full_name", "x" * 201), ("phone_number", "x" * 51), ("bio", "x" * 10_001)),
        ("image", "https://phresh.example/".ljust(2_001, "x")),
        *((name, value) for name in FULL for value in (1, True, [], {}, "a\0b", f"a{LONE}b")),
        *(("image", f"https://phresh.example/{bad}") for bad in ("\0", LONE)),
        *(
            ("image", url)
            for url in (
                *("", " ", "anna.jpg", "phresh.example/anna.jpg", "//phresh.example/anna.jpg"),
                *("http://", "https:///anna.jpg", "https:anna.jpg", "https://?x", "https://#x"),
                *("ftp://phresh.example/a.jpg", "data:image/png;base64,AA", "javascript:alert(1)"),
                *(" https://phresh.example/", "https://phresh.example/\n", "https://phresh ex/"),
                "file:///etc/passwd",
            )
        ),
        *(("username", "ben"), ("email", "x@phresh.example"), ("user_id", 1), ("id", 1), ("x", 1)),
        *(("avg_overall_rating", 5), ("total_evaluations", 1)),
    ],
)
def test_a_bad_value_is_refused_by_name(anna, method, name, value):
    before = get(anna.client, anna)
    response = change(anna, method, **{"bio": "Good"} | {name: value})
    assert response.status_code == 422
    assert [error["pointer"] for error in response.json["errors"]] == [f"/profile_update/{name}"]
    assert get(anna.client, anna) == before


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/profile_update"),
        ({"profile_update": None}, "/profile_update"),
        ({"profile_update": []}, "/profile_update"),
        ({"bio": "x", "profile_update": {}}, "/bio"),
    ],
)
def test_a_body_of_another_form_is_refused(anna, body, pointer):
    response = anna.client.patch(ME, json=body)
    assert response.status_code == 422
    assert [error["pointer"] for error in response.json["errors"]] == [pointer]


def test_there_has_to_be_a_body_of_json(anna):
    assert anna.client.patch(ME).status_code == 415
    assert anna.client.patch(ME, data="{", content_type="application/json").status_code == 400


def test_query_parameters_are_refused(client, anna):
    assert client.get(f"{url_of(anna)}?x=1").status_code == 422
    assert anna.client.patch(f"{ME}?x=1", json={"profile_update": {}}).status_code == 422


def test_the_username_is_found_in_any_case_and_shown_as_it_is(client, make_user):
    make_user("Mary-Ann_3")
    for name in ("Mary-Ann_3", "mary-ann_3", "MARY-ANN_3"):
        assert client.get(f"{PROFILES}{name}/").json["username"] == "Mary-Ann_3"


def test_the_path_without_its_last_slash_is_the_same(client, anna):
    assert client.get(url_of(anna).rstrip("/")).json == get(client, anna)


def test_it_has_the_new_name_after_a_change_of_the_name(client, anna):
    body = {"user_update": {"username": "anna-2"}}
    assert anna.client.patch("/api/users/me/", json=body).status_code == 200
    assert client.get(url_of(anna)).status_code == 404
    assert client.get(f"{PROFILES}anna-2/").json["username"] == "anna-2"


def test_who_is_not_there_is_404(client):
    response = client.get(f"{PROFILES}nobody/")
    assert response.status_code == 404
    assert response.json["detail"] == "No user has this username."


@pytest.mark.parametrize("name", ["ab", "x" * 31, "a b", "änna", "a.b", "a%00b", "anna%0A", "a/b"])
def test_what_is_no_username_is_no_url(client, name):
    response = client.get(f"{PROFILES}{name}/")
    assert (response.status_code, response.json["detail"]) == (404, "Not Found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PATCH", "anna/", {"GET", "HEAD", "OPTIONS"}),
        ("PUT", "anna/", {"GET", "HEAD", "OPTIONS"}),
        ("DELETE", "anna/", {"GET", "HEAD", "OPTIONS"}),
        ("GET", "me/", {"PATCH", "PUT", "OPTIONS"}),
        ("DELETE", "me/", {"PATCH", "PUT", "OPTIONS"}),
    ],
)
def test_other_methods_are_405(anna, method, path, allowed):
    response = anna.client.open(PROFILES + path, method=method)
    assert response.status_code == 405
    assert {*response.headers["Allow"].split(", ")} == allowed


def test_there_is_no_list_of_all(client):
    assert client.get(PROFILES).status_code == 404


@pytest.mark.parametrize(
    ("stars", "average"), [([5], 5), ([1, 2], 1.5), ([5, 5, 4], 14 / 3), ([1, 1, 1], 1)]
)
def test_it_shows_how_a_cleaner_was_rated(client, anna, ben, rate, stars, average):
    for each in stars:
        rate(anna, ben, each)
    seen = get(client, ben)
    assert float(seen["avg_overall_rating"]) == pytest.approx(average)
    assert seen["total_evaluations"] == len(stars)
    assert get(client, anna).items() >= UNRATED.items()


def test_ratings_stay_when_the_owner_is_gone(client, anna, ben, rate):
    rate(anna, ben, 4)
    assert anna.client.delete("/api/users/me/").status_code == 204
    rated = {"avg_overall_rating": 4, "total_evaluations": 1}
    assert get(client, ben).items() >= rated.items()


@pytest.mark.parametrize("count", [1, 100])
def test_it_takes_one_statement_and_the_token_another(client, anna, ben, rate, statements, count):
    for _ in range(count):
        rate(anna, ben, 5)
    for viewer, expected in ((client, 1), (anna.client, 2), (ben.client, 2)):
        statements.clear()
        assert get(viewer, ben)["total_evaluations"] == count
        assert len(statements) == expected


def test_a_change_takes_three_statements(anna, statements):
    assert change(anna, bio="New", full_name="Anna").status_code == 200
    assert len(statements) == 3


def test_who_has_the_state_gets_304(client, anna):
    for viewer in (client, anna.client):
        etag = viewer.get(url_of(anna)).headers["ETag"]
        headers = {"If-None-Match": etag}
        assert viewer.get(url_of(anna), headers=headers).status_code == 304
        assert viewer.head(url_of(anna), headers=headers).status_code == 304
    assert change(anna, bio="New").status_code == 200
    response = viewer.get(url_of(anna), headers=headers)
    assert (response.status_code, response.json["bio"]) == (200, "New")


def test_what_others_see_is_another_state(client, anna):
    etags = {viewer.get(url_of(anna)).headers["ETag"] for viewer in (client, anna.client)}
    assert len(etags) == 2


@pytest.mark.parametrize(
    ("check", "name", "bad"),
    [
        ("full_name_length", "full_name", "x" * 201),
        ("phone_number_length", "phone_number", "x" * 51),
        ("bio_length", "bio", "x" * 10_001),
        ("image_length", "image", "https://phresh.example/".ljust(2_001, "x")),
        *(("image", "image", url) for url in ("", "anna.jpg", "ftp://x", " https://x", "https:x")),
    ],
)
def test_each_check_refuses_what_the_schemas_refuse(anna, sql, check, name, bad):
    for good in (None, FULL[name]):
        sql(f"UPDATE profiles SET {name} = :good", good=good)
    with pytest.raises(IntegrityError, match=f'"ck_profiles_{check}"'):
        sql(f"UPDATE profiles SET {name} = :bad", bad=bad)


def test_a_user_has_one_profile(anna, sql):
    with pytest.raises(IntegrityError, match="pk_profiles"):
        sql("INSERT INTO profiles (user_id) VALUES (:id)", id=anna.id)
    with pytest.raises(IntegrityError, match="fk_profiles_user_id"):
        sql("INSERT INTO profiles (user_id) VALUES (:id)", id=anna.id + 1)


def test_who_has_no_profile_is_shown_and_gets_one(client, anna, sql):
    """An older version that still runs while the migration is applied makes no profiles."""
    sql("DELETE FROM profiles")
    assert client.get("/api/profiles/anna/").json["bio"] is None
    changes = {"profile_update": {"bio": "New"}}
    assert anna.client.patch("/api/profiles/me/", json=changes).json["bio"] == "New"
    assert sql("SELECT bio FROM profiles") == [("New",)]
