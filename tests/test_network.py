"""The suite runs with the network closed; see `connections` in conftest.py."""

from __future__ import annotations

import socket

import pytest


def test_only_this_machine_can_be_connected_to(connections: list[object]) -> None:
    with pytest.raises(OSError, match="no test may connect to .*192.0.2.1"):
        socket.create_connection(("192.0.2.1", 80), timeout=1)
    with socket.socket(socket.AF_INET6) as client, pytest.raises(OSError, match="no test may connect"):
        client.connect_ex(("2001:db8::1", 80))
    assert [address[0] for address in connections] == ["192.0.2.1", "2001:db8::1"]
    connections.clear()
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), timeout=5).close()
