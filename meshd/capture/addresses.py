"""The addresses of a workload's namespace, followed for as long as it is pinned.

The same socket also reports changes of the rules that choose between routing tables.
"""

from __future__ import annotations

from collections.abc import Callable

from meshd.base import own_addresses
from meshd.capture.pods.followed import Followed
from meshd.capture.pods.namespaces import Pin
from meshd.capture.rules import inside


class Addresses:
    """The present addresses, ``now``; ``changed`` is called when they may have changed."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._followed = Followed(lambda: own_addresses.Watch(self._stale, rules=True))
        self._now: tuple[str, ...] | None = None

    def follow(self, pin: Pin | None) -> None:
        """Follow this namespace from now on. Raises NotReadyError if it is gone."""
        if pin != self._followed.pin:
            self._now = None
        self._followed.follow(pin)

    @property
    def now(self) -> tuple[str, ...]:
        if self._now is None and (pin := self._followed.pin):
            with inside.entered(pin.path):
                self._now = own_addresses.preferred()
        return self._now or ()

    def _stale(self) -> None:
        self._now = None
        self._changed()
