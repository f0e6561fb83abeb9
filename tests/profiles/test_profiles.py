"""Profiles over HTTP: which fields each viewer sees, each change and each error."""

import pytest
from flask_migrate import downgrade, upgrade
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from phresh import create_app
from phresh.database.base import db

PROFILES = "/api/profiles/"
ME = f"{PROFILES}me/"
BEFORE_PROFILES = "7c4e1a8d3f52"
LONE_SURROGATE = "\ud800"
CONTACT = {"email", "phone_number"}
EMPTY = {"full_name": None, "bio": None, "image": None}
UNRATED = {"avg_overall_rating": None, "total_evaluations": 0, "is_hidden": False}
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
    """Return a function that inserts a cleaning with an offer and returns the cleaning's id."""

    def make(owner, cleaner, status):
        job = make_cleaning(owner_id=owner.id)
        insert = "INSERT INTO offers (cleaning_id, user_id, status) VALUES (:job, :user, :status)"
        sql(insert, job=job, user=cleaner.id, status=status)
        return job

    return make


@pytest.fixture
def rate(sql, offer):
    """Return a function that inserts a completed cleaning with a rating."""

    def make(owner, cleaner, stars):
        insert = (
            "INSERT INTO evaluations (cleaning_id, cleaner_id, owner_id, overall_rating)"
            " VALUES (:job, :cleaner, :owner, :stars)"
        )
        job = offer(owner, cleaner, "completed")
        sql(insert, job=job, cleaner=cleaner.id, owner=owner.id, stars=stars)

    return make


REGISTRATION = {
    "email": "anna@phresh.example",
    "username": "Anna",
    "password": "four cats on a roof",
}


def test_the_profile_of_a_new_account_is_public(client):
    assert client.post("/api/users/", json={"new_user": REGISTRATION}).status_code == 201
    response = client.get(f"{PROFILES}Anna/")
    assert (response.status_code, response.json) == (200, {"username": "Anna", **EMPTY, **UNRATED})


def test_the_first_change_inserts_the_profile_row(client, sql):
    registered = client.post("/api/users/", json={"new_user": REGISTRATION}).json
    token = registered["access_token"]["access_token"]
    assert sql("SELECT FROM profiles") == []
    headers = {"Authorization": f"Bearer {token}"}
    for bio in ("Hello", "Hello again"):
        changed = client.patch(ME, json={"profile_update": {"bio": bio}}, headers=headers)
        assert (changed.status_code, changed.json["bio"]) == (200, bio)
        assert sql("SELECT bio FROM profiles") == [(bio,)]


def test_accounts_older_than_the_migration_have_a_profile(make_database, settings):
    app = create_app({**settings, "DATABASE_URL": make_database("profiles")})
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
        responses = [app.test_client().get(f"{PROFILES}user-{n}/") for n in (1, 2, 3)]
        db.engine.dispose()
    assert [response.status_code for response in responses] == [200, 200, 200]
    assert responses[0].json == {"username": "user-1", **EMPTY, **UNRATED}


def test_deleting_an_account_deletes_its_profile(client, anna, sql):
    assert anna.client.delete("/api/users/me/").status_code == 204
    assert client.get(url_of(anna)).status_code == 404
    assert sql("SELECT FROM profiles") == []


def test_other_users_and_guests_see_only_the_public_fields_of_a_profile(client, anna, ben):
    change(anna, **FULL)
    public = {name: value for name, value in FULL.items() if name not in CONTACT}
    for viewer in (client, ben.client):
        assert get(viewer, anna) == {"username": "anna", **public, **UNRATED}


def test_the_current_user_sees_all_fields_of_their_profile(anna):
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
def test_owner_and_cleaner_see_contact_data_once_the_offer_is_accepted(
    anna, ben, offer, status, is_shown
):
    for person in (anna, ben):
        change(person, phone_number=f"Of {person.username}")
    offer(anna, ben, status)
    for viewer, person in ((anna, ben), (ben, anna)):
        profile = get(viewer.client, person)
        contact = {"email": person.email, "phone_number": f"Of {person.username}"}
        shown = {name: profile[name] for name in CONTACT & profile.keys()}
        assert shown == (contact if is_shown else {})


def test_only_the_two_sides_of_a_job_see_contact_data(client, make_user, anna, ben, offer):
    other, other_owner = make_user("other"), make_user("owner")
    offer(anna, ben, "accepted")
    offer(anna, other, "accepted")
    offer(other_owner, ben, "accepted")
    for viewer, person in ((other, ben), (ben, other), (anna, other_owner), (other_owner, anna)):
        assert get(viewer.client, person).keys().isdisjoint(CONTACT)
    for person in (anna, ben):
        assert get(client, person).keys().isdisjoint(CONTACT)


