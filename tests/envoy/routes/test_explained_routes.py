"""What explain says of a request is what Envoy does, whatever is asked: the route, the share that
each destination has, what an upstream receives, and where a redirect leads."""

from __future__ import annotations

import http.client
import os
import random
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import envoy
import pytest
import yaml
from envoy.config.bootstrap.v3 import bootstrap_pb2
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.listener.v3 import listener_components_pb2, listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as manager_pb2,
)
from google.protobuf import json_format

from meshd.compile.envoy.http_connections import base_manager
from meshd.compile.envoy.routes import route_table as printed_routes
from meshd.compile.envoy.wellknown import (
    LOCAL_ADDRESS_STATE,
    ONCE,
    packed,
    set_filter_state,
    state_value,
)
from meshd.compile.explain.rewriting import forwarded, location
from meshd.compile.explain.route_choice import choose_host, choose_route, normalized
from meshd.compile.plan.origin import Origin
from meshd.compile.plan.routes import DirectResponse, Forward, Redirect, Route, RouteTable, Target
from meshd.matching.request import Request
from tests.envoy.routes.tables import Case, Written, cases, request
from tests.waiting import eventually

ENVOY: Final = Path(envoy.__path__[0]) / "_bin" / "envoy"
TABLES: Final = int(os.environ.get("MESHD_TEST_ROUTE_TABLES", "500"))
REQUESTS: Final = 20
SEED: Final = int(os.environ.get("MESHD_TEST_ROUTE_SEED", "1"))
CHOICE: Final = "x-random"
"""The header in place of Envoy's own random number, from which the share of a destination
follows."""


class Outcome(NamedTuple):
    """What a client and an upstream see."""

    status: int
    route: str = ""
    upstream: str = ""
    received: str = ""
    """Host and path."""
    location: str = ""
    body: str = ""


def told(case: Case, asked: Request, choice: int) -> Outcome:
    """Return what explain says."""
    host = choose_host(case.table, asked)
    if host and host.only_tls and case.scheme == "http":
        return Outcome(301, location=f"https://{normalized(asked).host}{normalized(asked).path}")
    taken = choose_route(host, asked) if host else None
    if taken is None:
        return Outcome(404)
    action, path, seen = taken.action, taken.match.path, normalized(asked)
    match action:
        case Forward():
            target = share(action.targets, choice)
            sent = forwarded(action, target, path, seen)
            return Outcome(200, taken.name, target.upstream, sent.host + sent.path)
        case Redirect():
            return Outcome(action.status, taken.name, location=location(action, path, seen))
        case DirectResponse():
            return Outcome(action.status, taken.name, body=str(action.body or ""))


def share(targets: tuple[Target, ...], choice: int) -> Target:
    """Return the target in whose part of all weights a number is."""
    rest = choice % sum(target.weight for target in targets)
    for target in targets:
        if rest < target.weight:
            return target
        rest -= target.weight
    raise AssertionError(targets)


def answered(connection: http.client.HTTPConnection, asked: Request, choice: int) -> Outcome:
    """Return what Envoy does."""
    connection.putrequest(asked.method, asked.path, skip_host=True, skip_accept_encoding=True)
    headers = (("host", asked.host), ("content-length", "0"), (CHOICE, str(choice)), *asked.headers)
    for name, value in headers:
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    return Outcome(
        answer.status,
        answer.getheader("x-route", "").removeprefix("-"),
        answer.getheader("x-upstream", "").removeprefix("-"),
        answer.getheader("x-received", ""),
        answer.getheader("location", ""),
        answer.read().decode(),
    )


def is_at(place: Origin, written: list[Written], name: str) -> bool:
    """Return whether the field at a place is the one of which a route has the name."""
    key = (place.key.kind, place.key.namespace, place.key.name)
    found: Any = next(
        one
        for one in written
        if (one["kind"], one["metadata"]["namespace"], one["metadata"]["name"]) == key
    )
    for part in place.field.replace("]", "").replace("[", ".").split("."):
        found = found[int(part)] if part.isdecimal() else found[part]
    return str(found["name"]) in name


def with_headers(made: Any, **headers: str) -> Any:
    for name, value in headers.items():
        made.response_headers_to_add.add(header={"key": f"x-{name}", "value": value})
    return made


def planned_routes(planned: RouteTable) -> Any:
    """Return a table of which answers say what was chosen, and requests choose."""
    made = printed_routes(planned)
    for host in made.virtual_hosts:
        for route in host.routes:
            if route.route.HasField("weighted_clusters"):
                route.route.weighted_clusters.header_name = CHOICE
    return with_headers(made, route="%ROUTE_NAME%", upstream="%UPSTREAM_CLUSTER_RAW%")


def echo_routes() -> Any:
    made = route_pb2.RouteConfiguration(name="echo")
    host = made.virtual_hosts.add(name="echo", domains=["*"])
    host.routes.add(match={"prefix": ""}, direct_response={"status": 200})
    return with_headers(made, received="%REQ(:AUTHORITY)%%REQ(:PATH)%")


