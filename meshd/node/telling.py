"""Tells each port what is wanted, once: again only when that has changed or could not be done."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TypeVarTuple

from meshd.base.errors import MeshdError, SystemRefusedError

Values = TypeVarTuple("Values")


class Telling:
    """The last values of each port, and the errors of the present round.

    A port that fails keeps no other from being told. Values that a port has refused are refused
    again without asking it; what the system refused is tried again.
    """

    def __init__(self) -> None:
        self._last: dict[Hashable, tuple[tuple[object, ...], MeshdError | None]] = {}
        self._failures: dict[Hashable, MeshdError] = {}

    def begin(self) -> None:
        """Begin a round."""
        self._failures.clear()

    def tell(self, port: Callable[[*Values], None], *values: *Values) -> bool:
        """Call a port with values, unless it has had them; return whether it has taken them."""
        last = self._last.pop(port, None)
        error = last[1] if last and last[0] == values else _error_of(port, *values)
        if not isinstance(error, SystemRefusedError):
            self._last[port] = (values, error)
        return self._note(port, error)

    def repeat(self, port: Callable[[*Values], None], *values: *Values) -> None:
        """Call a port whatever it has had."""
        self._note(port, _error_of(port, *values))

    def end(self) -> None:
        """Raises the first error of the round that no later call of its port has made good."""
        if self._failures:
            raise next(iter(self._failures.values())).with_traceback(None)

    def _note(self, port: Hashable, error: MeshdError | None) -> bool:
        self._failures.pop(port, None)
        if error:
            self._failures[port] = error
        return error is None


def _error_of(port: Callable[[*Values], None], *values: *Values) -> MeshdError | None:
    try:
        port(*values)
    except MeshdError as error:
        return error
    return None