def test_contact_data_is_hidden_again_after_the_cleaner_cancels(anna, ben, offer):
    job = offer(anna, ben, "pending")
    anna.client.put(f"/api/cleanings/{job}/offers/ben/")
    assert get(ben.client, anna).keys() >= CONTACT
    ben.client.put(f"/api/cleanings/{job}/offers/")
    for viewer, person in ((anna, ben), (ben, anna)):
        assert get(viewer.client, person).keys().isdisjoint(CONTACT)


def test_jobs_of_a_deleted_account_reveal_no_contact_data(client, make_user, anna, ben, offer):
    deleted = make_user("deleted")
    offer(anna, deleted, "completed")
    offer(deleted, ben, "completed")
    assert deleted.client.delete("/api/users/me/").status_code == 204
    for person in (anna, ben):
        assert get(client, person).keys().isdisjoint(CONTACT)
    assert get(anna.client, ben).keys().isdisjoint(CONTACT)


def test_profile_requests_with_an_invalid_token_return_401(client, anna):
    for path, method in ((url_of(anna), "GET"), (ME, "PATCH"), (ME, "PUT")):
        body = None if method == "GET" else {"profile_update": {}}
        headers = {"Authorization": "Bearer x"}
        response = client.open(path, method=method, json=body, headers=headers)
        assert response.status_code == 401
        assert response.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'


@pytest.mark.parametrize("method", ["patch", "put"])
def test_changing_a_profile_without_a_token_returns_401(client, method):
    response = getattr(client, method)(ME, json={"profile_update": {"bio": "x"}})
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("method", ["patch", "put"])
def test_an_omitted_field_is_kept_and_null_clears_it(anna, method):
    def current_fields():
        return {name: get(anna.client, anna)[name] for name in FULL}

    assert change(anna, method, **FULL).status_code == 200
    assert change(anna, method).status_code == 200
    assert current_fields() == FULL
    for name in FULL:
        assert change(anna, method, **{name: None}).json[name] is None
        assert current_fields() == FULL | {name: None}
        assert change(anna, method, **{name: FULL[name]}).status_code == 200


def test_a_change_affects_only_the_profile_of_the_current_user(client, anna, ben):
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
def test_valid_profile_fields_are_stored_unchanged(anna, name, value):
    response = change(anna, **{name: value})
    assert response.status_code == 200, response.json
    assert response.json[name] == get(anna.client, anna)[name] == value


@pytest.mark.parametrize("method", ["patch", "put"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("full_name", "x" * 201), ("phone_number", "x" * 51), ("bio", "x" * 10_001)),
        ("image", "https://phresh.example/".ljust(2_001, "x")),
        *(
            (name, value)
            for name in FULL
            for value in (1, True, [], {}, "a\0b", f"a{LONE_SURROGATE}b")
        ),
        *(("image", f"https://phresh.example/{bad}") for bad in ("\0", LONE_SURROGATE)),
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
def test_an_invalid_or_unknown_profile_field_is_rejected_with_its_pointer(
    anna, method, name, value
):
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
def test_a_profile_body_of_the_wrong_shape_is_rejected(anna, body, pointer):
    response = anna.client.patch(ME, json=body)
    assert response.status_code == 422
    assert [error["pointer"] for error in response.json["errors"]] == [pointer]


def test_a_profile_change_without_valid_json_is_rejected(anna):
    assert anna.client.patch(ME).status_code == 415
    assert anna.client.patch(ME, data="{", content_type="application/json").status_code == 400


def test_unknown_query_parameters_of_profiles_are_rejected(client, anna):
    assert client.get(f"{url_of(anna)}?x=1").status_code == 422
    assert anna.client.patch(f"{ME}?x=1", json={"profile_update": {}}).status_code == 422


def test_a_profile_is_found_by_its_username_in_any_case(client, make_user):
    make_user("Mary-Ann_3")
    for name in ("Mary-Ann_3", "mary-ann_3", "MARY-ANN_3"):
        assert client.get(f"{PROFILES}{name}/").json["username"] == "Mary-Ann_3"


def test_the_url_of_a_profile_works_without_the_trailing_slash(client, anna):
    assert client.get(url_of(anna).rstrip("/")).json == get(client, anna)


def test_a_changed_username_changes_the_url_of_the_profile(client, anna):
    body = {"user_update": {"username": "anna-2"}}
    assert anna.client.patch("/api/users/me/", json=body).status_code == 200
    assert client.get(url_of(anna)).status_code == 404
    assert client.get(f"{PROFILES}anna-2/").json["username"] == "anna-2"


def test_an_unknown_username_returns_404(client):
    response = client.get(f"{PROFILES}nobody/")
    assert response.status_code == 404
    assert response.json["detail"] == "No user has this username."


@pytest.mark.parametrize("name", ["ab", "x" * 31, "a b", "änna", "a.b", "a%00b", "anna%0A", "a/b"])
def test_an_invalid_username_in_the_url_returns_404(client, name):
    response = client.get(f"{PROFILES}{name}/")
    assert (response.status_code, response.json["detail"]) == (404, "Not Found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PATCH", "anna/", {"GET", "HEAD", "OPTIONS"}),
        ("PUT", "anna/", {"GET", "HEAD", "OPTIONS"}),
        ("DELETE", "anna/", {"GET", "HEAD", "OPTIONS"}),
        ("DELETE", "me/", {"GET", "HEAD", "PATCH", "PUT", "OPTIONS"}),
    ],
)
def test_other_methods_on_profiles_return_405(anna, method, path, allowed):
    response = anna.client.open(PROFILES + path, method=method)
    assert response.status_code == 405
    assert {*response.headers["Allow"].split(", ")} == allowed


