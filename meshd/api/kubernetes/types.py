"""The Kubernetes kinds that meshd reads, reduced to the fields that matter on a node.

After https://kubernetes.io/docs/reference/kubernetes-api/. Other fields are ignored.
"""

from __future__ import annotations

import base64
from typing import ClassVar, Final, Literal

import msgspec

from meshd.api.base import Ignoring, Object, ObjectMeta
from meshd.base.json_values import JsonObject

_EXPORT_TO: Final = "networking.istio.io/exportTo"


class Namespace(Object, frozen=True):
    KIND: ClassVar[str] = "Namespace"
    NAMESPACED: ClassVar[bool] = False
    PLURALS: ClassVar[tuple[str, ...]] = ("namespaces", "namespace", "ns")


class ServiceAccount(Object, frozen=True):
    KIND: ClassVar[str] = "ServiceAccount"
    PLURALS: ClassVar[tuple[str, ...]] = ("serviceaccounts", "serviceaccount", "sa")


class ServicePort(Ignoring, frozen=True):
    port: int
    name: str = ""
    protocol: Literal["TCP", "UDP", "SCTP"] = "TCP"
    target_port: int | str | None = None
    app_protocol: str | None = None
    node_port: int | None = None


class ServiceSpec(Ignoring, frozen=True):
    ports: tuple[ServicePort, ...] = ()
    selector: dict[str, str] = {}
    cluster_ip: str | None = msgspec.field(default=None, name="clusterIP")
    cluster_ips: tuple[str, ...] = msgspec.field(default=(), name="clusterIPs")
    type: Literal["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"] = "ClusterIP"
    external_name: str | None = None
    publish_not_ready_addresses: bool = False
    session_affinity: Literal["None", "ClientIP"] = "None"
    internal_traffic_policy: Literal["Cluster", "Local"] = "Cluster"
    traffic_distribution: Literal["PreferClose", "PreferSameZone", "PreferSameNode"] | None = None


class Service(Object, frozen=True):
    KIND: ClassVar[str] = "Service"
    PLURALS: ClassVar[tuple[str, ...]] = ("services", "service", "svc")

    spec: ServiceSpec = ServiceSpec()

    @property
    def export_to(self) -> tuple[str, ...]:
        """Return the namespaces that see it; empty is all."""
        written = self.metadata.annotations.get(_EXPORT_TO, "")
        return tuple(part.strip() for part in written.split(",") if part.strip())


class Secret(Object, frozen=True):
    KIND: ClassVar[str] = "Secret"
    PLURALS: ClassVar[tuple[str, ...]] = ("secrets", "secret")

    type: str = "Opaque"
    data: dict[str, str] = {}  # base64
    string_data: dict[str, str] = {}

    def entry(self, *keys: str) -> bytes:
        """Return the entry of the first of these keys that exists, decoded; empty if there is
        none."""
        for key in keys:
            if text := self.string_data.get(key):
                return text.encode()
            if encoded := self.data.get(key):
                try:
                    return base64.b64decode(encoded)
                except ValueError:
                    return b""
        return b""


class ConfigMap(Object, frozen=True):
    KIND: ClassVar[str] = "ConfigMap"
    PLURALS: ClassVar[tuple[str, ...]] = ("configmaps", "configmap", "cm")

    data: dict[str, str] = {}
    binary_data: dict[str, str] = {}  # base64


class KeySelector(Ignoring, frozen=True):
    """One entry of a ConfigMap or a Secret."""

    key: str
    name: str = ""
    optional: bool = False


class ObjectFieldSelector(Ignoring, frozen=True):
    field_path: str


class EnvVarSource(Ignoring, frozen=True):
    field_ref: ObjectFieldSelector | None = None
    config_map_key_ref: KeySelector | None = None
    secret_key_ref: KeySelector | None = None
    resource_field_ref: JsonObject | None = None


class EnvVar(Ignoring, frozen=True):
    name: str
    value: str = ""
    value_from: EnvVarSource | None = None


class DataReference(Ignoring, frozen=True):
    """All entries of a ConfigMap or a Secret."""

    name: str = ""
    optional: bool = False


class EnvFromSource(Ignoring, frozen=True):
    prefix: str = ""
    config_map_ref: DataReference | None = None
    secret_ref: DataReference | None = None


class KeyToPath(Ignoring, frozen=True):
    key: str
    path: str
    mode: int | None = None


class DataProjection(Ignoring, frozen=True):
    """The entries of a ConfigMap or a Secret as files."""

    name: str = ""
    secret_name: str = ""  # what a volume of a Secret calls it
    items: tuple[KeyToPath, ...] = ()
    default_mode: int = 0o644
    optional: bool = False


class DownwardFile(Ignoring, frozen=True):
    path: str
    field_ref: ObjectFieldSelector | None = None
    mode: int | None = None


