"""Namespaces that see other names than most, each with a resolver of its own.

Such a resolver answers for those names and asks the node's resolver for all others. So names that
are exported to some namespaces only are never answered to others, and nothing grows with namespaces
times names.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from meshd.model.service import ServiceRecord, seen_from
from meshd.resolver.tables import names_of

_DIRECTORY: Final = "of"
"""Below the resolver's own: one directory for each, ``NAMESPACE@ADDRESS``."""
_ADDRESSES: Final = ipaddress.ip_network("127.64.0.0/11")
_WILDCARDS_BESIDE: Final = _ADDRESSES.num_addresses
"""From the address of a resolver to that of the one for its wildcards."""


_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_MOST: Final = 1000
"""Views; each has a process or two."""


class View(NamedTuple):
    """The names that one namespace sees; without a namespace, the names that most see."""

    namespace: str
    directory: Path
    """Of its tables."""
    address: str
    wildcards_address: str
    """Where the one is that answers for its wildcards. Both at the same port."""


def common(directory: Path) -> View:
    """Return the view of most namespaces."""
    return View("", directory, "127.0.0.1", "127.0.0.2")


def view(directory: Path, namespace: str, address: str) -> View:
    beside = str(ipaddress.ip_address(address) + _WILDCARDS_BESIDE)
    return View(namespace, directory / _DIRECTORY / f"{namespace}@{address}", address, beside)


def present(directory: Path) -> tuple[View, ...]:
    """Return the views of namespaces that are on disk. Directories with other names are no views:
    this process may not have written them."""
    try:
        names = sorted(path.name for path in (directory / _DIRECTORY).iterdir())
    except OSError:
        return ()
    parts = (name.partition("@") for name in names)
    return tuple(
        view(directory, namespace, address)
        for namespace, _, address in parts
        if _LABEL.fullmatch(namespace) and _is_ours(address)
    )[:_MOST]


def _is_ours(text: str) -> bool:
    try:
        return ipaddress.ip_address(text) in _ADDRESSES
    except ValueError:
        return False


def addresses(namespaces: Iterable[str], before: Mapping[str, str]) -> dict[str, str]:
    """Return a loopback address for each namespace: the one before, or one derived from its
    name."""
    wanted = sorted(set(namespaces))
    given = {namespace: before[namespace] for namespace in wanted if namespace in before}
    for namespace in wanted:
        if namespace not in given:
            taken = set(given.values())
            given[namespace] = next(one for one in _candidates(namespace) if one not in taken)
    return given


def _candidates(namespace: str) -> Iterator[str]:
    start = int.from_bytes(hashlib.sha256(namespace.encode()).digest()[:4])
    usable = _ADDRESSES.num_addresses - 2
    return (str(_ADDRESSES[1 + (start + step) % usable]) for step in range(usable))


def known_by_all(services: Collection[ServiceRecord]) -> tuple[ServiceRecord, ...]:
    return tuple(seen_from("", services).values())


def known_otherwise(
    services: Collection[ServiceRecord], namespaces: Iterable[str], domain: str
) -> dict[str, tuple[ServiceRecord, ...]]:
    """Return, for each namespace that has any, the services whose names differ there from the
    common view."""
    usual = {one.host: names_of(one, domain) for one in known_by_all(services)}
    hosts = {one.host for one in services if names_of(one, domain) != usual.get(one.host)}
    special = [one for one in services if one.host in hosts]
    found: dict[str, tuple[ServiceRecord, ...]] = {}
    for namespace in sorted(set(namespaces)) if special else ():
        here = tuple(
            one
            for one in seen_from(namespace, special).values()
            if (names := names_of(one, domain)) and names != usual.get(one.host)
        )
        if here:
            found[namespace] = (*here, *_below_wildcards(here, services))
    return found


def _below_wildcards(
    here: Iterable[ServiceRecord], services: Collection[ServiceRecord]
) -> Iterator[ServiceRecord]:
    """Yield common services below a wildcard that only this namespace sees: an exact name comes
    first."""
    own = {one.host for one in here}
    ends = tuple(host.removeprefix("*") for host in own if host.startswith("*."))
    for one in known_by_all(services) if ends else ():
        if one.host.endswith(ends) and one.host not in own:
            yield one
