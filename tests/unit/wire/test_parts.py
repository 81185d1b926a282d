"""What server and mesh role share arrives whole, in small parts that follow the change."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd import wire
from meshd.base.errors import InvalidInputError
from meshd.base.json_values import JsonObject
from meshd.model.workload import Workload
from meshd.wire import parts
from meshd.wire.message import Message
from meshd.wire.parts import Gathering, Splitting
from meshd.wire.sharing import Splice

WORKLOADS = tuple(
    Workload(uid=f"shop.w{number}", name=f"w{number}", namespace="shop", netns="")
    for number in range(9)
)
OBJECTS: tuple[JsonObject, ...] = tuple({"kind": "Service", "at": number} for number in range(9))
some_workloads = st.lists(st.sampled_from(WORKLOADS), max_size=9).map(tuple)
some_objects = st.none() | st.lists(st.sampled_from(OBJECTS), max_size=9).map(tuple)
shared = st.builds(wire.Shared, some_workloads, some_objects, st.booleans())
followed = st.builds(wire.Follow, st.none() | some_workloads)


def heard(gathering: Gathering, splitting: Splitting, message: Message) -> list[Message]:
    """Return what comes of a message at the other end."""
    found = [taken(gathering, part) for part in splitting.split(message)]
    return [one for one in found if one is not None]


def taken(gathering: Gathering, message: Message) -> Message | None:
    part = wire.decode(wire.encode(message)[wire.HEADER_SIZE :], wire.ANY)
    if isinstance(part, wire.Shared):
        assert len(part.workloads) <= 2
        assert len(part.objects or ()) <= 2
        return gathering.shared(part)
    assert isinstance(part, wire.Follow)
    assert len(part.workloads or ()) <= 2
    return gathering.follow(part)


class _End:
    """What one end knows of objects and workloads."""

    def __init__(self) -> None:
        self.knows: dict[str, object] = {}

    def learn(self, message: Message) -> None:
        if isinstance(message, wire.Follow) and message.workloads is not None:
            self.knows["followed"] = message.workloads
        elif isinstance(message, wire.Shared):
            self.knows |= {"shared": message.workloads, "lost": message.lost}
            if message.objects is not None:
                self.knows["objects"] = message.objects


@given(st.lists(shared | followed), st.lists(st.booleans()))
def test_each_message_arrives_whole_though_connections_break(
    messages: list[wire.Shared | wire.Follow], breaks: list[bool]
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(parts, "_MOST", 2)
        ours, theirs = _End(), _End()
        gatherings, splittings = (Gathering(), Gathering()), (Splitting(), Splitting())
        for number, message in enumerate(messages):
            way = isinstance(message, wire.Follow)
            ours.learn(message)
            if number < len(breaks) and breaks[number]:
                for part in list(splittings[way].split(message))[:-1]:  # the last one is lost
                    assert taken(gatherings[way], part) is None
                splittings = (Splitting(), Splitting())
                whole = (
                    wire.Follow(ours.knows.get("followed")),  # type: ignore[arg-type]
                    wire.Shared(
                        ours.knows.get("shared", ()),  # type: ignore[arg-type]
                        ours.knows.get("objects"),  # type: ignore[arg-type]
                        ours.knows.get("lost", False),  # type: ignore[arg-type]
                    ),
                )
                for again in whole:
                    is_follow = isinstance(again, wire.Follow)
                    for one in heard(gatherings[is_follow], splittings[is_follow], again):
                        theirs.learn(one)
            else:
                (found,) = heard(gatherings[way], splittings[way], message)
                theirs.learn(found)
            assert theirs.knows.items() >= ours.knows.items()


def test_no_more_is_told_than_what_has_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "_MOST", 2)
    splitting = Splitting()
    assert len(list(splitting.split(wire.Shared(WORKLOADS, OBJECTS)))) == 10
    other = msgspec.structs.replace(WORKLOADS[4], ready=False)
    after = (*WORKLOADS[:4], other, *WORKLOADS[5:])
    (part,) = splitting.split(wire.Shared(after))
    assert part == wire.Shared((other,), None, workloads_at=Splice(4, 1))
    (part,) = splitting.split(wire.Shared(after, lost=True))
    assert part == wire.Shared((), None, lost=True, workloads_at=Splice(0, 0))


def test_a_part_that_belongs_to_nothing_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="does not belong"):
        Gathering().follow(wire.Follow((), Splice(1, 0)))
