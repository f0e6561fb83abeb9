"""Blueprints: how views are registered, receive their arguments and return their response."""

from collections.abc import Callable
from datetime import date
from functools import partial, wraps
from typing import Any, NoReturn

import flask_smorest
import marshmallow as ma
from flask import current_app, request
from flask.views import MethodView
from flask_smorest import abort
from flask_smorest.utils import get_appcontext
from werkzeug.wrappers import Response as BaseResponse

from phresh.database.transactions import flush_session, read_only, transaction
from phresh.web.app import reject_coroutine
from phresh.web.arguments import Parser
from phresh.web.conditional import checked, is_conditional, is_not_modified
from phresh.web.deprecation import Deprecation
from phresh.web.idempotency import idempotent
from phresh.web.openapi_operations import headers_of
from phresh.web.responses import (
    SECRETS,
    Declared,
    Pairs,
    completed,
    dumped,
    finished,
    reject_text,
    unpacked,
)

READING = {"GET", "HEAD", "OPTIONS"}


class Blueprint(flask_smorest.Blueprint):
    """Flask-Smorest's blueprint, whose writing views are transactions.

    :meth:`response` says what a view may return.
    """

    ARGUMENTS_PARSER = Parser()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._prepare_doc_cbks.append(_with_headers)

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
        self, status_code: int, schema: Any = None, *, holds: str | None = None, **options: Any
    ) -> Callable[[Any], Any]:
        """Document the response, and make it of what the view returns.

        That is JSON text, which is sent as it is; or anything that the schema can dump. A status,
        headers or both may follow it in a tuple. A ``flask.Response`` is sent as it is.

        :param holds: ``CONTACT_DATA`` or ``SECRETS`` (phresh/web/responses.py), which no cache may
            store
        """
        document = super().response(status_code, schema, **options)
        instance = schema() if isinstance(schema, type) else schema
        hides = isinstance(instance, ma.Schema) and any(
            field.load_only for field in instance.fields.values()
        )

        def decorator(view: Callable[..., Any]) -> Any:
            declared = Declared(status_code, holds)

            def respond(*args: Any, **kwargs: Any) -> BaseResponse:
                result = view(*args, **kwargs)
                flush_session()  # for what the database fills in
                status: int | None = None
                headers: Pairs = []
                if type(result) is tuple:
                    result, status, headers = unpacked(view, result)
                if isinstance(result, str):
                    if hides:
                        reject_text(view, instance)
                elif isinstance(result, BaseResponse):
                    return completed(declared, result, status, headers)
                else:
                    result = dumped(view, instance, result, status or status_code)
                return finished(declared, result, status or status_code, headers)

            @wraps(view)
            def with_response(*args: Any, **kwargs: Any) -> Any:
                environ = request.environ
                if environ.get("QUERY_STRING") and request.args:
                    _reject_undeclared_query()
                if environ["REQUEST_METHOD"] in READING:
                    return respond(*args, **kwargs)
                write: Any = partial(respond, *args, **kwargs)
                if is_conditional() and not declared.sets_etag:  # it checks what it sets
                    write = partial(checked, write, declared.represented_at)
                if declared.is_idempotent and "HTTP_IDEMPOTENCY_KEY" in environ:
                    response = idempotent(write, _sent(args, kwargs), status_code)
                    return declared.vary(response)
                return write()

            with_response.declared = declared  # type: ignore[attr-defined]
            documented = _documented(document, with_response)
            documented._apidoc["has_secrets"] = holds == SECRETS
            return documented

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

    @staticmethod
    def represented_at(path: Callable[..., str]) -> Callable[[Any], Any]:
        """Set where GET has the representation that a writing view changes, if not at its URL.

        Preconditions and the ``ETag`` of the response are of that one. It stands below the
        authentication and above ``response``.

        :param path: returns the path, by the arguments of the URL rule
        """

        def decorator(view: Any) -> Any:
            view.declared.path = path
            view._apidoc["is_represented_elsewhere"] = True
            return view

        return decorator

    @staticmethod
    def deprecated(
        *, since: date, sunset: date | None = None, link: str | None = None
    ) -> Callable[[Any], Any]:
        """Mark an operation as deprecated, in the document and on each of its responses.

        It stands below the route and above ``response``. docs/api.md has the promise.

        :param since: the day from which on it is deprecated
        :param sunset: the day on which it stops working; None: not decided
        :param link: URL of a page that says what to do instead
        :raises TypeError: below ``response``, or for what is not a ``datetime.date``
        :raises ValueError: for a sunset that is too early, or a link that is not a URL
        """
        deprecation = Deprecation(since, sunset, link)

        def decorator(view: Any) -> Any:
            if not hasattr(view, "declared"):
                raise TypeError("@blp.deprecated stands above @blp.response, on a function.")
            view.declared.deprecation = deprecation
            return _documented(flask_smorest.Blueprint.doc(**deprecation.documented), view)

        return decorator

    def _check_not_modified(self, etag: str) -> None:
        """Leave it to what sets the entity tag: a 304 has the headers of the 200."""

    def _set_etag_in_response(self, response: BaseResponse) -> None:
        """Set the entity tag of ``@blp.etag``: of what is sent, which ``check_etag`` dumps too."""
        text = response.get_data()
        get_appcontext()["result_dump"] = current_app.json.loads(text) if text else None
        super()._set_etag_in_response(response)
        if response.status_code == 200 and is_not_modified(response.headers["ETag"]):
            response.status_code = 304

    def paginate(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse: pages by number cost more the deeper they are.

        :raises TypeError: always
        """
        raise TypeError(
            "blp.paginate is not available: lists are keyset pages. Derive the query schema from "
            "PageSchema (phresh/web/pages.py) and return page.respond(query)."
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
    declared: Declared = view.declared
    declared.reads_token = "security" in view._apidoc.get("manual_doc", {})
    declared.sets_etag = "etag" in view._apidoc
    if methods <= READING:
        unit = read_only(view)
    else:
        before: Callable[[], None] | None = getattr(view, "before_writing", None)
        unit = transaction(view if before is None else _preceded(view, before))
    return unit if declared.deprecation is None else declared.deprecation.announced(unit)


def _preceded(view: Any, before: Callable[[], None]) -> Any:
    @wraps(view)
    def preceded(*args: Any, **kwargs: Any) -> Any:
        before()
        return view(*args, **kwargs)

    return preceded


def _with_headers(
    doc: dict[str, Any], info: dict[str, Any], *, method: str, **_: Any
) -> dict[str, Any]:
    """Return what the document says of an operation, with the headers that it alone has."""
    responses = doc.get("responses", {})
    statuses = {int(status) for status in responses}
    if info.get("is_represented_elsewhere") and 200 in statuses:
        responses[200].setdefault("headers", {}).update(headers_of("CONTENT_LOCATION"))
    if method == "post" and 201 in statuses and not info.get("has_secrets"):
        doc.setdefault("parameters", []).append("IDEMPOTENCY_KEY")
        responses.setdefault(409, {})
    return doc


def _sent(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """Return what the client has sent, by the arguments of a view: the path and the rest apart."""
    in_path = request.view_args or {}
    named = {name: value for name, value in kwargs.items() if name not in in_path}
    sent = [each for each in args if not isinstance(each, MethodView)]
    if named:
        sent.append(named)
    return sent or [request.get_data(as_text=True)]  # the view reads it by itself


def _documented(document: Callable[[Any], Any], view: Any) -> Any:
    """Return the view itself, with what a decorator of Flask-Smorest says of it in the document.

    That decorator's wrapper has nothing left to do, but would be called for each request.
    """
    view._apidoc = document(view)._apidoc
    return view


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