def test_there_is_no_list_of_profiles(client):
    assert client.get(PROFILES).status_code == 404


@pytest.mark.parametrize(
    ("stars", "average"), [([5], 5), ([1, 2], 1.5), ([5, 5, 4], 14 / 3), ([1, 1, 1], 1)]
)
def test_a_profile_shows_the_average_and_number_of_ratings(client, anna, ben, rate, stars, average):
    for each in stars:
        rate(anna, ben, each)
    profile = get(client, ben)
    assert float(profile["avg_overall_rating"]) == pytest.approx(average)
    assert profile["total_evaluations"] == len(stars)
    assert get(client, anna).items() >= UNRATED.items()


def test_ratings_stay_after_the_owner_deletes_their_account(client, anna, ben, rate):
    rate(anna, ben, 4)
    assert anna.client.delete("/api/users/me/").status_code == 204
    rated = {"avg_overall_rating": 4, "total_evaluations": 1}
    assert get(client, ben).items() >= rated.items()


@pytest.mark.parametrize("count", [1, 100])
def test_reading_a_profile_takes_one_statement_plus_one_for_the_token(
    client, anna, ben, rate, statements, count
):
    for _ in range(count):
        rate(anna, ben, 5)
    for viewer, expected in ((client, 1), (anna.client, 2), (ben.client, 2)):
        statements.clear()
        assert get(viewer, ben)["total_evaluations"] == count
        assert len(statements) == expected


def test_changing_a_profile_takes_three_statements(anna, statements):
    assert change(anna, bio="New", full_name="Anna").status_code == 200
    assert len(statements) == 3


def test_an_unchanged_profile_returns_304_for_its_etag(client, anna):
    for viewer in (client, anna.client):
        etag = viewer.get(url_of(anna)).headers["ETag"]
        headers = {"If-None-Match": etag}
        assert viewer.get(url_of(anna), headers=headers).status_code == 304
        assert viewer.head(url_of(anna), headers=headers).status_code == 304
    assert change(anna, bio="New").status_code == 200
    response = viewer.get(url_of(anna), headers=headers)
    assert (response.status_code, response.json["bio"]) == (200, "New")


def test_the_current_user_and_others_get_different_etags(client, anna):
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
def test_the_check_constraints_of_profiles_reject_what_the_schema_rejects(
    anna, sql, check, name, bad
):
    for good in (None, FULL[name]):
        sql(f"UPDATE profiles SET {name} = :good", good=good)
    with pytest.raises(IntegrityError, match=f'"ck_profiles_{check}"'):
        sql(f"UPDATE profiles SET {name} = :bad", bad=bad)


def test_the_database_allows_one_profile_per_existing_user(anna, sql):
    with pytest.raises(IntegrityError, match="pk_profiles"):
        sql("INSERT INTO profiles (user_id) VALUES (:id)", id=anna.id)
    with pytest.raises(IntegrityError, match="fk_profiles_user_id"):
        sql("INSERT INTO profiles (user_id) VALUES (:id)", id=anna.id + 1)


def test_an_account_without_a_profile_row_is_shown_and_a_change_inserts_it(client, anna, sql):
    """An older version that still runs during the migration creates accounts without a profile."""
    sql("DELETE FROM profiles")
    assert client.get("/api/profiles/anna/").json["bio"] is None
    changes = {"profile_update": {"bio": "New"}}
    assert anna.client.patch("/api/profiles/me/", json=changes).json["bio"] == "New"
    assert sql("SELECT bio FROM profiles") == [("New",)]


def test_everyone_can_read_their_own_profile_without_knowing_their_username(client, anna):
    mine = anna.client.get("/api/profiles/me/")
    named = anna.client.get("/api/profiles/anna/")
    assert mine.json == named.json
    for name in ("ETag", "Cache-Control", "Vary"):
        assert mine.headers[name] == named.headers[name]
    assert client.get("/api/profiles/me/").status_code == 401
    known = {"If-None-Match": mine.headers["ETag"]}
    assert anna.client.get("/api/profiles/me/", headers=known).status_code == 304
    changed = anna.client.patch(
        "/api/profiles/me/",
        json={"profile_update": {"bio": "New"}},
        headers={"If-Match": mine.headers["ETag"]},
    )
    assert changed.status_code == 200
    assert anna.client.get("/api/profiles/me/").headers["ETag"] == changed.headers["ETag"]
