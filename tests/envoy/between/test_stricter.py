"""What a new policy denies does not pass on connections of the short way that are open, and what
two policies deny does not pass while one follows the other."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from meshd.model.snapshot import MeshOptions
from tests.envoy.between.application import BANNER, Application
from tests.envoy.between.conftest import MANIFEST
from tests.envoy.between.manifests import ADDRESS
from tests.envoy.between.mesh import Mesh, answer
from tests.envoy.captured.place import eventually

_numbers = itertools.count()
CALLERS, PORTS = ("client", "other"), (8080, 7000)
NAMES = (*CALLERS, "server")
REQUEST = "GET /{} HTTP/1.1\nhost: server.test"


def policy(spec: str) -> str:
    return f"""
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: p, namespace: servers}}
spec: {spec}
"""


def mutual_tls(mode: str) -> str:
    return f"""
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: default, namespace: servers}}
spec: {{mtls: {{mode: {mode}}}}}
"""


DENYING = policy("{action: DENY, rules: [{to: [{operation: {paths: [/secret/*]}}]}]}")
ALLOWING = policy("{rules: [{to: [{operation: {notPaths: [/secret/*]}}]}]}")


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with Mesh(tmp_path_factory.mktemp("stricter"), NAMES) as made:
        load(made)
        for name in NAMES:
            made.capture(name)
        yield made


@pytest.fixture(scope="module")
def application(mesh: Mesh) -> Iterator[Application]:
    made = Application(mesh.hosts["server"].netns, PORTS, (9000,))
    yield made
    made.close()


def load(mesh: Mesh, more: str = "") -> None:
    workloads = (mesh.workload(name) for name in NAMES)
    mesh.load(MANIFEST + more, *workloads, options=MeshOptions(short_way=True))


class Asking:
    """Clients that ask one after another, on a connection each for as long as it is open.

    Requests are numbered: ``/secret/NUMBER``, and ``/open/NUMBER``.
    """

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._numbers = _numbers
        self._done = threading.Event()
        self._threads = ThreadPoolExecutor()
        self.statuses: dict[str, int] = {}
        """By path."""
        self._asking = [
            self._threads.submit(self._ask, name, port) for name in CALLERS for port in PORTS
        ]

    def _ask(self, name: str, port: int) -> None:
        while not self._done.is_set():
            # A listener that is replaced has its connections closed.
            with (
                contextlib.suppress(ConnectionError),
                self._mesh.hosts[name].connect(ADDRESS, port) as connection,
            ):
                while not self._done.is_set():
                    for what in ("secret", "open"):
                        path = f"{what}/{next(self._numbers)}"
                        found = answer(connection, REQUEST.format(path))
                        self.statuses[f"/{path}"] = found.status

    def count(self) -> int:
        """Each number up to this one has been asked for."""
        return next(self._numbers)

    def go_on(self) -> None:
        before = len(self.statuses)
        eventually(lambda: len(self.statuses) > before + 40, "requests go on")

    def close(self) -> None:
        self._done.set()
        for one in self._asking:
            one.result()
        self._threads.shutdown()


@pytest.fixture
def asking(mesh: Mesh, application: Application) -> Iterator[Asking]:
    load(mesh)
    made = Asking(mesh)
    try:
        made.go_on()
        yield made
    finally:
        made.close()


def number(path: str) -> int:
    return int(path.rpartition("/")[2])


def since(asking: Asking, first: int, what: str) -> set[int]:
    """The statuses of requests from this number on."""
    return {
        status
        for path, status in list(asking.statuses.items())
        if path.startswith(f"/{what}/") and number(path) >= first
    }


@pytest.mark.parametrize("denial", [DENYING, ALLOWING, policy("{}")])
def test_a_new_denial_applies_to_open_connections(
    mesh: Mesh, application: Application, asking: Asking, denial: str
) -> None:
    load(mesh, denial)
    first = asking.count()
    asking.go_on()
    asking.close()
    assert since(asking, first, "secret") == {403}
    assert since(asking, first, "open") == ({403} if denial == policy("{}") else {200})
    arrived = [head.split(" ")[1] for head in application.heads]
    assert not [path for path in arrived if "/secret/" in path and number(path) >= first]


def test_requests_that_both_policies_deny_do_not_pass_during_the_change(
    mesh: Mesh, application: Application, asking: Asking
) -> None:
    load(mesh, DENYING)
    first = asking.count()
    for more in (ALLOWING, DENYING + mutual_tls("STRICT"), ALLOWING + mutual_tls("DISABLE")) * 2:
        load(mesh, more)
        asking.go_on()
    asking.close()
    assert since(asking, first, "secret") == {403}
    arrived = [head.split(" ")[1] for head in application.heads]
    assert not [path for path in arrived if "/secret/" in path and number(path) >= first]
    assert since(asking, first, "open") == {200}


def test_a_stranger_is_refused_under_strict_by_whatever_way_the_others_go(
    mesh: Mesh, application: Application, asking: Asking
) -> None:
    before = len(application.peers)
    for more in ("", DENYING, "", ALLOWING, ""):
        load(mesh, mutual_tls("STRICT") + more)
        with contextlib.suppress(ConnectionError, http.client.BadStatusLine):
            mesh.outside.ask(mesh.hosts["server"].address, 8080, REQUEST.format("stranger"))
        asking.go_on()
    assert not application.requests("/stranger")
    assert mesh.outside.address not in application.peers[before:]


def test_a_new_connection_is_refused_by_a_policy_that_finds_others_open(
    mesh: Mesh, application: Application
) -> None:
    load(mesh)
    with mesh.hosts["client"].connect(ADDRESS, 9000) as earlier:
        assert earlier.makefile("rb").readline() == BANNER
        load(mesh, policy("{}"))
        before = len(application.peers)
        with (
            contextlib.suppress(ConnectionError),
            mesh.hosts["client"].connect(ADDRESS, 9000) as later,
        ):
            assert later.recv(100) == b""
        assert len(application.peers) == before
