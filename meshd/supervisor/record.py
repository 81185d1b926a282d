"""The record of this supervisor's children for the next one: a small file, and its verification.

A process is taken for ours only if its pid and start time are those in the record and its command
line is the one that we started. All others are left alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import msgspec

from meshd.api.base import UnixSeconds
from meshd.base.errors import UNDECODABLE
from meshd.proxy.bootstrap import config_of
from meshd.resolver.command import is_resolver, is_started_for
from meshd.supervisor.home import Home, write_file
from meshd.supervisor.process import Identity, command_line, identify


class Entry(msgspec.Struct, frozen=True):
    name: str
    identity: Identity
    since: UnixSeconds
    """Unix seconds of its start."""
    proxy: bool
    leaving: bool = False
    """It was on its way out."""


def read(home: Home) -> tuple[Entry, ...]:
    """Return the children that still run; none if there is no readable record."""
    try:
        entries = msgspec.json.decode(home.record.read_bytes(), type=tuple[Entry, ...])
    except (OSError, *UNDECODABLE):
        return ()
    return tuple(entry for entry in entries if is_ours(entry, home))


def write(home: Home, entries: Iterable[Entry]) -> None:
    """Raises OSError."""
    write_file(home.record, msgspec.json.encode(tuple(entries)).decode())


def is_ours(entry: Entry, home: Home) -> bool:
    if identify(entry.identity.pid) != entry.identity:
        return False
    command = command_line(entry.identity.pid)
    if entry.proxy:
        return config_of(command) == str(home.bootstrap(entry.name))
    if is_resolver(entry.name):
        return is_started_for(entry.name, home.paths.resolver_run, command)
    return ("meshd", entry.name) in itertools.pairwise(command)
