from __future__ import annotations

import pytest

from meshd.registry.membership import decide

AMBIENT = {"istio.io/dataplane-mode": "ambient"}
NONE = {"istio.io/dataplane-mode": "none"}
INJECTED = {"istio-injection": "enabled"}
REFUSED = {"sidecar.istio.io/inject": "false"}
ASKED = {"sidecar.istio.io/inject": "true"}


@pytest.mark.parametrize(
    ("namespace", "labels", "annotations", "otherwise", "enrolled", "reason"),
    [
        ({}, {}, {}, False, False, "no label says; it was registered as outside the mesh"),
        ({}, {}, {}, True, True, "no label says; it was registered as in the mesh"),
        (AMBIENT, {}, {}, False, True, "its namespace's label istio.io/dataplane-mode: ambient"),
        (INJECTED, {}, {}, False, True, "its namespace's label istio-injection: enabled"),
        (
            {"istio-injection": "disabled"}, {}, {}, True, False,
            "its namespace's label istio-injection: disabled",
        ),
        (
            NONE | INJECTED, {}, {}, True, False,
            "its namespace's label istio.io/dataplane-mode: none",
        ),
        (AMBIENT, NONE, {}, True, False, "its label istio.io/dataplane-mode: none"),
        (INJECTED, {}, REFUSED, True, False, 'its annotation sidecar.istio.io/inject: "false"'),
        (INJECTED, REFUSED, {}, True, False, 'its label sidecar.istio.io/inject: "false"'),
        ({}, {}, ASKED, False, True, 'its annotation sidecar.istio.io/inject: "true"'),
        ({}, AMBIENT, {}, False, True, "its label istio.io/dataplane-mode: ambient"),
        ({"istio-injection": "maybe"}, {}, {}, False, False,
         "no label says; it was registered as outside the mesh"),
    ],
)  # fmt: skip
def test_labels_and_annotations_decide_whether_a_workload_is_in_the_mesh(
    namespace: dict[str, str],
    labels: dict[str, str],
    annotations: dict[str, str],
    otherwise: bool,
    enrolled: bool,
    reason: str,
) -> None:
    decision = decide(namespace, labels, annotations, otherwise)
    assert (decision.enrolled, decision.reason) == (enrolled, reason)
