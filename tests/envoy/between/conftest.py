"""A client, a server and a gateway in one mesh, with services on the server's ports.

Ports 8080 and 8081 are declared HTTP, and nobody listens at the second; 9000 is declared TCP, 7000
and 7001 are not declared; at 9000 and 7001 the application speaks first. On the way to port 8080
the path ``/guarded`` is refused, in the mesh and by the gateway; the gateway refuses the host
``guarded.test``, too. All objects are in the server's namespace, and neither the client nor the
gateway is.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from meshd.model.snapshot import MeshOptions
from tests.envoy.between import manifests
from tests.envoy.between.application import Application
from tests.envoy.between.manifests import (
    AT_80,
    HTTP,
    SNIFFED,
    TCP,
    gateway,
    route,
    routes,
    server,
)
from tests.envoy.between.mesh import Mesh

ADDRESS = manifests.ADDRESS
NOBODY = "{number: 8081, name: http-nobody, protocol: HTTP}"
OTHER = "{number: 7001, name: other}"
_GUARDED = "{match: [{uri: {prefix: /guarded}}], directResponse: {status: 403}}"
MANIFEST = (
    server(HTTP, NOBODY, TCP, SNIFFED, OTHER)
    + gateway("servers", AT_80)
    + routes("edge", "servers", "*", f"  http: [{_GUARDED}, {{{route(8080)}}}]", at_gateway=True)
    + routes(
        "guarded",
        "servers",
        "guarded.test",
        "  http: [{directResponse: {status: 403}}]",
        at_gateway=True,
    )
    + routes(
        "server",
        "servers",
        "server.test",
        f"""
  http:
  - {{match: [{{port: 8080, uri: {{prefix: /guarded}}}}], directResponse: {{status: 403}}}}
  - {{match: [{{port: 8080}}], {route(8080)}}}
  - {{match: [{{port: 8081}}], {route(8081)}}}
  - {{{route(7000)}}}""",
    )
)


@pytest.fixture(scope="module", params=[False, True], ids=["network", "short way"])
def mesh(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mesh]:
    with Mesh(tmp_path_factory.mktemp("between"), ("client", "server", "gateway")) as made:
        made.load(
            MANIFEST,
            made.workload("client"),
            made.workload("server"),
            made.workload("gateway", role="edge"),
            options=MeshOptions(short_way=request.param),
        )
        for name in ("client", "server"):
            made.capture(name)
        yield made


@pytest.fixture(scope="module")
def application(mesh: Mesh) -> Iterator[Application]:
    made = Application(mesh.hosts["server"].netns, (8080, 7000), (9000, 7001))
    yield made
    made.close()