def listener(path: Path, manager: Any, destination: str = "") -> listener_pb2.Listener:
    state = state_value(LOCAL_ADDRESS_STATE, destination, ONCE, LOCAL_ADDRESS_STATE)
    filters = [set_filter_state(state)] if destination else []
    network = listener_components_pb2.Filter(name="http", typed_config=packed(manager))
    return listener_pb2.Listener(
        name=path.name,
        address={"pipe": {"path": str(path)}},
        filter_chains=[listener_components_pb2.FilterChain(filters=[*filters, network])],
    )


def manager(name: str, routes: Any) -> manager_pb2.HttpConnectionManager:
    return manager_pb2.HttpConnectionManager(
        stat_prefix=name,
        route_config=routes,
        http_filters=[{"name": "router", "typed_config": packed(router_pb2.Router())}],
    )


def front(path: Path, case: Case) -> listener_pb2.Listener:
    made = manager_pb2.HttpConnectionManager()
    made.CopyFrom(base_manager("off"))
    if case.is_gateways:
        made.use_remote_address.value = True
        made.scheme_header_transformation.scheme_to_overwrite = case.scheme
    made.MergeFrom(manager(path.name, planned_routes(case.table)))
    return listener(path, made, case.destination)


def routes_of(planned: RouteTable) -> Iterator[Route]:
    for host in planned.hosts:
        yield from host.routes
        if host.addresses:
            yield from (route for _, route in host.addresses.routes)


def upstreams(made: list[Case]) -> set[str]:
    return {
        target.upstream
        for case in made
        for route in routes_of(case.table)
        if isinstance(route.action, Forward)
        for target in route.action.targets
    }


def cluster(name: str, echo: Path) -> cluster_pb2.Cluster:
    endpoint = {"endpoint": {"address": {"pipe": {"path": str(echo)}}}}
    load = {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]}
    return cluster_pb2.Cluster(name=name, type=cluster_pb2.Cluster.STATIC, load_assignment=load)


def bootstrap(directory: Path, made: list[Case]) -> bootstrap_pb2.Bootstrap:
    echo = directory / "echo"
    fronts = (front(directory / str(number), case) for number, case in enumerate(made))
    return bootstrap_pb2.Bootstrap(
        static_resources=bootstrap_pb2.Bootstrap.StaticResources(
            listeners=[listener(echo, manager("echo", echo_routes())), *fronts],
            clusters=[cluster(name, echo) for name in sorted(upstreams(made))],
        )
    )


@pytest.fixture(scope="module")
def made() -> list[Case]:
    return list(cases(random.Random(SEED), TABLES))  # noqa: S311


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory, made: list[Case]) -> Iterator[Path]:
    """Run an Envoy that listens for each table's requests in a directory."""
    directory = tmp_path_factory.mktemp("routes")
    config, log = directory / "envoy.json", directory / "log"
    config.write_text(json_format.MessageToJson(bootstrap(directory, made)))
    command = (str(ENVOY), "--config-path", str(config), "--disable-hot-restart")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--concurrency", "1", "--log-level", "warning"], stderr=output
        )
    last = directory / str(TABLES - 1)
    try:
        eventually(lambda: last.exists() or process.poll() is not None, "Envoy listens")
        assert process.poll() is None, log.read_text()
        yield directory
    finally:
        process.kill()
        process.wait(60)


def connected(path: Path) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    eventually(lambda: connection.sock.connect_ex(str(path)) == 0, f"{path} accepts")
    return connection


def test_explain_and_envoy_do_the_same_with_a_request(directory: Path, made: list[Case]) -> None:
    chance = random.Random(SEED)  # noqa: S311
    wrong: list[str] = []
    for number, case in enumerate(made):
        connection = connected(directory / str(number))
        for _ in range(REQUESTS):
            asked, choice = request(chance, case), chance.randrange(200)
            expected, found = told(case, asked, choice), answered(connection, asked, choice)
            if expected != found:
                written = yaml.safe_dump_all(case.written)
                wrong.append(f"{asked}: told {expected}, but {found}\n{written}")
        connection.close()
    assert not wrong, f"{len(wrong)} of {TABLES * REQUESTS} differ, such as {wrong[0]}"


def test_the_place_of_each_route_is_that_of_its_own_field(made: list[Case]) -> None:
    for case in made:
        for route in routes_of(case.table):
            if route.origin:
                place = route.delegate or route.origin
                assert is_at(place, case.written, route.name), (route, case.written)


def test_the_tables_have_routes_of_all_kinds(made: list[Case]) -> None:
    found = [(case, route) for case in made for route in routes_of(case.table)]
    for kind in (Forward, Redirect, DirectResponse):
        assert any(isinstance(route.action, kind) for _, route in found)
    for is_gateways in (False, True):
        assert any(route.delegate for case, route in found if case.is_gateways == is_gateways)
    assert {case.scheme for case in made} == {"http", "https"}
    assert any(host.only_tls for case in made for host in case.table.hosts)
    assert any(host.addresses for case in made for host in case.table.hosts)
