"""What the worker accepts as a request, and how much memory that takes, without a server."""

import tracemalloc

import pytest

from phresh.serving.requests import (
    FRAMING_MAX,
    FRAMING_PER_BYTE,
    HEAD_MAX,
    Limits,
    RejectedError,
    RequestParser,
)

LIMITS = Limits(line=0, fields=100, field=0, body=64 * 1024)
SIZES = (1, 2, 3, 7, 4000, 1 << 30)  # of the pieces in which something arrives


def parse(data, size=1 << 30, limits=LIMITS):
    """Return the requests that are accepted, and the status with which the next is rejected."""
    parser = RequestParser({}, limits)
    accepted = []
    try:
        for start in range(0, len(data), size):
            parser.receive(data[start : start + size])
            while request := parser.next():
                accepted.append(request)
    except RejectedError as error:
        return accepted, error.args[0]
    return accepted, None


def status(data, size=1 << 30, limits=LIMITS):
    """Return with which status the only request is rejected; None when it is accepted."""
    accepted, status = parse(data, size, limits)
    assert (len(accepted), status) in ((1, None), (0, status))
    return status


def head(line="GET / HTTP/1.1", *headers, host="a"):
    lines = [line, *([f"Host: {host}"] if host is not None else []), *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1")


# Host and target


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/phresh/api/cleanings/?a=/phresh/", "/api/cleanings/"),
        *(("/phresh", ""), ("/phresh/", "/"), ("/phresh?a", ""), ("/%70hresh/x", "/x")),
        # As a proxy that removes the mount, or a health check on the machine, sends it.
        *(("/api/cleanings/", "/api/cleanings/"), ("/phreshly/", "/phreshly/"), ("/", "/")),
        *(("/phresh/phresh/", "/phresh/"), ("http://a/phresh/x", "/x")),
    ],
)
def test_the_mount_is_no_part_of_the_path(target, path):
    parser = RequestParser({"SCRIPT_NAME": "/phresh"}, LIMITS)
    parser.receive(head(f"GET {target} HTTP/1.1"))
    environ = parser.next().environ
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("/phresh", path)


@pytest.mark.parametrize(
    "host",
    [
        *("a", "a.b-c.example", "a:80", "a:", "127.0.0.1:8000", "[::1]", "[::1]:80", "A_b~c"),
        *("", "a!$&'()*+;=b", "%41", "xn--nxasmq6b.example", "[v1.a:b]", "a" * 255),
    ],
)
def test_a_valid_host_is_accepted(host):
    (request,), _ = parse(head(host=host))
    assert request.environ["HTTP_HOST"] == host


@pytest.mark.parametrize(
    "host",
    [
        *("a b", "a/b", "a?b", "a#b", "a@b", "a,b", "a b/c?d", "a\\b", "a<b>", 'a"b', "a|b"),
        *("a:b", "a:80:90", "a:-1", "a:123456", ":80", "[::1", "::1", "[::1]a", "[a]", "[]"),
        *("[::1%25eth0]", "[1:2]", "[127.0.0.1]", "%4", "%zz", "\xe4", "a\tb", "a" * 262),
        *("http://a", "[::1]:a", "{a}", "a^b", "a`b"),
    ],
)
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_an_invalid_host_is_400(host, version):
    assert status(head(f"GET / HTTP/{version}", host=host)) == 400
    assert status(head(f"GET http://b/ HTTP/{version}", host=host)) == 400


def test_http_1_1_needs_a_host_header_and_http_1_0_does_not():
    for target in "/", "http://a/":
        assert status(head(f"GET {target} HTTP/1.1", host=None)) == 400
        assert status(head(f"GET {target} HTTP/1.0", host=None)) is None
    assert status(head("OPTIONS * HTTP/1.1", host=None)) == 400


@pytest.mark.parametrize(
    ("target", "host", "path", "query"),
    [
        ("http://b/c?d", "b", "/c", "d"),
        ("HTTP://b:80", "b:80", "", ""),
        ("http://user:password@b/c", "b", "/c", ""),
        ("http://good:x@b:81?d", "b:81", "", "d"),
        ("http://[::1]:80/c", "[::1]:80", "/c", ""),
        ("/http://b/c", "a", "/http://b/c", ""),
    ],
)
def test_an_absolute_target_sets_the_host(target, host, path, query):
    (request,), _ = parse(head(f"GET {target} HTTP/1.1"))
    environ = request.environ
    assert (environ["HTTP_HOST"], environ["PATH_INFO"]) == (host, path)
    assert (environ["QUERY_STRING"], environ["RAW_URI"]) == (query, target)


