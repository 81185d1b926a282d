"""Members of WorkloadGroups: what they get of their group, and when they count."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import http.server
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Generator
from pathlib import Path
from typing import Any, Final, Literal

import grpc
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.api.base import ObjectMeta
from meshd.api.service_entry.types import (
    ExecHealthCheck,
    GroupMetadata,
    GRPCHealthCheck,
    HTTPHeader,
    HTTPHealthCheck,
    ReadinessProbe,
    TCPHealthCheck,
    WorkloadEntrySpec,
    WorkloadGroup,
    WorkloadGroupSpec,
)
from meshd.model.workload import HostService, NamedPort, Workload
from meshd.workloads import groups
from meshd.workloads.health import Checker, Health, own_address, passes, step

PROBE = ReadinessProbe(exec=ExecHealthCheck(command=("true",)))


def group(probe: ReadinessProbe | None = None, namespace: str = "shop") -> WorkloadGroup:
    template = WorkloadEntrySpec(labels={"app": "vm"}, service_account="vm", ports={"http": 8080})
    spec = WorkloadGroupSpec(
        template=template, metadata=GroupMetadata(labels={"team": "a", "app": "x"}), probe=probe
    )
    return WorkloadGroup(metadata=ObjectMeta(name="vms", namespace=namespace), spec=spec)


ONE: Final = Workload(
    uid="shop.one",
    name="one",
    namespace="shop",
    netns="",
    addresses=("198.18.0.7",),
    annotations={groups.ANNOTATION: "vms"},
)


def workload(**fields: Any) -> Workload:
    return msgspec.structs.replace(ONE, **fields)


def member(found: Workload, of: WorkloadGroup, *, healthy: bool = True) -> Workload:
    return groups.as_member(found, {of.key: of}, lambda _: healthy)


def test_a_member_gets_what_the_group_says() -> None:
    seen = member(workload(), group())
    assert seen.labels == {"team": "a", "app": "vm"}
    assert seen.service_account == "vm"
    assert seen.ports == (NamedPort("http", 8080),)


def test_what_it_says_itself_wins() -> None:
    own = (NamedPort("http", 80),)
    seen = member(workload(labels={"app": "mine"}, ports=own), group())
    assert seen.labels == {"team": "a", "app": "mine"}
    assert seen.ports == own


@pytest.mark.parametrize(
    ("found", "of"),
    [
        (workload(annotations={}), group()),
        (workload(annotations={groups.ANNOTATION: "other"}), group()),
        (workload(), group(namespace="elsewhere")),
    ],
)
def test_a_workload_of_no_group_stays_as_it_is(found: Workload, of: WorkloadGroup) -> None:
    assert member(found, of) == found


def test_only_with_a_probe_does_health_count() -> None:
    assert member(workload(), group(), healthy=False).ready
    assert not member(workload(), group(PROBE), healthy=False).ready
    assert member(workload(), group(PROBE)).ready
    assert not member(workload(ready=False), group(PROBE)).ready


def test_an_entry_stands_for_each_member() -> None:
    seen = member(workload(), group(PROBE), healthy=False)
    (entry,) = groups.entries([seen, workload(annotations={})]).values()
    assert (entry.metadata.name, entry.metadata.namespace) == ("vms-198.18.0.7", "shop")
    assert entry.metadata.annotations["istio.io/autoRegistrationGroup"] == "vms"
    assert entry.metadata.annotations["meshd.io/healthy"] == "false"
    assert entry.spec.service_account == "vm"
    assert entry.spec.ports == {"http": 8080}


# ---- when it is healthy


def after(results: list[bool], probe: ReadinessProbe) -> Health:
    return functools.reduce(lambda health, passed: step(health, passed, probe), results, Health())


results = st.lists(st.booleans(), max_size=12)


@given(results, st.integers(1, 4), st.integers(1, 4))
def test_it_takes_so_many_in_a_row(done: list[bool], successes: int, failures: int) -> None:
    probe = ReadinessProbe(success_threshold=successes, failure_threshold=failures)
    expected = False
    for end in range(1, len(done) + 1):
        if done[max(end - successes, 0) : end] == [True] * successes:
            expected = True
        elif done[max(end - failures, 0) : end] == [False] * failures:
            expected = False
    assert after(done, probe).healthy == expected


def running(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """A coroutine as a test, in a loop of its own."""

    @functools.wraps(test)
    def run(**fixtures: Any) -> None:
        asyncio.run(test(**fixtures))

    return run


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        fine = self.path == "/fine" and self.headers["x-key"] == "value"
        self.send_response(200 if fine else 503)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Nobody reads it."""


@pytest.fixture
def port() -> Generator[int]:
    with _serving(http.server.HTTPServer(("127.0.0.1", 0), _Handler)) as port:
        yield port


