"""Watches something in the network namespace of a workload, for as long as it is pinned."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from meshd.capture.pods.namespaces import Pin
from meshd.capture.rules import inside


class Closing(Protocol):
    def close(self) -> None: ...


_Watch = TypeVar("_Watch", bound=Closing)


class Followed(Generic[_Watch]):
    """A watch; ``begin`` makes it in the namespace that the thread is in."""

    def __init__(self, begin: Callable[[], _Watch]) -> None:
        self._begin = begin
        self.pin: Pin | None = None
        self.watch: _Watch | None = None

    def follow(self, pin: Pin | None) -> None:
        """Follow this namespace from now on. Raises NotReadyError if it is gone."""
        if pin == self.pin:
            return
        if self.watch:
            self.watch.close()
        self.pin, self.watch = None, None
        if pin:
            with inside.entered(pin.path):
                self.watch = self._begin()
            self.pin = pin
