"""A confined process, in a child that really is."""

from __future__ import annotations

import subprocess
import sys

import pytest

from meshd.base.errors import SystemRefusedError
from meshd.proxy import confinement, launch
from meshd.proxy.seccomp import Filter

TRIED = """
import ctypes, errno, os, socket
from meshd.proxy.confinement import confine
confine("setns")
libc = ctypes.CDLL(None, use_errno=True)

def denied(result):
    assert (result, ctypes.get_errno()) == (-1, errno.EPERM)

def no_socket(family, kind, protocol=0):
    try:
        socket.socket(family, kind, protocol)
    except PermissionError:
        return
    raise AssertionError((family, protocol))

denied(libc.unshare(0x10000000))
denied(libc.mount(b"none", b"/", b"tmpfs", 0, None))
denied(libc.setns(0, 0))
no_socket(socket.AF_PACKET, socket.SOCK_RAW)
no_socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
SOCKET = {"x86_64": 41, "aarch64": 198}[os.uname().machine]
SETSOCKOPT = {"x86_64": 54, "aarch64": 208}[os.uname().machine]
raw = lambda *numbers: libc.syscall(*map(ctypes.c_uint64, numbers))
HIGH = 1 << 32  # the kernel does not look at it: the arguments are ints
for family, protocol in ((17, 0), (40, 0), (38, 0), (15, 2), (44, 0), (16, 12)):
    denied(raw(SOCKET, family, 3, protocol))
    denied(raw(SOCKET, HIGH | family, 3, protocol))
denied(raw(SOCKET, 16, 3, HIGH | 12))
for level in (0, 41):
    for high in (0, HIGH):
        with socket.socket() as plain:
            denied(raw(SETSOCKOPT, plain.fileno(), level, high | 64, 0, 0))
            denied(raw(SETSOCKOPT, plain.fileno(), high | level, 64, 0, 0))
with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0), socket.socket() as plain:
    try:
        plain.setsockopt(socket.IPPROTO_IP, 64, b"")
    except PermissionError:
        pass
    else:
        raise AssertionError("tables can be replaced")
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
child = os.fork()
if child == 0:
    os._exit(libc.unshare(0x10000000) + 1)
assert os.waitpid(child, 0)[1] == 0
print(next(line for line in open("/proc/self/status") if line.startswith("NoNewPrivs")).split()[1])
"""


def test_a_confined_process_and_its_children_are_denied_what_is_listed_and_nothing_else() -> None:
    done = subprocess.run(
        [sys.executable, "-c", TRIED], capture_output=True, text=True, check=False, timeout=60
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")


def test_a_system_call_that_the_library_does_not_know_is_refused_by_name() -> None:
    with pytest.raises(OSError, match="no_such_call"):
        Filter().deny(1, "no_such_call")


def test_a_process_that_cannot_be_confined_does_not_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confinement, "_DENIED", ("no_such_call",))

    with pytest.raises(SystemRefusedError, match=r"no_such_call.*libseccomp2"):
        launch.confine()