class DownwardProjection(Ignoring, frozen=True):
    items: tuple[DownwardFile, ...] = ()
    default_mode: int = 0o644


class ProjectedSource(Ignoring, frozen=True):
    config_map: DataProjection | None = None
    secret: DataProjection | None = None
    downward_api: DownwardProjection | None = msgspec.field(default=None, name="downwardAPI")


class ProjectedVolume(Ignoring, frozen=True):
    sources: tuple[ProjectedSource, ...] = ()
    default_mode: int = 0o644


class Volume(Ignoring, frozen=True):
    name: str
    config_map: DataProjection | None = None
    secret: DataProjection | None = None
    downward_api: DownwardProjection | None = msgspec.field(default=None, name="downwardAPI")
    projected: ProjectedVolume | None = None
    empty_dir: JsonObject | None = None


class VolumeMount(Ignoring, frozen=True):
    name: str
    mount_path: str
    sub_path: str = ""
    read_only: bool = False


class ContainerPort(Ignoring, frozen=True):
    container_port: int
    name: str = ""
    protocol: Literal["TCP", "UDP", "SCTP"] = "TCP"


class HTTPGetAction(Ignoring, frozen=True):
    port: int | str
    path: str = "/"
    scheme: Literal["HTTP", "HTTPS"] = "HTTP"


class TCPSocketAction(Ignoring, frozen=True):
    port: int | str


class ExecAction(Ignoring, frozen=True):
    command: tuple[str, ...] = ()


class Probe(Ignoring, frozen=True):
    http_get: HTTPGetAction | None = None
    tcp_socket: TCPSocketAction | None = None
    exec: ExecAction | None = None
    initial_delay_seconds: int = 0
    period_seconds: int = 10
    timeout_seconds: int = 1
    success_threshold: int = 1
    failure_threshold: int = 3


class Container(Ignoring, frozen=True):
    name: str
    image: str
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: tuple[EnvVar, ...] = ()
    env_from: tuple[EnvFromSource, ...] = ()
    volume_mounts: tuple[VolumeMount, ...] = ()
    ports: tuple[ContainerPort, ...] = ()
    working_dir: str | None = None
    readiness_probe: Probe | None = None


class PodSpec(Ignoring, frozen=True):
    containers: tuple[Container, ...] = ()
    init_containers: tuple[Container, ...] = ()
    volumes: tuple[Volume, ...] = ()
    service_account_name: str = "default"
    service_account: str | None = None  # the deprecated alias, still in old manifests
    hostname: str | None = None


class Pod(Object, frozen=True):
    KIND: ClassVar[str] = "Pod"
    PLURALS: ClassVar[tuple[str, ...]] = ("pods", "pod", "po")

    spec: PodSpec


class PodTemplate(Ignoring, frozen=True):
    spec: PodSpec
    metadata: ObjectMeta = ObjectMeta()


class LabelSelector(Ignoring, frozen=True):
    match_labels: dict[str, str] = {}


class RollingUpdate(Ignoring, frozen=True):
    max_surge: int | str | None = None
    max_unavailable: int | str | None = None


class DeploymentStrategy(Ignoring, frozen=True):
    type: Literal["RollingUpdate", "Recreate"] = "RollingUpdate"
    rolling_update: RollingUpdate = RollingUpdate()


class PodsSpec(Ignoring, frozen=True):
    """The part of all controllers that describes their pods."""

    template: PodTemplate
    selector: LabelSelector = LabelSelector()
    min_ready_seconds: int = 0


class DeploymentSpec(PodsSpec, frozen=True):
    replicas: int = 1
    strategy: DeploymentStrategy = DeploymentStrategy()


class Deployment(Object, frozen=True):
    GROUP: ClassVar[str] = "apps"
    KIND: ClassVar[str] = "Deployment"
    PLURALS: ClassVar[tuple[str, ...]] = ("deployments", "deployment", "deploy")

    spec: DeploymentSpec


class StatefulSetSpec(PodsSpec, frozen=True):
    replicas: int = 1


class StatefulSet(Object, frozen=True):
    GROUP: ClassVar[str] = "apps"
    KIND: ClassVar[str] = "StatefulSet"
    PLURALS: ClassVar[tuple[str, ...]] = ("statefulsets", "statefulset", "sts")

    spec: StatefulSetSpec


class DaemonSetStrategy(Ignoring, frozen=True):
    rolling_update: RollingUpdate = RollingUpdate()


class DaemonSetSpec(PodsSpec, frozen=True):
    update_strategy: DaemonSetStrategy = DaemonSetStrategy()


class DaemonSet(Object, frozen=True):
    """A controller with one pod on each node; one in the testbed."""

    GROUP: ClassVar[str] = "apps"
    KIND: ClassVar[str] = "DaemonSet"
    PLURALS: ClassVar[tuple[str, ...]] = ("daemonsets", "daemonset", "ds")

    spec: DaemonSetSpec
