"""The ways from a workload's own listener to the listeners that know the protocols of ports."""

from __future__ import annotations

import itertools
from typing import Final, NamedTuple


class Entry(NamedTuple):
    """The thin listener's decision about a connection."""

    mutual_tls: bool
    inspected: bool
    """The protocol is detected from the first bytes."""

    @property
    def chain(self) -> str:
        return ("mtls" if self.mutual_tls else "plain") + ("-inspected" if self.inspected else "")

    @property
    def listener(self) -> str:
        """Return the name of the internal listener behind the thin ones, and of the cluster that
        leads there.

        All workloads of the node share it, so that no thin listener depends on the ports served.
        """
        plain = "" if self.mutual_tls else "-plain"
        return f"inbound{plain}{'-inspected' if self.inspected else ''}"


ENTRIES: Final = tuple(itertools.starmap(Entry, itertools.product((True, False), repeat=2)))
