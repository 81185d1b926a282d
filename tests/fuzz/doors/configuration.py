"""Doors of the configuration: manifests, what a server sends, what nodes register."""

from __future__ import annotations

import contextlib
import json
import random
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from meshd.analysis import validate
from meshd.api import checked, kinds
from meshd.api.read import read_sources
from meshd.api.write import api_version, to_json
from meshd.base.errors import InvalidInputError, MeshdError
from meshd.capture.rules.options import ANNOTATION_PREFIX, QUERIES_ANNOTATION, options_for
from meshd.compile.explain.request import explain
from meshd.compile.traffic import shares
from meshd.config.admission import admit
from meshd.fleet.server import mcp, rosters
from meshd.model.snapshot import MeshOptions
from meshd.model.workload import Placement, Stage, Workload
from meshd.node.agent import TYPES, decode
from meshd.registry.registry import build_snapshot
from meshd.settings import CaptureSettings
from meshd.wire import Explain, Objects, encode
from tests.fuzz.door import Door
from tests.fuzz.node import Node
from tests.fuzz.values import Maker

_MANIFEST: Final = (Path(__file__).parents[1] / "mesh.yaml").read_text(encoding="utf-8")
_OPTIONS: Final = MeshOptions()
_OBJECTS: Final = {
    read.object.key: read.object for read in read_sources([("-", _MANIFEST)]).objects
}
_VALUES: Final[list[dict[str, Any]]] = [to_json(one) for one in _OBJECTS.values()]
_WORKLOADS: Final = (
    Workload(
        uid="shop.web-1",
        name="web-1",
        namespace="shop",
        netns="/n",
        labels={"app": "web"},
        addresses=("198.18.0.5", "fd00:198::5"),
        annotations={"meshd.io/workload-group": "web"},
    ),
    Workload(uid="shop.edge", name="edge", namespace="shop", netns="/m", labels={"app": "edge"}),
)
_REGISTERED: Final = msgspec.json.encode(_WORKLOADS)


_NODE: Final = Node(_OBJECTS, _WORKLOADS, _OPTIONS)
_in_force: Final = _NODE.put_in_force


def _apply(text: bytes) -> None:
    """As ``meshctl apply`` of a file that ``read_text`` has read."""
    reading = read_sources([("-", text.decode("utf-8", "replace"))])
    reads, _ = validate.stored_kinds(reading.objects)
    findings = [*reading.findings, *validate.check_fields(reads)]
    findings += validate.check_references(reads, _OBJECTS)
    if any(finding.severity == "error" for finding in findings):
        raise InvalidInputError("refused")
    found = [read.object for read in reads]
    for one in found:
        sent = mcp.encode(to_json(one))
        assert admit(mcp.decode(sent.type_url, sent.body)).key == one.key
        encode(Objects((to_json(one),)))
    _in_force(found)


def _make_manifest(rng: random.Random) -> bytes:
    """Objects as JSON, which is YAML; most of each is valid."""
    return b"\n---\n".join(_make_object(rng) for _ in range(rng.choice((1, 1, 1, 2, 3))))


def _make_object(rng: random.Random) -> bytes:
    maker = Maker(rng, rng.choice((0.0, 0.02, 0.3)))
    value = rng.choice(_VALUES)
    kind = kinds.find_kind(value["apiVersion"].rpartition("/")[0], value["kind"])
    assert kind is not None
    altered: Any = value
    for _ in range(rng.choice((1, 1, 2, 4))):
        altered = maker.altered(kind, altered)
        if not isinstance(altered, dict):
            return _written(altered)
    metadata = altered.get("metadata")
    named = metadata if isinstance(metadata, dict) and metadata.get("name") else value["metadata"]
    head = {"apiVersion": api_version(kind), "kind": kind.KIND}
    return _written({**altered, **head, "metadata": named})


def _written(value: Any) -> bytes:
    try:
        return json.dumps(value).encode("utf-8", "replace")
    except RecursionError:
        return b"[" * 3000


def _hear(data: bytes) -> None:
    """An agent takes a resource from its server: the first byte says of which kind."""
    url = TYPES[data[0] % len(TYPES)] if data else TYPES[0]
    found = decode(url, "shop/web", data[1:])
    if isinstance(found, Workload):
        _in_force((), (found,))
    else:
        _in_force((found,))


def _resources() -> tuple[bytes, ...]:
    sent = [mcp.encode(value) for value in _VALUES]
    sent.append(mcp.encode_body(mcp.WORKLOAD, "a/b", msgspec.to_builtins(_WORKLOADS[0])))
    return tuple(bytes([TYPES.index(one.type_url)]) + one.body for one in sent if _is_told(one))


