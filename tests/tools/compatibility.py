"""What a client of one OpenAPI document would notice of another one: changes that break it.

No library does that in Python. A request that was valid must stay valid; a response must have what
it had. What is added (operations, statuses, fields, values of enumerations) breaks nobody.
"""

from collections.abc import Iterator
from typing import Any

from phresh.web.openapi_examples import METHODS, resolved

# Bounds of a schema: what is stricter when it is greater, and when it is less.
LOWER = ("minimum", "minLength", "minItems", "minProperties")
UPPER = ("maximum", "maxLength", "maxItems", "maxProperties")
NUMBER_FORMATS = ("int32", "int64", "float", "double")  # whose bounds are said otherwise
REQUEST, RESPONSE = "request", "response"

Json = dict[str, Any]


def breaking_changes(old: Json, new: Json) -> list[str]:
    """Return each change from one document to another that breaks a client, and where it is."""
    return sorted({*_Comparison(old, new).operations()})


class _Comparison:
    def __init__(self, old: Json, new: Json) -> None:
        self.old = old
        self.new = new

    def operations(self) -> Iterator[str]:
        for path, item in self.old["paths"].items():
            for method in METHODS & item.keys():
                where = f"{method.upper()} {path}"
                changed = self.new["paths"].get(path, {})
                if method not in changed:
                    yield f"{where}: removed"
                    continue
                yield from self._security(where, item[method], changed[method])
                old = _parameters(self.old, item, item[method])
                yield from self._parameters(
                    where, old, _parameters(self.new, changed, changed[method])
                )
                yield from self._body(where, item[method], changed[method])
                yield from self._responses(where, item[method], changed[method])

    def _security(self, where: str, old: Json, new: Json) -> Iterator[str]:
        if _is_public(self.old, old) and not _is_public(self.new, new):
            yield f"{where}: needs a token"

    def _parameters(self, where: str, old: Json, new: Json) -> Iterator[str]:
        for (place, name), parameter in old.items():
            if (place, name) not in new:
                yield f"{where}: {place} parameter {name} removed"
            else:
                schemas = (parameter["schema"], new[place, name]["schema"])
                yield from self._schema(f"{where} {name}", REQUEST, *schemas)
        for (place, name), parameter in new.items():
            if parameter.get("required") and not old.get((place, name), {}).get("required"):
                yield f"{where}: {place} parameter {name} is required"

    def _body(self, where: str, old: Json, new: Json) -> Iterator[str]:
        before = resolved(self.old, old.get("requestBody", {}))
        after = resolved(self.new, new.get("requestBody", {}))
        if after.get("required") and not before.get("required"):
            yield f"{where}: the body is required"
        yield from self._content(f"{where} body", REQUEST, before, after)

    def _responses(self, where: str, old: Json, new: Json) -> Iterator[str]:
        for status, response in old["responses"].items():
            if status not in new["responses"]:
                yield f"{where}: status {status} removed"
                continue
            before = resolved(self.old, response)
            after = resolved(self.new, new["responses"][status])
            for name in before.get("headers", {}).keys() - after.get("headers", {}).keys():
                yield f"{where} {status}: header {name} removed"
            yield from self._content(f"{where} {status}", RESPONSE, before, after)

    def _content(self, where: str, direction: str, old: Json, new: Json) -> Iterator[str]:
        for kind, content in old.get("content", {}).items():
            if kind not in new.get("content", {}):
                yield f"{where}: {kind} removed"
            else:
                schemas = (content["schema"], new["content"][kind]["schema"])
                yield from self._schema(where, direction, *schemas)

    def _schema(self, where: str, direction: str, old: Json, new: Json) -> Iterator[str]:
        old, new = resolved(self.old, old), resolved(self.new, new)
        if "anyOf" in old or "anyOf" in new:
            yield from self._alternatives(where, direction, old, new)
            return
        before, after = _types(old), _types(new)
        # A response that can no longer be null, say, is another type in a generated client too.
        if before - after if direction == REQUEST else before ^ after:
            yield f"{where}: type {_words(before)} became {_words(after)}"
        if "enum" in new and direction == REQUEST and "enum" not in old:
            yield f"{where}: only {', '.join(map(str, new['enum']))} is allowed"
        if "enum" in old and "enum" in new:
            for value in old["enum"]:
                if value not in new["enum"]:
                    yield f"{where}: value {value} removed"
        if direction == REQUEST:
            yield from _narrowed(where, old, new)
        yield from self._properties(where, direction, old, new)
        if "items" in old and "items" in new:
            yield from self._schema(f"{where}[]", direction, old["items"], new["items"])

    def _alternatives(self, where: str, direction: str, old: Json, new: Json) -> Iterator[str]:
        """Compare each alternative with the one of the same type."""
        before = {_words(_types(each)): each for each in self._each(self.old, old)}
        after = {_words(_types(each)): each for each in self._each(self.new, new)}
        for kind, schema in before.items():
            if kind in after:
                yield from self._schema(where, direction, schema, after[kind])
            else:
                yield f"{where}: type {kind} removed"
        if direction == RESPONSE:
            for kind in after.keys() - before.keys():
                yield f"{where}: type {kind} added"

    @staticmethod
    def _each(document: Json, schema: Json) -> list[Json]:
        return [resolved(document, each) for each in schema.get("anyOf", [schema])]

    def _properties(self, where: str, direction: str, old: Json, new: Json) -> Iterator[str]:
        fields, changed = old.get("properties", {}), new.get("properties", {})
        for name, schema in fields.items():
            if name not in changed:
                yield f"{where}.{name}: removed"
            else:
                yield from self._schema(f"{where}.{name}", direction, schema, changed[name])
        required, now = set(old.get("required", [])), set(new.get("required", []))
        if direction == REQUEST:
            for name in now - required:
                yield f"{where}.{name}: is required"
            if new.get("additionalProperties") is False and old.get("additionalProperties", True):
                yield f"{where}: other fields are rejected"
        else:
            for name in (required - now) & changed.keys():
                yield f"{where}.{name}: can be missing"


def _parameters(document: Json, item: Json, operation: Json) -> dict[tuple[str, str], Json]:
    found = [*item.get("parameters", []), *operation.get("parameters", [])]
    all_of = (resolved(document, parameter) for parameter in found)
    return {(each["in"], each["name"]): each for each in all_of}


def _is_public(document: Json, operation: Json) -> bool:
    security = operation.get("security", document.get("security", []))
    return not security or {} in security


def _types(schema: Json) -> set[str]:
    kind = schema.get("type")
    if kind is None:
        return {"object"} if "properties" in schema else set()
    return {kind} if isinstance(kind, str) else set(kind)


def _words(kinds: set[str]) -> str:
    return " or ".join(sorted(kinds)) or "any"


def _narrowed(where: str, old: Json, new: Json) -> Iterator[str]:
    """Yield each bound that excludes what was accepted."""
    for name in LOWER:
        if name in new and new[name] > old.get(name, float("-inf") if name == "minimum" else 0):
            yield f"{where}: {name} {old.get(name)} became {new[name]}"
    for name in UPPER:
        if name in new and new[name] < old.get(name, float("inf")):
            yield f"{where}: {name} {old.get(name)} became {new[name]}"
    for name in ("pattern", "format", "multipleOf", "const"):
        if name in new and new[name] not in (old.get(name), *NUMBER_FORMATS):
            yield f"{where}: another {name}"
