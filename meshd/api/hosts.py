"""Host names as objects write them, and patterns of them.

A pattern is a name, ``*.example.com``, or ``*`` for all names.
As in Istio, a wildcard stands for all names that end with what follows its asterisk.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Container, Iterable, Iterator
from typing import Final

_LAST: Final = "\U0010ffff"
"""It sorts behind all characters of a host name."""


def resolve(host: str, namespace: str, domain: str, known: Container[str]) -> str:
    """Return the full name for what an object of ``namespace`` calls ``host``.

    A name without a dot is a service of the object's own namespace, as in Istio. Of two labels it
    may be ``NAME.NAMESPACE`` or a name outside the mesh: the former if there is such a service.
    """
    host = host.lower()
    labels = host.split(".")
    if host == "*" or labels[0] == "*" or host in known:
        return host
    if len(labels) == 1:
        return service_host(host, namespace, domain)
    if len(labels) == 3 and labels[2] == "svc":
        return f"{host}.{domain}"
    full = f"{host}.svc.{domain}"
    return full if len(labels) == 2 and full in known else host


def service_host(name: str, namespace: str, domain: str) -> str:
    """Return the full name of a Service."""
    return f"{name}.{namespace}.svc.{domain}".lower()


def covers(pattern: str, host: str) -> bool:
    """Return whether all names of ``host``, which may be a wildcard, too, are names of
    ``pattern``."""
    return pattern == host or (pattern.startswith("*") and host.endswith(pattern[1:]))


def common(one: str, other: str) -> str | None:
    """Return the narrower of two patterns if the other covers it."""
    if covers(one, other):
        return other
    return one if covers(other, one) else None


class HostIndex:
    """Patterns among which those that have names in common with another are found without looking
    at each."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._position = {pattern: n for n, pattern in enumerate(dict.fromkeys(patterns))}
        self._endings = sorted((_ending(pattern), pattern) for pattern in self._position)
        wildcards = (pattern for pattern in self._position if pattern.startswith("*"))
        self._lengths = sorted({len(pattern) - 1 for pattern in wildcards})

    def overlapping(self, pattern: str) -> list[str]:
        """Return the patterns that cover this one or are covered by it, in the order in which they
        were given."""
        found = {*self._wider(pattern), *self._narrower(pattern)}
        return sorted(found, key=self._position.__getitem__)

    def overlaps(self, pattern: str) -> bool:
        """Return whether there is any such pattern."""
        return any(True for _ in self._wider(pattern)) or any(True for _ in self._narrower(pattern))

    def covered(self, pattern: str) -> list[str]:
        """Return the patterns that this one covers, in the order in which they were given."""
        return sorted(self._narrower(pattern), key=self._position.__getitem__)

    def covers(self, pattern: str) -> bool:
        """Return whether one of the patterns covers this one."""
        return any(True for _ in self._wider(pattern))

    def _wider(self, pattern: str) -> Iterator[str]:
        if pattern in self._position:
            yield pattern
        ending = pattern.removeprefix("*")
        for length in self._lengths:
            if length > len(ending):
                return
            wildcard = f"*{ending[len(ending) - length :]}"
            if wildcard in self._position:
                yield wildcard

    def _narrower(self, pattern: str) -> Iterator[str]:
        if not pattern.startswith("*"):
            if pattern in self._position:
                yield pattern
            return
        ending = _ending(pattern)
        first = bisect_left(self._endings, (ending,))
        last = bisect_left(self._endings, (ending + _LAST,))
        yield from (narrower for _, narrower in self._endings[first:last])


def _ending(pattern: str) -> str:
    """Return a pattern's characters from the last, so that names with one ending sort together."""
    return pattern.removeprefix("*")[::-1]
