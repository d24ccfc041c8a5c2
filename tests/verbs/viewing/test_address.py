"""Where the viewer listens and what it tells its user."""

from __future__ import annotations

import socket

import pytest

from lamella.errors import LamellaError
from lamella.verbs.viewing import address


def test_the_next_free_port_is_taken():
    with address.listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with address.listen("127.0.0.1", port) as second:
            assert port < second.getsockname()[1] < port + 50


def test_ports_that_run_out_are_an_error(monkeypatch):
    monkeypatch.setattr(address, "_TRIED_PORTS", 1)
    with address.listen("127.0.0.1", 0) as first, pytest.raises(LamellaError, match="are taken"):
        address.listen("127.0.0.1", first.getsockname()[1])


def test_an_address_of_another_machine_is_refused():
    with pytest.raises(LamellaError, match="nothing can listen there"):
        address.listen("198.51.100.1", 8642)
    with pytest.raises(LamellaError, match="it is no address"):
        address.listen("999.1.1.1.invalid", 8642)


@pytest.mark.parametrize(
    ("came", "line"),
    [
        ("", "ssh -N -L 8650:127.0.0.1:8650 eve@box"),
        ("192.0.2.1 5000 192.0.2.9 22", "ssh -N -L 8650:127.0.0.1:8650 eve@192.0.2.9"),
        ("192.0.2.1 5000 192.0.2.9 2222", "ssh -N -p 2222 -L 8650:127.0.0.1:8650 eve@192.0.2.9"),
    ],
)
def test_the_ssh_line_is_exact(monkeypatch, came, line):
    monkeypatch.setenv("SSH_CONNECTION", came)
    monkeypatch.setattr(socket, "gethostname", lambda: "box")
    monkeypatch.setattr(address, "login", lambda: "eve")
    assert address.ssh_line(8650) == line


def test_a_machine_without_names_of_users_still_has_a_line(monkeypatch):
    def nobody():
        raise KeyError("uid not found")

    monkeypatch.setattr(address.getpass, "getuser", nobody)
    assert address.login() == "user"


def test_urls_hold_the_prefix_the_token_and_ipv6():
    assert address.url("127.0.0.1", 8642) == "http://127.0.0.1:8642/"
    assert address.url("::1", 1, "/far", "t-k") == "http://[::1]:1/far/?token=t-k"
    assert address.url("0.0.0.0", 1).startswith("http://")
    assert "0.0.0.0" not in address.url("0.0.0.0", 1)


def test_only_a_viewer_on_all_addresses_has_further_names():
    assert address.own_names("127.0.0.1") == []
    assert address.own_names("0.0.0.0") == [socket.gethostname()]