@pytest.mark.parametrize(
    "target",
    [
        *("http://[::1/a", "http://[a]/", "s://]ufd/:", "http://a b/", "http:///a", "http://@/a"),
        *("http://a:b/", "http://a,b/", "http://x@y@/", "*", "a", "a:80", "/a#b", "/#", "/a?#b"),
        *("http://a/#b", "http://a#b", "*#a", "*?a", "/a b", "", "mailto:a@b"),
    ],
)
def test_an_invalid_target_is_400(target):
    assert status(head(f"GET {target} HTTP/1.1")) == 400


def test_an_asterisk_is_the_target_of_options_alone():
    assert status(head("OPTIONS * HTTP/1.1")) is None
    assert status(head("HEAD * HTTP/1.1")) == 400


# Methods and protocols


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        *((method + " / HTTP/1.1", 501) for method in ("FOO", "get", "GETS", "G", "PLAY", "M-X!")),
        *((f"{method} / HTTP/1.0", 501) for method in ("FOO", "DESCRIBE")),
        *((f"{method} / RTSP/1.0", 400) for method in ("GET", "OPTIONS", "PLAY", "FOO")),
        *((f"{method} / RTSP/1.1", 400) for method in ("GET", "OPTIONS")),
        *(("SOURCE / ICE/1.0", 400), ("GET / ICE/1.0", 400), ("GET / HTTQ/1.1", 400)),
        *(("FOO / HTTP/x.y", 400), ("FOO  / HTTP/1.1", 400), ("F@O / HTTP/1.1", 400)),
        *(("FOO", 400), ("FOO /", 400), (" / HTTP/1.1", 400), ("GET\t/ HTTP/1.1", 400)),
        *(
            ("GET / HTTP/2.0", 505),
            ("GET / HTTP/0.9", 505),
            ("GET /", 505),
            ("GET / HTTP/1.2", 400),
        ),
        *(("PURGE / HTTP/1.1", None), ("QUERY / HTTP/1.1", None)),
    ],
)
def test_methods_and_protocols_have_one_status_in_any_pieces(line, expected, size):
    assert status(head(line), size) == expected
    assert status(b"\r\n" + head(line), size) == expected


def test_a_rejection_knows_whether_the_request_is_head():
    for line, is_head in (
        ("HEAD / HTTP/1.1", True),
        ("GET / HTTP/1.1", False),
        ("FOO / HTTP/1.1", False),
    ):
        parser = RequestParser({}, LIMITS)
        parser.receive(head("HEAD / HTTP/1.1") + head(line, "Transfer-Encoding: gzip"))
        assert parser.next()
        with pytest.raises(RejectedError):
            parser.next()
        assert parser.is_head == is_head


# Limits


@pytest.mark.parametrize("size", SIZES)
def test_a_head_has_at_most_64_kib_in_any_pieces(size):
    for start in b"", b"\r\n":
        text = start + head("GET / HTTP/1.1", "A: ")
        fits = text.replace(b"A: ", b"A: " + b"b" * (HEAD_MAX - len(text)))
        assert len(fits) == HEAD_MAX
        assert status(fits, size) is None
        assert status(fits.replace(b"A: ", b"A: b"), size) == 431


@pytest.mark.parametrize("size", SIZES)
def test_the_limit_of_a_head_holds_for_each_request(size):
    text = head("POST / HTTP/1.1", "Content-Length: 3", "A: " + "b" * (HEAD_MAX - 100)) + b"abc"
    chunks = b"1;x\r\na\r\n2\r\n\r\n\r\n0\r\nX: y\r\n\r\n"
    coded = head("POST / HTTP/1.1", "Transfer-Encoding: chunked") + chunks
    accepted, rejection = parse((text + coded) * 3, size)
    assert (len(accepted), rejection) == (6, None)
    assert [request.body.getvalue() for request in accepted] == [b"abc", b"a\r\n"] * 3


@pytest.mark.parametrize(
    ("limits", "fits", "exceeds", "expected"),
    [
        ({"line": 20}, head("GET /" + "a" * 6 + " HTTP/1.1"), "/aaaaaaa", 414),
        ({"fields": 2}, head("GET / HTTP/1.1", "A: b"), "C: d", 431),
        ({"field": 10}, head("GET / HTTP/1.1", "A: " + "b" * 9), "b" * 10, 431),
    ],
)
def test_the_limits_of_gunicorn_hold(limits, fits, exceeds, expected):
    limits = LIMITS._replace(**limits)
    longer = {
        414: fits.replace(b"/aaaaaa", exceeds.encode()),
        431: fits[:-2] + exceeds.encode() + b"\r\n\r\n"
        if b":" in exceeds.encode()
        else fits.replace(b"b" * 9, exceeds.encode()),
    }[expected]
    assert status(fits, limits=limits) is None
    assert status(longer, limits=limits) == expected
    assert status(longer) is None


