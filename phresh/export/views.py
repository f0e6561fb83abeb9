"""The endpoint that returns everything that is stored about an account."""

from werkzeug.wsgi import FileWrapper

from phresh.accounts import limits
from phresh.accounts.tokens import current_account, login_required
from phresh.export import services
from phresh.export.schemas import ExportSchema
from phresh.web.app import Response
from phresh.web.blueprint import Blueprint
from phresh.web.responses import CONTACT_DATA

blp = Blueprint("export", __name__, url_prefix="/api/users")

SAVED = {
    "Content-Disposition": {
        "description": "A file name (RFC 6266), under which browsers save it.",
        "schema": {"type": "string"},
        "example": 'attachment; filename="phresh-export.json"',
    }
}
PIECE = 64 * 1024  # bytes that are read from the file at once


@blp.get("/me/export/", tags=["users"])
@login_required
@blp.response(200, ExportSchema, headers=SAVED, holds=CONTACT_DATA)
@blp.alt_response(409)
@blp.alt_response(429)
def export_me() -> Response:
    """Get everything that is stored about you

    One JSON document of at most 32 MiB, to keep or to take elsewhere. Secrets are left out:
    passwords and tokens, of which only hashes are stored. How often an account can do this is
    limited.
    """
    user_id = current_account().user_id
    limits.count(limits.exports(str(user_id)))
    document = services.export(user_id)
    headers = {
        "Content-Disposition": SAVED["Content-Disposition"]["example"],
        "Content-Length": str(document.size),
        "ETag": document.etag,
    }
    body = FileWrapper(document.file, PIECE)
    return Response(body, headers=headers, mimetype="application/json")
