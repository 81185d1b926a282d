"""Doors of files: what this or an older version wrote on disk, or somebody else, or half of it."""

from __future__ import annotations

import functools
import hashlib
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from meshd import settings
from meshd.api.base import Key
from meshd.base import change_log
from meshd.base.attempts import Attempts, Suspect
from meshd.base.errors import UNDECODABLE
from meshd.base.moments import date
from meshd.ca.leaf_files import LeafFiles
from meshd.ca.store import Store
from meshd.cni import chain, sandboxes
from meshd.cni.sandboxes import Sandboxes
from meshd.config import applied
from meshd.fleet.agent.inbox import Held, Inbox
from meshd.fleet.joining.node import NodeFile
from meshd.fleet.membership import tokens
from meshd.fleet.membership.token_store import TokenStore
from meshd.model.listed import ListedEndpoint
from meshd.model.workload import Identity, Workload
from meshd.node.agent import decode
from meshd.node.cluster import Cluster, State
from meshd.proxy import machine
from meshd.registry.addresses import allocate
from meshd.resolver import search, upstreams
from meshd.settings import MeshSettings
from meshd.workloads import record as workloads
from meshd.workloads import remains
from tests import pem
from tests.fuzz.door import Door

_NOW: Final = 1_790_000_000.0
_IDENTITY: Final = Identity("cluster.local", "shop", "web")
_WORKLOAD: Final = Workload(uid="shop.web", name="web", namespace="shop", netns="/n")
_TOKEN: Final = tokens.make(bytes(range(tokens.RANDOM_BYTES)), bytes(32))
_KEY: Final = pem.new_key()
_CERTIFICATE: Final = pem.certificate_pem(_KEY, ca=True)
_CREDENTIALS: Final = pem.key_pem(_KEY) + _CERTIFICATE + b"# roots\n" + _CERTIFICATE
_LEAF_FILE: Final = f"{hashlib.sha256(_IDENTITY.uri.encode()).hexdigest()[:40]}.json"
_RECORD: Final = tokens.record_of(_TOKEN, _NOW, 3600.0)
_MEMBER: Final = {"joined": _NOW, "expires": _NOW, "serials": ["a"], "bounds": ["shop"]}


_ATTACHED: Final = Sandboxes().with_one("abc", _WORKLOAD)
_CHAIN: Final = b'{"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "bridge"}]}'


_CLUSTER: Final = msgspec.msgpack.encode(
    State(
        {
            "Service": {
                "shop/web": {
                    "apiVersion": "v1",
                    "kind": "Service",
                    "metadata": {"name": "web", "namespace": "shop"},
                    "spec": {"clusterIP": "198.19.0.7", "ports": [{"name": "http", "port": 80}]},
                }
            },
            "DestinationRule": {
                "shop/web": {
                    "apiVersion": "networking.istio.io/v1",
                    "kind": "DestinationRule",
                    "metadata": {"name": "web", "namespace": "shop"},
                    "spec": {"host": "web", "subsets": [{"name": "a", "labels": {"a": "b"}}]},
                }
            },
        },
        {
            "shop/web-1": (
                ListedEndpoint(
                    namespace="shop", service="web", address="198.18.0.5", ports={"http": 8080}
                ),
            )
        },
    )
)


def _cluster(path: Path) -> None:
    def nothing(_: object) -> None: ...

    _ = Cluster(path, nothing, nothing).problem


def _attached(path: Path) -> None:
    known = sandboxes.load(path)
    _ = known.newest
    list(sandboxes.vanished(known))


def _chained(data: bytes) -> None:
    """A file of another tool: what is written of it is taken as it was."""
    for name in ("10-a.conflist", "10-a.conf"):
        files = {name: data}
        merged = {**files, **chain.with_plugin(files)}
        after = {key: content for key, content in merged.items() if content is not None}
        if chain.with_plugin(after):
            raise AssertionError("the plugin is not the last of what was written")


