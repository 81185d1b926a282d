"""Command lines of dnsmasq(8), and the lines of its output that belong in the log.

There are two processes. The resolver answers from files that it reads again at SIGHUP. Wildcards
are read at the start only, so they come from a second process, which restarts for them; the
resolver forwards such queries to it, and repeats those that it misses meanwhile. Namespaces that
see other names than most have two processes of their own (``views``), which forward everything else
to the first one.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Final

from meshd.base.errors import SystemRefusedError
from meshd.model.interception import RESOLVER_CONNECTIONS
from meshd.resolver.files import HOSTS, NOBODY, SERVERS, WILDCARDS, read
from meshd.resolver.views import View, common, present
from meshd.settings import MeshSettings

NAME: Final = "resolver"
WILDCARDS_NAME: Final = "resolver-wildcards"
"""Of the processes, to those who look after them."""
NAMES: Final = frozenset({NAME, WILDCARDS_NAME})
"""Those of a namespace are called so with a dot and its name behind."""
_TTL: Final = 5
"""Seconds for which a workload may remember a name of the mesh: the pods of a headless service
come and go."""
_FORGETS: Final = "--cache-size=0"
"""Nothing is remembered that outside resolvers say: an answer about a workload's own name may go on
to a name of the mesh (CNAME), and would be taken for one about that name by all workloads."""
_PENDING: Final = 1000
"""Questions that may wait for an answer from outside at once."""
_ASK_AGAIN: Final = (250, 5000)
"""Milliseconds until a query without an answer is handed on once more, ever less often, and until
who asked has given up: glibc asks again after 5 s."""
_SYSTEM_PATH: Final = "/usr/sbin:/sbin"
"""Not on everybody's PATH, but where Debian has it."""
_ROUTINE: Final = re.compile(
    r"^dnsmasq(\[\d+\])?: (started|compile time|using|read |reading|cleared cache|exiting on"
    r"|failed to load names from .* No such file|cannot read .* No such file"
    r"|ignoring nameserver .* local interface|warning: no upstream servers configured)"
)


def is_resolver(name: str) -> bool:
    return name.partition(".")[0] in NAMES


def is_for_wildcards(name: str) -> bool:
    return name.partition(".")[0] == WILDCARDS_NAME


def of_namespaces(directory: Path) -> tuple[str, ...]:
    """Return the names of resolvers that are to run now beside the two that always do."""
    views = present(directory)
    wild = (one for one in views if read(one.directory / WILDCARDS))
    return (
        *(f"{NAME}.{one.namespace}" for one in views),
        *(f"{WILDCARDS_NAME}.{one.namespace}" for one in wild),
    )


def view_of(name: str, directory: Path) -> View:
    """Return the view that the resolver of this name serves. Raises SystemRefusedError if it is
    gone."""
    namespace = name.partition(".")[2]
    if not namespace:
        return common(directory)
    for view in present(directory):
        if view.namespace == namespace:
            return view
    raise SystemRefusedError(f"{name}: namespace {namespace} has no names of its own any more")


def arguments(name: str, settings: MeshSettings, directory: Path) -> tuple[str, ...]:
    """Return the arguments of the resolver of this name. Raises SystemRefusedError if its tables
    are gone."""
    view = view_of(name, directory)
    wild = is_for_wildcards(name)
    # What there is no file for, it does without: the mesh role may not have written yet.
    return (
        "--keep-in-foreground",
        "--log-facility=-",
        "--pid-file",
        "--conf-file=/dev/null",
        "--no-hosts",
        *(_wildcards(view) if wild else _tables(view, settings)),
        f"--port={settings.dns_port}",
        f"--listen-address={view.wildcards_address if wild else view.address}",
        "--bind-interfaces",
        f"--local-ttl={_TTL}",
        f"--dns-forward-max={_PENDING}",
        f"--max-tcp-connections={RESOLVER_CONNECTIONS}",
        "--no-ident",
        *_upstreams(settings, directory, view, wild=wild),
    )


def _tables(view: View, settings: MeshSettings) -> tuple[str, ...]:
    files = f"--addn-hosts={view.directory / HOSTS}", f"--servers-file={view.directory / SERVERS}"
    again = f"--fast-dns-retry={','.join(map(str, _ASK_AGAIN))}"
    if view.namespace:
        return (*files, _FORGETS, again)
    kept = f"--local=/{settings.domain}/", "--local=/svc/"
    return (*files, *kept, _FORGETS, again)


def _wildcards(view: View) -> tuple[str, ...]:
    return (f"--conf-dir={view.directory},*{Path(WILDCARDS).suffix}", _FORGETS)


def server(address: str, settings: MeshSettings) -> str:
    """Return one of our resolvers in the form that the others are told."""
    return f"{address}#{settings.dns_port}"


def is_started_for(name: str, directory: Path, command: tuple[str, ...]) -> bool:
    """Return whether a command line is of this resolver and reads this directory, or one below."""
    own = "--conf-dir=" if is_for_wildcards(name) else "--servers-file="
    paths = (word.removeprefix(own).split(",")[0] for word in command if word.startswith(own))
    return any(Path(path).is_relative_to(directory) for path in paths)


def _upstreams(
    settings: MeshSettings, directory: Path, view: View, *, wild: bool
) -> tuple[str, ...]:
    if view.namespace:
        return ("--no-resolv", f"--server={server(common(directory).address, settings)}")
    if not wild and (directory / NOBODY).exists():
        return ("--no-resolv",)
    if not settings.dns_upstreams:
        return ("--resolv-file=/etc/resolv.conf",)
    return ("--no-resolv", *(f"--server={address}#{port}" for address, port in settings.upstreams))


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
    """Return whether a line appears at each start or change, and means nothing else."""
    return bool(_ROUTINE.match(line))
