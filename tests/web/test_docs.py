"""Files: conditional requests and ranges, as RFC 9110 has them."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from pathlib import Path

import pytest

from phresh.web import app as web

FILE = "/static/docs.js"
FILES = (FILE, "/docs/swagger-ui/swagger-ui.css")
CONTENT = Path(web.__file__).with_name("static").joinpath("docs.js").read_bytes()
SIZE = len(CONTENT)
OTHER = '"other"'


def get(client, method="GET", path=FILE, **headers):
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    response = client.open(path, method=method, headers=sent)
    response.get_data()
    response.close()  # the file
    return response


@pytest.fixture
def etag(client):
    return get(client).headers["ETag"]


@pytest.fixture
def modified(client):
    return get(client).headers["Last-Modified"]


@pytest.mark.parametrize("path", FILES)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_file_that_has_not_changed_is_304(client, path, method):
    response = get(client, method, path)
    etag, modified = response.headers["ETag"], response.headers["Last-Modified"]
    later = format_datetime(datetime.now(UTC), usegmt=True)
    before = format_datetime(parsedate_to_datetime(modified) - timedelta(seconds=1), usegmt=True)
    for condition, status in (
        ({"If_None_Match": etag}, 304),
        ({"If_None_Match": f"W/{etag}"}, 304),
        ({"If_None_Match": f"{OTHER}, {etag}"}, 304),
        ({"If_None_Match": "*"}, 304),
        ({"If_None_Match": OTHER}, 200),
        ({"If_Modified_Since": modified}, 304),
        ({"If_Modified_Since": later}, 304),
        ({"If_Modified_Since": before}, 200),
        ({"If_Modified_Since": "nonsense"}, 200),
        ({"If_None_Match": OTHER, "If_Modified_Since": later}, 200),
        ({"If_None_Match": etag, "If_Modified_Since": before}, 304),
        ({"If_Match": etag}, 200),
        ({"If_Match": "*"}, 200),
        ({"If_Match": OTHER}, 412),
        ({"If_Match": f"W/{etag}"}, 412),
    ):
        response = get(client, method, path, **condition)
        assert response.status_code == status, condition
        if status == 304:
            assert response.data == b""
            assert response.headers["ETag"] == etag


@pytest.mark.parametrize(
    ("given", "first", "last"),
    [
        *(("bytes=0-4", 0, 4), ("bytes=5-", 5, SIZE - 1), ("bytes=-5", SIZE - 5, SIZE - 1)),
        *(("bytes=0-999999", 0, SIZE - 1), ("bytes=-999999", 0, SIZE - 1), ("Bytes=3-3", 3, 3)),
    ],
)
def test_a_range_of_a_file_is_206(client, etag, given, first, last):
    response = get(client, Range=given)
    assert response.status_code == 206
    assert response.data == CONTENT[first : last + 1]
    assert response.headers["Content-Range"] == f"bytes {first}-{last}/{SIZE}"
    assert response.headers["Content-Length"] == str(last + 1 - first)
    assert response.headers["ETag"] == etag


@pytest.mark.parametrize(
    "given",
    [
        *(
            "lines=1-2",
            "bytes=a-b",
            "bytes=5-4x",
            "bytes=",
            "bytes",
            "bytes=1-2,4-5",
            "bytes=0-0,-1",
        ),
        *("bytes 1-2", "bytes=--1", "bytes=١-٢", ""),
    ],
)
def test_a_range_that_is_not_understood_is_ignored(client, given):
    response = get(client, Range=given.encode().decode("latin-1"))
    assert (response.status_code, response.data) == (200, CONTENT)


@pytest.mark.parametrize("given", [f"bytes={SIZE}-", "bytes=999999-", "bytes=-0", "bytes=5-4"])
def test_a_range_outside_of_the_file_is_416(client, given):
    response = get(client, Range=given)
    assert response.status_code == 416
    assert response.headers["Content-Range"] == f"bytes */{SIZE}"
    assert response.content_type == "application/problem+json"


def test_a_range_is_for_get_alone(client):
    response = get(client, "HEAD", Range="bytes=0-4")
    assert (response.status_code, response.headers["Content-Length"]) == (200, str(SIZE))
    assert "Content-Range" not in response.headers


def test_conditions_come_before_ranges(client, etag, modified):
    for condition, status in (
        ({"If_None_Match": etag}, 304),
        ({"If_Modified_Since": modified}, 304),
        ({"If_Match": OTHER}, 412),
        ({"If_None_Match": OTHER}, 206),
        ({"If_Match": etag}, 206),
    ):
        assert get(client, Range="bytes=0-4", **condition).status_code == status
        assert get(client, Range="bytes=999999-", **condition).status_code == (
            416 if status == 206 else status
        )


def test_if_range_needs_the_same_representation(client, etag, modified):
    later = format_datetime(datetime.now(UTC), usegmt=True)
    for condition, status in (
        *((etag, 206), (modified, 206), (OTHER, 200), (f"W/{etag}", 200), (later, 200)),
        *((etag.strip('"'), 200), ("*", 200), ("nonsense", 200)),
    ):
        response = get(client, Range="bytes=0-4", If_Range=condition)
        assert response.status_code == status, condition
        assert len(response.data) == (5 if status == 206 else SIZE)
    assert get(client, If_Range=OTHER).status_code == 200
