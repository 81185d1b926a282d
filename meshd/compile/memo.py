"""Remembers results by what they were made of, so that a change costs only what depends on it."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import ParamSpec, TypeVar, cast

_P = ParamSpec("_P")
_T = TypeVar("_T")
_A = TypeVar("_A", bound=Hashable)


class Memo:
    """The memory of a compiler. Results that a round did not ask for are forgotten after it."""

    def __init__(self) -> None:
        self._before: dict[object, tuple[object, object]] = {}
        self._now: dict[object, tuple[object, object]] = {}

    def call(
        self, name: object, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs
    ) -> _T:
        """Return what the function returns, or returned last time under this name if it was given
        equal arguments.

        The function is pure and looks at nothing but its arguments, so that what is compared is
        what the result depends on. It is one of a module: one that is made for the call would never
        be the same as last time.
        """
        given = (function, args, kwargs)
        entry = self._now.get(name) or self._before.get(name)
        result = entry[1] if entry is not None and entry[0] == given else function(*args, **kwargs)
        # The newest of equal arguments are kept, so that no old snapshot stays for their sake.
        self._now[name] = (given, result)
        return cast("_T", result)  # the same function has returned it

    def shared(self, function: Callable[[_A], _T], of: _A) -> _T:
        """Return what the function returns, or returned for an equal argument before, under
        whichever name that was. What the argument consists of is hashable."""
        key = (function, of)
        entry = self._now.get(key)
        if entry is None:
            entry = self._now[key] = self._before.get(key) or ((), function(of))
        return cast("_T", entry[1])

    def aside(self) -> Memo:
        """Return a memory of what the last round has, which itself keeps nothing of the other.

        What was added since the round is forgotten: it may be long until the next one.
        """
        self._now = {}
        made = Memo()
        made._before = self._before
        return made

    def end_round(self) -> None:
        self._before, self._now = self._now, {}
