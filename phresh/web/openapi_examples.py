"""The last step of the OpenAPI document: what follows from all of it, and its examples.

The examples of responses are in ``examples.json``. ``tests/contract/test_examples.py`` sees each of
them returned, and writes that file.
"""

import json
from collections import Counter
from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from importlib.resources import files
from typing import Any

METHODS = {"get", "put", "post", "delete", "patch"}
MISSING = object()
LOCAL_URL = "http://localhost:8000"  # where make run serves

Examples = dict[str, dict[str, dict[str, Any]]]


@cache
def recorded() -> Examples:
    """Return what responses look like: their ``body`` and ``headers``, by operation and status."""
    found: Examples = json.loads(files("phresh.web").joinpath("examples.json").read_text())
    return found


def complete(document: dict[str, Any]) -> None:
    """Complete a document that apispec has made."""
    open_responses(document)
    for path, item in document["paths"].items():
        complete_parameters(item.get("parameters", []))
        for operation in operations_of(item):
            complete_parameters(operation.get("parameters", []))
            bound_list(operation)
            add_link_example(path, item, operation)
            add_request_example(document, operation)
    add_response_examples(document, recorded())


def operations_of(item: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield each operation of a path, in their order."""
    for method in item:
        if method in METHODS:
            yield item[method]


def parts(described: Any) -> Iterator[dict[str, Any]]:
    """Yield each object in a part of the document."""
    if isinstance(described, dict):
        yield described
        for value in described.values():
            yield from parts(value)
    elif isinstance(described, list):
        for value in described:
            yield from parts(value)


def resolved(document: dict[str, Any], described: dict[str, Any]) -> dict[str, Any]:
    """Return what a reference refers to; anything else as it is."""
    while "$ref" in described:
        _, _, kind, name = described["$ref"].split("/")
        described = document["components"][kind][name]
    return described


def open_responses(document: dict[str, Any]) -> None:
    """Let the objects in responses have members that the document does not name.

    A later version may add some. Bodies of requests stay closed: what is unknown is rejected.
    """
    schemas = document["components"]["schemas"]
    found: set[str] = set()
    left: list[Any] = [document["components"].get("responses", {})]
    for item in document["paths"].values():
        left += [operation["responses"] for operation in operations_of(item)]
    while left:
        for part in parts(left.pop()):
            if part.get("additionalProperties") is False:
                del part["additionalProperties"]
            name = str(part.get("$ref", "")).removeprefix("#/components/schemas/")
            if name in schemas and name not in found:
                found.add(name)
                left.append(schemas[name])


def complete_parameters(parameters: list[dict[str, Any]]) -> None:
    """Put examples and descriptions where tools read them: in the parameter, not in its schema."""
    for parameter in parameters:
        schema = parameter.get("schema", {})
        for name in ("description", "example"):
            if name in schema:
                parameter[name] = schema.pop(name)
        if parameter.get("in") == "path":
            noun = parameter["name"].removesuffix("_id").replace("_", " ")
            parameter["description"] = parameter.get("description", "").format(noun)


def bound_list(operation: dict[str, Any]) -> None:
    """Set how many items a list has, where the client can choose that."""
    [limit] = [p for p in operation.get("parameters", []) if p.get("name") == "limit"] or [{}]
    schema = operation["responses"].get("200", {}).get("content", {}).get("application/json", {})
    if "maximum" in limit.get("schema", {}) and schema.get("schema", {}).get("type") == "array":
        schema["schema"]["maxItems"] = limit["schema"]["maximum"]


def add_link_example(path: str, item: dict[str, Any], operation: dict[str, Any]) -> None:
    """Add an example of the link to the next page, made of those of the parameters."""
    found = [*item.get("parameters", []), *operation.get("parameters", [])]
    values = {each["name"]: each["example"] for each in found if "example" in each}
    for response in operation["responses"].values():
        if "Link" in response.get("headers", {}) and "after" in values:
            url = f"{LOCAL_URL}{path.format(**values)}?limit=20&after={values['after']}"
            header = {**response["headers"]["Link"], "example": f'<{url}>; rel="next"'}
            response["headers"]["Link"] = header


def add_request_example(document: dict[str, Any], operation: dict[str, Any]) -> None:
    """Add the example of a body, made of those of its fields."""
    for content in operation.get("requestBody", {}).get("content", {}).values():
        if not {"example", "examples"} & content.keys():
            example = example_of(document, content["schema"])
            if example is not MISSING:
                content["example"] = example


def example_of(document: dict[str, Any], schema: dict[str, Any]) -> Any:
    """Return the example of a value, or ``MISSING``."""
    if "example" in schema:
        return schema["example"]
    schema = resolved(document, schema)
    if "properties" in schema:
        values = {name: example_of(document, value) for name, value in schema["properties"].items()}
        return {name: value for name, value in values.items() if value is not MISSING}
    if "anyOf" in schema:
        return example_of(document, schema["anyOf"][0])
    return schema.get("example", schema.get("enum", [MISSING])[0])


def add_response_examples(document: dict[str, Any], examples: Examples) -> None:
    """Add to each response its example.

    Errors that differ only in their example are one component, with the example that most have;
    the others are written out.
    """
    found = [
        (operation, status, example)
        for item in document["paths"].values()
        for operation in operations_of(item)
        for status, example in examples.get(operation["operationId"], {}).items()
        if status in operation["responses"]
    ]
    bodies: dict[str, Counter[str]] = {}
    for operation, status, example in found:
        if "$ref" in operation["responses"][status]:
            counter = bodies.setdefault(operation["responses"][status]["$ref"], Counter())
            counter[json.dumps(example["body"])] += 1
    for reference, counter in bodies.items():
        [(body, _)] = counter.most_common(1)
        set_example(resolved(document, {"$ref": reference}), {"body": json.loads(body)})
    for operation, status, example in found:
        response = operation["responses"][status]
        if "$ref" in response:
            component = resolved(document, response)
            [content] = component["content"].values()
            if content["example"] == example["body"]:
                continue
            response = operation["responses"][status] = deepcopy(component)
        set_example(response, example)


def set_example(response: dict[str, Any], example: dict[str, Any]) -> None:
    """Set the example of a response."""
    for content in response.get("content", {}).values():
        content["example"] = example["body"]
    for name, value in example.get("headers", {}).items():
        if name in response.get("headers", {}):
            response["headers"][name] = {**response["headers"][name], "example": value}
