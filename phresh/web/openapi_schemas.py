"""How the OpenAPI document describes marshmallow schemas, beyond what apispec does."""

import inspect
from decimal import Decimal
from typing import Any

import marshmallow as ma
from apispec.ext.marshmallow import MarshmallowPlugin, OpenAPIConverter
from apispec.ext.marshmallow.common import resolve_schema_instance

from phresh.web.fields import Enumeration


def described(documented: Any) -> str:
    """Return the docstring of a class as Markdown, on one line.

    The compiler removes the indentation of docstrings from Python 3.13 on.
    """
    return " ".join(inspect.cleandoc(documented.__doc__ or "").replace("``", "`").split())


class Converter(OpenAPIConverter):
    """apispec's, for documents that generators of clients read without losing anything."""

    def field2property(self, field: ma.fields.Field[Any]) -> dict[str, Any]:
        """Return the description of a field, in which an enumeration is a reference."""
        described = super().field2property(field)
        for name in ("minimum", "maximum"):
            if isinstance(described.get(name), Decimal):
                described[name] = float(described[name])
        if isinstance(field, ma.fields.Integer):
            described.setdefault("format", "int32")  # PostgreSQL's integer
        if isinstance(field, ma.fields.Float):
            described.setdefault("format", "double")
        if rules := getattr(field, "rules", ""):
            described["description"] = f"{described.get('description', '')} {rules}".strip()
        for validator in field.validators:
            if isinstance(validator, Enumeration):
                del described["type"], described["enum"]
                reference = self._reference(validator)
                if field.allow_none:
                    reference = {"anyOf": [reference, {"type": "null"}]}
                described |= reference
        return described

    def _reference(self, enumeration: Enumeration) -> dict[str, Any]:
        schemas = self.spec.components.schemas
        if enumeration.name not in schemas:
            schema = {
                "type": "string",
                "enum": enumeration.choices,
                "description": enumeration.description,
            }
            if enumeration.names:
                schema["x-enum-varnames"] = enumeration.names
            self.spec.components.schema(enumeration.name, schema)
        reference: dict[str, Any] = self.spec.components.get_ref("schema", enumeration.name)
        return reference

    def fields2jsonschema(self, fields: Any, *, partial: Any = None) -> dict[str, Any]:
        """Return the description of an object; defaults are in words.

        Some generators take a property that has a default for a required one.
        """
        schema: dict[str, Any] = super().fields2jsonschema(fields, partial=partial)
        for described in schema["properties"].values():
            default = described.pop("default", None)
            if default is not None:
                words = f"If left out: `{str(default).lower()}`."
                described["description"] = f"{described.get('description', '')} {words}".strip()
        return schema

    def schema2jsonschema(self, schema: Any) -> dict[str, Any]:
        """Return the description of an object, with the docstring of its class."""
        instance = resolve_schema_instance(schema)
        made: dict[str, Any] = super().schema2jsonschema(schema)
        made.setdefault("description", described(type(instance)))
        return made


class SchemaPlugin(MarshmallowPlugin):
    """apispec's, with our converter."""

    Converter = Converter
