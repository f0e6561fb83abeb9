"""Blueprints: how views are registered, receive their arguments and return their response."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial, wraps
from typing import Any, NoReturn

import flask_smorest
import marshmallow as ma
from flask import current_app, request
from flask.views import MethodView
from flask_smorest import abort
from flask_smorest.utils import get_appcontext
from werkzeug.datastructures import Headers
from werkzeug.http import quote_etag
from werkzeug.wrappers import Response as BaseResponse

from phresh.database.transactions import flush_session, read_only, transaction
from phresh.web.app import Response, reject_coroutine
from phresh.web.arguments import Parser
from phresh.web.conditional import etag_of, is_known

Pairs = list[tuple[str, str]]  # headers
READING = {"GET", "HEAD", "OPTIONS"}
WITHOUT_BODY = (204, 205, 304)
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
            for method in options.get("methods") or view_func.methods or ():
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
        described = ("content_type", "required", "description", "example", "examples", "arg_name")
        parsing = {name: value for name, value in options.items() if name not in described}
        arg_name = options.get("arg_name")
        parse = self.ARGUMENTS_PARSER.parse

        def decorator(view: Callable[..., Any]) -> Any:
            @wraps(view)
            def with_arguments(*args: Any, **kwargs: Any) -> Any:
                parsed = parse(instance, location=location, **parsing)
                if as_kwargs:
                    return view(*args, **{**kwargs, **parsed})
                if arg_name is not None:
                    return view(*args, **kwargs, **{arg_name: parsed})
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
        instance = schema() if isinstance(schema, type) else schema
        hides = isinstance(instance, ma.Schema) and any(
            field.load_only for field in instance.fields.values()
        )

        def decorator(view: Callable[..., Any]) -> Any:
            @wraps(view)
            def with_response(*args: Any, **kwargs: Any) -> Any:
                environ = request.environ
                if environ.get("QUERY_STRING") and request.args:
                    _reject_undeclared_query()
                result = view(*args, **kwargs)
                flush_session()  # for what the database fills in
                status: int | None = None
                headers: Pairs = []
                if type(result) is tuple:
                    result, status, headers = _unpacked(view, result)
                if isinstance(result, str):
                    if hides:
                        _reject_text(view, instance)
                elif isinstance(result, BaseResponse):
                    return _completed(result, status, headers)
                else:
                    result = _dumped(view, instance, result, status or status_code)
                return _response(result, status or status_code, headers)

            return _documented(document, with_response)

        return lambda view: self._decorate_view_func_or_method_view(decorator, view)

    def alt_response(self, *args: Any, **options: Any) -> Callable[[Any], Any]:
        """Document another response."""
        document = super().alt_response(*args, **options)
        decorator = partial(_documented, document)
        return lambda view: self._decorate_view_func_or_method_view(decorator, view)

    @staticmethod
    def doc(**options: Any) -> Callable[[Any], Any]:
        """Document anything else."""
        document = flask_smorest.Blueprint.doc(**options)
        return partial(_documented, document)

    def _set_etag_in_response(self, response: BaseResponse) -> None:
        """Set the entity tag of ``@blp.etag``: of what is sent, which ``check_etag`` dumps too."""
        text = response.get_data()
        get_appcontext()["result_dump"] = current_app.json.loads(text) if text else None
        super()._set_etag_in_response(response)

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
    reject_coroutine(view)
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


def _unpacked(view: Any, result: tuple[Any, ...]) -> tuple[Any, int | None, Pairs]:
    """Return body, status and headers of what a view returned as a tuple.

    :raises TypeError: for another tuple
    """
    match result:
        case body, dict() | list() | Headers() as headers:
            return body, None, _pairs(headers)
        case body, int() as status if status > 1:  # not a bool
            return body, int(status), []
        case body, int() as status, dict() | list() | Headers() as headers if status > 1:
            return body, int(status), _pairs(headers)
    kinds = ", ".join(type(part).__name__ for part in result)
    raise TypeError(f"{view.__name__}() returned a tuple of {kinds}. {RETURNS}")


def _pairs(headers: Any) -> Pairs:
    """Return headers in pairs; a dict may have several values for a name."""
    items = headers.items() if isinstance(headers, dict) else headers
    return [
        (name, each)
        for name, value in items
        for each in (value if isinstance(value, list | tuple) else (value,))
    ]


def _dumped(view: Any, schema: Any, value: Any, status: int) -> str | None:
    """Return the JSON text of what a view returned.

    :raises TypeError: for what the schema can't dump
    """
    if value is None and status in WITHOUT_BODY:
        return None
    if not isinstance(schema, ma.Schema):
        if not isinstance(value, dict | list):
            _reject(view, value)
        return current_app.json.dumps(value)
    if schema.many:
        if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
            _reject(view, value)
        value = list(value)
    for item in value if schema.many else [value]:
        if not isinstance(item, Mapping) and not _has_attributes(item, schema):
            _reject(view, item)
    return current_app.json.dumps(schema.dump(value))


def _has_attributes(item: Any, schema: ma.Schema) -> bool:
    """Return whether an object has any of the attributes that a schema dumps."""
    # They have methods with names that fields may have, like count. A row is no tuple.
    if isinstance(item, str | bytes | int | float | list | set) or type(item) is tuple:
        return False
    names = [
        field.attribute or name
        for name, field in schema.dump_fields.items()
        if field._CHECK_ATTRIBUTE  # not a Method, Function or Constant
    ]
    missing = (schema.get_attribute(item, name, ma.missing) is ma.missing for name in names)
    return not names or not all(missing)


def _reject(view: Any, value: Any) -> NoReturn:
    raise TypeError(f"{view.__name__}() returned {type(value).__name__}. {RETURNS}")


def _reject_text(view: Any, schema: Any) -> NoReturn:
    hidden = ", ".join(name for name, field in schema.fields.items() if field.load_only)
    raise TypeError(
        f"{view.__name__}() returned JSON text, which is sent as it is, but {hidden} of "
        f"{type(schema).__name__} is load_only: return an object to be dumped, or respond with a "
        "schema that has no such field."
    )


def _response(text: str | None, status: int, given: Pairs) -> Response:
    """Return the response; headers that the view has given replace ours."""
    own = {name.lower(): value for name, value in given}
    if text is None:
        return Response(None, status, given)
    headers = [("Content-Type", "application/json")]
    if status == 200 and request.environ["REQUEST_METHOD"] in ("GET", "HEAD"):
        # The link to the next page belongs to the state: it comes with a new row.
        tag = etag_of(text, own.get("link", ""))
        headers += [("ETag", quote_etag(tag)), ("Cache-Control", "no-cache")]
        if is_known(tag):
            text, status = None, 304
    if own:
        headers = [*given, *(pair for pair in headers if pair[0].lower() not in own)]
    return Response(text, status, headers)


def _completed(response: BaseResponse, status: int | None, given: Pairs) -> BaseResponse:
    """Return a response that the view made, as one for GET with an entity tag."""
    if status is not None:
        response.status_code = status
    response.headers.update(Headers(given))
    is_read = request.method in ("GET", "HEAD") and response.status_code == 200
    if is_read and response.is_sequence:  # not a stream
        response.add_etag()
        response.headers.setdefault("Cache-Control", "no-cache")
        if is_known(response.get_etag()[0] or ""):
            response.status_code = 304
    return response


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
