"""The OpenAPI document says all that people and their tools need, in the way that tools read."""

import json
import re

import jsonschema
import pytest

from phresh.cleanings.schemas import CleaningUpdateSchema
from phresh.export.schemas import ITEMS_MAX
from phresh.web.openapi_examples import operations_of, parts, resolved
from tests.admin.routes import operator
from tests.tools.contract import contract_of


@pytest.fixture
def document(app):
    return contract_of(app).document


def operations(document):
    for item in document["paths"].values():
        yield from operations_of(item)


def reachable(document, *roots):
    """Return the names of the schemas that parts of the document refer to, also by others."""
    schemas = document["components"]["schemas"]
    found, left = set(), list(roots)
    while left:
        for part in parts(left.pop()):
            kind, _, name = part.get("$ref", "").rpartition("/")
            if kind == "#/components/schemas" and name not in found:
                found.add(name)
                left.append(schemas[name])
            elif kind:
                left.append(resolved(document, part))
    return found


def properties(document):
    for name, schema in document["components"]["schemas"].items():
        for key, value in schema.get("properties", {}).items():
            yield f"{name}.{key}", value


def parameters(document):
    for path, item in document["paths"].items():
        for each in [item, *operations_of(item)]:
            for parameter in each.get("parameters", []):
                parameter = resolved(document, parameter)
                yield f"{path} {parameter['name']}", parameter


def headers(document):
    for name, header in document["components"]["headers"].items():
        yield name, header
    for operation in operations(document):
        for status, response in operation["responses"].items():
            for name, header in resolved(document, response).get("headers", {}).items():
                yield f"{operation['operationId']} {status} {name}", resolved(document, header)


def test_everything_is_described(document):
    components = document["components"]
    missing = [n for n, each in components["schemas"].items() if not each.get("description")]
    missing += [
        name
        for name, schema in properties(document)
        if not resolved(document, schema).get("description")
    ]
    missing += [name for name, each in parameters(document) if not each.get("description")]
    missing += [name for name, each in headers(document) if not each.get("description")]
    missing += [n for n, each in components["responses"].items() if not each.get("description")]
    missing += [
        operation["operationId"]
        for operation in operations(document)
        if not operation.get("summary")
        or not all(resolved(document, r)["description"] for r in operation["responses"].values())
    ]
    missing += [tag["name"] for tag in document["tags"] if not tag.get("description")]
    assert missing == [], "Describe it: in the metadata of its field, or in its docstring."


def test_parameters_have_their_example_where_tools_read_it(document):
    """In a schema, Postman and Dredd do not look for it."""
    for name, parameter in parameters(document):
        # Tools send an example with each request: these are for one.
        is_for_one = parameter["name"] in ("If-Match", "Idempotency-Key")
        assert ("example" in parameter) != is_for_one, name
        assert not {"example", "examples"} & parameter["schema"].keys(), name


def test_examples_of_parameters_are_valid(app, document):
    contract = contract_of(app)
    for name, parameter in parameters(document):
        if "example" in parameter:
            assert contract.validator(parameter["schema"]).is_valid(parameter["example"]), name


def test_examples_of_the_parameters_of_a_list_can_be_sent_together(world, document):
    """As Postman does."""
    lists = 0
    operator(world)
    for path, item in document["paths"].items():
        found = [resolved(document, each) for each in item.get("get", {}).get("parameters", [])]
        query = {each["name"]: each["example"] for each in found if each["in"] == "query"}
        if not query or "{" in path:
            continue
        lists += 1
        response = world.owner.client.get(path, query_string=query)
        assert response.status_code == 200, response.text
    assert lists >= 3


def test_responses_are_open_and_bodies_of_requests_closed(document):
    """A client that rejects what it does not know would break with each added field."""
    schemas = document["components"]["schemas"]
    responses = reachable(document, *(each["responses"] for each in operations(document)))
    assert {"Cleaning", "Problem", "InvalidValue", "Event", "RegisteredUser"} <= responses
    for part in parts([schemas[name] for name in responses]):
        assert "additionalProperties" not in part
    bodies = reachable(
        document, *(each["requestBody"] for each in operations(document) if "requestBody" in each)
    )
    objects = {name for name in bodies if schemas[name].get("type") == "object"}
    assert {"CleaningCreate", "CleaningCreateBody"} <= objects
    for name in objects - {"Login"}:  # RFC 6749 3.2: unknown parameters are ignored
        assert schemas[name]["additionalProperties"] is False, name
    assert not responses & objects


