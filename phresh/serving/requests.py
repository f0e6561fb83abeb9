"""The requests of one connection: parsed by httptools, one at a time, each within bounds.

httptools is llhttp, the parser of Node.js, which is strict (https://github.com/nodejs/llhttp).
"""

import re
from functools import lru_cache
from io import BytesIO
from ipaddress import IPv6Address
from types import SimpleNamespace
from typing import Any, NamedTuple, NoReturn
from urllib.parse import unquote_to_bytes

import httptools

HEAD_MAX = 64 * 1024  # bytes of request line and headers
NAME_MAX = 256  # bytes of a header's name
HOST_MAX = 255 + 6  # characters: a name of the DNS, and a port
# Bytes of a chunked body that are no data: chunk sizes, extensions, trailers. So much in all, and
# so much more for each byte of data: a body in chunks of one byte each has 5.
FRAMING_MAX = 16 * 1024
FRAMING_PER_BYTE = 8

HEAD_END = b"\r\n\r\n"
VERSIONS = ("HTTP/1.1", "HTTP/1.0")
TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # RFC 9110 5.6.2
TOKEN_SO_FAR = re.compile(rb"%b(?: |\Z)" % TOKEN)
REQUEST_LINE = re.compile(rb"%b [\x21-\x7e]+ HTTP/1\.[01]\r\n" % TOKEN)
ABSOLUTE = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]*)")  # RFC 3986 4.3
# RFC 3986 3.2.2 and 3.2.3, without the comma, which would make one host of two.
HOST = re.compile(
    r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|\[v[0-9A-Fa-f]+\.[\w.~!$&'()*+;=:-]+\]"
    r"|(?:[\w.~!$&'()*+;=-]|%[0-9A-Fa-f]{2})+)(?::[0-9]{0,5})?",
    re.ASCII,
)


class RejectedError(Exception):
    """A request that the app can't receive; the argument is the status of the response."""


class EnoughError(Exception):
    """More of a body than the app would read."""


class Limits(NamedTuple):
    """What a request may have.

    :param line: bytes of the request line; 0: as many as the head
    :param fields: the number of headers and trailers
    :param field: bytes of one header; 0: as many as the head
    :param body: bytes; the app rejects a longer body
    """

    line: int
    fields: int
    field: int
    body: int


class Request:
    """A request: what the app receives, and whether it is the last on its connection."""

    def __init__(self, environ: dict[str, Any]) -> None:
        self.environ = environ
        self.target = b""
        self.headers = 0
        self.body = BytesIO()
        self.is_last = False


class RequestParser:
    """Parses what a client has sent; httptools calls it with what it has found (``on_...``).

    It is fed with no more than one request at a time. So a client that sends many requests at once
    has one of them in memory, and the rest as the bytes that were received.

    :param environ: the part of WSGI's environ that all requests of the connection share
    """

    def __init__(self, environ: dict[str, Any], limits: Limits) -> None:
        self._environ = environ
        self._limits = limits
        self._parser = httptools.HttpRequestParser(self)
        self._data = b""  # received
        self._parsed = 0  # bytes of it
        self._head: bytes | bytearray = b""  # what has come of a head that is not complete
        self._has_unknown_method = False
        self._tail = b""  # of what was parsed, which may begin the end of a head or of a body
        self._body_left = 0  # bytes of a body with a length
        self._is_chunked = False
        self._framing = 0  # bytes of a chunked body that are no data
        self._arriving = Request({})
        self._complete: Request | None = None
        self._rejection: RejectedError | None = None
        self.is_in_body = False
        self.expects_continue = False  # and nothing of the body has come

    @property
    def is_head(self) -> bool:
        """Return whether the request that arrives has the method HEAD."""
        return bool(self._arriving.target) and self._parser.get_method() == b"HEAD"

    def receive(self, data: bytes) -> None:
        """Take what came; what came before has been parsed."""
        self._data, self._parsed = data, 0

    def next(self) -> Request | None:
        """Return the next request that has come whole; None when more has to come.

        :raises RejectedError: when what came is no valid request
        """
        while self._parsed < len(self._data):
            self._parse(self._next_piece())
            if self._rejection is not None:
                raise self._rejection
            request, self._complete = self._complete, None
            if request is not None:
                return request
        return None

    def _next_piece(self) -> bytes:
        """Return what is next: at most to the end of a head or of a body."""
        start = self._parsed
        if self._body_left:
            end = min(start + self._body_left, len(self._data))
            self._body_left -= end - start
        else:
            found = self._data.find(HEAD_END, start)
            end = len(self._data) if found < 0 else found + len(HEAD_END)
            if self._tail:
                found = (self._tail + self._data[start : start + 3]).find(HEAD_END)
                if found >= 0:
                    end = start + found + len(HEAD_END) - len(self._tail)
        self._parsed = end
        return self._data[start:end]

    def _parse(self, piece: bytes) -> None:
        self.expects_continue = False
        if self._is_chunked:
            self._framing += len(piece)
            self._tail = (self._tail + piece)[-3:]
        elif not self.is_in_body:
            if not self._head:
                self._head = piece
            else:
                if isinstance(self._head, bytes):
                    self._head = bytearray(self._head)
                self._head += piece
            self._tail = bytes(self._head[-3:])
        if self._has_unknown_method:
            self._reject_method()
        else:
            self._feed(piece)
        if self._rejection is not None:
            return
        if len(self._head) > HEAD_MAX or (self._is_chunked and self._has_much_framing()):
            self._rejection = RejectedError(431)

    def _feed(self, piece: bytes) -> None:
        try:
            self._parser.feed_data(piece)
        except httptools.HttpParserUpgrade:
            self._decline_upgrade()
        except httptools.HttpParserCallbackError as error:
            if isinstance(error.__context__, RejectedError):
                self._rejection = error.__context__
            elif not isinstance(error.__context__, EnoughError):
                raise
        except httptools.HttpParserInvalidMethodError:
            self._reject_method()
        except httptools.HttpParserError as error:
            if str(error).startswith("Invalid method for HTTP/"):  # one of RTSP
                self._reject_method()
            else:
                self._rejection = RejectedError(400)

    def _has_much_framing(self) -> bool:
        return self._framing > FRAMING_MAX + FRAMING_PER_BYTE * self._arriving.body.tell()

    def _reject_method(self) -> None:
        """Reject a method that the parser does not know, when the whole request line has come."""
        line = self._head.lstrip(b"\r\n")
        self._has_unknown_method = b"\n" not in line and bool(TOKEN_SO_FAR.match(line))
        if not self._has_unknown_method:
            self._rejection = RejectedError(501 if REQUEST_LINE.match(line) else 400)

    def _decline_upgrade(self) -> None:
        """Ignore an upgrade (RFC 9110 7.8), and read the request to its end in HTTP/1.1."""
        self._complete, self.is_in_body = None, True
        if "HTTP_TRANSFER_ENCODING" in self._arriving.environ:
            self._is_chunked = True
            framing = "Transfer-Encoding: chunked"
        else:
            framing = f"Content-Length: {self._arriving.environ.get('CONTENT_LENGTH', 0)}"
        rest = SimpleNamespace(on_body=self.on_body, on_message_complete=self.on_message_complete)
        self._parser = httptools.HttpRequestParser(rest)
        self._feed(f"POST / HTTP/1.1\r\nConnection: close\r\n{framing}\r\n\r\n".encode())

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._arriving = Request(self._environ.copy())

    def on_url(self, part: bytes) -> None:
        """Receive a part of the request target."""
        self._arriving.target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        """Receive a header or a trailer."""
        request = self._arriving
        request.headers += 1
        if request.headers > self._limits.fields:
            raise RejectedError(431)
        if 0 < self._limits.field < len(name) + len(value):
            raise RejectedError(431)
        key = _environ_key(name)
        if key is None or self.is_in_body:
            return
        text = value.rstrip().decode("latin-1")  # RFC 9112 5.1
        if key in request.environ:
            if key in ("HTTP_HOST", "CONTENT_TYPE"):  # RFC 9112 3.2
                raise RejectedError(400)
            text = f"{request.environ[key]},{text}"
        request.environ[key] = text

    def on_headers_complete(self) -> None:
        """Receive the rest of the head.

        :raises RejectedError: when the request is none that the app can receive
        :raises EnoughError: when its body is too long to be read
        """
        self.is_in_body = True
        request = self._arriving
        environ = request.environ
        method = environ["REQUEST_METHOD"] = self._parser.get_method().decode()
        version = environ["SERVER_PROTOCOL"] = f"HTTP/{self._parser.get_http_version()}"
        environ["wsgi.input"] = request.body
        if version not in VERSIONS:
            raise RejectedError(505)
        self._check_line()
        _set_target(environ, method, request.target)
        if "HTTP_TRANSFER_ENCODING" in environ:
            if version == "HTTP/1.0":  # RFC 9112 6.1
                raise RejectedError(400)
            if environ["HTTP_TRANSFER_ENCODING"].lower() != "chunked":
                raise RejectedError(501)
            self._is_chunked = True
        elif "CONTENT_LENGTH" in environ:
            self._body_left = int(environ["CONTENT_LENGTH"])
            if self._body_left > self._limits.body:
                self._take_no_more()
        if "HTTP_EXPECT" in environ and environ["HTTP_EXPECT"].lower() == "100-continue":
            has_body = self._body_left > 0 or self._is_chunked
            self.expects_continue = has_body and version == "HTTP/1.1"
        self._head = self._tail = b""

    def _check_line(self) -> None:
        """Check what the parser does not: the lengths of head and line, and the protocol's name."""
        head = self._head
        if len(head) > HEAD_MAX:
            raise RejectedError(431)
        if head.startswith(b"\r\n"):  # RFC 9112 2.2
            head = head.lstrip(b"\r\n")
        end = head.find(b"\r\n")
        if 0 < self._limits.line < end:
            raise RejectedError(414)
        if head[end - 9 : end - 3] != b" HTTP/":  # RTSP or ICE
            raise RejectedError(400)

    def on_body(self, part: bytes) -> None:
        """Receive a part of the body."""
        body = self._arriving.body
        body.write(part)
        self._framing -= len(part)  # of use in chunks only
        if body.tell() > self._limits.body:
            self._take_no_more()

    def on_message_complete(self) -> None:
        """Complete the request.

        :raises RejectedError: when its body came in too many or too long chunks
        """
        if self._is_chunked and self._has_much_framing():
            raise RejectedError(431)
        self.is_in_body = self._is_chunked = False
        self._framing = 0
        self._tail = b""
        self._arriving.is_last = not self._parser.should_keep_alive()
        self._complete = self._arriving

    def _take_no_more(self) -> NoReturn:
        """Complete the request without the rest of its body: the app rejects it."""
        self.on_message_complete()
        self._arriving.is_last = True
        raise EnoughError


@lru_cache(maxsize=256)
def _environ_key(name: bytes) -> str | None:
    """Return a header's key in WSGI's environ; None for ``A_B``, which would pass for ``A-B``.

    :raises RejectedError: for a name so long that it is not worth a place in the cache
    """
    if len(name) > NAME_MAX:
        raise RejectedError(431)
    if b"_" in name:
        return None
    key = name.decode("latin-1").upper().replace("-", "_")
    return key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"


@lru_cache(maxsize=256)
def _check_host(host: str) -> None:
    """Check the value of a Host header; an empty one is valid (RFC 9112 3.2).

    :raises RejectedError: when it is not ``uri-host [":" port]``
    """
    if not host:
        return
    match = HOST.fullmatch(host) if len(host) <= HOST_MAX else None
    if match is None:
        raise RejectedError(400)
    try:
        if match["ipv6"]:
            IPv6Address(match["ipv6"])
    except ValueError:
        raise RejectedError(400) from None


def _set_target(environ: dict[str, Any], method: str, target: bytes) -> None:
    """Set the request target (RFC 9112 3.2), and check the host.

    :raises RejectedError: when one of the two is not valid, or there is no host in HTTP/1.1
    """
    if "HTTP_HOST" in environ:
        _check_host(environ["HTTP_HOST"])
    elif environ["SERVER_PROTOCOL"] != "HTTP/1.0":
        raise RejectedError(400)
    environ["RAW_URI"] = target.decode("latin-1")
    if not target.startswith(b"/") and method != "CONNECT":
        if absolute := ABSOLUTE.match(target):
            # Its host replaces Host (RFC 9112 3.2.2); user information is no part of a host.
            host = absolute[1].rpartition(b"@")[2].decode("latin-1")
            if not host:
                raise RejectedError(400)
            _check_host(host)
            environ["HTTP_HOST"] = host
            target = target[absolute.end() :]
        elif target != b"*" or method != "OPTIONS":  # RFC 9112 3.2.4
            raise RejectedError(400)
    if b"#" in target:  # a fragment, which no request target has
        raise RejectedError(400)
    path, _, query = target.partition(b"?")
    path_info = (unquote_to_bytes(path) if b"%" in path else path).decode("latin-1")
    mount = environ.get("SCRIPT_NAME")
    if mount and f"{path_info}/".startswith(f"{mount}/"):
        path_info = path_info.removeprefix(mount)
    environ["PATH_INFO"] = path_info
    environ["QUERY_STRING"] = query.decode("latin-1")
