"""Usernames that accounts give up: nobody else takes them, and URLs with them mean who had them."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from phresh.database.base import db
from tests.tools.users import PASSWORD

USERS = "/api/users/"
ME = f"{USERS}me/"
TAKEN = "An account with this username already exists."


@pytest.fixture
def client(make_app, app):
    return make_app(REGISTRATIONS_PER_ADDRESS=99).test_client()


def register(client, username):
    new = {"email": f"new-{username}@phresh.io", "username": username, "password": PASSWORD}
    return client.post(USERS, json={"new_user": new})


def rename(client, someone, username):
    headers = {"Authorization": f"Bearer {someone.token}"}
    return client.patch(ME, json={"user_update": {"username": username}}, headers=headers)


def age(sql, days):
    sql(f"UPDATE released_usernames SET released_at = released_at - interval '{days} days'")


def give_up(client, someone, way):
    headers = {"Authorization": f"Bearer {someone.token}"}
    if way == "renamed":
        assert rename(client, someone, f"{someone.username}-2").status_code == 200
    else:
        assert client.delete(ME, headers=headers).status_code == 204


@pytest.mark.parametrize("way", ["renamed", "deleted"])
def test_a_username_that_was_given_up_is_taken_for_90_days(client, anna, ben, sql, way):
    give_up(client, ben, way)
    for username in ("ben", "BEN"):
        for response in (register(client, username), rename(client, anna, username)):
            assert response.status_code == 409
            assert response.json["detail"] == TAKEN
    age(sql, 89)
    assert register(client, "ben").status_code == 409
    age(sql, 1)
    assert register(client, "Ben").status_code == 201
    assert rename(client, anna, "ben").status_code == 409


def test_who_gave_up_a_username_takes_it_back(client, anna, ben, sql):
    for username in ("ben-2", "ben-3", "Ben", "ben", "ben-2"):
        assert rename(client, ben, username).status_code == 200
        assert rename(client, anna, "ben").status_code == 409
    assert sorted(sql("SELECT username FROM released_usernames")) == [("ben",), ("ben-3",)]


def test_another_case_of_a_username_gives_up_nothing(client, anna, sql):
    assert rename(client, anna, "ANNA").status_code == 200
    assert sql("SELECT * FROM released_usernames") == []


def test_the_database_refuses_a_username_that_is_reserved(sql, anna, ben):
    sql("UPDATE users SET username = 'other' WHERE id = :id", id=ben.id)
    for write in (
        "INSERT INTO users (email, username, password_hash) VALUES ('x@x.example', 'Ben', '')",
        "UPDATE users SET username = 'Ben' WHERE username = 'anna'",
    ):
        with pytest.raises(IntegrityError) as caught:
            sql(write)
        assert caught.value.orig.diag.constraint_name == "uq_users_username"


def test_a_username_is_reserved_for_who_waits_for_it_to_be_given_up(app, client, ben):
    """A registration that began before the account with the name has committed its new one."""
    waits = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    with app.app_context(), db.engine.connect() as other, ThreadPoolExecutor(1) as pool:
        other.execute(text("UPDATE users SET username = 'other' WHERE username = 'ben'"))
        registering = pool.submit(register, client, "ben")
        with db.engine.connect() as seen:
            seen = seen.execution_options(isolation_level="AUTOCOMMIT")
            while not seen.scalar(text(waits)) and not registering.done():
                threading.Event().wait(0.01)
        other.commit()
        response = registering.result()
    assert response.status_code == 409
    assert response.json["detail"] == TAKEN


# Offers


@pytest.fixture
def job(anna, make_cleaning):
    return f"/api/cleanings/{make_cleaning(owner_id=anna.id)}/offers/"


def test_an_offer_is_accepted_for_the_account_that_made_it(client, anna, ben, make_user, job, sql):
    """At the URL that its creation has returned, whatever the account is called since."""
    mallory = make_user("mallory")
    place = ben.client.post(job).headers["Location"].removeprefix("http://localhost")
    offer = anna.client.get(place).json
    mallory.client.post(job)
    assert rename(client, ben, "ben-2").status_code == 200
    assert rename(client, mallory, "ben").status_code == 409
    for someone in (anna, ben):
        assert someone.client.get(place).json["id"] == offer["id"]
    assert mallory.client.get(place).status_code == 403
    accepted = anna.client.put(place)
    assert accepted.status_code == 200
    assert accepted.json["id"] == offer["id"]
    assert accepted.json["user"] == {"username": "ben-2"}
    rating = {"evaluation_create": {"overall_rating": 5}}
    number = job.split("/")[3]
    rated = anna.client.post(f"{USERS}ben/evaluations/{number}/", json=rating)
    assert rated.status_code == 201


def test_a_former_username_names_nobody_after_90_days(client, anna, ben, make_user, job, sql):
    ben.client.post(job)
    assert rename(client, ben, "ben-2").status_code == 200
    age(sql, 90)
    assert anna.client.put(f"{job}ben/").status_code == 404
    assert ben.client.get(f"{job}ben/").status_code == 403
    mallory = make_user("ben", email="mallory@phresh.example")
    mine = mallory.client.post(job).json["id"]
    assert anna.client.put(f"{job}ben/").json["id"] == mine


def test_the_offer_of_a_deleted_account_is_accepted_for_nobody(client, anna, ben, job):
    ben.client.post(job)
    give_up(client, ben, "deleted")
    assert anna.client.put(f"{job}ben/").status_code == 404