def test_a_header_with_a_very_long_name_is_431():
    assert status(head("GET / HTTP/1.1", "A" * 256 + ": b")) is None
    assert status(head("GET / HTTP/1.1", "A" * 257 + ": b")) == 431


CHUNKED_HEAD = head("POST / HTTP/1.1", "Transfer-Encoding: chunked")


@pytest.mark.parametrize("size", [7, 4000, 1 << 30])
@pytest.mark.parametrize(
    "framing",
    [
        b"1;" + b"a" * FRAMING_MAX + b"aaaa\r\nx\r\n0\r\n\r\n",
        b"1;" + b"a" * (FRAMING_MAX + 1),
        (b"1;" + b"a" * 30 + b"\r\nx\r\n") * (FRAMING_MAX // 20),
        b"0\r\n" + b"A: b\r\n" * 50 + b"A: " + b"b" * FRAMING_MAX + b"\r\n\r\n",
        b"0" * FRAMING_MAX + b"00001\r\nx\r\n0\r\n\r\n",
    ],
    ids=["extension", "endless extension", "extensions", "trailers", "zeros"],
)
def test_the_framing_of_a_chunked_body_is_bounded(framing, size):
    assert status(CHUNKED_HEAD + framing, size) == 431


@pytest.mark.parametrize("size", [1, 4000, 1 << 30])
def test_a_body_in_chunks_of_one_byte_is_accepted(size):
    count = LIMITS.body
    (request,), rejection = parse(CHUNKED_HEAD + b"1\r\nx\r\n" * count + b"0\r\n\r\n", size)
    assert rejection is None
    assert request.body.getvalue() == b"x" * count
    assert len(b"1\r\n\r\n") < FRAMING_PER_BYTE


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "body",
    [
        b'2;name="value"\r\nab\r\n0\r\n\r\n',
        b"4\r\n\r\n\r\n\r\n0\r\n\r\n",
        b"2\r\n0\r\r\n3\r\n\n\r\n\r\n0\r\nTrailer: \r\n\r\n",
    ],
)
def test_chunks_may_contain_what_ends_a_body(body, size):
    accepted, rejection = parse((CHUNKED_HEAD + body + head()) * 2, size)
    assert ([request.environ["REQUEST_METHOD"] for request in accepted], rejection) == (
        ["POST", "GET"] * 2,
        None,
    )


@pytest.mark.parametrize("space", [b"1 ;a\r\n", b"1; a\r\n", b"1;a = b\r\n", b"1 \r\n"])
def test_whitespace_around_chunk_extensions_is_400(space):
    """RFC 9112 7.1.1 has it parsed as "bad" whitespace; what differs in it can hide a request."""
    assert status(CHUNKED_HEAD + space + b"x\r\n0\r\n\r\n") == 400


# Memory


@pytest.mark.parametrize(
    "text",
    [
        head(host=""),
        head("POST / HTTP/1.1", "Content-Length: 1") + b"x",
        CHUNKED_HEAD + b"0\r\n\r\n",
        b"\r\n",
    ],
)
def test_requests_that_arrive_together_are_in_memory_one_by_one(text):
    data = text * (64 * 1024 // len(text) - 1)
    parser = RequestParser({}, LIMITS)
    count = 0
    parser.receive(text)
    while parser.next():
        count += 1
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        parser.receive(data)
        most = 0
        while parser.next():
            count += 1
            most = max(most, tracemalloc.get_traced_memory()[0] - before)
    finally:
        tracemalloc.stop()
    assert most < 16 * 1024
    assert count in (0, len(data) // len(text) + 1)


@pytest.mark.parametrize("split", [1, 2, 3])
@pytest.mark.parametrize("first", [head(), CHUNKED_HEAD + b"1\r\nx\r\n0\r\n\r\n"])
def test_no_request_is_lost_when_the_end_of_one_arrives_with_the_next(first, split):
    parser = RequestParser({}, LIMITS)
    parser.receive(first[:-split])
    assert parser.next() is None
    parser.receive(first[-split:] + head() * 2)
    assert [bool(parser.next()) for _ in range(4)] == [True, True, True, False]


@pytest.mark.parametrize("text", [b"GET /" + b"a" * HEAD_MAX, b"\r\n" * HEAD_MAX])
def test_a_head_without_end_is_rejected(text):
    assert status(text) == status(text, 4000) == 431
