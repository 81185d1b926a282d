"""Many of whatever an object may have: cost grows with their number, up to a bound.

Calls are counted and not seconds, so that the same is found on any machine.
"""

from __future__ import annotations

import cProfile
import itertools
import json
from typing import TYPE_CHECKING, Any, Final

import msgspec
import pytest

from meshd.api.counts import too_many
from meshd.api.read import read_sources
from meshd.api.write import from_json
from meshd.base.errors import InvalidInputError
from meshd.compile.compiler import Compiler
from meshd.compile.replacement.isolation import Isolating
from meshd.config.store import Store
from meshd.fleet.server import rosters
from meshd.model.snapshot import MeshOptions
from meshd.registry.registry import build_snapshot
from meshd.wire import Apply, Rejected
from tests.fuzz.doors.configuration import DOORS
from tests.fuzz.many import MANY, NAMES, TOGETHER, Make
from tests.unit import storing

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_SIZES: Final = (8, 16, 32)
_LINEAR: Final = 2.06
"""Twice as many may add so many times the calls that half as many added."""
_FEW: Final = 1000
"""Calls that an entry of any kind costs at the door before it is refused, at most."""
_BOUNDED: Final = ("HTTP ports", "subsets", "labels", "hosts", "hosts of an entry", "endpoints")
_ENTERS: Final = {door.name: door.enter for door in DOORS}


def _text(objects: list[dict[str, Any]]) -> bytes:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}).encode()


def _calls(door: str, data: bytes, *, refused: bool = False) -> int:
    profile = cProfile.Profile()
    profile.enable()
    try:
        _ENTERS[door](data)
    except InvalidInputError:
        assert refused
    else:
        assert not refused
    finally:
        profile.disable()
    return sum(one.callcount for one in profile.getstats())


def _assert_linear(door: str, inputs: list[bytes]) -> None:
    _calls(door, inputs[-1])  # what is remembered of texts is remembered for all
    counts = [_calls(door, data) for data in inputs]
    first, second = (after - before for before, after in itertools.pairwise(counts))
    assert second <= _LINEAR * max(first, 1), counts


@pytest.mark.parametrize("make", MANY.values(), ids=MANY.keys())
def test_twice_as_many_cost_twice_as_much(make: Make) -> None:
    _assert_linear("manifest", [_text(make(size)) for size in _SIZES])


@pytest.mark.parametrize("name", [*_BOUNDED, *TOGETHER])
def test_more_than_is_taken_is_refused_before_anything_is_made_of_it(name: str) -> None:
    count = 8200 if name.startswith("endpoints") else 1100
    data = _text({**MANY, **TOGETHER}[name](count))
    assert _calls("manifest", data, refused=True) / count < _FEW


def _rich_endpoints(count: int) -> list[dict[str, Any]]:
    (entry,) = MANY["endpoints"](count)
    for number, endpoint in enumerate(entry["spec"]["endpoints"]):
        endpoint["labels"] = {"app": "web", "version": "v1", "tier": "a", "zone": f"z{number % 9}"}
        endpoint |= {"ports": {"http": 8080}, "weight": 3, "locality": f"eu/a/{number % 9}"}
        endpoint |= {"serviceAccount": "web", "network": "n1"}
    return [entry]


_LARGE: Final[Mapping[str, list[dict[str, Any]]]] = {
    "entry with endpoints of many fields": _rich_endpoints(5000),
    "Gateway with many hosts": MANY["hosts of a server"](4000),
    "Gateway with many certificates": MANY["servers with TLS"](1000),
    "routes of many hosts": MANY["hosts"](1000),
    "Service with many ports": MANY["TCP ports"](250),
}
"""As large as what people have."""


@pytest.mark.parametrize("objects", _LARGE.values(), ids=_LARGE.keys())
def test_what_a_large_mesh_has_is_taken(objects: list[dict[str, Any]]) -> None:
    assert [found for one in objects for found in too_many(from_json(one))] == []


def test_hosts_of_all_servers_of_a_gateway_are_counted_together() -> None:
    (gateway,) = MANY["servers with TLS"](1000)
    for server in gateway["spec"]["servers"]:
        server["hosts"] = [f"{number}.{server['hosts'][0]}" for number in range(9)]
    ((path, problem),) = too_many(from_json(gateway))
    assert path == ("spec", "servers")
    assert "9000 hosts in all servers" in problem


def test_names_that_lead_to_many_names_multiply_no_endpoints() -> None:
    calls = [_calls("manifest", _text(NAMES(size))) for size in (26, 52)]
    assert calls[1] < 5 * calls[0]


def test_counts_above_a_limit_in_total_are_refused_where_they_are_applied(tmp_path: Path) -> None:
    store = Store(tmp_path / "config.d", tmp_path / "lib")
    put = Apply((("-", _text(MANY["HTTP ports"](100)).decode()),), "shop")
    assert not isinstance(storing.apply(store, put), Rejected)
    for name, what in (("subsets", "1100 clusters"), ("routes", "values")):
        put = Apply((("-", _text(MANY[name](11 if name == "subsets" else 400)).decode()),), "shop")
        answer = storing.apply(store, put)
        assert isinstance(answer, Rejected)
        assert [what in str(one) and "at most" in str(one) for one in answer.findings] == [True]


@pytest.mark.parametrize("name", ["subsets", "routes"])
def test_a_service_that_makes_too_much_of_what_is_there_leaves_that_out(name: str) -> None:
    small = read_sources([("-", _text(MANY[name](400)).decode())]).objects
    wide = read_sources([("-", _text(MANY["HTTP ports"](256)).decode())]).objects
    after = {one.object.key: one.object for one in (*small, *wide)}
    compiler = Isolating(Compiler(), Compiler)
    compiler.compile(build_snapshot(after.values(), (), MeshOptions(), {}), ())
    assert [str(small[0].object.key) in one for one in compiler.problems] == [True]


def test_workloads_of_a_node_cost_as_many_as_there_are_up_to_a_bound() -> None:
    def report(count: int) -> bytes:
        return msgspec.json.encode(
            [
                {"uid": f"shop.w{n}", "name": f"w{n}", "namespace": "shop", "netns": ""}
                for n in range(count)
            ]
        )

    _assert_linear("registration", [report(size) for size in _SIZES])
    with pytest.raises(InvalidInputError, match="more than 1000"):
        rosters.decode(report(1001))
