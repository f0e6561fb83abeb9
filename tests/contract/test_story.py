"""The life of a cleaning over HTTP, from registration to the deletion of all accounts."""


def register(app, name):
    client = app.test_client()
    new = {"email": f"{name}@phresh.example", "username": name, "password": "four cats on a roof"}
    response = client.post("/api/users/", json={"new_user": new})
    assert response.status_code == 201
    token = response.json["access_token"]["access_token"]
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {token}"
    return client


def test_a_cleaning_can_be_posted_taken_cancelled_and_rated(app, client):
    anna, ben, cleo = (register(app, name) for name in ("anna", "ben", "cleo"))
    contact = {"profile_update": {"full_name": "Ben", "phone_number": "0123"}}
    assert ben.patch("/api/profiles/me/", json=contact).json["phone_number"] == "0123"

    new = {"new_cleaning": {"name": "My attic", "price": 30}}
    job = anna.post("/api/cleanings/", json=new).headers["Location"]
    cleaning_id = int(job.split("/")[-2])
    offers = f"{job}offers/"
    assert ben.post(offers, json={"new_offer": {"message": "Friday?"}}).status_code == 201
    assert cleo.post(offers).status_code == 201
    assert [offer["user"]["username"] for offer in anna.get(offers).json] == ["cleo", "ben"]

    assert anna.get("/api/profiles/ben/").json.keys().isdisjoint({"email", "phone_number"})
    assert anna.put(f"{offers}ben/").json["status"] == "accepted"
    assert anna.get("/api/profiles/ben/").json["phone_number"] == "0123"
    assert ben.get("/api/profiles/anna/").json["email"] == "anna@phresh.example"
    assert cleo.get("/api/users/me/offers/?status=rejected").json[0]["cleaning_id"] == cleaning_id
    assert client.get(job).json["status"] == "taken"
    assert client.get("/api/cleanings/?status=open").json == []
    assert anna.delete(job).status_code == 409

    assert ben.put(offers).json["status"] == "cancelled"
    assert client.get(job).json["status"] == "open"
    assert anna.put(f"{offers}cleo/").json["status"] == "accepted"
    rating = {"overall_rating": 4, "efficiency": 5, "headline": "Spotless"}
    evaluations = "/api/users/cleo/evaluations/"
    response = anna.post(f"{evaluations}{cleaning_id}/", json={"evaluation_create": rating})
    assert response.status_code == 201
    assert client.get(response.headers["Location"]).json == response.json
    assert client.get(evaluations).json == [response.json]
    assert client.get(job).json["status"] == "completed"

    stats = client.get(f"{evaluations}stats/").json
    assert (stats["total_evaluations"], stats["four_stars"], stats["avg_efficiency"]) == (1, 1, 5)
    assert stats["avg_completeness"] is None
    profile = client.get("/api/profiles/cleo/").json
    assert (profile["avg_overall_rating"], profile["total_evaluations"]) == (4, 1)
    events = client.get("/api/feed/cleanings/").json
    assert [(event["event_type"], event["status"]) for event in events] == [
        ("is_update", "completed"),
        ("is_create", "completed"),
    ]
    assert ben.delete("/api/users/me/").status_code == 204
    assert cleo.delete("/api/users/me/").status_code == 204
    assert anna.delete("/api/users/me/").status_code == 204
    assert client.get(job).json["owner"] is None
    assert client.get("/api/profiles/cleo/").status_code == 404
