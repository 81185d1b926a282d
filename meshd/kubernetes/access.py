"""What a cluster is to allow the nodes' kubernetes role: who it is, and what it reads. Pure."""

from __future__ import annotations

from collections import defaultdict
from typing import Final

from meshd.base.json_values import Json, JsonObject
from meshd.kubernetes.followed_kinds import KINDS

NAMESPACE: Final = "meshd-system"
ACCOUNT: Final = "meshd-node"
_RBAC: Final = "rbac.authorization.k8s.io"
_READ: Final[list[Json]] = ["get", "list", "watch"]
_FURTHER: Final = (("", "pods"), ("discovery.k8s.io", "endpointslices"))
"""What is read beside the kinds that are followed: pods of the node, and endpoints of Services."""


def objects() -> list[JsonObject]:
    """Return an account with a token that does not end, which may read what is followed."""
    metadata: JsonObject = {"name": ACCOUNT, "namespace": NAMESPACE}
    whole: JsonObject = {"name": ACCOUNT}
    reference: JsonObject = {"apiGroup": _RBAC, "kind": "ClusterRole", "name": ACCOUNT}
    token: JsonObject = {**metadata, "annotations": {"kubernetes.io/service-account.name": ACCOUNT}}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": token,
            "type": "kubernetes.io/service-account-token",
        },
        {
            "apiVersion": f"{_RBAC}/v1",
            "kind": "ClusterRole",
            "metadata": whole,
            "rules": rules(),
        },
        {
            "apiVersion": f"{_RBAC}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": whole,
            "roleRef": reference,
            "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": NAMESPACE}],
        },
    ]


def rules() -> list[Json]:
    """Return what is read, by API group."""
    found: defaultdict[str, list[Json]] = defaultdict(list)
    for group, plural in (*_FURTHER, *((kind.GROUP, kind.PLURALS[0]) for kind in KINDS.values())):
        found[group].append(plural)
    return [
        {"apiGroups": [group], "resources": [*plurals], "verbs": [*_READ]}
        for group, plurals in sorted(found.items())
    ]
