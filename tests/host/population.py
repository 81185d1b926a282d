"""What runs in the hosts' pods: a server and a client, each of its own account."""

from __future__ import annotations

from typing import Final

APPS: Final = "/srv/tests"
IMAGES: Final = "/srv/images.yaml"
IMAGE_MAP: Final = "app: {command: [sleep, infinity], directory: tests}\n"
_PYTHON: Final = "/usr/bin/python3"


def deployment(name: str, command: str = "[sleep, infinity]", ready: int = 0) -> str:
    probe = f"readinessProbe: {{tcpSocket: {{port: {ready}}}, periodSeconds: 1}}" if ready else ""
    return f"""\
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, namespace: mesh}}
spec:
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      serviceAccountName: {name}
      containers:
        - name: main
          image: app
          command: {command}
          {probe}
"""


POPULATION: Final = f"""\
apiVersion: v1
kind: Namespace
metadata: {{name: mesh, labels: {{istio.io/dataplane-mode: ambient}}}}
---
apiVersion: v1
kind: Service
metadata: {{name: server, namespace: mesh}}
spec:
  selector: {{app: server}}
  ports: [{{name: http, port: 8080}}, {{name: tcp, port: 9000}}]
{deployment("server", f"[{_PYTHON}, /srv/app/server.py]", 8080)}
{deployment("client")}
"""