@pytest.fixture
def tls_port(tmp_path: Path) -> Generator[int]:
    """A server whose certificate nobody knows."""
    pem = tmp_path / "server.pem"
    command = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
    files = ("-nodes", "-subj", "/CN=unknown", "-keyout", str(pem), "-out", str(pem))
    subprocess.run([*command, *files], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    server = http.server.HTTPServer(("127.0.0.1", 0), _Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with _serving(server) as port:
        yield port


@contextlib.contextmanager
def _serving(server: http.server.HTTPServer) -> Generator[int]:
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


HERE = workload(uid="here", host=HostService(cgroup="here.slice"))


async def no_program(_workload: Workload, _command: tuple[str, ...], _seconds: float) -> bool:
    raise AssertionError("no program was to be run")


def get(port: int, path: str, scheme: Literal["HTTP", "HTTPS"] = "HTTP") -> ReadinessProbe:
    headers = (HTTPHeader(name="X-Key", value="value"),)
    check = HTTPHealthCheck(port=port, path=path, scheme=scheme, http_headers=headers)
    return ReadinessProbe(http_get=check)


@running
async def test_http_and_tcp_ask_the_port(port: int) -> None:
    assert await passes(get(port, "/fine"), HERE, no_program)
    assert await passes(get(port, "fine"), HERE, no_program)
    assert not await passes(get(port, "/broken"), HERE, no_program)
    assert not await passes(get(9, "/fine"), HERE, no_program)
    assert await passes(ReadinessProbe(tcp_socket=TCPHealthCheck(port=port)), HERE, no_program)
    assert not await passes(ReadinessProbe(tcp_socket=TCPHealthCheck(port=9)), HERE, no_program)


@running
async def test_https_asks_whoever_it_is(tls_port: int) -> None:
    assert await passes(get(tls_port, "/fine", "HTTPS"), HERE, no_program)
    assert not await passes(get(tls_port, "/broken", "HTTPS"), HERE, no_program)
    assert not await passes(get(tls_port, "/fine"), HERE, no_program)


def test_https_needs_no_asyncio_that_speaks_tls(tls_port: int) -> None:
    """The mesh role's does not: ``meshd.__main__``."""
    program = """
import sys
sys.modules["ssl"] = None
import asyncio
del sys.modules["ssl"]
from meshd.workloads.health import passes
from meshd.api.service_entry.types import ReadinessProbe
import msgspec
probe = msgspec.json.decode(sys.argv[1], type=ReadinessProbe)
from meshd.model.workload import HostService, HostService, Workload
here = Workload(uid="a", name="a", namespace="a", netns="", host=HostService(cgroup="a"))
print(asyncio.run(passes(probe, here, None)))
"""
    probe = msgspec.json.encode(get(tls_port, "/fine", "HTTPS")).decode()
    command = (sys.executable, "-c", program, probe)
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout == "True\n"


@running
async def test_https_is_not_spoken_by_everybody(port: int) -> None:
    assert not await passes(get(port, "/fine", "HTTPS"), HERE, no_program)


def run(*command: str) -> ReadinessProbe:
    return ReadinessProbe(exec=ExecHealthCheck(command=command))


@running
async def test_a_program_is_run_by_whom_it_was_given_with_its_workload_and_its_time() -> None:
    asked: list[tuple[str, tuple[str, ...], float]] = []

    async def run_it(workload: Workload, command: tuple[str, ...], seconds: float) -> bool:
        asked.append((workload.uid, command, seconds))
        return command == ("true",)

    assert await passes(run("true"), HERE, run_it)
    assert not await passes(run("false"), HERE, run_it)
    assert asked == [(HERE.uid, ("true",), 1.0), (HERE.uid, ("false",), 1.0)]


def pod(*addresses: str) -> Workload:
    return msgspec.structs.replace(HERE, host=None, netns="/run/netns/pod", addresses=addresses)


@pytest.mark.parametrize(
    ("of", "wanted", "asked"),
    [
        (HERE, "", "127.0.0.1"),
        (HERE, "localhost", "127.0.0.1"),
        (HERE, "198.18.0.9", ""),
        (HERE, "169.254.169.254", ""),
        (pod("198.18.0.1", "fd00:198::1"), "", "198.18.0.1"),
        (pod("198.18.0.1", "fd00:198::1"), "fd00:198::1", "fd00:198::1"),
        (pod("198.18.0.1"), "127.0.0.1", "198.18.0.1"),
        (pod("198.18.0.1"), "198.18.0.2", ""),
        (pod("198.18.0.1"), "example.com", ""),
        (pod(), "", ""),
        (pod(), "127.0.0.1", ""),
    ],
)
def test_a_probe_asks_nobody_but_its_own_workload(of: Workload, wanted: str, asked: str) -> None:
    assert own_address(of, wanted) == asked


@running
async def test_grpc_asks_the_health_service() -> None:
    serving = {b"": 1, b"\x0a\x03web": 1, b"\x0a\x03off": 2}

    async def check(request: bytes, _: Any) -> bytes:
        return b"\x08" + bytes([serving[request]])

    method = grpc.unary_unary_rpc_method_handler(check)
    server = grpc.aio.server()
    service = grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": method})
    server.add_generic_rpc_handlers((service,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    for name, passed in (("", True), ("web", True), ("off", False)):
        probe = ReadinessProbe(grpc=GRPCHealthCheck(port=port, service=name))
        assert await passes(probe, HERE, no_program) is passed
    await server.stop(None)
    assert not await passes(ReadinessProbe(grpc=GRPCHealthCheck(port=9)), HERE, no_program)


@running
async def test_the_checker_tells_each_change_and_remembers_over_restarts(tmp_path: Path) -> None:
    healthy, record = tmp_path / "healthy", tmp_path / "record"
    probe = ReadinessProbe(exec=ExecHealthCheck(command=("check",)), failure_threshold=1)

    async def exists(_workload: Workload, _command: tuple[str, ...], _seconds: float) -> bool:
        return healthy.exists()

    told: asyncio.Queue[None] = asyncio.Queue()
    checker = Checker(record, lambda: told.put_nowait(None), exists)
    healthy.touch()
    assert not checker.is_healthy("a")
    checker.check({"a": (workload(uid="a"), probe)})
    async with asyncio.timeout(60):
        await told.get()
        assert checker.is_healthy("a")
        await checker.close()
        again = Checker(record, lambda: told.put_nowait(None), exists)
        assert again.is_healthy("a")
        healthy.unlink()
        again.check({"a": (workload(uid="a"), probe)})
        await told.get()
        assert not again.is_healthy("a")
        again.check({})
        assert not again.is_healthy("a")
    with contextlib.suppress(asyncio.CancelledError):
        await again.close()
