"""The addresses of a workload's namespace, followed for as long as it is pinned.

What changes the rules that choose between routing tables is told as well: by the same socket."""

from __future__ import annotations

from collections.abc import Callable

from meshd import addresses
from meshd.capture import inside
from meshd.capture.namespaces import Pin


class Addresses:
    """``changed`` is called when ``now`` may be another; whoever asks next gets it."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._pin: Pin | None = None
        self._watch: addresses.Watch | None = None
        self._now: tuple[str, ...] | None = None

    def follow(self, pin: Pin | None) -> None:
        """From now on those of this namespace. Raises NotReadyError when it is gone."""
        if pin == self._pin:
            return
        if self._watch:
            self._watch.close()
        self._pin, self._watch, self._now = None, None, None
        if pin:
            with inside.entered(pin.path):
                self._watch = addresses.Watch(self._stale, rules=True)
            self._pin = pin

    @property
    def now(self) -> tuple[str, ...]:
        if self._now is None and self._pin:
            with inside.entered(self._pin.path):
                self._now = addresses.preferred()
        return self._now or ()

    def _stale(self) -> None:
        self._now = None
        self._changed()
