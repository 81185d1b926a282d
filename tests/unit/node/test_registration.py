"""What could never be captured is refused; what begins is known to proxies as a caller."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import pytest

from meshd.base.errors import InvalidInputError
from meshd.model.workload import (
    LONGEST_PINNED,
    HostService,
    Observation,
    Stage,
    Workload,
)
from meshd.node.reconciler import Reconciler
from meshd.node.registration import Registration
from meshd.node.settling import Settling
from meshd.workloads.lifecycle import Life, Phase


class _Known:
    def __init__(self) -> None:
        self.known = self
        self.registered: dict[str, Workload] = {}

    def register(self, wanted: tuple[Workload, ...]) -> None:
        self.registered |= {one.uid: one for one in wanted}


def _named(length: int, **fields: object) -> Workload:
    uid = "n." + "a" * (length - 2)
    given = {"netns": "/n", **fields}
    return Workload(uid=uid, name="a", namespace="n", **given)  # pyright: ignore[reportArgumentType]


def test_a_uid_that_is_too_long_for_a_pin_is_refused() -> None:
    reconciler = _Known()
    made = Registration(
        cast("Reconciler", reconciler),
        cast("Settling", None),
        lambda _: "",
        fails_open=False,
    )
    with pytest.raises(InvalidInputError, match="has 238 characters, and at most 237"):
        made.register((_named(LONGEST_PINNED + 1),))
    assert reconciler.registered == {}
    of_host = _named(LONGEST_PINNED + 1, netns="", host=HostService(cgroup="a"))
    made.register((_named(LONGEST_PINNED), of_host))
    assert len(reconciler.registered) == 2


class _Captured(_Known):
    """All that is registered is captured and proven."""

    @property
    def lives(self) -> dict[str, Life]:
        return {uid: Life(one, Phase.CAPTURED) for uid, one in self.registered.items()}

    @property
    def observations(self) -> dict[str, Observation]:
        return {uid: Observation(uid, Stage.CAPTURED, True) for uid in self.registered}

    def inside(self) -> dict[str, Workload]:
        return self.registered


class _Rounds:
    """Settles once more for each time that it is asked, up to ``most`` rounds."""

    def __init__(self, most: int) -> None:
        self.left = most

    async def wait(self, predicate: Callable[[], bool], _: float) -> bool:
        while not predicate():
            if not self.left:
                return False
            self.left -= 1
        return True


@pytest.mark.parametrize("rounds", [3, 10])
def test_who_begins_is_known_to_the_proxies_as_a_caller_or_was_waited_for(rounds: int) -> None:
    """Without a certificate a workload begins all the same, after a while."""
    reconciler, settling, asked = _Captured(), _Rounds(rounds), list[str]()

    def may_call(uid: str) -> bool:
        asked.append(uid)
        return len(asked) > 6

    made = Registration(
        cast("Reconciler", reconciler),
        cast("Settling", settling),
        lambda _: "",
        may_call,
        fails_open=False,
    )
    one = _named(10)
    made.register((one,))
    asyncio.run(made.prove([one.uid], 30.0))
    assert len(asked) == (7 if rounds == 10 else 4)
    assert set(asked) == {one.uid}
