"""The OpenAPI document: Flask-Smorest's, completed with what holds for every operation."""

from functools import lru_cache
from gzip import compress
from importlib.resources import files
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar

import click
import flask_smorest
from flask import Flask, current_app, request
from werkzeug.exceptions import HTTPException

from phresh.config import ROOT
from phresh.web import deprecation
from phresh.web.app import Response
from phresh.web.conditional import etag_of, revalidated
from phresh.web.converters import CONVERTERS
from phresh.web.openapi_examples import LOCAL_URL, complete
from phresh.web.openapi_operations import OperationPlugin, add_components
from phresh.web.openapi_schemas import SchemaPlugin
from phresh.web.problems import ProblemSchema, problem_response

AUTHORS = "The Phresh authors"
LOCATION = {
    "Location": {
        "description": "The URL of the new resource.",
        "schema": {"type": "string", "format": "uri-reference"},
        "example": f"{LOCAL_URL}/api/cleanings/1/",
    }
}

# The settings that the document depends on.
SETTINGS = ("API_VERSION", "GUEST_POSTING", "PUBLIC_URL")


def init_app(app: Flask) -> "Api":
    """Make the app an API with a document, and return what blueprints are registered with."""
    app.config.update(API_TITLE="Phresh", OPENAPI_VERSION="3.1.0", OPENAPI_URL_PREFIX="/")
    description = files("phresh.web").joinpath("openapi.md").read_text()
    app.config["API_SPEC_OPTIONS"] = {
        "info": {
            "description": description,
            "contact": {"name": AUTHORS},
            "license": {"name": "MIT", "url": "https://opensource.org/license/mit"},
        },
        "externalDocs": {
            "description": "RFC 9457, the format of every error",
            "url": "https://www.rfc-editor.org/rfc/rfc9457",
        },
    }
    return Api(app)


@lru_cache(maxsize=8)
def _served(document: str, *, is_compressed: bool) -> tuple[bytes, dict[str, str]]:
    """Return the body and the headers of a representation of a document.

    Each has an entity tag of its own (RFC 9110 8.8.3).
    """
    if not is_compressed:
        return document.encode(), {"ETag": etag_of(document)}
    headers = {"ETag": etag_of(document, "gzip"), "Content-Encoding": "gzip"}
    return compress(document.encode(), mtime=0), headers


@click.group()
def openapi() -> None:
    """Show the OpenAPI document, or write it to a file."""


@openapi.command("print")
def print_document() -> None:
    """Print the OpenAPI document."""
    click.echo(current_document(), nl=False)


@openapi.command("write")
@click.argument(
    "path", type=click.Path(dir_okay=False, path_type=Path), default=ROOT / "openapi.json"
)
def write_document(path: Path) -> None:
    """Write the OpenAPI document to a file, by default openapi.json of the checkout."""
    path.write_text(current_document())


def current_document() -> str:
    """Return the OpenAPI document of the current app, as it is served by ``make run``."""
    api: Api = current_app.extensions["flask-smorest"]["apis"][""]["ext_obj"]
    return api.document_at(LOCAL_URL)


class Api(flask_smorest.Api):
    """Flask-Smorest with problem documents for every error.

    The document is made when it is first needed, once for all apps of a process that have the same
    resources and settings: that takes as long as a few hundred requests.
    """

    ERROR_SCHEMA: Any = ProblemSchema
    DEFAULT_ERROR_RESPONSE_NAME: Any = None

    _spec: Any = None
    _texts: ClassVar[dict[Any, str]] = {}
    _lock = Lock()

    def _init_spec(self, **_: Any) -> None:
        """Prepare for what :meth:`_make_spec` does later."""
        self._registered: list[tuple[Any, Any, dict[str, Any]]] = []
        self._app.cli.add_command(openapi)

    @property
    def spec(self) -> Any:
        """The specification, which is made when it is first needed."""
        if self._spec is None:
            self._make_spec()
        return self._spec

    @spec.setter
    def spec(self, spec: Any) -> None:
        self._spec = spec

    def _make_spec(self) -> None:
        plugin = OperationPlugin(self._app)
        super()._init_spec(
            marshmallow_plugin=SchemaPlugin(),
            extra_plugins=[plugin],
            servers=[{"url": self._app.config["PUBLIC_URL"] or "/"}],
        )
        self._app.cli.add_command(openapi)  # Flask-Smorest has added its own
        for converter in CONVERTERS.values():
            self._register_converter(converter, lambda made: {**made.parameter})
        for registered in self._registered:
            self._document(*registered)

    def register_blueprint(self, blp: Any, *, parameters: Any = None, **options: Any) -> None:
        """Register a blueprint; one without a description adds operations to the tags of others."""
        name = options.get("name", blp.name)
        self._app.extensions["flask-smorest"]["blp_name_to_api"][name] = self
        self._app.register_blueprint(blp, **options)
        self._registered.append((blp, parameters, options))
        if self._spec is not None:
            self._document(blp, parameters, options)

    def _document(self, blp: Any, parameters: Any, options: dict[str, Any]) -> None:
        name = options.get("name", blp.name)
        blp.register_views_in_doc(self, self._app, self._spec, name=name, parameters=parameters)
        if blp.description:
            self._spec.tag({"name": name, "description": blp.description})

    @property
    def document(self) -> str:
        """The OpenAPI document as JSON text."""
        settings = [self._app.config[name] for name in SETTINGS]
        resources = [(blp, *map(str, rest)) for blp, *rest in self._registered]
        key = (*settings, *resources)
        with self._lock:
            if key not in self._texts:
                if len(self._texts) == 8:  # that many only in tests
                    self._texts.clear()
                document = self.spec.to_dict()
                complete(document)
                deprecation.complete(document)
                self._texts[key] = self._app.json.dumps(document, indent=2) + "\n"
            return self._texts[key]

    def document_at(self, url: str) -> str:
        """Return the document with a URL as its server, unless ``PUBLIC_URL`` is set."""
        if self._app.config["PUBLIC_URL"] is not None:
            return self.document
        return self.document.replace('"url": "/"', f'"url": "{url}"', 1)

    def _openapi_json(self) -> Response:
        """Respond with the document, or 304."""
        mount = request.script_root  # known only from requests
        document = self.document_at(mount) if mount else self.document
        accepted = request.accept_encodings
        is_compressed = 0 < accepted["gzip"] >= accepted["identity"]
        body, headers = _served(document, is_compressed=is_compressed)
        response = revalidated(body, "application/json", headers)
        response.varies_by = "Origin, Accept-Encoding"
        return response

    def handle_http_exception(self, error: HTTPException) -> Response:
        """Return the problem document of an HTTP error."""
        return problem_response(error)

    def _register_responses(self) -> None:
        add_components(self.spec)

    def _register_etag_headers(self) -> None:
        """Leave it to :func:`add_components`."""

    def _register_pagination_header(self) -> None:
        """Leave out the header of Flask-Smorest's own pages."""
