"""What the tests of the default worker share."""

import pytest

from tests.tools.raw_http import RawConnection


@pytest.fixture
def connect(served):
    """Connect to the server; check after the test that it still serves and logged no error."""
    connections = []
    logged = served.log.stat().st_size

    def connect(**options):
        connections.append(RawConnection(served.port, **options))
        return connections[-1]

    yield connect
    for connection in connections:
        connection.close()
    assert served.send("GET", "/healthz").status == 200
    assert "failed with" not in served.log.read_text()[logged:], (
        "gevent logged an unhandled exception"
    )
