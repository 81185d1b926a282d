"""What went over a host's wires, by tcpdump."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import TYPE_CHECKING, Final

from tests.waiting import PATIENCE

if TYPE_CHECKING:
    from tests.host.machine import Machine

CAPTURE: Final = "/srv/heard"
"""On the host: what was heard last."""
_WRITTEN: Final = "until grep -q '^State:.S' /proc/$(pgrep -xo tcpdump)/status; do :; done"


@contextlib.contextmanager
def overheard(
    machine: Machine, which: str, *before: str, patience: float = PATIENCE
) -> Generator[list[bytes]]:
    """All packets within the block, as they were on the wire; in the list after it.

    ``which`` is a filter of tcpdump's, ``before`` what its command line is to begin with,
    ``patience`` the seconds that it may take to end.
    """
    listen = ("tcpdump", "--interface=any", "--immediate-mode", "-U", "-w", CAPTURE, which)
    process = machine.begin(*before, *listen)
    heard: list[bytes] = []
    try:
        assert process.stderr
        while "listening on" not in (line := process.stderr.readline()):
            assert line, "tcpdump ended"
        yield heard
        # It sleeps once it has written what has come.
        machine.ask("sh", "-c", _WRITTEN)
    finally:
        machine.run("pkill", "-INT", "tcpdump")
        process.communicate(timeout=patience)
    heard.append((machine.root / CAPTURE.lstrip("/")).read_bytes())
