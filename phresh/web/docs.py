"""The docs pages, and the index at /.

/docs/ is Swagger UI, from the assets of the package flask-swagger-ui. /redoc/ is Redoc, from the
bundle in static/redoc/, which is as its authors publish it.
"""

from importlib.resources import files

import flask
from flask import Blueprint, current_app, redirect, render_template, request, url_for

from phresh.web.app import Response
from phresh.web.conditional import etag_of, revalidated
from phresh.web.urls import url_of

# Scripts only from here, none in a page itself. The hash is that of an empty <style>: both pages
# write their styles into one by script, and a style that the document would bring along is blocked.
EMPTY_STYLE = "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"
CONTENT_SECURITY_POLICY = (
    f"default-src 'none'; script-src 'self'; style-src 'self' {EMPTY_STYLE}; "
    "img-src 'self' data:; font-src data:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
# The links above each page.
PAGES = {
    "docs.show_docs": "Try it",
    "docs.show_redoc": "Read it",
    "api-docs.openapi_json": "OpenAPI",
}

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
        "redoc": "docs.show_redoc",
    }
    index = {name: url_of(url_for(endpoint)) for name, endpoint in endpoints.items()}
    headers = {"Vary": "Accept"}
    return Response(current_app.json.dumps(index), 200, headers, mimetype="application/json")


@blp.get("/docs/")
def show_docs() -> Response:
    """Show the page where every request can be tried."""
    return _page("docs/swagger_ui.html")


@blp.get("/redoc/")
def show_redoc() -> Response:
    """Show the page to read."""
    return _page("docs/redoc.html")


def _page(template: str) -> Response:
    page = render_template(template, pages=PAGES.items())
    response = revalidated(page, "text/html", {"ETag": etag_of(page)})
    response.policy = CONTENT_SECURITY_POLICY
    return response