def doors(directory: Path) -> tuple[Door, ...]:
    """``directory``: an empty one, for files."""
    encode = msgspec.json.encode

    def of_file(
        name: str, read: Callable[[Path], object], others: Mapping[str, bytes] | None = None
    ) -> Callable[[bytes], object]:
        return functools.partial(_with_file, directory, name, read, others or {})

    keys = {"ca-key.pem": pem.key_pem(_KEY), "root-cert.pem": _CERTIFICATE}
    return (
        Door("settings-file", of_file("meshd.yaml", settings.load), (b"node: a\n",)),
        Door("applied", of_file("applied.json", _applied), (encode(_APPLIED), _CHANGED)),
        Door("attempts", of_file("attempts.json", _attempts), (encode(_SUSPECTS), _TURNED), ()),
        Door("workloads", of_file("workloads.json", _workloads), (encode(_REGISTERED),), ()),
        Door("attached", of_file("attached.json", _attached), (encode(_ATTACHED),), ()),
        Door("cluster-state", of_file("cluster-state", _cluster), (_CLUSTER,), ()),
        Door("cni-list", _chained, (_CHAIN, b'{"name": "pods", "type": "bridge"}'), ()),
        Door("elsewhere", workloads.listed, (encode([_WORKLOAD]),), UNDECODABLE),
        Door("remains", _remains, (encode(_WORKLOAD),), ()),
        Door("server-state", lambda data: Inbox(decode).load(data), (_STATE,)),
        Door("tokens", of_file("tokens.json", _tokens), (encode(_TOKENS),)),
        Door("node-credentials", of_file("node.pem", _node), (_CREDENTIALS,)),
        Door("ca-certificate", of_file("ca-cert.pem", _authority, keys), (_CERTIFICATE,)),
        Door("ca-key", of_file("root-key.pem", _authority), (pem.key_pem(_KEY),)),
        Door("files", of_file(_LEAF_FILE, _leaf_files), (encode(_KEPT),), ()),
        Door("resolv-conf", of_file("resolv.conf", _resolv), (_RESOLV,), ()),
        Door("proc-files", _Machine(directory).read, (_MEMINFO, b"32768\t60999"), ()),
    )


def _with_file(
    directory: Path,
    name: str,
    read: Callable[[Path], object],
    others: Mapping[str, bytes],
    data: bytes,
) -> None:
    place = directory / "fuzzed"
    place.mkdir()
    try:
        for other, content in {**others, name: data}.items():
            (place / other).write_bytes(content)
        read(place / name)
    finally:
        shutil.rmtree(place)


_APPLIED: Final = {
    "revision": 1,
    "addresses": {"a.test": "198.19.0.1"},
    "objects": [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"ports": [{"port": 80}]},
        }
    ],
}


def _with_changes(whole: object, *changes: object) -> bytes:
    lines = (change_log.line_of(msgspec.json.encode(change)) for change in changes)
    return b"\n".join((msgspec.json.encode(whole), b"".join(lines)))


_CHANGED: Final = _with_changes(
    _APPLIED,
    {"revision": 2, "addresses": {"a.test": ""}, "put": _APPLIED["objects"]},
    {"revision": 3, "addresses": {}, "deleted": [Key("Service", "shop", "web")]},
)


def _applied(path: Path) -> None:
    found, _ = applied.load(path)
    allocate(found.addresses, ("a.test", "b.test"), "198.19.0.0/24", ())


_SUSPECTS: Final = {"Service a/b": Suspect("f", {}, (_NOW, _NOW, _NOW), _NOW)}

_TURNED: Final = _with_changes(
    _SUSPECTS, {"Service a/b": None, "Service a/c": Suspect("f", {}, (_NOW,), _NOW)}
)


def _attempts(path: Path) -> None:
    attempts = Attempts(path, lambda: _NOW)
    attempts.begin({"Service a/b": ("f", {})})
    attempts.done()


_REGISTERED: Final = {"registered": {"shop.web": _WORKLOAD}, "lives": {}}


def _workloads(path: Path) -> None:
    workloads.load(path, keep=True)


def _remains(data: bytes) -> None:
    remains.of("shop.web", msgspec.Raw(data))


_STATE: Final = msgspec.msgpack.encode(
    {"resources": {"core/v1/Service": {"a/b": Held("1", b"\n\2a"), "a/c": Held("2", b"")}}}
)
_TOKENS: Final = {"tokens": [_RECORD], "members": {"n": _MEMBER}}


def _tokens(path: Path) -> None:
    store = TokenStore(path.parent, lambda: _NOW)
    for record in store.list():
        date(record.expires)
    store.members()
    tokens.redeem(store.list(), _TOKEN, "n", _NOW)
    store.admitted("n", "a")
    store.remove("n")


def _node(path: Path) -> None:
    NodeFile(path).load()


def _authority(path: Path) -> None:
    Store(path.parent, "cluster.local", 3600.0).open(_NOW)


_KEPT: Final = {
    "uri": _IDENTITY.uri,
    "issued": _NOW,
    "begins": _NOW,
    "expires": _NOW,
    "serial": "ab",
    "chain": "",
    "key": "",
}


def _leaf_files(path: Path) -> None:
    LeafFiles(path.parent).get(_IDENTITY)


_RESOLV: Final = b"nameserver 198.18.0.1\nnameserver fd00:198::1%lo\nsearch a.test b\n"


def _resolv(path: Path) -> None:
    upstreams.upstreams(MeshSettings(), path)
    search.domains("cluster.local", (), (), path)


_MEMINFO: Final = b"MemTotal:  1000 kB\n"


class _Machine:
    """/proc, where each file has the same content."""

    def __init__(self, directory: Path) -> None:
        self._root = directory / "root"

    def read(self, data: bytes) -> None:
        text = data.decode("utf-8", "replace")  # the kernel's own words
        for name in ("meminfo", "sys/net/ipv4/ip_local_port_range", "self/cgroup"):
            path = self._root / "proc" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        machine.read(self._root)
