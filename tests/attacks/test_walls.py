"""A role that is taken over reads no key, and asks of the others only what is its own to ask."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from meshd import wire
from tests.node.test_two_nodes import start_agent, start_server
from tests.waiting import PATIENCE

if TYPE_CHECKING:
    from tests.node.node import Node

_SECRET = "PRIVATE KEY"  # noqa: S105
_LOOK = """
import json, os, socket, sys, tempfile
readable, writable, connected = [], [], []
for path in json.load(sys.stdin):
    if os.path.isdir(path):
        try:
            with tempfile.NamedTemporaryFile(dir=path):
                writable.append(path)
        except OSError:
            pass
    elif path.endswith(".sock"):
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(20)
        try:
            s.connect(path)
            s.sendall(b"PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n" + bytes(9))
            if s.recv(1):
                connected.append(path)
        except TimeoutError:
            connected.append(path)
        except OSError:
            pass
    else:
        try:
            open(path, "rb").read()
            readable.append(path)
        except OSError:
            pass
print(json.dumps([readable, writable, connected]))
"""
_ASK = """
import socket, struct, sys
path, body = sys.argv[1], bytes.fromhex(sys.argv[2])
s = socket.socket(socket.AF_UNIX)
s.settimeout(60)
try:
    s.connect(path)
    s.sendall(body)
    print(s.recv(65536).hex())
except OSError as error:
    print()
"""
_TAKE_OVER = """
import ctypes, os, signal, sys
pid = int(sys.argv[1])
for number in (0, signal.SIGTERM):
    try:
        os.kill(pid, number)
        print("signalled")
    except PermissionError:
        pass
if ctypes.CDLL(None).ptrace(16, pid, 0, 0) == 0:
    print("traced")
for name in ("mem", "environ", "maps"):
    try:
        open(f"/proc/{pid}/{name}", "rb").read(1)
        print("read", name)
    except OSError:
        pass
