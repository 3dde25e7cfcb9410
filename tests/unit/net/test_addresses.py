"""The addresses of this machine: all of them, wherever it has no IPv6 or no /proc."""

import socket
from pathlib import Path

import pytest

from postroom.net.addresses import own_addresses

FIB_TRIE = """Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 127.0.0.0/8 2 0 2
        |-- 127.0.0.1
           /32 host LOCAL
     +-- 10.9.0.0/24 2 0 2
        |-- 10.9.0.0
           /24 link UNICAST
        |-- 10.9.0.7
           /32 host LOCAL
        |-- 10.9.0.255
           /32 link BROADCAST
"""
IF_INET6 = """00000000000000000000000000000001 01 80 10 80       lo
20010db8000000000000000000000019 02 40 00 82     eth0
"""


def test_every_address_that_the_kernel_lists(tmp_path: Path) -> None:
    (tmp_path / "fib_trie").write_text(FIB_TRIE)
    (tmp_path / "if_inet6").write_text(IF_INET6)
    found = own_addresses(tmp_path)
    assert {"127.0.0.1", "::1", "10.9.0.7", "2001:db8::19"} <= found
    assert found.isdisjoint({"10.9.0.0", "10.9.0.255", "0.0.0.0", "2001:db8::1"})


def test_a_kernel_without_ipv6(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = socket.socket

    def make(family: int, kind: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(97, "Address family not supported by protocol")
        return made(family, kind)

    monkeypatch.setattr("postroom.net.addresses.socket.socket", make)
    assert "127.0.0.1" in own_addresses(tmp_path)
