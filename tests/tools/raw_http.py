"""Clients that send any bytes and see every byte of the response."""

import json
import socket
import struct
import time
from http.client import parse_headers
from typing import Any, NamedTuple


class Response(NamedTuple):
    status: int
    headers: Any
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


class RawConnection:
    """A TCP connection on which a test sends any bytes."""

    def __init__(self, port, receive_buffer=None):
        self.socket = socket.socket()
        self.socket.settimeout(25)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.connect(("127.0.0.1", port))
        self.file = self.socket.makefile("rb", buffering=4096)

    def send(self, *parts):
        """Send the parts in separate packets."""
        for number, part in enumerate(parts):
            if number:
                time.sleep(0.001)
            self.socket.sendall(part)
        return self

    def read_response(self, *, bodiless=False):
        version, status = self.file.readline().split()[:2]
        assert version == b"HTTP/1.1"
        headers = parse_headers(self.file)
        size = 0 if bodiless else int(headers.get("Content-Length", 0))
        return Response(int(status), headers, self.file.read(size))

    def is_closed(self):
        """Wait until the server closes the connection; return whether it sent nothing before."""
        return self.file.read() == b""

    def end_sending(self):
        """Close the sending half of the connection."""
        self.socket.shutdown(socket.SHUT_WR)
        return self

    def reset(self):
        """Close the connection with a TCP reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self):
        self.file.close()
        self.socket.close()


def request(target="/healthz", *headers, method="GET", version="HTTP/1.1", body=b""):
    lines = [f"{method} {target} {version}", "Host: localhost", *headers, "", ""]
    return "\r\n".join(lines).encode() + body
