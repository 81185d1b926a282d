"""Hosts of objects that are not in force are refused, also where their addresses answer."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from meshd.api.read import read_objects
from meshd.config.withheld import closed_object
from tests.envoy.captured.place import Backend, Place

FAR = Backend("far", {80: "http", 443: "tls", 9000: "tcp", 9001: "tcp"})
WEB = Backend("web", {80: "http"})
LONE = Backend("lone", {80: "http", 443: "tls", 9000: "tcp"})
"""No service's, but a WorkloadEntry's."""
OBJECTS = f"""
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: by-address, namespace: apps}}
spec:
  hosts: [far.test]
  addresses: [{FAR.address}]
  resolution: STATIC
  ports:
  - {{number: 80, name: http, protocol: HTTP}}
  - {{number: 443, name: tls, protocol: TLS}}
  - {{number: 9000, name: tcp, protocol: TCP}}
  endpoints: [{{address: {FAR.address}}}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: by-name, namespace: apps}}
spec:
  hosts: [named.test]
  resolution: NONE
  ports: [{{number: 80, name: http, protocol: HTTP}}, {{number: 443, name: tls, protocol: TLS}}]
---
apiVersion: v1
kind: Service
metadata: {{name: headless, namespace: apps}}
spec: {{clusterIP: None, selector: {{app: headless}}, ports: [{{name: tcp, port: 9001}}]}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: routed, namespace: apps}}
spec:
  hosts: [routed.test]
  http: [{{route: [{{destination: {{host: far.test, port: {{number: 80}}}}}}]}}]
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: lone, namespace: others}}
spec: {{address: {LONE.address}}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: web, namespace: others}}
spec:
  hosts: [web.test]
  resolution: STATIC
  ports: [{{number: 80, name: http, protocol: HTTP}}]
  endpoints: [{{address: {WEB.address}}}]
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with Place(tmp_path_factory.mktemp("out"), (FAR, WEB, LONE)) as made:
        yield made


def load(place: Place, *withheld: str) -> None:
    """Load all objects, with replacements of those with these names."""
    named = (read.object for read in read_objects(OBJECTS, "test.yaml"))
    standing = [closed_object(one) for one in named if one.metadata.name in withheld]
    headless = place.workload("headless", "apps")
    place.load(
        OBJECTS,
        place.workload("client", "apps"),
        msgspec.structs.replace(headless, addresses=(FAR.address,), enrolled=False),
        serving=["apps.client"],
        standing=[one for one in standing if one],
    )


def answers(place: Place) -> dict[str, str]:
    ask = place.ask
    return {
        "http": ask("http", FAR.address, 80, "far.test"),
        "tls": ask("tls", FAR.address, 443, "far.test"),
        "tcp": ask("tcp", FAR.address, 9000),
        "named http": ask("http", FAR.address, 80, "named.test"),
        "named tls": ask("tls", WEB.address, 443, "named.test"),
        "headless": ask("tcp", FAR.address, 9001),
        "routed": ask("http", FAR.address, 80, "routed.test"),
    }


def test_objects_out_of_force_are_refused_and_others_are_served(place: Place) -> None:
    load(place)
    before = answers(place)
    assert {name for name, answer in before.items() if answer} >= {
        *("http", "tls", "tcp", "named http", "headless", "routed")
    }
    load(place, "by-address", "by-name", "headless", "routed")
    assert not any(answers(place).values()), answers(place)
    assert place.ask("http", WEB.address, 80, "web.test") == "web"


def test_the_address_of_a_workload_entry_out_of_force_is_refused(place: Place) -> None:
    def lone() -> list[str]:
        ask = place.ask
        return [
            ask("http", LONE.address, 80, "any.test"),
            ask("tls", LONE.address, 443, "any.test"),
            ask("tcp", LONE.address, 9000),
        ]

    load(place)
    assert all(lone()), lone()
    load(place, "lone")
    assert not any(lone()), lone()
    assert place.ask("http", FAR.address, 80, "far.test") == "far"
    assert place.ask("http", WEB.address, 80, "web.test") == "web"
