"""What explain says of a request is what Envoy does, whatever is asked: the route, the share that
each destination has, what an upstream receives, where copies go, which faults are injected, what
pages of other origins are answered, and where a redirect leads."""

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
from envoy.extensions.access_loggers.file.v3 import file_pb2
from envoy.extensions.bootstrap.internal_listener.v3 import internal_listener_pb2
from envoy.extensions.filters.http.lua.v3 import lua_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as manager_pb2,
)

from meshd.compile.envoy.clusters import cluster as printed_cluster
from meshd.compile.envoy.http_connections import base_manager, filters
from meshd.compile.envoy.listeners import listener as printed_listener
from meshd.compile.envoy.routes import route_table as printed_routes
from meshd.compile.envoy.wellknown import (
    HOST_STATE,
    LOCAL_ADDRESS_STATE,
    ONCE,
    SECRET_STATE,
    UNHASHED,
    extension,
    packed,
    set_filter_state,
    state_value,
)
from meshd.compile.explain.answers import Answer, aborted, answer, cross_origin
from meshd.compile.explain.rewriting import copied, forwarded, location
from meshd.compile.explain.route_choice import choose_host, choose_route, normalized
from meshd.compile.http.mirroring import mirror_listener, mirror_upstream
from meshd.compile.plan.origin import Origin
from meshd.compile.plan.routes import (
    DirectResponse,
    Fault,
    Forward,
    Redirect,
    Route,
    RouteTable,
    Target,
)
from meshd.matching.request import Request
from meshd.model.snapshot import MeshOptions
from tests.envoy.routes.tables import NAMES, Case, Written, cases, request
from tests.waiting import eventually

ENVOY: Final = Path(envoy.__path__[0]) / "_bin" / "envoy"
TABLES: Final = int(os.environ.get("MESHD_TEST_ROUTE_TABLES", "500"))
REQUESTS: Final = 20
SEED: Final = int(os.environ.get("MESHD_TEST_ROUTE_SEED", "1"))
NUMBER: Final = "x-number"
"""The header that says which request it is."""
ECHO: Final = """
function envoy_on_request(handle)
  local headers = handle:headers()
  local lines = ""
  for _, wanted in ipairs({NAMES}) do
    lines = lines .. " " .. wanted .. "="
    for name, value in pairs(headers) do
      if name == wanted and value ~= "" then lines = lines .. "," .. value end
    end
  end
  local place = headers:get(":authority") .. headers:get(":path")
  handle:respond({[":status"] = "200", ["x-received"] = place .. lines}, "")
end
""".replace("NAMES", ",".join(f'"{name.lower()}"' for name in NAMES))
CHOICE: Final = "x-random"
"""The header in place of Envoy's own random number, from which the share of a destination
follows."""


class Outcome(NamedTuple):
    """What a client and an upstream see."""

    answer: Answer
    route: str = ""
    upstream: str = ""
    received: str = ""
    """Host, path and headers."""
    location: str = ""
    body: str = ""
    cors: frozenset[tuple[str, str]] = frozenset()
    faults: str = ""
    """``DI`` for a delay, ``FI`` for an abort."""


class Copy(NamedTuple):
    """A copy of a request, as it arrives."""

    upstream: str
    place: str


class Told(NamedTuple):
    """What may become of a request."""

    outcomes: list[Outcome]
    certain: list[Copy] = []
    """Copies of a request that is forwarded."""
    possible: list[Copy] = []


def told(case: Case, asked: Request, choice: int) -> Told:
    """Return what explain says."""
    host = choose_host(case.table, asked)
    if host and host.only_tls and case.scheme == "http":
        place = f"https://{normalized(asked).host}{normalized(asked).path}"
        return Told([Outcome(answer(301, asked), location=place)])
    taken = choose_route(host, asked) if host else None
    if taken is None:
        return Told([Outcome(answer(404, asked))])
    seen = normalized(asked)
    origin = cross_origin(taken, seen)
    cors = frozenset(origin.headers(taken.cors).items() if origin and taken.cors else ())
    if origin and origin.answered:
        return Told([Outcome(Answer(200), cors=cors)])
    usual, copies = acted(taken, seen, choice)
    outcomes = [one._replace(cors=cors) for one in injected(taken, usual, seen)]
    certain = [copy for percent, copy in copies if percent == 100]
    return Told(outcomes, certain, [copy for percent, copy in copies if 0 < percent < 100])


def acted(taken: Route, seen: Request, choice: int) -> tuple[Outcome, list[tuple[float, Copy]]]:
    """Return what a route does with a request that no fault befalls, with copies and their
    percentages."""
    action, path = taken.action, taken.match.path
    match action:
        case Forward():
            target = share(action.targets, choice)
            sent = forwarded(taken, action, target, seen)
            copies = [(copy.percent, copy, copied(sent, copy)) for copy in action.mirrors]
            received = sent.host + sent.path + lines_of(sent)
            outcome = Outcome(Answer(200), taken.name, target.upstream, received)
            return outcome, [
                (percent, Copy(copy.upstream, arriving.host + arriving.path))
                for percent, copy, arriving in copies
            ]
        case Redirect():
            place = location(action, path, seen)
            return Outcome(answer(action.status, seen), taken.name, location=place), []
        case DirectResponse():
            given = answer(action.status, seen)
            body = "" if given.grpc_status is not None else str(action.body or "")
            return Outcome(given, taken.name, body=body), []


