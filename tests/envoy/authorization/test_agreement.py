"""The plan and a real Envoy agree who may send what, by policies and requests by chance.

One listener stands for those behind mutual TLS: a connection says by the PROXY protocol which
workload it is to, who its client is, and the name in the TLS hello. A request that is taken has
nowhere to go and is answered 503; a connection that is taken is answered by one word.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import ipaddress
import os
import random
import socket
import struct
import subprocess
import time
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import envoy
import pytest
from envoy.config.bootstrap.v3 import bootstrap_pb2
from envoy.config.listener.v3 import listener_components_pb2
from envoy.extensions.filters.listener.proxy_protocol.v3 import proxy_protocol_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2

from meshd.api.authorization_policy.types import AuthorizationPolicy
from meshd.api.dispatch import check_fields
from meshd.api.read import Read
from meshd.api.yaml import Document
from meshd.compile.envoy.inbound_routes import inbound_routes
from meshd.compile.envoy.listeners import listener
from meshd.compile.envoy.wellknown import (
    ONCE,
    PEER_STATE,
    REMOTE_ADDRESS_STATE,
    SERVER_NAME_STATE,
    UNHASHED,
    WORKLOAD_STATE,
    state_on_accept,
    state_value,
)
from meshd.compile.explain.authorization import Facts, facts_of, judge
from meshd.compile.names import InboundCluster
from meshd.compile.plan.authorization import Authorization
from meshd.compile.plan.chains import Answer, Chain, Http, Refusal
from meshd.compile.plan.choices import ByRules, ByWorkload, To
from meshd.compile.plan.listeners import Listener
from meshd.compile.policy.authorization import authorization, by_namespace, of_connections
from meshd.compile.traffic.inbound_routes import Judged, plain_routes
from meshd.model.snapshot import MeshOptions
from meshd.model.workload import Workload
from tests.envoy.authorization import policies
from tests.envoy.authorization.policies import Case
from tests.waiting import PATIENCE

ENVOY: Final = Path(envoy.__path__[0]) / "_bin" / "envoy"
SETS: Final = int(os.environ.get("MESHD_TEST_AUTHORIZATION_SETS", "500"))
CONNECTIONS: Final = 4
REQUESTS: Final = 5
"""On each connection."""
OPTIONS: Final = MeshOptions(trust_domain=policies.TRUST_DOMAIN, root_namespace=policies.ROOT)
LABELS: Final = {"app": "web"}
TAKEN: Final = "taken"
TLVS: Final = {
    0xE1: ("workload", WORKLOAD_STATE),
    0xE2: ("peer", PEER_STATE),
    0xE3: ("name", SERVER_NAME_STATE),
}
NAMESPACE: Final = "envoy.filters.listener.proxy_protocol"


@functools.cache
def guards() -> dict[str, Authorization | None]:
    """Return what each of many workloads takes."""
    workload = Workload(uid="w", name="w", namespace="shop", netns="", labels=LABELS)
    return {
        f"w{number}": authorization(by_namespace(chosen), workload, OPTIONS)
        for number, chosen in enumerate(sets())
    }


@functools.cache
def sets() -> tuple[tuple[AuthorizationPolicy, ...], ...]:
    return tuple(
        policies.policies(random.Random(f"set {number}"), LABELS)  # noqa: S311
        for number in range(SETS)
    )


def cases(uid: str) -> Iterator[Case]:
    chance = random.Random(f"cases {uid}")  # noqa: S311
    return (policies.case(chance, REQUESTS) for _ in range(CONNECTIONS))


def of_requests(path: Path, known: Mapping[str, Authorization]) -> Any:
    """Return the listener of requests, whose routes are in it."""
    target = Http(statistics="in", routes="x", access_log="off", certificate="keep", by_server=True)
    made = at_pipe(Listener(name="requests", chains=(Chain(name="all", target=target),)), path)
    manager = http_connection_manager_pb2.HttpConnectionManager()
    (filter_,) = made.filter_chains[0].filters
    filter_.typed_config.Unpack(manager)
    routes = plain_routes(InboundCluster(policies.PORT), Judged(known))
    manager.route_config.CopyFrom(inbound_routes(routes))
    filter_.typed_config.Pack(manager)
    return made


def of_bytes(path: Path) -> Any:
    """Return the listener of connections that are not HTTP."""
    ways = {
        uid: ByRules(of_connections(rules), To(TAKEN), "refused")
        for uid, rules in guards().items()
        if rules
    }
    chains = (
        Chain(name=TAKEN, target=Answer(TAKEN)),
        Chain(name="refused", target=Refusal()),
    )
    plan = Listener(name="bytes", choice=ByWorkload(ways, To(TAKEN)), chains=chains)
    return at_pipe(plan, path)


def at_pipe(plan: Listener, path: Path) -> Any:
    made = listener(plan)
    made.ClearField("internal_listener")
    made.address.pipe.path = str(path)
    rules = [
        {"tlv_type": kind, "on_tlv_present": {"key": name}} for kind, (name, _) in TLVS.items()
    ]
    announced = listener_components_pb2.ListenerFilter(name="envoy.filters.listener.proxy_protocol")
    announced.typed_config.Pack(proxy_protocol_pb2.ProxyProtocol(rules=rules))
    noted = state_on_accept(
        *(
            state_value(state, f"%DYNAMIC_METADATA({NAMESPACE}:{name})%", ONCE, UNHASHED)
            for name, state in TLVS.values()
        ),
        state_value(
            REMOTE_ADDRESS_STATE, "%DOWNSTREAM_REMOTE_ADDRESS%", ONCE, REMOTE_ADDRESS_STATE
        ),
    )
    made.listener_filters.extend((announced, noted))
    return made


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("authorization")
    known = {uid: rules for uid, rules in guards().items() if rules}
    listeners = (of_requests(directory / "requests", known), of_bytes(directory / "bytes"))
    with running(directory, *listeners):
        yield directory


@contextlib.contextmanager
def running(directory: Path, *listeners: Any) -> Generator[None]:
    """An Envoy with listeners at unix sockets."""
    bootstrap = bootstrap_pb2.Bootstrap(
        node={"id": "a", "cluster": "a"}, static_resources={"listeners": listeners}
    )
    (directory / "envoy.pb").write_bytes(bootstrap.SerializeToString())
    command = [str(ENVOY), "--config-path", str(directory / "envoy.pb")]
    command += ["--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"]
    with (directory / "envoy.log").open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + PATIENCE
        while not all(takes(Path(one.address.pipe.path)) for one in listeners):
            assert process.poll() is None, (directory / "envoy.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield
    finally:
        process.kill()
        process.wait(PATIENCE)


def takes(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


def connect(path: Path, uid: str, case: Case) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(PATIENCE)
    client.connect(str(path))
    client.sendall(announced(uid, case))
    return client


def announced(uid: str, case: Case) -> bytes:
    """Return the header of the PROXY protocol, version 2."""
    source, wanted = map(ipaddress.ip_address, (case.client, case.server))
    body = source.packed + wanted.packed + struct.pack("!HH", 1024, case.port)
    for kind, text in zip(TLVS, (uid, case.peer, case.server_name), strict=True):
        if text:
            body += struct.pack("!BH", kind, len(text)) + text.encode()
    family = 0x11 if wanted.version == 4 else 0x21
    return b"\r\n\r\n\0\r\nQUIT\n\x21" + bytes([family]) + struct.pack("!H", len(body)) + body


def facts(case: Case) -> Facts:
    return Facts(
        peer=case.peer,
        client=case.client,
        server=case.server,
        port=case.port,
        server_name=case.server_name,
    )


def test_requests_are_judged_as_the_plan_says(directory: Path) -> None:
    wrong: list[object] = []
    for uid, rules in guards().items():
        for case in cases(uid):
            with connect(directory / "requests", uid, case) as client:
                for request in case.requests:
                    lines = [f"{request.method} {request.path} HTTP/1.1", f"host: {request.host}"]
                    lines += (f"{name}: {value}" for name, value in request.headers)
                    client.sendall("\r\n".join([*lines, "content-length: 0", "", ""]).encode())
                    answer = http.client.HTTPResponse(client, method=request.method)
                    answer.begin()
                    body = answer.read()
                    assert answer.status in {403, 503}, (request, answer.status, body)
                    verdict = judge(rules, facts_of(facts(case), request))
                    if answer.status != (503 if verdict.allowed else 403):
                        wrong.append((uid, case, request, verdict, answer.status, body))
    assert not wrong, (len(wrong), wrong[0])


def test_connections_are_judged_as_the_plan_says(directory: Path) -> None:
    wrong: list[object] = []
    for uid, rules in guards().items():
        for case in cases(uid):
            with connect(directory / "bytes", uid, case) as client, client.makefile() as answer:
                taken = answer.read() == TAKEN
            verdict = judge(rules and of_connections(rules), facts(case))
            if taken is not verdict.allowed:
                wrong.append((uid, case._replace(requests=()), verdict, taken))
    assert not wrong, (len(wrong), wrong[0])


def test_policies_by_chance_are_valid_and_decide_in_all_ways() -> None:
    document = Document("", 0, None, {})
    reads = [Read(policy, document) for chosen in sets() for policy in chosen]
    assert [one for one in check_fields(reads) if one.severity == "error"] == []
    whys = {
        judge(rules, facts_of(facts(case), request)).why
        for uid, rules in guards().items()
        for case in cases(uid)
        for request in case.requests
    }
    expected = {"no policy", "denied by", "allowed by", "nothing denies", "nothing allows"}
    assert whys == expected