def test_properties_have_no_default(document):
    """openapi-typescript makes a property with one required, in bodies too (its issue 2012)."""
    for name, schema in properties(document):
        assert "default" not in schema, name
    described = document["components"]["schemas"]["EvaluationCreate"]["properties"]["no_show"]
    assert described["description"].endswith("If left out: `false`.")


def test_every_enumeration_is_a_component(document):
    """Else each place of it is a type of its own in a generated client."""
    schemas = document["components"]["schemas"]
    enumerations = {name: schema for name, schema in schemas.items() if "enum" in schema}
    assert enumerations.keys() >= {
        *("CleaningType", "CleaningStatus", "CleaningSort", "OfferStatus", "EventType")
    }
    for part in parts(document):
        if len(part.get("enum", [])) > 1:
            assert part in enumerations.values(), "Declare it by phresh.web.fields.Enumeration."
    for name, schema in enumerations.items():
        names = schema.get("x-enum-varnames", schema["enum"])
        assert len(names) == len(schema["enum"]), name
        assert all(re.fullmatch("[a-z][a-z_]*", each) for each in names), name


def test_no_schema_has_the_name_of_a_type_of_typescript(document):
    taken = {"Error", "Object", "Date", "Event", "Response", "Request", "Map", "Set", "Symbol"}
    assert taken & set(document["components"]["schemas"]) <= {"Event"}, "1.0 has Event."


def test_only_the_login_form_has_the_format_password(document):
    """datamodel-code-generator makes of it what is sent as asterisks in JSON."""
    found = {name for name, schema in properties(document) if schema.get("format") == "password"}
    assert found == {"Login.password"}


def test_generators_survive_the_patterns(document):
    """hey-api writes the character of a \\uNNNN into its code, a line separator too."""
    patterns = [part["pattern"] for part in parts(document) if isinstance(part.get("pattern"), str)]
    assert len(patterns) > 10
    for pattern in patterns:
        assert pattern.isascii()
        assert pattern.isprintable()
        assert not re.search(r"\\u|\\[nrpPdDwW]|\(\?", pattern), pattern
        assert len(pattern) < 250


def test_prices_are_numbers_that_validators_accept(document):
    """With multipleOf 0.01, jsonschema and ajv reject 1,363 of these."""
    schemas = document["components"]["schemas"]
    prices = [schemas[name]["properties"]["price"] for name in ("Cleaning", "CleaningCreate")]
    prices += [p["schema"] for name, p in parameters(document) if " price_m" in name]
    assert len(prices) == 4
    for schema in prices:
        assert schema["type"] == "number"
        validator = jsonschema.Draft202012Validator(schema)
        assert all(validator.is_valid(cents / 100) for cents in range(10_001))
        assert not validator.is_valid(-0.01)
    assert '`"29.99"` is accepted' in prices[1]["description"]
    assert CleaningUpdateSchema().load({"price": "29.99"})


def test_integers_are_bounded(document):
    for part in parts(document):
        if part.get("type") == "integer" or "integer" in part.get("type", []):
            assert part["format"] == "int32", part
            assert part["minimum"] >= 0, part
            assert part["maximum"] < 2**31, part


def test_lists_are_bounded(document):
    """Those of an export by the size of the whole."""
    exported = document["components"]["schemas"]["Export"]["properties"].values()
    for part in parts(document):
        if part.get("type") == "array":
            assert part["maxItems"] <= (ITEMS_MAX if part in exported else 100), part


def test_operations_of_a_path_have_different_summaries(document):
    for path, item in document["paths"].items():
        summaries = [operation["summary"] for operation in operations_of(item)]
        assert len(set(summaries)) == len(summaries), path


def test_a_document_that_is_made_twice_is_the_same(make_app):
    first, second = (make_app(GUEST_POSTING=value) for value in (False, True))
    texts = [contract_of(app).document for app in (first, second, first)]
    assert json.dumps(texts[0]) == json.dumps(texts[2])
    summaries = [[each["summary"] for each in operations(text)] for text in texts]
    assert summaries[0] == summaries[1]


def test_no_schema_has_a_property_of_its_own_name(document):
    """Generated Python would use one name for both."""
    for name, _ in properties(document):
        schema, _, key = name.partition(".")
        assert key != re.sub("(?<=[a-z])(?=[A-Z])", "_", schema).lower()
