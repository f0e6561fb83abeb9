"""The pages that the links in mails lead to, for servers whose front end has none.

A link confirms or changes nothing by being opened, since mail programs and scanners open links: a
button does. The token stands after ``#``, which no browser sends.
"""

from flask import Blueprint, render_template, url_for

from phresh.web.app import Response

# Scripts and styles only from here, and requests only to here.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

blp = Blueprint("account", __name__, url_prefix="/account", template_folder="templates")


@blp.get("/confirmation/")
def show_confirmation() -> Response:
    """Show the page that confirms an email address."""
    return _page("account/confirmation.html", url_for("users.confirm_email"))


@blp.get("/recovery/")
def show_recovery() -> Response:
    """Show the page that sets a new password, or has the link for that sent."""
    return _page("account/recovery.html", url_for("users.request_recovery"))


def _page(template: str, api: str) -> Response:
    page = render_template(template, api=api)
    headers = {"Cache-Control": "no-cache", "Referrer-Policy": "no-referrer"}
    response = Response(page, 200, headers, mimetype="text/html")
    response.policy = CONTENT_SECURITY_POLICY
    return response
