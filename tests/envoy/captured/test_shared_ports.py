"""Two services on one port number, each of its own protocol: neither is taken for the other.

Every pair of protocols has a port number of its own, with and without virtual addresses, and all of
them are in one mesh.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest

from tests.envoy.captured.place import Backend, Place

SPOKEN = {
    "http": ("http",),
    "http2": ("http2",),
    "grpc": ("http2",),
    "https": ("tls",),
    "tls": ("tls",),
    "tcp": ("tcp",),
    "mongo": ("tcp",),
    "http-of-nobody": ("http", "http2"),
    "tls-of-nobody": ("tls",),
    "tcp-of-nobody": ("tcp",),
}
"""What clients may speak with a service whose port declares this; ``of-nobody``: nothing. Where the
first bytes tell what is spoken, the client has to say them."""
FIRST_PORT, LAST_PORT = 20000, 20999
BACKENDS = {
    (owner, spoken): Backend(f"{owner} {spoken}", {FIRST_PORT: spoken}, LAST_PORT)
    for owner in ("first", "second", "foreign")
    for spoken in ("http", "tls", "tcp")
}


class Kind(NamedTuple):
    """One of the two."""

    declared: str
    has_address: bool

    @property
    def backend(self) -> str:
        spoken = SPOKEN[self.declared][0]
        return "http" if spoken == "http2" else spoken

    @property
    def protocol(self) -> str:
        return "" if self.declared.endswith("-of-nobody") else self.declared.upper()

    @property
    def is_http(self) -> bool:
        return self.declared in {"http", "http2", "grpc"}

    @property
    def speaks(self) -> tuple[str, ...]:
        server_first = self.has_address and self.declared in {"tcp", "mongo"}
        spoken = SPOKEN[self.declared]
        return spoken if server_first or spoken != ("tcp",) else ("tcp after client",)

    @property
    def is_told_from_http(self) -> bool:
        """By what clients send first, rather than by its address."""
        opaque = self.declared in {"tcp", "mongo"}
        return not self.is_http and not (opaque and self.has_address)


class Service(NamedTuple):
    """One of the two of a port."""

    owner: str
    port: int
    kind: Kind

    @property
    def host(self) -> str:
        return f"{self.owner}.p{self.port}.test"

    @property
    def backend(self) -> Backend:
        return BACKENDS[self.owner, self.kind.backend]

    @property
    def address(self) -> str:
        """Where clients connect to. Without one of its own, they have found the backend's."""
        if not self.kind.has_address:
            return self.backend.address
        number = (self.port - FIRST_PORT) * 2 + (self.owner == "second")
        return f"198.19.{number // 200}.{1 + number % 200}"

    @property
    def manifest(self) -> str:
        more = "location: MESH_INTERNAL\n  resolution: NONE"
        if self.kind.has_address:
            more = f"""addresses: [{self.address}]
  resolution: STATIC
  endpoints: [{{address: {self.backend.address}}}]"""
        return f"""
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {self.host}, namespace: default}}
spec:
  hosts: [{self.host}]
  ports: [{{number: {self.port}, name: x, protocol: "{self.kind.protocol}"}}]
  {more}
"""


KINDS = [Kind(declared, has) for declared in SPOKEN for has in (True, False)]
PAIRS = list(itertools.combinations_with_replacement(KINDS, 2))
PORTS = {
    FIRST_PORT + index: (
        Service("first", FIRST_PORT + index, first),
        Service("second", FIRST_PORT + index, second),
    )
    for index, (first, second) in enumerate(PAIRS)
}
DECLARED = list(itertools.combinations_with_replacement(SPOKEN, 2))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with Place(tmp_path_factory.mktemp("ports"), BACKENDS.values()) as made:
        services = itertools.chain.from_iterable(PORTS.values())
        made.load("".join(service.manifest for service in services), made.workload("client"))
        yield made


def ports_of(first: str, second: str) -> Iterator[tuple[Service, Service]]:
    """One for each way in which these have addresses or have none."""
    for pair in PORTS.values():
        if (pair[0].kind.declared, pair[1].kind.declared) == (first, second):
            yield pair


class Question(NamedTuple):
    spoken: str
    address: str
    port: int
    host: str
    wanted: str


def answers(place: Place, questions: dict[str, Question]) -> dict[str, str]:
    """Who answers each: asked at the same time, for some wait to be looked at."""

    def ask(question: Question) -> str:
        return place.ask(question.spoken, question.address, question.port, question.host)

    with ThreadPoolExecutor(8) as threads:
        return dict(zip(questions, threads.map(ask, questions.values()), strict=True))


@pytest.mark.parametrize(("first", "second"), DECLARED)
def test_each_of_two_services_is_reached_in_its_own_protocol(
    place: Place, first: str, second: str
) -> None:
    questions = {
        f"{spoken} to {service.owner} of {pair[0].kind} and {pair[1].kind}": Question(
            spoken, service.address, service.port, service.host, service.backend.name
        )
        for pair in ports_of(first, second)
        for service in pair
        for spoken in service.kind.speaks
    }
    assert answers(place, questions) == {
        asked: question.wanted for asked, question in questions.items()
    }


def dialects_beside(pair: tuple[Service, Service]) -> Iterator[str]:
    """Where HTTP is declared, everything is, unless it is told from something else there."""
    yield "http"
    is_http = any(service.kind.is_http for service in pair)
    if not is_http or any(service.kind.is_told_from_http for service in pair):
        yield "tls"
    if not is_http:
        yield "tcp after client"


@pytest.mark.parametrize(("first", "second"), DECLARED)
def test_traffic_of_neither_passes_through(place: Place, first: str, second: str) -> None:
    questions = {
        f"{spoken} beside {pair[0].kind} and {pair[1].kind}": Question(
            spoken, foreign.address, pair[0].port, "foreign.test", foreign.name
        )
        for pair in ports_of(first, second)
        for spoken in dialects_beside(pair)
        for foreign in (BACKENDS["foreign", spoken.partition(" ")[0]],)
    }
    assert answers(place, questions) == {
        asked: question.wanted for asked, question in questions.items()
    }
