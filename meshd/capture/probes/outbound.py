"""Probes whether the workload's traffic reaches the proxy, by a connection from its namespace.

The address leads nowhere; only a redirected connection is answered, by the outbound listener, with
``meshd UID``. See ``meshd.model.interception``.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from pathlib import Path
from typing import Final

from meshd.capture.rules import inside
from meshd.capture.rules.rule import Family
from meshd.model.interception import (
    CAPTURE_PROBE_ADDRESS,
    CAPTURE_PROBE_ADDRESS_V6,
    CAPTURE_PROBE_PORT,
    OUTBOUND_PORT,
)

TIMEOUT: Final = 2.0
"""Seconds for connecting and for the answer together."""

_SILENT: Final = (
    f"no answer within {TIMEOUT:g} s; its traffic does not reach the proxy, or a rule drops it"
)
_REFUSED: Final = "redirected, but no proxy listens in the namespace"
_LONGEST_ANSWER: Final = 512
_GLOBAL_SCOPE: Final = "00"
_IPV6_ADDRESSES: Final = Path("/proc/thread-self/net/if_inet6")
_SOCKETS: Final = (Path("/proc/thread-self/net/tcp"), Path("/proc/thread-self/net/tcp6"))
_LISTENING: Final = "0A"
_TARGET: Final = {
    Family.IPV4: (socket.AF_INET, CAPTURE_PROBE_ADDRESS),
    Family.IPV6: (socket.AF_INET6, CAPTURE_PROBE_ADDRESS_V6),
}


async def probe(namespace: Path, uid: str, *, ipv6: bool) -> str:
    """Return what is wrong, for users; empty if the proxy answered.

    IPv6 is tried only where the namespace has an address that may lead out, and without a route for
    it nothing is reported: an address of some bridge need not mean that there is IPv6. Raises
    NotReadyError if the namespace is gone.
    """
    sockets = _sockets(namespace, ipv6=ipv6)
    with contextlib.ExitStack() as opened:
        for _, connection in sockets:
            opened.enter_context(connection)
        # One after the other: tasks of their own would cost as much as the probes do.
        problems = [await _one(connection, family, uid) for family, connection in sockets]
    return "; ".join(problem for problem in problems if problem)


def probe_here(uid: str, *, ipv6: bool) -> str:
    """Probe as ``probe`` does, from this very process, where it is now. It blocks."""
    families = [Family.IPV4, *([Family.IPV6] if ipv6 and _has_global_ipv6() else [])]
    problems = [_ask_here(family, uid) for family in families]
    return "; ".join(problem for problem in problems if problem)


def _ask_here(family: Family, uid: str) -> str:
    address_family, address = _TARGET[family]
    target = f"{family.label} probe"
    with socket.socket(address_family, socket.SOCK_STREAM) as connection:
        connection.settimeout(TIMEOUT)
        try:
            connection.connect((address, CAPTURE_PROBE_PORT))
            answer = connection.makefile("rb").readline(_LONGEST_ANSWER)
        except TimeoutError:
            return _silence(target)
        except OSError as error:
            return _refusal(error, family, target)
    return _judge(answer, uid, target)


def _silence(target: str) -> str:
    return f"{target}: {_SILENT}"


def is_silence(problem: str) -> bool:
    return _SILENT in problem


def is_refused(problem: str) -> bool:
    """Return whether nothing accepts what is redirected."""
    return _REFUSED in problem


def _sockets(namespace: Path, *, ipv6: bool) -> list[tuple[Family, socket.socket]]:
    with inside.entered(namespace):
        families = [Family.IPV4]
        if ipv6 and _has_global_ipv6():
            families.append(Family.IPV6)
        return [
            (family, socket.socket(_TARGET[family][0], socket.SOCK_STREAM | socket.SOCK_NONBLOCK))
            for family in families
        ]


def _has_global_ipv6() -> bool:
    """Return whether there is a global IPv6 address; proc(5), net/if_inet6."""
    try:
        lines = _IPV6_ADDRESSES.read_text(encoding="ascii").splitlines()
    except OSError:
        return False
    return any(line.split()[3] == _GLOBAL_SCOPE for line in lines)


def listens(namespace: Path) -> bool:
    """Return whether a proxy has its listener in the namespace, redirected to or not."""
    with inside.entered(namespace):
        return listens_here(OUTBOUND_PORT)


def listens_here(port: int) -> bool:
    """Return whether anything listens in this very namespace; proc(5), net/tcp."""
    lines = "\n".join(path.read_text() for path in _SOCKETS if path.exists()).splitlines()
    fields = [line.split() for line in lines]
    return any(
        one[1].endswith(f":{port:04X}") and one[3] == _LISTENING for one in fields if len(one) > 3
    )


async def _one(connection: socket.socket, family: Family, uid: str) -> str:
    target = f"{family.label} probe"
    try:
        async with asyncio.timeout(TIMEOUT):
            answer = await _ask(connection, _TARGET[family][1])
    except TimeoutError:
        return _silence(target)
    except OSError as error:
        return _refusal(error, family, target)
    return _judge(answer, uid, target)


async def _ask(connection: socket.socket, address: str) -> bytes:
    # Whether it is connected need not be waited for: the answer tells.
    code = connection.connect_ex((address, CAPTURE_PROBE_PORT))
    if code not in (0, errno.EINPROGRESS):
        raise OSError(code, os.strerror(code))
    loop = asyncio.get_running_loop()
    answer = b""
    while not answer.endswith(b"\n") and len(answer) < _LONGEST_ANSWER:
        part = await loop.sock_recv(connection, _LONGEST_ANSWER)
        if not part:
            break
        answer += part
    return answer


def _refusal(error: OSError, family: Family, target: str) -> str:
    if family is Family.IPV6 and error.errno == errno.ENETUNREACH:
        return ""
    return f"{target}: {_explain(error, _TARGET[family][1])}"


def _explain(error: OSError, address: str) -> str:
    if error.errno == errno.ECONNREFUSED:
        return _REFUSED
    if error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL):
        # What has a route is redirected all the same, but nothing shows it.
        return (
            f"there is no route to {address}, to which it connects; add a default route, or:"
            f" ip route add {address} dev INTERFACE"
        )
    if error.errno == errno.ECONNRESET:
        return "the proxy closed the connection; it may not have the listeners of this workload yet"
    return f"cannot connect: {error.strerror}"


def _judge(answer: bytes, uid: str, target: str) -> str:
    line = answer.decode("utf-8", "replace").strip()
    if line == f"meshd {uid}":
        return ""
    if line.startswith("meshd "):
        return f"{target}: the proxy takes this namespace for workload {line[6:]!r}"
    if not line:
        return (
            f"{target}: the proxy closed the connection without an answer; it may not have "
            "its listeners yet"
        )
    return f"{target}: something else than the proxy answered ({line[:40]!r})"