"""
UNTRUSTED = ("mesh", "telemetry", "proxy-0", "dns-0", "resolver")


def credentials(pid: int) -> tuple[str, ...]:
    """setpriv(1) with user, group and further groups of a process."""
    fields = {
        key: value.split()
        for key, _, value in (
            line.partition(":")
            for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
        )
    }
    groups = ",".join(fields["Groups"])
    return (
        *("setpriv", f"--reuid={fields['Uid'][0]}", f"--regid={fields['Gid'][0]}"),
        *((f"--groups={groups}",) if groups else ("--clear-groups",)),
        *("--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all"),
    )


def pid_of(node: Node, name: str) -> int:
    return node.children()[name].pid


def as_role(node: Node, name: str, program: str, *arguments: str, text: str = "") -> str:
    command = (*credentials(pid_of(node, name)), "/usr/bin/python3", "-c", program, *arguments)
    done = subprocess.run(
        command, input=text, capture_output=True, text=True, check=True, timeout=2 * PATIENCE
    )
    return done.stdout.strip()


class Sight(NamedTuple):
    """What a role gets at of the files of its node, by their paths below its home."""

    reads: set[str]
    writes: set[str]
    reaches: set[str]


def sight(node: Node, name: str) -> Sight:
    """Every file is named to the role, so that none is safe because it is not listed."""
    top = node.home
    found = (top, *top.rglob("*"))
    # What the server role has within itself is its own.
    no = {"netns", "front"}
    paths = [str(path) for path in found if not path.is_symlink() and not no & {*path.parts}]
    seen = json.loads(as_role(node, name, _LOOK, text=json.dumps(paths)))
    return Sight(*({str(Path(path).relative_to(top)) for path in kind} for kind in seen))


@pytest.fixture(scope="module")
def server(make: Callable[..., Node]) -> Node:
    return start_server(make, grace="5s")


@pytest.fixture(scope="module")
def agent(make: Callable[..., Node], server: Node) -> Node:
    return start_agent(make, server)


_ADMIN = {f"run/admin/{name}.sock" for name in ("proxy-0", "proxy-1", "dns-0", "dns-1")}
_SUPERVISOR, _MESH = "run/supervisor/supervisor.sock", "run/mesh/mesh.sock"
_WRITES = {
    "mesh": {"lib", "run/mesh", "run/plane", "run/dns"},
    "server": {"run/server"},
    "telemetry": {"run/telemetry"},
    "proxy-0": {"run/admin"},
    "dns-0": {"run/admin"},
    "resolver": set[str](),
}
_REACHES = {
    "mesh": {
        *("run/capture/capture.sock", "run/identity/identity.sock", _SUPERVISOR),
        *("run/plane/plane.sock", "run/uplink/uplink.sock", "run/server/server.sock"),
        *_ADMIN,
    },
    "server": {"run/identity/identity.sock", _MESH},
    "telemetry": {_MESH, _SUPERVISOR, *_ADMIN},
    "proxy-0": {"run/proxy/xds.sock", *_ADMIN},
    "dns-0": {"run/proxy/xds.sock", *_ADMIN},
    "resolver": set[str](),
}


def _has_key(node: Node, path: str) -> bool:
    """A file that is on its way to another name may be gone by now."""
    with contextlib.suppress(FileNotFoundError):
        return _SECRET in (node.home / path).read_text(encoding="utf-8", errors="replace")
    return False


@pytest.mark.parametrize("name", list(_REACHES))
def test_each_role_gets_at_its_own_files_and_sockets_and_at_no_key(
    request: pytest.FixtureRequest, name: str
) -> None:
    for kind in ("server", "agent"):
        node: Node = request.getfixturevalue(kind)
        if name not in node.children():
            continue
        found = sight(node, name)
        assert found.writes == {path for path in _WRITES[name] if (node.home / path).exists()}
        assert found.reaches == {path for path in _REACHES[name] if (node.home / path).exists()}
        assert not [path for path in found.reads if _has_key(node, path)]
        assert all(name == "mesh" or not path.startswith("lib/") for path in found.reads)


def test_every_key_of_a_node_is_where_the_identity_role_alone_gets_at(
    server: Node, agent: Node
) -> None:
    for node, at_least in ((server, "lib/identity/root-key.pem"), (agent, "lib/identity/node.pem")):
        found = (path for top in (node.paths.lib, node.paths.run) for path in top.rglob("*"))
        files = {str(path.relative_to(node.home)) for path in found if path.is_file()}
        keys = {path for path in files if _has_key(node, path)}
        assert at_least in keys
        assert all(path.startswith("lib/identity/") for path in keys)


def test_the_roles_are_different_users(node: Node) -> None:
    uids = {
        name: Path(f"/proc/{pid_of(node, name)}").stat().st_uid
        for name in ("identity", "mesh", "telemetry", "proxy-0", "resolver")
    }
    assert len(set(uids.values())) == len(uids)
    assert 0 not in uids.values()


@pytest.mark.parametrize("name", UNTRUSTED)
def test_none_takes_over_the_identity_role(node: Node, name: str) -> None:
    assert as_role(node, name, _TAKE_OVER, str(pid_of(node, "identity"))) == ""


def test_the_mesh_role_cannot_put_keys_of_its_own_in_the_place_of_others(node: Node) -> None:
    program = "import os, sys\nos.rename(sys.argv[1], sys.argv[1] + '.away')"
    command = (*credentials(pid_of(node, "mesh")), "/usr/bin/python3", "-c", program)
    done = subprocess.run(
        [*command, str(node.paths.keys)],
        capture_output=True,
        text=True,
        check=False,
        timeout=2 * PATIENCE,
    )
    assert "PermissionError" in done.stderr
    assert stat.S_IMODE(os.stat(node.paths.keys).st_mode) == 0o700  # noqa: PTH116


@pytest.mark.parametrize(
    ("name", "role", "request_"),
    [
        ("telemetry", "identity", wire.Allow(())),
        ("telemetry", "mesh", wire.Get("vs")),
        ("telemetry", "mesh", wire.Unregister(())),
        ("telemetry", "supervisor", wire.RestartRoles(())),
        ("telemetry", "supervisor", wire.RunProbe(("true",), 1.0, "mesh.curl")),
        ("telemetry", "capture", wire.Place(())),
        ("mesh", "identity", wire.ListNodes()),
        ("mesh", "identity", wire.ListTokens()),
        ("identity", "mesh", wire.Status()),
        ("identity", "supervisor", wire.Children()),
        ("identity", "capture", wire.Place(())),
        ("proxy-0", "mesh", wire.Status()),
        ("resolver", "mesh", wire.Status()),
    ],
)
def test_each_asks_only_what_is_its_own_to_ask(
    node: Node, name: str, role: str, request_: wire.Message
) -> None:
    path = str(node.paths.socket(role))
    answer = bytes.fromhex(as_role(node, name, _ASK, path, wire.encode(request_).hex()))
    if answer:
        message = wire.decode(answer[4:], wire.ANY)
        assert isinstance(message, wire.Failed)
        assert "is not for this process to ask" in message.reason
