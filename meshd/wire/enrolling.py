"""meshctl → mesh: what is to be enrolled or unenrolled, and how far that is.

A request is answered as soon as it is recorded; the mesh role then carries it out whether or not
anybody waits for it.
"""

from __future__ import annotations

import msgspec

from meshd.api.base import Seconds
from meshd.api.values import PortNumber
from meshd.model.workload import Workload
from meshd.wire.message import Message


class OfferedPort(msgspec.Struct, frozen=True):
    """A port of the workload, and that of the Service by which others reach it."""

    service_port: PortNumber
    port: PortNumber
    protocol: str

    @property
    def name(self) -> str:
        return f"{self.protocol}-{self.service_port}"


class Enroll(Message, frozen=True, kw_only=True):
    """A workload that is to be in the mesh. Its unit, if it has one, is to be held before it
    starts."""

    workload: Workload
    service: str = ""
    """The Service by which others reach it; empty: none is asked for."""
    ports: tuple[OfferedPort, ...] = ()
    restart: bool = True
    """Restart the unit, if it runs."""
    run: str = ""
    """The unit's run that is to be restarted, systemd's InvocationID; empty: it does not run."""
    timeout: Seconds


class EnrollAgain(Message, frozen=True, kw_only=True):
    """An enrolled workload whose unit is to be prepared as this version of meshd does it."""

    uid: str
    restart: bool = True
    run: str = ""
    timeout: Seconds


class Unenroll(Message, frozen=True, kw_only=True):
    """A workload that is to leave, or a unit that is prepared for none; it need not be enrolled
    completely."""

    uid: str = ""
    unit: str = ""
    restart: bool = True
    run: str = ""


class Await(Message, frozen=True):
    """Asks how far a request is, as soon as that is another state than the one ``seen``."""

    number: int
    seen: int
    seconds: Seconds
    """How long the answer may take."""


class Progress(Message, frozen=True, kw_only=True):
    """How far a request is."""

    number: int
    """Of the request. It is the same after a restart of meshd."""
    state: int = 0
    """Which state this is."""
    doing: str = ""
    """The present step."""
    problem: str = ""
    """Why the present step is not done yet; at the end: what has failed."""
    remarks: tuple[str, ...] = ()
    """What is to be known of what was done."""
    finished: bool = False
    known: bool = True
    """False: no such request is in work. It has ended, and what came of it is not known any
    more."""


Messages = Enroll | EnrollAgain | Unenroll | Await | Progress
