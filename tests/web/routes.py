"""What is no part of the API: the index, the document, its pages and static files."""

from phresh.web.fields import MARKS_MAX
from tests.tools.features import EVERYONE, Feature, Route

FEATURE = Feature(
    routes=[
        Route("GET", "/", EVERYONE),
        Route("GET", "/openapi.json", EVERYONE),
        Route("GET", "/docs/", EVERYONE),
        Route("GET", "/redoc/", EVERYONE),
        Route(
            *("GET", "/docs/swagger-ui/<path:filename>", EVERYONE),
            prepare=lambda _: {"filename": "swagger-ui.css"},
        ),
        Route(
            *("GET", "/static/<path:filename>", EVERYONE),
            prepare=lambda _: {"filename": "docs.js"},
        ),
    ],
    undocumented={
        # Characters beyond U+00FF need escapes, of which generators make the characters themselves.
        "Must not be blank.",
        "Must not contain the characters U+202A to U+202E and U+2066 to U+2069, which change the "
        "direction of writing.",
        "Must have a visible character: a letter, a digit, punctuation or a symbol.",
        # Marks are no class in every language.
        f"Must not have more than {MARKS_MAX} combining marks in a row.",
    },
    rows={"idempotency_keys": "INSERT INTO idempotency_keys VALUES ('', 'POST', '/', 'k', '')"},
)
