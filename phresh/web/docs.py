"""The docs page: Swagger UI, from the assets of the package flask-swagger-ui."""

from importlib.resources import files

from flask import Blueprint, render_template

from phresh.api import Response

# Scripts only from here, none in the page itself; Swagger UI styles its elements in place.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)

blp = Blueprint(
    "docs",
    __name__,
    static_folder=str(files("flask_swagger_ui") / "dist"),
    static_url_path="/docs/swagger-ui",
)


@blp.get("/docs/")
def show_docs() -> Response:
    """Show the docs page."""
    response = Response(render_template("docs.html"), mimetype="text/html")
    response.policy = CONTENT_SECURITY_POLICY
    return response
