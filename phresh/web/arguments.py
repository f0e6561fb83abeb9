"""Arguments of views: query parameters, headers, forms and JSON bodies, loaded by schemas."""

import re
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from itertools import islice
from typing import Any

import flask
import marshmallow as ma
from flask import request
from webargs.flaskparser import FlaskParser
from werkzeug.exceptions import BadRequest, UnsupportedMediaType

from phresh.web.app import Request
from phresh.web.problems import ERRORS_MAX

# Of a form: bytes, and characters of its content type and of the boundary in it.
FORM_MAX, CONTENT_TYPE_MAX, BOUNDARY_MAX = 16 * 1024, 300, 70

# The cursor in a query string that has one.
CURSOR = re.compile(r"(?:^|&)after=([A-Za-z0-9_-]+)(?=&|\Z)")


class Parser(FlaskParser):
    """Loads the arguments of views; rejects what no schema has, everywhere."""

    DEFAULT_UNKNOWN_BY_LOCATION = {
        **FlaskParser.DEFAULT_UNKNOWN_BY_LOCATION,
        "query": ma.RAISE,
    }

    def parse(
        self, argmap: Any, req: Any = None, *, location: str | None = None, **options: Any
    ) -> Any:
        """Return what a schema makes of the request.

        :param argmap: an instance of a schema
        """
        if not options:
            if location == "query" and len(query := request.environ["QUERY_STRING"]) <= 200:
                return self._parse_query(argmap, query)
            if location == "headers" and not self.load_headers(request, argmap):
                return {}  # no header is required
            if location == "json":
                return self._parse_json(argmap)
        return super().parse(argmap, req, location=location, **options)

    def _parse_json(self, schema: ma.Schema) -> Any:
        """Load a body without what webargs does for locations that are no body."""
        try:
            return schema.load(self.load_json(request, schema))
        except ma.ValidationError as error:
            error.messages = {"json": error.messages}  # as webargs names the location
            reject = self.error_callback or self.handle_error
            reject(error, request, schema, error_status_code=None, error_headers=None)
            raise  # where a callback has not

    def _parse_query(self, schema: ma.Schema, query: str) -> dict[str, Any]:
        """Load a query string, apart from its cursor, which is another each time.

        A cursor that is not valid is left to the schema, which rejects it.
        """
        before, *cursor = CURSOR.split(query)
        if len(cursor) == 2 and "after" in schema.fields:
            found = self._load_query(schema, before + cursor[1])
            if found["page"].is_first:  # else there was a cursor under a name like %61fter
                with suppress(ValueError):
                    return {**found, "page": found["page"].starting_at(cursor[0])}
        return dict(self._load_query(schema, query))

    @lru_cache(maxsize=256)  # noqa: B019 - the one parser there is lives as long
    def _load_query(self, schema: ma.Schema, query: str) -> Any:
        """Load a query string, the same one only once: most requests send one of a few."""
        return super().parse(schema, Request({"QUERY_STRING": query}), location="query")

    def load_headers(self, req: flask.Request, schema: ma.Schema) -> Any:
        """Return the headers that the schema has."""
        names = (field.data_key for field in schema.fields.values() if field.data_key)
        return {name: req.headers[name] for name in names if name in req.headers}

    def load_json(self, req: flask.Request, schema: ma.Schema) -> Any:
        """Return the body; an empty object for an optional one that is missing."""
        # One that is cut off is not missing, but rejected.
        is_required = getattr(schema, "is_required", True)
        if not is_required and not req.content_length and not req.get_data():
            return {}
        return req.get_json()

    def load_form(self, req: flask.Request, schema: ma.Schema) -> Any:
        """Return the fields of a form.

        :raises UnsupportedMediaType: when the body is no form
        :raises BadRequest: for a content type with much beside its boundary, or one that is longer
            than RFC 2046 5.1.1 allows
        :raises RequestEntityTooLarge: over ``FORM_MAX`` bytes, or ``MAX_FORM_PARTS`` parts
        """
        if req.mimetype not in ("application/x-www-form-urlencoded", "multipart/form-data"):
            raise UnsupportedMediaType(
                "The body must be a form: send Content-Type application/x-www-form-urlencoded."
            )
        if len(req.content_type or "") > CONTENT_TYPE_MAX:
            raise BadRequest(f"The Content-Type is longer than {CONTENT_TYPE_MAX} characters.")
        if len(req.mimetype_params.get("boundary", "")) > BOUNDARY_MAX:
            raise BadRequest(f"The boundary is longer than {BOUNDARY_MAX} characters.")
        req.max_content_length = min(FORM_MAX, req.max_content_length or FORM_MAX)
        return super().load_form(req, schema)

    def load_querystring(self, req: flask.Request, schema: ma.Schema) -> Any:
        """Return the query parameters.

        :raises ValidationError: for many that the schema does not have, or one that is repeated
            and is no list
        """
        _reject_unknown(schema, req.args)
        parameters = super().load_querystring(req, schema)
        for name, values in req.args.lists():
            if len(values) > 1 and name not in parameters.multiple_keys:
                raise ma.ValidationError({name: ["Given more than once."]})
        return parameters


def _reject_unknown(schema: ma.Schema, data: Any) -> None:
    """Reject an object with many members that the schema does not have, before it is loaded.

    marshmallow would make an error of each, of which a response has no more than a few.

    :raises ValidationError: for the first of them
    """
    if isinstance(data, Mapping) and len(data) > len(schema.fields) + ERRORS_MAX:
        known = {field.data_key or name for name, field in schema.fields.items()}
        unknown = (name for name in data if name not in known)
        messages = {name: ["Unknown field."] for name in islice(unknown, ERRORS_MAX)}
        raise ma.ValidationError(messages)


def envelope(key: str, schema: type[ma.Schema], *, required: bool = True) -> ma.Schema:
    """Return the schema of a body ``{key: {...}}``, which loads as the inner object.

    :param required: whether the body is required; else a missing one loads as an empty object
    """
    inner = schema()

    class Envelope(ma.Schema):
        is_required = required

        def load(self, data: Any, **options: Any) -> Any:
            if data == {} and not required:
                return inner.load({})
            _reject_unknown(self, data)
            if not isinstance(data, dict) or list(data) != [key] or data[key] is None:
                return super().load(data, **options)  # which raises
            # To load the inner object by itself takes half the time.
            try:
                _reject_unknown(inner, data[key])
                return inner.load(data[key])
            except ma.ValidationError as error:
                raise ma.ValidationError({key: error.messages}) from None

    name = schema.__name__.removesuffix("Schema") + "Body"
    # marshmallow formats messages, so braces are doubled once more.
    missing = f'Missing data for required field. Wrap the body: {{{{"{key}": {{{{...}}}}}}}}.'
    field = ma.fields.Nested(schema, required=required, error_messages={"required": missing})
    body = Envelope.from_dict({key: field}, name=name)
    body.__doc__ = f"A request body. Its one member, `{key}`, has the content."
    return body()
