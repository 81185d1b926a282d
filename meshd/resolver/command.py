"""What dnsmasq(8) is started with, and what of its words is worth a line in the log.

There are two. The resolver answers for all that a file may say that is read again at SIGHUP. What a
wildcard stands for is read at the start only, so that it comes from a second one, which begins anew
for that; the resolver hands such queries on, and asks again what it misses meanwhile.
"""

from __future__ import annotations

import ipaddress
import os
import re
import shutil
from pathlib import Path
from typing import Final

from meshd.errors import InvalidInputError, SystemRefusedError
from meshd.resolver.files import HOSTS, SERVERS, WILDCARDS
from meshd.settings import MeshSettings

NAME: Final = "resolver"
WILDCARDS_NAME: Final = "resolver-wildcards"
"""Of the processes, to those who look after them."""
NAMES: Final = frozenset({NAME, WILDCARDS_NAME})
_ADDRESSES: Final = {NAME: "127.0.0.1", WILDCARDS_NAME: "127.0.0.2"}
"""Both at the same port."""
_TTL: Final = 5
"""Seconds for which a workload may remember a name of the mesh: the pods of a headless service
come and go."""
_CACHE: Final = 2000
"""Names of the world that are remembered."""
_PENDING: Final = 1000
"""Questions that may wait for an answer from outside at once."""
_TCP_CONNECTIONS: Final = 200
"""At once; each has a process of its own. The proxies end those that are idle."""
_ASK_AGAIN: Final = (250, 5000)
"""Milliseconds until a query without an answer is handed on once more, ever less often, and until
who asked has given up: glibc asks again after 5 s."""
_SYSTEM_PATH: Final = "/usr/sbin:/sbin"
"""Not on everybody's PATH, but where Debian has it."""
_ROUTINE: Final = re.compile(
    r"^dnsmasq(\[\d+\])?: (started|compile time|using|read |reading|cleared cache|exiting on"
    r"|failed to load names from .* No such file|cannot read .* No such file"
    r"|ignoring nameserver .* local interface)"
)


def arguments(name: str, settings: MeshSettings, directory: Path) -> tuple[str, ...]:
    """Of the one of this name. Raises InvalidInputError when a setting is wrong."""
    # What there is no file for, it does without: the mesh role may not have written yet.
    return (
        "--keep-in-foreground",
        "--log-facility=-",
        "--pid-file",
        "--conf-file=/dev/null",
        "--no-hosts",
        *(_tables if name == NAME else _wildcards)(settings, directory),
        f"--port={settings.dns_port}",
        f"--listen-address={_ADDRESSES[name]}",
        "--bind-interfaces",
        f"--local-ttl={_TTL}",
        f"--dns-forward-max={_PENDING}",
        f"--max-tcp-connections={_TCP_CONNECTIONS}",
        "--no-ident",
        *_upstreams(settings),
    )


def _tables(settings: MeshSettings, directory: Path) -> tuple[str, ...]:
    return (
        f"--addn-hosts={directory / HOSTS}",
        f"--servers-file={directory / SERVERS}",
        f"--local=/{settings.domain}/",
        "--local=/svc/",
        f"--cache-size={_CACHE}",
        f"--fast-dns-retry={','.join(map(str, _ASK_AGAIN))}",
    )


def _wildcards(_: MeshSettings, directory: Path) -> tuple[str, ...]:
    return (f"--conf-dir={directory},*{Path(WILDCARDS).suffix}", "--cache-size=0")


def wildcards_server(settings: MeshSettings) -> str:
    """Where the resolver asks for what a wildcard stands for."""
    return f"{_ADDRESSES[WILDCARDS_NAME]}#{settings.dns_port}"


def is_started_for(name: str, directory: Path, command: tuple[str, ...]) -> bool:
    """Whether a command line is of the one of this name that reads this directory."""
    own = f"--servers-file={directory / SERVERS}", f"--conf-dir={directory},"
    return any(word.startswith(own[name == WILDCARDS_NAME]) for word in command)


def _upstreams(settings: MeshSettings) -> tuple[str, ...]:
    if not settings.dns_upstreams:
        return ("--resolv-file=/etc/resolv.conf",)
    return ("--no-resolv", *(f"--server={_server(text)}" for text in settings.dns_upstreams))


def _server(text: str) -> str:
    """``ADDRESS`` or ``ADDRESS:PORT`` (``[ADDRESS]:PORT`` for IPv6), as dnsmasq writes it."""
    address, port = text, "53"
    if text.startswith("["):
        address, _, port = text[1:].partition("]:")
    elif text.count(":") == 1:
        address, _, port = text.partition(":")
    try:
        ipaddress.ip_address(address)
        if not 0 < int(port) < 65536:
            raise ValueError
    except ValueError:
        raise InvalidInputError(
            f"setting mesh.dns_upstreams: {text!r} is no resolver; write ADDRESS, ADDRESS:PORT"
            " or [ADDRESS]:PORT"
        ) from None
    return f"{address}#{port}"


def find() -> str:
    """Raises SystemRefusedError."""
    path = f"{os.environ.get('PATH', os.defpath)}:{_SYSTEM_PATH}"
    if found := shutil.which("dnsmasq", path=path):
        return found
    raise SystemRefusedError(
        "there is no dnsmasq, so that no name of a workload's resolves: install the package"
        " dnsmasq-base"
    )


def is_routine(line: str) -> bool:
    """It is said at each start or each change, and nothing follows from it."""
    return bool(_ROUTINE.match(line))
