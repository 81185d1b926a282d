"""Whole results for whole inputs: ``golden/NAME/input.yaml`` and what is made of it beside it.

``MESHD_UPDATE_GOLDEN=1 pytest tests/unit/compile/test_golden.py`` writes the results anew; look at
the difference before you keep it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from google.protobuf import json_format

from meshd.api.base import decode_scalar
from meshd.api.networking import DestinationRule, Gateway, VirtualService
from meshd.compile.envoy.assignments import load_assignment
from meshd.compile.envoy.clusters import cluster
from meshd.compile.envoy.routes import route_table as printed_routes
from meshd.compile.gateway.ports import BoundServer
from meshd.compile.gateway.routes import gateway_route_table
from meshd.compile.http.routes import http_ports, route_table
from meshd.compile.names import gateway_routes
from meshd.compile.plan.tls import PLAIN
from meshd.compile.upstream.assignments import service_assignments
from meshd.compile.upstream.upstreams import service_upstreams
from meshd.compile.visibility.index import MeshIndex
from meshd.compile.visibility.scope import Scope
from meshd.compile.visibility.view import View
from meshd.model.service import ServiceRecord
from meshd.model.snapshot import MeshOptions, Snapshot

GOLDEN = Path(__file__).with_name("golden")
UPDATE = os.environ.get("MESHD_UPDATE_GOLDEN") == "1"


class Case(msgspec.Struct, forbid_unknown_fields=True):
    """An input file."""

    scopes: tuple[Scope, ...]
    services: tuple[ServiceRecord, ...]
    virtual_services: tuple[VirtualService, ...] = ()
    destination_rules: tuple[DestinationRule, ...] = ()
    gateways: tuple[Gateway, ...] = ()
    options: MeshOptions = MeshOptions()
    ports: tuple[int, ...] = ()
    """Those whose client routes are shown; none: all."""

    @property
    def snapshot(self) -> Snapshot:
        return Snapshot(
            options=self.options,
            services={service.host: service for service in self.services},
            virtual_services=self.virtual_services,
            destination_rules=self.destination_rules,
            gateways=self.gateways,
        )

    @property
    def views(self) -> list[View]:
        index = MeshIndex.of(self.snapshot)
        return [View.of(index, scope) for scope in self.scopes]


def _case(name: str) -> Case:
    text = (GOLDEN / name / "input.yaml").read_text()
    return msgspec.convert(yaml.safe_load(text), Case, dec_hook=decode_scalar)


def _plain(message: Any) -> Any:
    return json_format.MessageToDict(message)


def _routes(case: Case) -> list[Any]:
    return [
        _plain(printed_routes(route_table(view, port)))
        for view in case.views
        for port in case.ports or http_ports(view)
    ]


def _clusters(case: Case) -> list[Any]:
    found: dict[str, Any] = {}
    for view in case.views:
        for host, service in view.services.items():
            for upstream in service_upstreams(service, view.rules(host), view.options):
                plain = msgspec.structs.replace(upstream, tls=PLAIN, proxy_protocol="")
                made = _plain(cluster(plain))
                del made["upstreamBindConfig"]
                tls = msgspec.to_builtins(upstream.tls)
                said = {name: value for name, value in tls.items() if value}
                found[str(upstream.name)] = {"cluster": made, "tls": said}
    return list(found.values())


def _endpoints(case: Case) -> list[Any]:
    found: dict[str, Any] = {}
    for view in case.views:
        for host, service in view.services.items():
            for name, assignment in service_assignments(service, view.rules(host)).items():
                found[name] = _plain(load_assignment(assignment))
    return list(found.values())


def _gateway(case: Case) -> list[Any]:
    servers = [
        BoundServer(gateway, server) for gateway in case.gateways for server in gateway.spec.servers
    ]
    name = gateway_routes(80, "ingress")
    return [
        _plain(printed_routes(gateway_route_table(view, name, 80, servers))) for view in case.views
    ]


RESULTS: dict[str, Callable[[Case], list[Any]]] = {
    "routes": _routes,
    "clusters": _clusters,
    "endpoints": _endpoints,
    "gateway": _gateway,
}
SHOWN = {
    "bookinfo": ("routes", "clusters", "endpoints"),
    "policies": ("clusters",),
    "hosts": ("routes", "clusters", "endpoints"),
    "visibility": ("routes", "clusters", "endpoints"),
    "gateway": ("gateway", "routes"),
}


@pytest.mark.parametrize(
    ("name", "result"), [(name, result) for name, shown in SHOWN.items() for result in shown]
)
def test_input_is_compiled_to_what_is_on_record(name: str, result: str) -> None:
    made = json.loads(json.dumps(RESULTS[result](_case(name))))
    path = GOLDEN / name / f"{result}.yaml"
    if UPDATE:
        path.write_text(yaml.safe_dump(made, sort_keys=False, width=100))

    assert made == yaml.safe_load(path.read_text())


@pytest.mark.parametrize("name", SHOWN)
def test_equal_inputs_give_equal_bytes(name: str) -> None:
    def everything() -> list[bytes]:
        case = _case(name)
        index = MeshIndex.of(case.snapshot)
        views = [View.of(index, scope) for scope in case.scopes]
        messages = [
            message
            for view in views
            for message in (
                *(printed_routes(route_table(view, port)) for port in http_ports(view)),
                *(
                    cluster(upstream)
                    for host, service in view.services.items()
                    for upstream in service_upstreams(service, view.rules(host), view.options)
                ),
            )
        ]
        return [message.SerializeToString(deterministic=True) for message in messages]

    assert everything() == everything()
