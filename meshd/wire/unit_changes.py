"""mesh → capture: changes of systemd's units. Each can be repeated."""

from __future__ import annotations

from meshd.wire.message import Message


class PrepareUnit(Message, frozen=True):
    """Have systemd hold a unit before it starts, in a slice of its own."""

    unit: str


class RestoreUnit(Message, frozen=True):
    """Take back what preparing a unit has changed."""

    unit: str


class RestartUnit(Message, frozen=True, kw_only=True):
    """Restart a unit if it is still in the run ``run``, or is not where it belongs."""

    unit: str
    run: str
    inside: bool
    """Whether it belongs into its slice."""


class StopSlice(Message, frozen=True):
    """Stop a unit's slice, if nothing runs in it any more."""

    unit: str


class UnitChanged(Message, frozen=True):
    """The change is made."""

    remarks: tuple[str, ...] = ()
    """What is to be known of it, a line each."""


UnitRequest = PrepareUnit | RestoreUnit | RestartUnit | StopSlice
Messages = UnitRequest | UnitChanged
