"""What could never be captured is refused when it is registered."""

from __future__ import annotations

from typing import cast

import pytest

from meshd.base.errors import InvalidInputError
from meshd.model.workload import LONGEST_PINNED, HostService, Workload
from meshd.node.reconciler import Reconciler
from meshd.node.registration import Registration
from meshd.node.settling import Settling


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
