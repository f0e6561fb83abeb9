"""What is no part of the API: the index, the document, its page and static files."""

from tests.tools.features import EVERYONE, Feature, Route

FEATURE = Feature(
    routes=[
        Route("GET", "/", EVERYONE),
        Route("GET", "/openapi.json", EVERYONE),
        Route("GET", "/docs/", EVERYONE),
        Route(
            *("GET", "/docs/swagger-ui/<path:filename>", EVERYONE),
            prepare=lambda _: {"filename": "swagger-ui.css"},
        ),
        Route(
            *("GET", "/static/<path:filename>", EVERYONE),
            prepare=lambda _: {"filename": "docs.js"},
        ),
    ],
    rows={"idempotency_keys": "INSERT INTO idempotency_keys VALUES ('', 'POST', '/', 'k', '')"},
)
