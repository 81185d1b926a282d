"""While policies change, no request passes that the former and the later ones deny, and none fails
that both allow. Connections from before a change are judged as all others."""

from __future__ import annotations

import contextlib
import http.client
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from meshd.model.snapshot import MeshOptions
from tests.envoy.between.application import BANNER, Application
from tests.envoy.between.manifests import ADDRESS
from tests.envoy.between.mesh import Mesh, answer
from tests.envoy.between.test_authorization import MANIFEST, REQUEST, policy

NAMES = ("client", "other", "server", "second")
CHANGES = 12
CLIENT, OTHER = (f"cluster.local/ns/clients/sa/{name}" for name in ("client", "other"))
DENYING = (
    policy(f"{{action: DENY, rules: [{{from: [{{source: {{principals: [{CLIENT}]}}}}]}}]}}"),
    policy(f"{{rules: [{{from: [{{source: {{principals: [{OTHER}]}}}}]}}]}}"),
    policy(
        "{action: DENY, rules: [{from: [{source: {serviceAccounts: [clients/client]}}]}]}",
        "istio-system",
    ),
    policy("{rules: [{}]}")
    + policy(
        "{action: DENY, rules: [{from: [{source: {notPrincipals: ['*/sa/other']}}]}]}", name="q"
    ),
    policy("{}", "istio-system", "none")
    + policy(
        "{selector: {matchLabels: {app: server}},"
        " rules: [{from: [{source: {principals: ['*/other']}}]}]}"
    ),
)
"""Each denies everything to the one and allows everything to the other."""
SERVED = (
    "[{number: 8080, name: http, protocol: HTTP}, {number: 9000, name: tcp, protocol: TCP}]",
    "[{number: 8080, name: any}, {number: 9000, name: other}]",
    "[{number: 8080, name: tcp, protocol: TCP}, {number: 9000, name: tcp-9000, protocol: TCP}]",
    "[{number: 8080, name: grpc, protocol: GRPC}, {number: 7000, name: http, protocol: HTTP}]",
    "[{number: 7000, name: any}]",
)
"""What a second Service says of the ports."""


@pytest.fixture(scope="module", params=[False, True], ids=["network", "short way"])
def short_way(request: pytest.FixtureRequest) -> bool:
    return request.param


