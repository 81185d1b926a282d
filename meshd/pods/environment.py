"""A container's environment, command and arguments by Kubernetes' rules. Pure.

After https://kubernetes.io/docs/tasks/inject-data-application/define-interdependent-environment-variables/
and https://kubernetes.io/docs/tasks/inject-data-application/define-command-argument-container/.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Final

from meshd.api.base import Object
from meshd.api.decode import Path
from meshd.api.kubernetes.types import (
    ConfigMap,
    Container,
    DataReference,
    EnvFromSource,
    EnvVar,
    EnvVarSource,
    KeySelector,
    Secret,
)
from meshd.pods.images import Image
from meshd.pods.lookup import Lookup

_REFERENCE: Final = re.compile(r"\$(?:\$|\(([^)]*)\))")
_MAP_FIELD: Final = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")
_VOLUME_ONLY: Final = {"metadata.labels", "metadata.annotations"}
PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Expand variables: ``$(NAME)`` becomes the variable's value if there is one; ``$$`` is
    ``$``."""

    def replaced(match: re.Match[str]) -> str:
        if match.group(0) == "$$":
            return "$"
        return variables.get(match.group(1), match.group(0))

    return _REFERENCE.sub(replaced, text)


def resolve(
    path: Path, container: Container, fields: Mapping[str, str], lookup: Lookup
) -> dict[str, str]:
    """Return a container's variables, each seeing those before it.

    ``path`` is the container's place. ``fields`` are the values that a ``fieldRef`` may name.
    """
    known: dict[str, str] = {}
    for index, source in enumerate(container.env_from):
        known |= _all_entries((*path, "envFrom", index), source, lookup)
    for index, variable in enumerate(container.env):
        place = (*path, "env", index)
        if variable.value_from is None:
            known[variable.name] = expand(variable.value, known)
        elif (value := _referred(place, variable, fields, lookup)) is not None:
            known[variable.name] = value
    return known


def _all_entries(path: Path, source: EnvFromSource, lookup: Lookup) -> dict[str, str]:
    found: dict[str, str] = {}
    references: tuple[tuple[str, type[Object], DataReference | None], ...] = (
        ("configMapRef", ConfigMap, source.config_map_ref),
        ("secretRef", Secret, source.secret_ref),
    )
    for field, kind, reference in references:
        if reference is None:
            continue
        place = (*path, field)
        entries = lookup.entries(place, kind, reference.name, optional=reference.optional) or {}
        for key, value in entries.items():
            if (text := lookup.text(place, value)) is not None:
                found[source.prefix + key] = text
    return found


def _referred(
    path: Path, variable: EnvVar, fields: Mapping[str, str], lookup: Lookup
) -> str | None:
    """Return the value that a variable takes from elsewhere; None if there is none."""
    source = variable.value_from or EnvVarSource()
    references: tuple[tuple[str, type[Object], KeySelector | None], ...] = (
        ("configMapKeyRef", ConfigMap, source.config_map_key_ref),
        ("secretKeyRef", Secret, source.secret_key_ref),
    )
    for field, kind, chosen in references:
        if chosen:
            place = (*path, "valueFrom", field)
            value = lookup.entry(place, kind, chosen.name, chosen.key, optional=chosen.optional)
            return None if value is None else lookup.text(place, value)
    field_path = source.field_ref.field_path if source.field_ref else ""
    otherwise = "" if _MAP_FIELD.fullmatch(field_path) else None
    value = fields.get(field_path, otherwise) if field_path not in _VOLUME_ONLY else None
    if value is None:
        lookup.left_out(path, f"{variable.name} ({field_path or 'resourceFieldRef'})")
    return value


def pod_fields(
    *,
    name: str,
    namespace: str,
    uid: str,
    service_account: str,
    node: str,
    addresses: tuple[str, ...],
    host_address: str,
    labels: Mapping[str, str],
    annotations: Mapping[str, str],
) -> dict[str, str]:
    """Return the values that ``fieldRef`` may name: the downward API's fields."""
    fields = {
        "metadata.name": name,
        "metadata.namespace": namespace,
        "metadata.uid": uid,
        "spec.nodeName": node,
        "spec.serviceAccountName": service_account,
        "status.podIP": addresses[0],
        "status.podIPs": ",".join(addresses),
        "status.hostIP": host_address,
        "status.hostIPs": host_address,
    }
    for kind, entries in (("labels", labels), ("annotations", annotations)):
        lines = [f"{key}={json.dumps(value)}" for key, value in sorted(entries.items())]
        fields[f"metadata.{kind}"] = "\n".join(lines)
        fields |= {f"metadata.{kind}['{key}']": value for key, value in entries.items()}
    return fields


def environment(image: Image, own: Mapping[str, str], hostname: str) -> dict[str, str]:
    """Return the environment of a process: the image's variables, and over them the container's
    own."""
    return {"PATH": PATH, "HOME": "/tmp", "HOSTNAME": hostname} | image.env | dict(own)  # noqa: S108


def command(image: Image, container: Container, own: Mapping[str, str]) -> tuple[str, ...]:
    """Return the command line: a container's command replaces the image's command and arguments,
    its args only the arguments."""
    if container.command:
        words = container.command + container.args
    else:
        words = image.command + (container.args or image.args)
    return tuple(expand(word, own) for word in words)
