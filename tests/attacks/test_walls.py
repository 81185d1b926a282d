"""A role that is taken over reads no key, and asks of the others only what is its own to ask."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from meshd import wire

if TYPE_CHECKING:
    from tests.node.node import Node

_SECRET = "PRIVATE KEY"  # noqa: S105
_READ = """
import os, pathlib, sys
found = []
for top in sys.argv[1:]:
    for place, _, names in os.walk(top):
        for name in names:
            try:
                text = pathlib.Path(place, name).read_bytes()
            except OSError:
                continue
            if b"PRIVATE KEY" in text:
                found.append(os.path.join(place, name))
print(" ".join(found))
"""
_ASK = """
import socket, struct, sys
path, body = sys.argv[1], bytes.fromhex(sys.argv[2])
s = socket.socket(socket.AF_UNIX)
s.settimeout(5)
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


def as_role(node: Node, name: str, program: str, *arguments: str) -> str:
    command = (*credentials(pid_of(node, name)), "/usr/bin/python3", "-c", program, *arguments)
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.strip()


def test_the_roles_are_different_users(node: Node) -> None:
    uids = {
        name: Path(f"/proc/{pid_of(node, name)}").stat().st_uid
        for name in ("identity", "mesh", "telemetry", "proxy-0", "resolver")
    }
    assert len(set(uids.values())) == len(uids)
    assert 0 not in uids.values()


@pytest.mark.parametrize("name", UNTRUSTED)
def test_none_but_the_identity_role_reads_a_key(node: Node, name: str) -> None:
    tops = [str(path) for path in (node.paths.lib, node.paths.run, node.paths.etc)]
    keys = subprocess.run(
        ["grep", "-rlI", _SECRET, *tops], capture_output=True, text=True, check=False
    ).stdout.split()
    assert keys
    assert as_role(node, name, _READ, *tops) == ""


@pytest.mark.parametrize("name", UNTRUSTED)
def test_none_takes_over_the_identity_role(node: Node, name: str) -> None:
    assert as_role(node, name, _TAKE_OVER, str(pid_of(node, "identity"))) == ""


def test_the_mesh_role_cannot_put_keys_of_its_own_in_the_place_of_others(node: Node) -> None:
    program = "import os, sys\nos.rename(sys.argv[1], sys.argv[1] + '.away')"
    command = (*credentials(pid_of(node, "mesh")), "/usr/bin/python3", "-c", program)
    done = subprocess.run(
        [*command, str(node.paths.keys)], capture_output=True, text=True, check=False, timeout=60
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
        ("telemetry", "supervisor", wire.RunProbe(("true",), 1.0)),
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
        message = wire.decode(answer[4:])
        assert isinstance(message, wire.Failed)
        assert "is not for this process to ask" in message.reason


def test_none_but_identity_reaches_what_the_mesh_role_has_for_the_proxies(node: Node) -> None:
    for name in ("telemetry", "proxy-0", "dns-0", "resolver"):
        assert as_role(node, name, _ASK, str(node.paths.plane), b"x".hex()) == ""
        assert not _may_connect(node, name, node.paths.plane)


def test_only_telemetry_and_the_mesh_role_reach_the_proxies_admin(node: Node) -> None:
    admin = node.paths.admin_run / "proxy-0.sock"
    assert _may_connect(node, "telemetry", admin)
    assert _may_connect(node, "mesh", admin)
    assert not _may_connect(node, "identity", admin)
    assert not _may_connect(node, "resolver", admin)


def _may_connect(node: Node, name: str, path: Path) -> bool:
    program = (
        "import json, socket, sys\n"
        "s = socket.socket(socket.AF_UNIX)\n"
        "print(json.dumps(s.connect_ex(sys.argv[1]) == 0))"
    )
    return bool(json.loads(as_role(node, name, program, str(path))))
