"""The objects that most tests between a client, a server and a gateway begin with."""

from __future__ import annotations

from typing import Final

ADDRESS: Final = "198.19.77.1"
"""Of ``server.test``."""
HTTP: Final = "{number: 8080, name: http, protocol: HTTP}"
TCP: Final = "{number: 9000, name: tcp, protocol: TCP}"
SNIFFED: Final = "{number: 7000, name: any}"


def server(*ports: str) -> str:
    """Return the ServiceEntry of ``server.test`` with these ports."""
    return f"""
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: server, namespace: servers}}
spec:
  hosts: [server.test]
  addresses: [{ADDRESS}]
  location: MESH_INTERNAL
  resolution: STATIC
  workloadSelector: {{labels: {{app: server}}}}
  ports: [{", ".join(ports)}]
---
"""


def gateway(namespace: str, *ports: str) -> str:
    """Return the Gateway ``edge`` with a server for each of these ports."""
    servers = ", ".join(f'{{port: {port}, hosts: ["*"]}}' for port in ports)
    return f"""
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: edge, namespace: {namespace}}}
spec: {{selector: {{role: edge}}, servers: [{servers}]}}
---
"""


def routes(name: str, namespace: str, host: str, spec: str, *, at_gateway: bool = False) -> str:
    """Return a VirtualService; ``spec``: what it has besides hosts and gateways, in block style."""
    gateways = "\n  gateways: [edge]" if at_gateway else ""
    return f"""
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  hosts: ["{host}"]{gateways}
{spec}
---
"""


def route(port: int) -> str:
    """Return a route to a port of the server, in flow style."""
    return f"route: [{{destination: {{host: server.test, port: {{number: {port}}}}}}}]"


AT_80: Final = "{number: 80, name: http, protocol: HTTP}"