def injected(taken: Route, usual: Outcome, seen: Request) -> list[Outcome]:
    """Return what may become of a request with the faults of its route."""
    outcomes, fault = [usual], taken.fault or Fault()
    if abort := fault.abort:
        given = aborted(abort, seen)
        body = "" if given.grpc_status is not None else "fault filter abort"
        abort_outcome = Outcome(given, taken.name, body=body, faults="FI")
        outcomes = by_chance(abort.percent, outcomes, [abort_outcome])
    if delay := fault.delay:
        late = [one._replace(faults=",".join(filter(None, ("DI", one.faults)))) for one in outcomes]
        outcomes = by_chance(delay.percent, outcomes, late)
    if isinstance(taken.action, Forward):
        return outcomes
    # Such a route has no headers for an answer by a filter.
    return [one._replace(route="", faults="") if "FI" in one.faults else one for one in outcomes]


def by_chance(percent: float, without: list[Outcome], with_it: list[Outcome]) -> list[Outcome]:
    kept = without if percent < 100 else []
    return [*kept, *with_it] if percent > 0 else without


def lines_of(request: Request) -> str:
    """Return the headers that routes change, as the echo writes them."""
    values = {name.lower(): "" for name in NAMES}
    for name, value in request.headers:
        if value and name.lower() in values:
            values[name.lower()] += f",{value}"
    return "".join(f" {name}={value}" for name, value in values.items())


def share(targets: tuple[Target, ...], choice: int) -> Target:
    """Return the target in whose part of all weights a number is."""
    rest = choice % sum(target.weight for target in targets)
    for target in targets:
        if rest < target.weight:
            return target
        rest -= target.weight
    raise AssertionError(targets)


def answered(
    connection: http.client.HTTPConnection, asked: Request, choice: int, number: int
) -> Outcome:
    """Return what Envoy does."""
    connection.putrequest(asked.method, asked.path, skip_host=True, skip_accept_encoding=True)
    own = (("host", asked.host), ("content-length", "0"), (CHOICE, str(choice)))
    for name, value in (*own, (NUMBER, str(number)), *asked.headers):
        connection.putheader(name, value)
    connection.endheaders()
    got = connection.getresponse()
    received = got.getheader("x-received", "")
    grpc_status = got.getheader("grpc-status") if not received else None
    return Outcome(
        Answer(got.status, None if grpc_status is None else int(grpc_status)),
        got.getheader("x-route", "").removeprefix("-"),
        got.getheader("x-upstream", "") if received else "",
        received,
        got.getheader("location", ""),
        got.read().decode(),
        frozenset(
            (name, value) for name, value in got.getheaders() if name.startswith("access-control")
        ),
        got.getheader("x-flags", "").removeprefix("-"),
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
    return with_headers(
        made, route="%ROUTE_NAME%", upstream="%UPSTREAM_CLUSTER_RAW%", flags="%RESPONSE_FLAGS%"
    )


def echo(name: str, directory: Path) -> Any:
    """Return the manager of an upstream, which answers and logs what it is sent."""
    lua = lua_pb2.Lua(default_source_code={"inline_string": ECHO})
    made = manager_pb2.HttpConnectionManager(
        stat_prefix="echo",
        route_config=route_pb2.RouteConfiguration(name="echo"),
        http_filters=[
            {"name": "lua", "typed_config": packed(lua)},
            {"name": "router", "typed_config": packed(router_pb2.Router())},
        ],
    )
    line = f"{name} %REQ({NUMBER})% %REQ(:AUTHORITY)%%REQ(:PATH)%\n"
    log = file_pb2.FileAccessLog(path=str(directory / "copies"))
    log.log_format.text_format_source.inline_string = line
    made.access_log.add(name="envoy.access_loggers.file", typed_config=packed(log))
    return made


def listener(path: Path, manager: Any, *states: Any) -> listener_pb2.Listener:
    network = listener_components_pb2.Filter(name="http", typed_config=packed(manager))
    filters = [set_filter_state(*states)] if states else []
    return listener_pb2.Listener(
        name=path.name,
        address={"pipe": {"path": str(path)}},
        filter_chains=[listener_components_pb2.FilterChain(filters=[*filters, network])],
    )


def front(path: Path, case: Case) -> listener_pb2.Listener:
    made = manager_pb2.HttpConnectionManager()
    made.CopyFrom(base_manager("off"))
    if case.is_gateways:
        made.use_remote_address.value = True
        made.scheme_header_transformation.scheme_to_overwrite = case.scheme
    made.stat_prefix = path.name
    made.route_config.CopyFrom(planned_routes(case.table))
    made.http_filters.extend(filters(applies_routes=True))
    states = [
        state_value(SECRET_STATE, "spiffe://cluster.local/ns/default/sa/client", ONCE),
        state_value(HOST_STATE, "true", ONCE, factory=UNHASHED),
    ]
    if case.destination:
        states.append(state_value(LOCAL_ADDRESS_STATE, case.destination, ONCE, LOCAL_ADDRESS_STATE))
    return listener(path, made, *states)


def routes_of(planned: RouteTable) -> Iterator[Route]:
    for host in planned.hosts:
        yield from host.routes
        if host.addresses:
            yield from (route for _, route in host.addresses.routes)


def upstreams(made: list[Case]) -> set[str]:
    return {
        to.upstream
        for case in made
        for route in routes_of(case.table)
        if isinstance(route.action, Forward)
        for to in (*route.action.targets, *route.action.mirrors)
    }


def cluster(name: str, echo: Path) -> cluster_pb2.Cluster:
    endpoint = {"endpoint": {"address": {"pipe": {"path": str(echo)}}}}
    load = {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]}
    return cluster_pb2.Cluster(name=name, type=cluster_pb2.Cluster.STATIC, load_assignment=load)


