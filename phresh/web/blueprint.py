"""Blueprints: how views are registered, receive their arguments and return their response."""

from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any, NoReturn

import flask
import flask_smorest
import marshmallow as ma
from flask import current_app, request
from flask.views import MethodView
from flask_smorest import abort
from werkzeug.datastructures import Headers
from werkzeug.http import quote_etag

from phresh.database.transactions import flush_session, read_only, transaction
from phresh.web.app import Response
from phresh.web.arguments import Parser
from phresh.web.conditional import etag_of, is_known

READING = {"GET", "HEAD", "OPTIONS"}
RETURNS = (
    "A view returns JSON text; or a dict, a list, a mapped object or rows that its response schema "
    "can dump; or None with a status that has no body. A status, headers or both may follow in a "
    "tuple. Or it returns a flask.Response."
)


class Blueprint(flask_smorest.Blueprint):
    """Flask-Smorest's blueprint, whose writing views are transactions.

    :meth:`response` says what a view may return.
    """

    ARGUMENTS_PARSER = Parser()

    def add_url_rule(  # type: ignore[override]
        self, rule: str, endpoint: str | None = None, view_func: Any = None, **options: Any
    ) -> None:
        """Register a view function or a MethodView class.

        :raises TypeError: for a view that can't be served, or does not say how it responds
        """
        if isinstance(view_func, type(MethodView)):
            for method in view_func.methods or ():
                name = method.lower()
                setattr(view_func, name, _in_unit(getattr(view_func, name), {method}))
            view_func.has_unit_of_work = True  # type: ignore[attr-defined]
        elif view_func is not None:
            view_func = _in_unit(view_func, set(options.get("methods") or ["GET"]))
        super().add_url_rule(rule, endpoint, view_func, **options)

    def arguments(
        self, schema: Any, *, location: str = "json", as_kwargs: bool = False, **options: Any
    ) -> Callable[[Any], Any]:
        """Document the arguments at a location, and pass the view what the schema makes of them.

        :param options: as of Flask-Smorest: for the document, or for webargs' parser
        """
        # Of a class, webargs makes an instance for each request.
        instance = schema() if isinstance(schema, type) else schema
        documented = {"required": getattr(instance, "is_required", True), **options}
        document = super().arguments(instance, location=location, **documented)
        described = ("content_type", "required", "description", "example", "examples")
        parsing = {name: value for name, value in options.items() if name not in described}
        parse = self.ARGUMENTS_PARSER.parse

        def decorator(view: Callable[..., Any]) -> Any:
            @wraps(view)
            def with_arguments(*args: Any, **kwargs: Any) -> Any:
                parsed = parse(instance, location=location, **parsing)
                if as_kwargs:
                    return view(*args, **parsed, **kwargs)
                return view(*args, parsed, **kwargs)

            return _documented(document, with_arguments)

        return lambda view: self._decorate_view_func_or_method_view(decorator, view)

    def response(
        self, status_code: int, schema: Any = None, **options: Any
    ) -> Callable[[Any], Any]:
        """Document the response, and make it of what the view returns.

        That is JSON text, which is sent as it is; or anything that the schema can dump. A status,
        headers or both may follow it in a tuple. A ``flask.Response`` is sent as it is.
        """
        document = super().response(status_code, schema, **options)
        instance: ma.Schema | None = schema() if isinstance(schema, type) else schema
        hides = instance is not None and any(f.load_only for f in instance.fields.values())

        def decorator(view: Callable[..., Any]) -> Any:
            @wraps(view)
            def with_response(*args: Any, **kwargs: Any) -> flask.Response:
                environ = request.environ
                if environ.get("QUERY_STRING") and request.args:
                    _reject_undeclared_query()
                result = view(*args, **kwargs)
                flush_session()
                status: Any = status_code
                given: Any = {}
                if type(result) is tuple:  # no row, which is one too
                    result, status, given = _unpacked(view, result, status_code)
                if isinstance(result, str):
                    if hides:
                        _reject_text(view, instance)
                    text: str | None = result
                elif isinstance(result, flask.Response):
                    return result
                else:
                    text = _dumped(view, instance, result)
                return _response(text, status, given)

            return _documented(document, with_response)

        return lambda view: self._decorate_view_func_or_method_view(decorator, view)

    def alt_response(self, *args: Any, **options: Any) -> Callable[[Any], Any]:
        """Document another response."""
        document = super().alt_response(*args, **options)
        decorator = lambda view: _documented(document, view)  # noqa: E731
        return lambda view: self._decorate_view_func_or_method_view(decorator, view)

    @staticmethod
    def doc(**options: Any) -> Callable[[Any], Any]:
        """Document anything else."""
        document = flask_smorest.Blueprint.doc(**options)
        return lambda view: _documented(document, view)

    def paginate(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse: pages by number cost more the deeper they are.

        :raises TypeError: always
        """
        raise TypeError(
            "blp.paginate is not available: lists are keyset pages. Derive the query schema from "
            "PageSchema (phresh/web/pages.py) and return page.respond(rows)."
        )


def _in_unit(view: Any, methods: set[str]) -> Any:
    """Return a view as a transaction, or marked as one that only reads.

    :raises TypeError: when it is a coroutine function, or has no ``@blp.response``
    """
    if iscoroutinefunction(view):
        raise TypeError(
            f"{view.__name__}() is a coroutine function (async def), which Phresh does not run: "
            "write a plain function."
        )
    if "response" not in getattr(view, "_apidoc", {}):
        raise TypeError(
            f"{view.__name__}() has no @blp.response(status, Schema), which says what it responds."
        )
    return read_only(view) if methods <= READING else transaction(view)


def _documented(document: Callable[[Any], Any], view: Any) -> Any:
    """Return the view itself, with what a decorator of Flask-Smorest says of it in the document.

    That decorator's wrapper has nothing left to do, but would be called for each request.
    """
    view._apidoc = document(view)._apidoc
    return view


def _unpacked(view: Any, result: tuple[Any, ...], status: int) -> tuple[Any, Any, Any]:
    """Return body, status and headers of what a view returned as a tuple."""
    if len(result) == 3:
        body, status, headers = result
    elif len(result) == 2 and isinstance(result[1], dict | list | Headers):
        (body, headers) = result
    elif len(result) == 2 and isinstance(result[1], int):
        (body, status), headers = result, {}
    else:
        raise TypeError(f"{view.__name__}() returned a tuple of {len(result)}. {RETURNS}")
    return body, int(status), headers if isinstance(headers, dict) else Headers(headers)


def _dumped(view: Any, schema: ma.Schema | None, value: Any) -> str | None:
    """Return the JSON text of what a view returned.

    :raises TypeError: for what the schema can't dump
    """
    if schema is None:
        if value is None:
            return None
        if not isinstance(value, dict | list):
            _reject(view, value)
        return current_app.json.dumps(value)
    if schema.many:
        if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
            _reject(view, value)
        value = list(value)
    for item in value if schema.many else [value]:
        names = (field.attribute or name for name, field in schema.dump_fields.items())
        if not isinstance(item, Mapping) and not any(hasattr(item, name) for name in names):
            _reject(view, item)
    return current_app.json.dumps(schema.dump(value))


def _reject(view: Any, value: Any) -> NoReturn:
    raise TypeError(f"{view.__name__}() returned {type(value).__name__}. {RETURNS}")


def _reject_text(view: Any, schema: Any) -> NoReturn:
    hidden = ", ".join(name for name, field in schema.fields.items() if field.load_only)
    raise TypeError(
        f"{view.__name__}() returned JSON text, which is sent as it is, but {hidden} of "
        f"{type(schema).__name__} is load_only: return an object to be dumped, or respond with a "
        "schema that has no such field."
    )


def _response(text: str | None, status: int, given: Any) -> Response:
    headers = list(given.items())
    if text is not None:
        headers.append(("Content-Type", "application/json"))
        if request.environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            # The link to the next page belongs to the state: it comes with a new row.
            tag = etag_of(text, given.get("Link", ""))
            headers += [("ETag", quote_etag(tag)), ("Cache-Control", "no-cache")]
            if is_known(tag):
                return Response(None, 304, headers)
    return Response(text, status, headers)


def _reject_undeclared_query() -> None:
    """Respond 422 when the view takes no query parameters; else its schema has validated them.

    It is called after the body was validated, which keeps the order of errors.
    """
    view: Any = current_app.view_functions[request.endpoint or ""]
    if (view_class := getattr(view, "view_class", None)) is not None:
        name = "get" if request.method == "HEAD" else request.method.lower()
        view = getattr(view_class, name)
    declared = view._apidoc.get("arguments", {}).get("parameters", [])
    if not any(parameter["in"] == "query" for parameter in declared):
        abort(422, messages={"query": {name: ["Unknown field."] for name in request.args}})
