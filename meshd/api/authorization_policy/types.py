"""AuthorizationPolicies: who may send which requests to whom.

After https://istio.io/latest/docs/reference/config/security/authorization-policy/.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from meshd.api.base import Object, Strict, WorkloadSelector

Action = Literal["ALLOW", "DENY", "AUDIT", "CUSTOM"]
Texts = tuple[str, ...] | None
"""None: the field is not given. An empty list is an error."""


class Source(Strict, frozen=True):
    """Where requests come from: all fields that are given have to fit."""

    principals: Texts = None
    not_principals: Texts = None
    request_principals: Texts = None
    not_request_principals: Texts = None
    namespaces: Texts = None
    not_namespaces: Texts = None
    service_accounts: Texts = None
    not_service_accounts: Texts = None
    ip_blocks: Texts = None
    not_ip_blocks: Texts = None
    remote_ip_blocks: Texts = None
    not_remote_ip_blocks: Texts = None


class Operation(Strict, frozen=True):
    """What is asked for: all fields that are given have to fit."""

    hosts: Texts = None
    not_hosts: Texts = None
    ports: Texts = None
    not_ports: Texts = None
    methods: Texts = None
    not_methods: Texts = None
    paths: Texts = None
    not_paths: Texts = None


class From(Strict, frozen=True):
    source: Source | None = None


class To(Strict, frozen=True):
    operation: Operation | None = None


class Condition(Strict, frozen=True):
    key: str = ""
    values: Texts = None
    not_values: Texts = None


class Rule(Strict, frozen=True, rename={"from_": "from"}):
    from_: tuple[From, ...] | None = None
    to: tuple[To, ...] | None = None
    when: tuple[Condition, ...] | None = None


class TargetReference(Strict, frozen=True):
    group: str = ""
    kind: str = ""
    name: str = ""
    namespace: str = ""


class Provider(Strict, frozen=True):
    name: str = ""


class AuthorizationPolicySpec(Strict, frozen=True):
    selector: WorkloadSelector | None = None
    target_ref: TargetReference | None = None
    target_refs: tuple[TargetReference, ...] | None = None
    rules: tuple[Rule, ...] | None = None
    action: Action = "ALLOW"
    provider: Provider | None = None


class AuthorizationPolicy(Object, frozen=True):
    GROUP: ClassVar[str] = "security.istio.io"
    VERSIONS: ClassVar[tuple[str, ...]] = ("v1beta1", "v1")
    KIND: ClassVar[str] = "AuthorizationPolicy"
    PLURALS: ClassVar[tuple[str, ...]] = ("authorizationpolicies", "authorizationpolicy", "ap")

    spec: AuthorizationPolicySpec = AuthorizationPolicySpec()