def bootstrap(directory: Path, made: list[Case]) -> bootstrap_pb2.Bootstrap:
    names = sorted(upstreams(made))
    places = {name: directory / f"echo-{number}" for number, name in enumerate(names)}
    fronts = (front(directory / str(number), case) for number, case in enumerate(made))
    inside = internal_listener_pb2.InternalListener()
    return bootstrap_pb2.Bootstrap(
        bootstrap_extensions=[extension("envoy.bootstrap.internal_listener", inside)],
        static_resources=bootstrap_pb2.Bootstrap.StaticResources(
            listeners=[
                *(listener(path, echo(name, directory)) for name, path in places.items()),
                printed_listener(mirror_listener(MeshOptions())),
                *fronts,
            ],
            clusters=[
                *(cluster(name, path) for name, path in places.items()),
                printed_cluster(mirror_upstream()),
            ],
        ),
    )


@pytest.fixture(scope="module")
def made() -> list[Case]:
    return list(cases(random.Random(SEED), TABLES))  # noqa: S311


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory, made: list[Case]) -> Iterator[Path]:
    """Run an Envoy that listens for each table's requests in a directory."""
    directory = tmp_path_factory.mktemp("routes")
    config, log = directory / "envoy.pb", directory / "log"
    config.write_bytes(bootstrap(directory, made).SerializeToString())
    command = (str(ENVOY), "--config-path", str(config), "--disable-hot-restart")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                *(*command, "--concurrency", "1", "--log-level", "warning"),
                *("--file-flush-interval-msec", "20"),
            ],
            stderr=output,
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
    certain, possible = set[tuple[int, Copy, int]](), set[tuple[int, Copy, int]]()
    for place, case in enumerate(made):
        connection = connected(directory / str(place))
        for number in range(place * REQUESTS, (place + 1) * REQUESTS):
            asked, choice = request(chance, case), chance.randrange(200)
            expected = told(case, asked, choice)
            found = answered(connection, asked, choice, number)
            if found not in expected.outcomes:
                written = yaml.safe_dump_all(case.written)
                wrong.append(f"{asked}: told {expected.outcomes}, but {found}\n{written}")
            elif found.received:
                usual = Copy(found.upstream, found.received.partition(" ")[0])
                certain |= each_once(number, [usual, *expected.certain])
                possible |= each_once(number, [usual, *expected.certain, *expected.possible])
        connection.close()
    assert not wrong, f"{len(wrong)} of {TABLES * REQUESTS} differ, such as {wrong[0]}"
    eventually(lambda: certain <= logged(directory) <= possible, "copies arrive")


def each_once(number: int, copies: list[Copy]) -> set[tuple[int, Copy, int]]:
    """Return what arrives of a request, the same ones counted."""
    return {(number, copy, copies[:place].count(copy)) for place, copy in enumerate(copies)}


def logged(directory: Path) -> set[tuple[int, Copy, int]]:
    """Return what has arrived at upstreams."""
    arrived: dict[int, list[Copy]] = {}
    whole, _, _ = (directory / "copies").read_text().rpartition("\n")
    for line in whole.splitlines():
        upstream, number, place = line.split(" ", 2)
        arrived.setdefault(int(number), []).append(Copy(upstream, place))
    return set[tuple[int, Copy, int]]().union(*(each_once(*one) for one in arrived.items()))


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
    for part in ("fault", "cors", "changes"):
        assert any(getattr(route, part) for _, route in found)
    assert any(isinstance(route.action, Forward) and route.action.mirrors for _, route in found)
    for is_gateways in (False, True):
        assert any(route.delegate for case, route in found if case.is_gateways == is_gateways)
    assert {case.scheme for case in made} == {"http", "https"}
    assert any(host.only_tls for case in made for host in case.table.hosts)
    assert any(host.addresses for case in made for host in case.table.hosts)
