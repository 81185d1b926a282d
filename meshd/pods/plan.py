"""Plans the pods to run from manifests. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from meshd.api.base import ObjectMeta
from meshd.api.decode import Path
from meshd.api.finding import Finding
from meshd.api.kubernetes.types import Container, Namespace, Pod, PodSpec, Probe, TCPSocketAction
from meshd.api.read import Read, RejectedError
from meshd.base.numbers import whole
from meshd.model.pod import ContainerPlan, OwnerPlan, PodPlan
from meshd.model.workload import NamedPort
from meshd.pods import environment
from meshd.pods.addresses import HOST, Subnet, allocate
from meshd.pods.controllers import owner_of, pod_names, template_of
from meshd.pods.ignored import ignored_fields
from meshd.pods.images import ImageMap
from meshd.pods.lookup import DataObjects, Lookup
from meshd.pods.volumes import plan_mounts, plan_volumes
from meshd.registry import membership


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """The pods of the manifests' objects, in the order in which they are written."""

    pods: tuple[PodPlan, ...]
    owners: tuple[OwnerPlan, ...]
    """The objects that decide about pods, those with no replicas too."""
    notes: tuple[str, ...]
    """One line for each kind of field that was passed over."""


@dataclasses.dataclass(frozen=True, slots=True)
class Bed:
    """The input of planning beside the manifests."""

    subnet: Subnet
    images: ImageMap
    node: str
    namespaces: Mapping[str, Mapping[str, str]]
    """Labels of the namespaces that the mesh knows; the manifests' own come on top."""
    data: DataObjects = dataclasses.field(default_factory=DataObjects)
    """Of the mesh; the manifests' own come on top."""
    running: tuple[PodPlan, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class _Template:
    """A pod that is wanted, before it has an address."""

    read: Read
    at: Path
    """Where its PodSpec is written."""
    name: str
    meta: ObjectMeta
    spec: PodSpec

    @property
    def namespace(self) -> str:
        return self.read.object.metadata.namespace

    @property
    def uid(self) -> str:
        return f"{self.namespace}.{self.name}"


def make_plan(reads: Iterable[Read], bed: Bed) -> Plan:
    """Raises RejectedError with everything that keeps the pods from running.

    The objects' fields must have been validated before.
    """
    written = tuple(reads)
    own = {
        read.object.metadata.name: read.object.metadata.labels
        for read in written
        if isinstance(read.object, Namespace)
    }
    data = DataObjects.of(read.object for read in written).over(bed.data)
    bed = dataclasses.replace(bed, namespaces={**bed.namespaces, **own}, data=data)
    templates = [template for read in written for template in _templates(read, bed)]
    known = {pod.uid: bed.subnet.number(pod.address) for pod in bed.running}
    numbers = allocate(bed.subnet, (template.uid for template in templates), known)
    findings: list[Finding] = []
    notes = dict.fromkeys(ignored_fields(written))
    pods: list[PodPlan] = []
    for template in templates:
        maker = _Maker(bed, template, numbers[template.uid])
        pods.append(maker.pod())
        findings += maker.findings
        notes |= dict.fromkeys(maker.notes)
    if findings:
        raise RejectedError(tuple(dict.fromkeys(findings)))
    return Plan(
        tuple(pods),
        tuple(owner_of(read.object) for read in written if template_of(read.object)),
        tuple(notes),
    )


def _templates(read: Read, bed: Bed) -> Iterator[_Template]:
    template = template_of(read.object)
    if template is None:
        return
    at = ("spec",) if isinstance(read.object, Pod) else ("spec", "template", "spec")
    spec = template.spec
    images = [bed.images.find(each.image) for each in (*spec.init_containers, *spec.containers)]
    written = msgspec.json.encode(spec).decode()
    data = [
        (kind.KIND, name, dict(entries))
        for (kind, namespace, name), entries in bed.data.entries.items()
        if namespace == read.object.metadata.namespace and f'"{name}"' in written
    ]
    for name in pod_names(read.object, msgspec.json.encode((images, sorted(data)))):
        yield _Template(read, at, name, template.metadata, spec)


class _Maker:
    """Makes one pod's plan, and collects errors."""

    def __init__(self, bed: Bed, template: _Template, number: int) -> None:
        self._bed = bed
        self._template = template
        self._number = number
        self._hostname = template.spec.hostname or template.name
        self._fields = self._make_fields()
        self._lookup = Lookup(template.read, template.at, bed.data)
        self._volumes = plan_volumes(template.spec, self._fields, self._lookup)

    @property
    def findings(self) -> list[Finding]:
        return self._lookup.findings

    @property
    def notes(self) -> list[str]:
        return self._lookup.notes

    def pod(self) -> PodPlan:
        template, subnet = self._template, self._bed.subnet
        spec, meta = template.spec, template.meta
        return PodPlan(
            uid=template.uid,
            name=template.name,
            namespace=template.namespace,
            owner=str(template.read.object.key),
            address=subnet.address(self._number),
            address_v6=subnet.address_v6(self._number),
            user=subnet.user(self._number),
            hostname=self._hostname[:63],
            service_account=self._service_account,
            labels=meta.labels,
            annotations=meta.annotations,
            ports=tuple(
                NamedPort(port.name, port.container_port)
                for container in spec.containers
                for port in container.ports
                if port.name
            ),
            containers=self._each("containers", spec.containers),
            init_containers=self._each("initContainers", spec.init_containers),
            volumes=self._volumes,
            enrolled=self._is_enrolled(),
        )

    @property
    def _service_account(self) -> str:
        spec = self._template.spec
        if spec.service_account_name != "default":
            return spec.service_account_name
        return spec.service_account or "default"

    def _is_enrolled(self) -> bool:
        """Return whether the pod is enrolled; a namespace whose labels say nothing is outside the
        mesh."""
        labels = self._bed.namespaces.get(self._template.namespace, {})
        meta = self._template.meta
        return membership.decide(labels, meta.labels, meta.annotations, otherwise=False).enrolled

    def _each(self, field: str, containers: tuple[Container, ...]) -> tuple[ContainerPlan, ...]:
        plans = [
            self._container((field, index), container) for index, container in enumerate(containers)
        ]
        return tuple(plan for plan in plans if plan)

    def _container(self, at: Path, container: Container) -> ContainerPlan | None:
        lookup = self._lookup
        image = self._bed.images.find(container.image)
        if image is None:
            lookup.error((*at, "image"), self._bed.images.missing(container.image))
            return None
        own = environment.resolve(at, container, self._fields, lookup)
        command = environment.command(image, container, own)
        if not command:
            reason = f'neither the manifest nor the image map says what "{container.image}" runs'
            lookup.error(at, reason)
        return ContainerPlan(
            name=container.name,
            command=command,
            environment=environment.environment(image, own, self._hostname),
            directory=image.directory,
            working_directory=container.working_dir or "",
            readiness=_numbered(container),
            mounts=plan_mounts(at, container, self._template.spec, self._volumes, lookup),
        )

    def _make_fields(self) -> dict[str, str]:
        template, subnet = self._template, self._bed.subnet
        return environment.pod_fields(
            name=template.name,
            namespace=template.namespace,
            uid=template.uid,
            service_account=self._service_account,
            node=self._bed.node,
            addresses=(subnet.address(self._number), subnet.address_v6(self._number)),
            host_address=subnet.address(HOST),
            labels=template.meta.labels,
            annotations=template.meta.annotations,
        )


def _numbered(container: Container) -> Probe | None:
    """Return the probe with its port as a number."""
    probe = container.readiness_probe
    if probe and probe.http_get:
        number = _port_number(container, probe.http_get.port) or 0
        action = msgspec.structs.replace(probe.http_get, port=number)
        return msgspec.structs.replace(probe, http_get=action)
    if probe and probe.tcp_socket:
        number = _port_number(container, probe.tcp_socket.port) or 0
        return msgspec.structs.replace(probe, tcp_socket=TCPSocketAction(port=number))
    return probe


def _port_number(container: Container, port: int | str) -> int | None:
    if isinstance(port, int):
        return port
    if (number := whole(port, 65535)) is not None:
        return number
    return next((known.container_port for known in container.ports if known.name == port), None)
