"""The routes of the feed, for the tests of all routes (tests/tools/features.py)."""

from tests.tools.features import EVERYONE, Feature, Route

FEATURE = Feature(routes=[Route("GET", "/api/feed/cleanings/", EVERYONE)])
