"""What dnsmasq(8) is started with, and what of its words is worth a line in the log."""

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
"""Of the process, to those who look after it."""
_TTL: Final = 5
"""Seconds for which a workload may remember a name of the mesh: the pods of a headless service
come and go."""
_CACHE: Final = 2000
"""Names of the world that are remembered."""
_PENDING: Final = 1000
"""Questions that may wait for an answer from outside at once."""
_SYSTEM_PATH: Final = "/usr/sbin:/sbin"
"""Not on everybody's PATH, but where Debian has it."""
_ROUTINE: Final = re.compile(
    r"^dnsmasq(\[\d+\])?: (started|compile time|using|read |reading|cleared cache|exiting on"
    r"|failed to load names from .* No such file|cannot read .* No such file"
    r"|ignoring nameserver .* local interface)"
)


def arguments(settings: MeshSettings, directory: Path) -> tuple[str, ...]:
    """Raises InvalidInputError when a setting is wrong."""
    return (
        "--keep-in-foreground",
        "--log-facility=-",
        "--pid-file",
        "--conf-file=/dev/null",
        # What there is no file for, it does without: the mesh role may not have written yet.
        f"--conf-dir={directory},*{Path(WILDCARDS).suffix}",
        "--no-hosts",
        f"--addn-hosts={directory / HOSTS}",
        f"--servers-file={directory / SERVERS}",
        f"--port={settings.dns_port}",
        "--listen-address=127.0.0.1",
        "--bind-interfaces",
        f"--local=/{settings.domain}/",
        "--local=/svc/",
        f"--local-ttl={_TTL}",
        f"--cache-size={_CACHE}",
        f"--dns-forward-max={_PENDING}",
        "--no-ident",
        *_upstreams(settings),
    )


def is_started_for(directory: Path, command: tuple[str, ...]) -> bool:
    """Whether a command line is of the resolver that reads this directory."""
    return f"--servers-file={directory / SERVERS}" in command


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
