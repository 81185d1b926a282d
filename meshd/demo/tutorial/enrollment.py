"""Step (a): workloads join the mesh by their namespace's label, and Bookinfo runs."""

from __future__ import annotations

from typing import Final

from meshd.base.errors import NotReadyError
from meshd.demo.tutorial.tutorial import Tutorial

SAMPLE: Final = "meshd/demo/bookinfo"
_PARTS: Final = ("bookinfo", "curl", "fortio", "httpbin", "ingressgateway", "legacy")
_GATEWAY_PORT: Final = 8080


def start(tutorial: Tutorial, network: str) -> None:
    """Raises NotReadyError when there is nothing to go on with."""
    tutorial.done(f"cat {SAMPLE}/manifests/namespace.yaml")
    tutorial.done(f"meshctl apply -f {SAMPLE}/manifests/namespace.yaml")
    files = " ".join(f"-f {SAMPLE}/manifests/{part}.yaml" for part in _PARTS)
    tutorial.done(
        f"meshctl testbed up --cidr {network} --images {SAMPLE}/images.yaml {files}", patience=90
    )
    answer = tutorial.run("meshctl status -n default")
    if not tutorial.expect(
        "every workload of the namespace is captured, certified, synced and proven",
        answer.status == 0,
    ):
        raise NotReadyError("Bookinfo is not in the mesh")
    tutorial.run("meshctl testbed ps -n legacy")
    tutorial.expect(
        "the namespace legacy is labelled otherwise, and stays outside",
        not tutorial.pod("legacy", "curl")["enrolled"],
    )
    answer = tutorial.run(
        "meshctl testbed exec deploy/curl -- curl -sS http://productpage:9080/productpage"
        " | grep -o '<title>.*</title>'"
    )
    tutorial.expect(
        "the product page answers a pod of the mesh that asks for it by its short name",
        answer.output.strip() == "<title>Simple Bookstore App</title>",
    )
    gateway = tutorial.pod("istio-system", "istio-ingressgateway")
    tutorial.export("GATEWAY", f"{gateway['address']}:{_GATEWAY_PORT}")
