"""Each workload has its own number of connections, whatever listeners it has."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from meshd.compile.compiled import Kind
from meshd.compile.compiler import Compiler
from meshd.compile.traffic.shares import ANNOTATION, connections, problems
from meshd.model.pool import LIMITS, Pool
from meshd.model.snapshot import MeshOptions, Snapshot
from meshd.model.workload import Workload
from tests.unit.compile.messages import as_messages

OPTIONS = MeshOptions(proxies=2, workload_connections=1024)


def workload(name: str, *, asked: str | None = None) -> Workload:
    texts = {} if asked is None else {ANNOTATION: asked}
    return Workload(
        uid=f"mesh.{name}", name=name, namespace="mesh", netns=f"/n/{name}", annotations=texts
    )


def told(options: MeshOptions, *workloads: Workload) -> tuple[dict[str, float], Any]:
    snapshot = Snapshot(options=options, workloads={one.uid: one for one in workloads})
    compiled = as_messages(Compiler().compile(snapshot, snapshot.workloads))
    assert LIMITS not in compiled[Pool.DNS][Kind.RUNTIME]
    layer = compiled[Pool.TRAFFIC][Kind.RUNTIME][LIMITS].layer.fields
    limits = {name: value.number_value for name, value in layer.items()}
    return limits, compiled[Pool.TRAFFIC][Kind.LISTENER]


def test_each_listener_in_a_namespace_has_its_workloads_limit() -> None:
    limits, listeners = told(OPTIONS, workload("a"), workload("b", asked="5"))
    own = [name for name in listeners if "|" in name]
    assert len(own) == 4
    for name in own:
        key = f"envoy.resource_limits.listener.{name}.connection_limit"
        opened = 3 if name.startswith("mesh.b|") else 1024
        assert limits.pop(key) == (opened if name.endswith("|outbound") else 2 * opened)
    assert not limits  # what all share has none


def test_another_limit_changes_no_listener() -> None:
    before, listeners = told(OPTIONS, workload("a", asked="5"))
    after, same = told(OPTIONS, workload("a", asked="50"))
    assert before != after
    assert listeners == same


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "many", "1e3", "99999999999", "٣"])
def test_an_annotation_that_says_no_number_is_told_and_the_setting_is_in_force(text: str) -> None:
    wrong = workload("a", asked=text)
    assert connections(wrong, OPTIONS) == 1024
    (line,) = problems([wrong, workload("b"), workload("c", asked="7")])
    assert "workload mesh/a" in line
    assert repr(text) in line
    assert ANNOTATION in line


def test_without_a_limit_there_is_none() -> None:
    unlimited = msgspec.structs.replace(OPTIONS, workload_connections=0)
    assert told(unlimited, workload("a"))[0] == {}