@pytest.fixture(scope="module")
def mesh(short_way: bool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with Mesh(tmp_path_factory.mktemp("changes"), NAMES) as made:
        load(made, DENYING[0], short_way=short_way)
        for name in NAMES:
            made.capture(name)
        yield made


@pytest.fixture(scope="module", autouse=True)
def application(mesh: Mesh) -> Iterator[Application]:
    made = Application(mesh.hosts["server"].netns, (8080, 7000), (9000, 7001))
    yield made
    made.close()


STRICT = """
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: servers}
spec: {mtls: {mode: STRICT}}
"""
"""In plaintext nobody calls, so that a rule about a caller does not deny it."""


def load(mesh: Mesh, more: str, *, short_way: bool) -> None:
    mesh.load(
        MANIFEST + more,
        *map(mesh.workload, NAMES),
        options=MeshOptions(short_way=short_way),
    )


def second(served: str) -> str:
    return f"""
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: second, namespace: servers}}
spec:
  hosts: [second.test]
  addresses: [198.19.77.2]
  location: MESH_INTERNAL
  resolution: STATIC
  workloadSelector: {{labels: {{app: server}}}}
  ports: {served}
"""


class Asking:
    """Threads that ask again and again, and what was answered."""

    def __init__(self) -> None:
        self.found: Counter[tuple[str, str]] = Counter()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def ask(self, name: str, once: Callable[[], Iterator[str]]) -> None:
        def run() -> None:
            while not self._stop.is_set():
                try:
                    for told in once():
                        self.found[name, told] += 1
                        if self._stop.is_set():
                            return
                except (OSError, ValueError) as error:
                    self.found[name, type(error).__name__] += 1

        self._threads.append(threading.Thread(target=run, daemon=True))

    def __enter__(self) -> Asking:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def requests(mesh: Mesh, caller: str, address: str, port: int, each: int) -> Iterator[str]:
    """``each``: requests on one connection."""
    with mesh.hosts[caller].connect(address, port) as connection:
        for _ in range(each):
            found = answer(connection, REQUEST.format("/"))
            yield str(found.status)
            if found.headers.get("connection") == "close":
                return


def words(mesh: Mesh, caller: str, address: str, port: int) -> Iterator[str]:
    """The caller speaks first: where nothing declares the protocol, its first bytes are waited
    for."""
    said = b""
    with contextlib.suppress(ConnectionError), mesh.hosts[caller].connect(address, port) as one:
        one.sendall(b"\1\2 no HTTP\n")
        said = one.makefile("rb").readline()
    yield "reached" if said == BANNER else "refused"


def everything(mesh: Mesh, caller: str, *addresses: str) -> Asking:
    asking = Asking()
    for address in addresses:
        for each in (1, 10_000):
            asking.ask(
                f"{address}:8080 {each}",
                lambda address=address, each=each: requests(mesh, caller, address, 8080, each),
            )
        for port in (9000,) if address == ADDRESS else (9000, 7001):
            asking.ask(
                f"{address}:{port}",
                lambda address=address, port=port: words(mesh, caller, address, port),
            )
    return asking


def test_permitted_callers_are_always_answered_and_denied_ones_never(
    mesh: Mesh, short_way: bool
) -> None:
    chance = random.Random("changes")  # noqa: S311
    load(mesh, STRICT + DENYING[0], short_way=short_way)
    own = mesh.hosts["server"].address
    with (
        everything(mesh, "client", ADDRESS, own) as client,
        everything(mesh, "other", ADDRESS) as other,
    ):
        for _ in range(CHANGES):
            load(mesh, STRICT + chance.choice(DENYING), short_way=short_way)
    assert {told for _, told in other.found} == {"200", "reached"}, other.found
    assert {told for _, told in client.found} == {"403", "refused"}, client.found


def test_denied_callers_do_not_pass_while_protocols_of_ports_change(
    mesh: Mesh, short_way: bool
) -> None:
    chance = random.Random("protocols")  # noqa: S311
    load(mesh, STRICT + DENYING[0], short_way=short_way)
    own = mesh.hosts["server"].address
    with everything(mesh, "client", ADDRESS, own) as client:
        for _ in range(CHANGES):
            more = second(chance.choice(SERVED)) if chance.random() < 0.8 else ""
            load(mesh, STRICT + chance.choice(DENYING) + more, short_way=short_way)
    assert not {told for _, told in client.found} & {"200", "reached"}, client.found


@pytest.mark.parametrize("served", ["tcp, protocol: TCP", "any", "grpc, protocol: GRPC", ""])
def test_a_connection_from_before_a_ports_protocol_changed_is_judged(
    mesh: Mesh, short_way: bool, served: str
) -> None:
    """Another workload has the port as it was, so that nothing closes the connection."""
    beside = """
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: beside, namespace: servers}
spec:
  hosts: [beside.test]
  addresses: [198.19.77.3]
  location: MESH_INTERNAL
  resolution: STATIC
  workloadSelector: {labels: {app: second}}
  ports: [{number: 8080, name: http, protocol: HTTP}]
"""
    denied = policy("{action: DENY, rules: [{to: [{operation: {paths: [/denied]}}]}]}")
    own = mesh.hosts["server"].address
    load(mesh, denied + beside, short_way=short_way)
    with mesh.outside.connect(own, 8080) as client:
        assert answer(client, REQUEST.format("/")).status == 200
        ports = f"[{{number: 8080, name: {served}}}]" if served else "[{number: 1, name: http}]"
        other = second(ports).replace("second", "server")
        mesh.load(
            other + denied + beside,
            *map(mesh.workload, NAMES),
            options=MeshOptions(short_way=short_way),
        )
        with contextlib.suppress(ConnectionError, http.client.BadStatusLine):
            assert answer(client, REQUEST.format("/denied")).status in {403, 421}


def test_a_connection_from_before_the_first_policy_is_judged(mesh: Mesh, short_way: bool) -> None:
    """Also one whose requests went straight to the application."""
    denied = policy("{action: DENY, rules: [{to: [{operation: {paths: [/denied]}}]}]}")
    load(mesh, "", short_way=short_way)
    with mesh.hosts["client"].connect(ADDRESS, 8080) as client:
        for more, expected in (("", 200), (denied, 403), ("", 200), (denied, 403)):
            load(mesh, more, short_way=short_way)
            assert answer(client, REQUEST.format("/denied")).status == expected
