"""How far each record has come on its way into force, and which of them a job is working on. Pure.

A process that dies may have died of a record that one of its jobs is working on, and of no other: a
record that waits for a job is no suspect.
"""

from __future__ import annotations

import enum
from typing import Final

import msgspec

from meshd.base.attempts import Begun
from meshd.config import withheld

_NONE: frozenset[Begun] = frozenset()
_POLICIES: Final = frozenset(withheld.POLICIES)
_WORDS: Final = 3
"""The words at the beginning of a record's name that may tell its kind."""


class Step(enum.Enum):
    """The steps of publishing."""

    READING = "reading"
    """A snapshot of all that is known begins."""
    READ = "read"
    COMPILING = "compiling"
    """A compilation of the newest snapshot begins."""
    COMPILED = "compiled"
    CLOSING = "closing"
    """A look at the policies begins, to close what they close before it is compiled."""
    CLOSED = "closed"


class Progress(msgspec.Struct, frozen=True):
    """The work that publishing still has to do."""

    reads: bool = False
    """A snapshot is under way, or to be taken."""
    compiles: bool = False
    """A compilation is under way, or to be made."""
    publishes: bool = True
    """Something has been published, so that everything read is compiled, too."""


class Stages(msgspec.Struct, frozen=True):
    """The records by the stage that they have reached; new ones are in none of these."""

    waiting: frozenset[Begun] = _NONE
    """They wait for a snapshot."""
    reading: frozenset[Begun] = _NONE
    read: frozenset[Begun] = _NONE
    """They are in the newest snapshot, which is not yet compiled."""
    resting: frozenset[Begun] = _NONE
    """They are read, while a compilation without them is under way."""
    compiling: frozenset[Begun] = _NONE
    compiled: frozenset[Begun] = _NONE
    closing: frozenset[Begun] = _NONE
    """They are policies that are looked at, whatever else they have reached or wait for."""
    is_reading: bool = False
    is_compiling: bool = False

    @property
    def idle(self) -> frozenset[Begun]:
        """Return the records that no job is working on."""
        return self._stay - self.closing

    @property
    def _stay(self) -> frozenset[Begun]:
        """Return the records that wait for the next snapshot or compilation."""
        return self.waiting | self.resting

    def come(self, working: frozenset[Begun]) -> frozenset[Begun]:
        """Return the records of ``working`` that have not reached any stage."""
        return working - self.reading - self.read - self.compiling - self.compiled - self._stay

    def policies(self, working: frozenset[Begun]) -> frozenset[Begun]:
        """Return the policies among all records."""
        return frozenset(one for one in working | self._stay if _is_policy(one))


def _is_policy(record: Begun) -> bool:
    """Return whether a record is a policy, or the replacement of one."""
    name, _ = record
    return not _POLICIES.isdisjoint(name.split(" ", _WORDS)[:_WORDS])


def stepped(stages: Stages, step: Step, working: frozenset[Begun]) -> Stages:
    """Return the stages after a step of publishing; ``working``: all records that are not idle."""
    new = msgspec.structs.replace
    match step:
        case Step.READING:
            begun = stages.reading | stages.waiting | stages.come(working)
            return new(stages, reading=begun, waiting=_NONE, is_reading=True)
        case Step.READ:
            read = stages.read | stages.reading
            return new(stages, read=read, reading=_NONE, is_reading=False)
        case Step.COMPILING:
            begun = stages.compiling | stages.read | stages.resting
            return new(stages, compiling=begun, read=_NONE, resting=_NONE, is_compiling=True)
        case Step.COMPILED:
            done = stages.compiled | stages.compiling
            return new(stages, compiled=done, compiling=_NONE, is_compiling=False)
        case Step.CLOSING:
            return new(stages, closing=stages.policies(working))
        case Step.CLOSED:
            return new(stages, closing=_NONE)


def settled(
    stages: Stages, progress: Progress, working: frozenset[Begun]
) -> tuple[Stages, frozenset[Begun]]:
    """Return the stages after all others were told what is read, and the records in force."""
    new, come = msgspec.structs.replace, stages.come(working)
    if not progress.reads:
        stages = new(stages, read=stages.read | come)
    elif stages.is_reading:
        stages = new(stages, waiting=stages.waiting | come)
    if not progress.compiles and progress.publishes:
        done = stages.compiled | stages.read | stages.resting
        return new(stages, read=_NONE, resting=_NONE, compiled=_NONE), done
    if stages.is_compiling or not progress.compiles:
        stages = new(stages, resting=stages.resting | stages.read, read=_NONE)
    return new(stages, compiled=_NONE), stages.compiled
