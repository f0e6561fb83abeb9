"""The docs page, Swagger UI from the assets of the package flask-swagger-ui; and the index at /."""

from importlib.resources import files

import flask
from flask import Blueprint, current_app, redirect, render_template, request, url_for

from phresh.web.app import Response
from phresh.web.urls import url_of

# Scripts only from here, none in the page itself; Swagger UI styles its elements in place.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)

blp = Blueprint(
    "docs",
    __name__,
    template_folder="templates",
    static_folder=str(files("flask_swagger_ui") / "dist"),
    static_url_path="/docs/swagger-ui",
)


@blp.get("/")
def show_index() -> flask.typing.ResponseReturnValue:
    """Redirect browsers to the docs page; tell other clients where things are."""
    accepted = request.accept_mimetypes
    if accepted.accept_html and accepted["text/html"] > accepted["application/json"]:
        response = redirect(url_of(url_for("docs.show_docs")))
        response.headers["Vary"] = "Accept"
        return response
    endpoints = {
        "docs": "docs.show_docs",
        "health": "health.get_health",
        "openapi": "api-docs.openapi_json",
    }
    index = {name: url_of(url_for(endpoint)) for name, endpoint in endpoints.items()}
    headers = {"Vary": "Accept"}
    return Response(current_app.json.dumps(index), 200, headers, mimetype="application/json")


@blp.get("/docs/")
def show_docs() -> Response:
    """Show the docs page."""
    response = Response(render_template("docs.html"), mimetype="text/html")
    response.policy = CONTENT_SECURITY_POLICY
    return response
