"""Questions for the keys of an issuer, and the answers."""

from __future__ import annotations

import msgspec


class Reach(msgspec.Struct, frozen=True):
    """The addresses at which keys are asked for, beside and without the usual ones: networks."""

    allowed: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()


class KeyQuestion(msgspec.Struct, frozen=True):
    """A question for the process that asks."""

    url: str
    seconds: float
    reach: Reach = Reach()
    authorities: str = ""
    """Path of a file with further authorities that are trusted, in PEM; empty: none."""


class KeyAnswer(msgspec.Struct, frozen=True):
    """What came of it."""

    keys: str = ""
    """JSON Web Key Set, with nothing in it but usable keys; empty: there is none."""
    problem: str = ""
