"""The route that deletes an account, for the tests of all routes (tests/tools/features.py)."""

from tests.tools.features import Feature, Route

FEATURE = Feature(routes=[Route("DELETE", "/api/users/me/", (401, 204, 204), errors={409})])
