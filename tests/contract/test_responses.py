"""The check of every response against the OpenAPI document (tests/tools/contract.py) can fail."""

import json

import pytest

from tests.tools.contract import Contract, ContractClient, ContractError, contract_of

ALL = "/api/cleanings/"
ONE = f"{ALL}<id:cleaning_id>/"


def test_every_client_of_the_fixtures_checks_its_responses(client, anna, make_app):
    for each in (client, anna.client, anna.make_client(), make_app().test_client()):
        assert isinstance(each, ContractClient)


def change_type(document):
    document["components"]["schemas"]["Cleaning"]["properties"]["price"]["type"] = "string"


def rename_field(document):
    properties = document["components"]["schemas"]["Cleaning"]["properties"]
    properties["title"] = properties.pop("name")


def change_format(document):
    document["components"]["schemas"]["Cleaning"]["properties"]["name"]["format"] = "date-time"


def drop_status(document):
    del document["paths"][ALL]["get"]["responses"]["200"]


def change_content_type(document):
    content = document["paths"][ALL]["get"]["responses"]["200"]["content"]
    content["application/xml"] = content.pop("application/json")


def drop_content(document):
    del document["paths"][ALL]["get"]["responses"]["200"]["content"]


def drop_header(document):
    del document["paths"][ALL]["get"]["responses"]["200"]["headers"]["ETag"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (change_type, '/0/price: 20.0 is not of type "string"'),
        (rename_field, "/0: Additional properties are not allowed ('name' was unexpected)"),
        (change_format, '/0/name: "Job 1" is not a "date-time"'),
        (drop_status, "list_cleanings does not document the status 200"),
        (change_content_type, "the content type application/json is not documented"),
        (drop_content, "the status 200 has no body in the document"),
        (drop_header, "the header ETag is not documented"),
    ],
)
def test_a_response_that_does_not_fit_the_document_is_found(
    app, client, make_cleaning, change, reason
):
    make_cleaning()
    response = client.get(ALL)
    contract = contract_of(app)
    assert list(contract.reasons(response, ALL)) == []
    document = json.loads(json.dumps(contract.document))
    change(document)
    assert list(Contract(json.dumps(document)).reasons(response, ALL)) == [reason]


def test_a_problem_document_has_the_status_of_its_response(app, client):
    response = client.get(f"{ALL}1/")
    response.status_code = 500
    reasons = list(contract_of(app).reasons(response, ONE))
    assert reasons == ["/status: 404 is not the status of the response"]


def test_a_client_raises_an_error_for_a_response_that_does_not_fit(make_app, monkeypatch):
    app = make_app()
    monkeypatch.setitem(app.view_functions, "health.get_health", lambda: {"state": "ok"})
    with pytest.raises(ContractError, match=r"GET /healthz responded 200.*'state' was unexpected"):
        app.test_client().get("/healthz")


def test_a_view_that_a_test_adds_to_an_app_is_not_checked(make_app):
    app = make_app()
    app.add_url_rule("/added/", view_func=lambda: ("any text", 418), methods=["GET"])
    assert app.test_client().get("/added/").status_code == 418
    assert app.test_client().get("/unknown/").status_code == 404
    assert app.test_client().delete("/healthz").status_code == 405
