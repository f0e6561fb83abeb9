"""The health checks, for the tests of all routes (tests/tools/features.py)."""

from tests.tools.features import EVERYONE, Feature, Route

FEATURE = Feature(
    routes=[
        Route("GET", "/healthz", EVERYONE),
        Route("GET", "/readyz", EVERYONE, errors={503}),
    ]
)