def _is_told(resource: mcp.Resource) -> bool:
    return resource.type_url in TYPES


def _make_resource(rng: random.Random) -> bytes:
    maker = Maker(rng, rng.choice((0.02, 0.3)))
    try:
        if rng.random() < 0.3:
            body = maker.altered(Workload, msgspec.to_builtins(_WORKLOADS[0]))
            return bytes([len(TYPES) - 1]) + mcp.encode_body(mcp.WORKLOAD, "a/b", body).body
        sent = mcp.encode(json.loads(_make_object(rng)))
        return bytes([TYPES.index(sent.type_url)]) + sent.body
    except (MeshdError, ValueError, RecursionError, AttributeError, KeyError, TypeError):
        return bytes([rng.randrange(256)])


def _register(data: bytes) -> None:
    """A server hears which workloads run on a node."""
    report = rosters.decode(data)
    told = rosters.told(rosters.connected({}, "n", 0.0), "n", report.workloads, report.unusable)
    found = rosters.workloads_of(told)
    for one in found:
        mcp.encode_body(mcp.WORKLOAD, f"n/{one.uid}", msgspec.to_builtins(one))
    if found:
        _in_force((), found[:50])


def _make_registration(rng: random.Random) -> bytes:
    maker = Maker(rng, rng.choice((0.02, 0.3)))
    value = msgspec.to_builtins(_WORKLOADS[0])

    def altered() -> Any:
        found: Any = value
        for _ in range(rng.choice((1, 1, 2, 4))):
            found = maker.altered(Workload, found)
        return found

    return _written([altered() for _ in range(rng.choice((1, 1, 3)))])


_ANNOTATIONS: Final = (
    QUERIES_ANNOTATION,
    shares.ANNOTATION,
    *(f"{ANNOTATION_PREFIX}{name}" for name in ("includeOutboundIPRanges", "excludeInterfaces")),
    *(f"{ANNOTATION_PREFIX}{name}" for name in ("excludeInboundPorts", "includeOutboundPorts")),
)


def _annotate(data: bytes) -> None:
    """The value of each annotation that means something to the capture role or the compiler."""
    text = data.decode("utf-8", "replace")[: 64 * 1024]
    annotations = dict.fromkeys(_ANNOTATIONS, text)
    workload = msgspec.structs.replace(_WORKLOADS[0], annotations=annotations)
    shares.problems((workload,))
    shares.connections(workload, _OPTIONS)
    for name in _ANNOTATIONS:
        one = msgspec.structs.replace(workload, annotations={name: text})
        with contextlib.suppress(InvalidInputError):
            options_for(Placement(one, Stage.CAPTURED), CaptureSettings())


def _labelled(data: bytes) -> None:
    """Labels of a Service or a workload, as JSON."""
    found = checked.decode(data, dict[str, Any])
    admit({**_VALUES[2], "metadata": {"name": "web", "namespace": "shop", "labels": found}})


_SNAPSHOT: Final = msgspec.structs.replace(
    build_snapshot(_OBJECTS.values(), _WORKLOADS, _OPTIONS, {}),
    workloads={one.uid: one for one in _WORKLOADS},
)


def _explain(data: bytes) -> None:
    """A line each: destination, path, method, and headers."""
    destination, path, method, *rest = [*data.decode("utf-8", "replace").split("\n", 8), "", "", ""]
    headers = tuple((name, value) for name, _, value in (line.partition(":") for line in rest))
    asked = Explain("web-1", destination, "shop", path or "/", method or "GET", headers)
    explain(_SNAPSHOT, _WORKLOADS[0], asked)


_DOCUMENTS: Final = tuple(yaml.safe_dump(value).encode() for value in _VALUES)
_BOMB: Final = b"a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: {<<: {e: *c}, f: !!int '1'}\n"

DOORS: Final = (
    Door("manifest", _apply, (_BOMB, *_DOCUMENTS), make=_make_manifest),
    Door("server-resource", _hear, _resources(), make=_make_resource),
    Door("registration", _register, (_REGISTERED,), make=_make_registration),
    Door(
        "annotation", _annotate, (b"*", b"80,443", b"198.18.0.0/16, fd00:198::/64", b"eth0", b"500")
    ),
    Door("labels", _labelled, (b'{"app": "web", "shop.test/tier": "front"}',)),
    Door(
        "explain",
        _explain,
        (b"web:80", b"web.shop.svc.cluster.local\n/a?b=c\nPOST\nx-user: a", b"[fd00:198::9]:9000"),
        (),
        costly=True,
    ),
)
