"""A pod's volumes, and where its containers find them. Pure.

After https://kubernetes.io/docs/concepts/storage/volumes/ and
https://kubernetes.io/docs/concepts/storage/projected-volumes/. Kubernetes changes the files of a
volume while the pod runs; here a pod whose files are others is replaced.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

import msgspec

from meshd.api.base import Object
from meshd.api.decode import Path
from meshd.api.kubernetes.types import (
    ConfigMap,
    Container,
    DataProjection,
    DownwardProjection,
    PodSpec,
    ProjectedVolume,
    Secret,
    Volume,
)
from meshd.model.pod import FilePlan, MountPlan, VolumePlan
from meshd.pods.lookup import Lookup


def plan_volumes(
    spec: PodSpec, fields: Mapping[str, str], lookup: Lookup
) -> tuple[VolumePlan, ...]:
    """Return the volumes that are possible here; others are reported."""
    plans = [
        _Files(("volumes", index), fields, lookup).volume(volume)
        for index, volume in enumerate(spec.volumes)
    ]
    return tuple(plan for plan in plans if plan)


def plan_mounts(
    path: Path,
    container: Container,
    spec: PodSpec,
    volumes: tuple[VolumePlan, ...],
    lookup: Lookup,
) -> tuple[MountPlan, ...]:
    """Return mounts, outer directories first, so that one mount does not hide another."""
    declared = {volume.name for volume in spec.volumes}
    plans: list[MountPlan] = []
    for index, mount in enumerate(container.volume_mounts):
        place = (*path, "volumeMounts", index)
        if mount.name not in declared:
            known = ", ".join(sorted(declared)) or "none"
            lookup.error((*place, "name"), f'no volume "{mount.name}" (known: {known})')
        if not mount.mount_path.startswith("/") or _leads_out(mount.mount_path):
            lookup.error((*place, "mountPath"), f'"{mount.mount_path}" is not an absolute path')
        elif mount.sub_path.startswith("/") or _leads_out(mount.sub_path):
            lookup.error((*place, "subPath"), f'"{mount.sub_path}" leads out of the volume')
        elif mount.mount_path.strip("/") == "":
            lookup.error((*place, "mountPath"), "a volume cannot take the place of everything")
        elif volume := next((each for each in volumes if each.name == mount.name), None):
            if not _has(volume, mount.sub_path):
                _say_missing((*place, "subPath"), volume, mount.sub_path, lookup)
                continue
            plan = MountPlan(
                path=str(PurePosixPath(mount.mount_path)),
                volume=mount.name,
                sub_path=mount.sub_path,
                writable=volume.writable and not mount.read_only,
            )
            plans.append(plan)
    return tuple(sorted(plans, key=lambda plan: plan.path.count("/")))


def _has(volume: VolumePlan, sub_path: str) -> bool:
    part = PurePosixPath(sub_path)
    return (
        volume.writable
        or any(PurePosixPath(file.path).is_relative_to(part) for file in volume.files)
        or not sub_path
    )


def _say_missing(path: Path, volume: VolumePlan, sub_path: str, lookup: Lookup) -> None:
    """Report a missing path; a volume without any files is that of something optional."""
    if volume.files:
        known = ", ".join(file.path for file in volume.files)
        lookup.error(path, f'volume "{volume.name}" has no "{sub_path}" (it has: {known})')


class _Files:
    """The files of one volume. ``path`` is where it is written below the PodSpec."""

    def __init__(self, path: Path, fields: Mapping[str, str], lookup: Lookup) -> None:
        self._path = path
        self._fields = fields
        self._lookup = lookup

    def volume(self, volume: Volume) -> VolumePlan | None:
        if volume.empty_dir is not None:
            return VolumePlan(name=volume.name, writable=True)
        given = (volume.config_map, volume.secret, volume.downward_api, volume.projected)
        if all(source is None for source in given):
            self._lookup.left_out(self._path, f'volume "{volume.name}"')
            return None
        files: list[FilePlan] = []
        if volume.config_map:
            files += self._data((*self._path, "configMap"), ConfigMap, volume.config_map)
        if volume.secret:
            files += self._data((*self._path, "secret"), Secret, volume.secret)
        if volume.downward_api:
            files += self._downward((*self._path, "downwardAPI"), volume.downward_api)
        if volume.projected:
            files += self._projected(volume.projected)
        by_path = {file.path: file for file in files}
        return VolumePlan(name=volume.name, files=tuple(by_path.values()))

    def _projected(self, volume: ProjectedVolume) -> Iterator[FilePlan]:
        for index, source in enumerate(volume.sources):
            path = (*self._path, "projected", "sources", index)
            mode = volume.default_mode
            if source.config_map:
                data = msgspec.structs.replace(source.config_map, default_mode=mode)
                yield from self._data((*path, "configMap"), ConfigMap, data)
            if source.secret:
                data = msgspec.structs.replace(source.secret, default_mode=mode)
                yield from self._data((*path, "secret"), Secret, data)
            if source.downward_api:
                downward = msgspec.structs.replace(source.downward_api, default_mode=mode)
                yield from self._downward((*path, "downwardAPI"), downward)
            if not (source.config_map or source.secret or source.downward_api):
                self._lookup.left_out(path, "a source of this kind (a token, for example)")

    def _data(self, path: Path, kind: type[Object], source: DataProjection) -> Iterator[FilePlan]:
        name = source.secret_name or source.name
        entries = self._lookup.entries(path, kind, name, optional=source.optional)
        if entries is None:
            return
        if not source.items:
            for key, content in entries.items():
                yield FilePlan(path=key, content=content, mode=source.default_mode)
        for index, item in enumerate(source.items):
            place = (*path, "items", index)
            content = self._lookup.entry(
                (*place, "key"), kind, name, item.key, optional=source.optional
            )
            if content is not None and self._is_inside(place, item.path):
                mode = source.default_mode if item.mode is None else item.mode
                yield FilePlan(path=item.path, content=content, mode=mode)

    def _downward(self, path: Path, source: DownwardProjection) -> Iterator[FilePlan]:
        for index, item in enumerate(source.items):
            place = (*path, "items", index)
            field = item.field_ref.field_path if item.field_ref else ""
            value = self._fields.get(field)
            if value is None:
                self._lookup.left_out(place, f"{item.path} ({field or 'resourceFieldRef'})")
            elif self._is_inside(place, item.path):
                mode = source.default_mode if item.mode is None else item.mode
                yield FilePlan(path=item.path, content=value.encode(), mode=mode)

    def _is_inside(self, place: Path, path: str) -> bool:
        if path and not path.startswith("/") and not _leads_out(path):
            return True
        self._lookup.error((*place, "path"), f'"{path}" is not a path inside the volume')
        return False


def _leads_out(path: str) -> bool:
    return ".." in PurePosixPath(path).parts
