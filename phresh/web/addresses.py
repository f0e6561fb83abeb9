"""Addresses: whose request it is, where no account says so."""

import re
from ipaddress import IPv4Address, IPv6Network, ip_address

from flask import request

# As some proxies write the client's address: 192.0.2.1:1234, [2001:db8::1]:1234.
WITH_PORT = re.compile(r"\A(?:([\d.]+):\d+|\[(.*)\](?::\d+)?)\Z")


def client_network() -> str:
    """Return the client's address; for IPv6 its network of 64 bits, which one customer has."""
    try:
        address = ip_address(WITH_PORT.sub(r"\1\2", request.remote_addr or ""))
    except ValueError:
        return "a socket without addresses"
    if isinstance(address, IPv4Address):
        return str(address)
    return str(address.ipv4_mapped or IPv6Network((int(address), 64), strict=False))
