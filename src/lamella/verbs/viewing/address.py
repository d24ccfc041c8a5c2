"""Where the viewer listens, and how its user gets there."""

from __future__ import annotations

import errno
import getpass
import os
import socket

from lamella.errors import LamellaError

LOOPBACK = "127.0.0.1"
_TRIED_PORTS = 50  # more viewers than one person runs on a machine
_EVERYWHERE = ("0.0.0.0", "::", "")


def listen(address: str, port: int) -> socket.socket:
    """A listening socket at the port, or the next free one.

    Args:
        address: Of this machine.
        port: First to try; 0 takes any.

    Raises:
        LamellaError: The address is not this machine's, or no port is free.
    """
    try:
        family, _, _, _, place = socket.getaddrinfo(address or None, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise LamellaError(f"--host {address}", f"it is no address ({error})", "Give one of this machine.") from error
    for number in range(port, min(port + _TRIED_PORTS, 65536) if port else 1):
        # Without its protocol asyncio leaves Nagle's algorithm on, and every answer of two packets takes 40 ms more.
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a viewer that ended a minute ago is no bar
        try:
            listening.bind((place[0], number, *place[2:]))
            listening.listen(128)
        except PermissionError as error:
            listening.close()
            raise LamellaError(f"port {number}", "this user may not listen there", "Give port=8642.") from error
        except OSError as error:
            listening.close()
            if error.errno != errno.EADDRINUSE:
                raise LamellaError(
                    f"--host {address}", f"nothing can listen there ({error.strerror})", "Give one of this machine."
                ) from error
        else:
            return listening
    last = min(port + _TRIED_PORTS, 65536) - 1
    raise LamellaError(f"port {port}", f"it and all others up to {last} are taken", "Give another with port=NUMBER.")


def url(address: str, port: int, prefix: str = "", token: str = "") -> str:
    """What to open in a browser."""
    name = _outward() if is_everywhere(address) else address
    shown = f"[{name}]" if ":" in name else name
    return f"http://{shown}:{port}{prefix}/" + (f"?token={token}" if token else "")


def is_everywhere(address: str) -> bool:
    """Whether this means all addresses of the machine."""
    return address in _EVERYWHERE


def own_names(address: str) -> list[str]:
    """What a Host header may call this machine beside the address that it listens at. Name servers are not asked."""
    return [socket.gethostname()] if is_everywhere(address) else []


def _outward() -> str:
    """This machine's address in the network that leads out, or its name. Nothing is sent: UDP has no connections."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # a documentation address (RFC 5737)
        except OSError:  # no network leads out
            return socket.gethostname()
        return str(probe.getsockname()[0])


def ssh_line(port: int) -> str:
    """The command that brings a port of this machine to the one in front of the user.

    Whoever came by ssh is told the address that they came to, which is known to be reachable.
    """
    came = os.environ.get("SSH_CONNECTION", "").split()  # client, its port, this machine, its port (sshd(8))
    host, ssh_port = (came[2], came[3]) if len(came) == 4 else (socket.gethostname(), "22")
    other_port = "" if ssh_port == "22" else f"-p {ssh_port} "
    return f"ssh -N {other_port}-L {port}:{LOOPBACK}:{port} {login()}@{host}"


def login() -> str:
    """Name of the user; `user` where the machine has none, as in some containers."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # KeyError before Python 3.13
        return "user"
