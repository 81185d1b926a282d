"""A container's environment, command and arguments by Kubernetes' rules. Pure.

After https://kubernetes.io/docs/tasks/inject-data-application/define-interdependent-environment-variables/
and https://kubernetes.io/docs/tasks/inject-data-application/define-command-argument-container/.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from meshd.model.kubernetes import Container, EnvVar
from meshd.testbed.images import Image

_REFERENCE: Final = re.compile(r"\$(?:\$|\(([^)]*)\))")
_MAP_FIELD: Final = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")
PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def expand(text: str, variables: Mapping[str, str]) -> str:
    """``$(NAME)`` becomes the variable's value where there is one; ``$$`` is a plain ``$``."""

    def replaced(match: re.Match[str]) -> str:
        if match.group(0) == "$$":
            return "$"
        return variables.get(match.group(1), match.group(0))

    return _REFERENCE.sub(replaced, text)


def resolve(
    variables: Iterable[EnvVar], fields: Mapping[str, str]
) -> tuple[dict[str, str], list[int]]:
    """The variables' values, each seeing the ones before it, and which of them have none here.

    ``fields`` are the values that a ``fieldRef`` may name.
    """
    known: dict[str, str] = {}
    without: list[int] = []
    for index, variable in enumerate(variables):
        if variable.value_from is None:
            known[variable.name] = expand(variable.value, known)
        elif (value := _field(variable.value_from, fields)) is not None:
            known[variable.name] = value
        else:
            without.append(index)
    return known, without


def _field(value_from: Mapping[str, object], fields: Mapping[str, str]) -> str | None:
    reference = value_from.get("fieldRef")
    path = reference.get("fieldPath") if isinstance(reference, dict) else None
    if not isinstance(path, str):
        return None
    if _MAP_FIELD.fullmatch(path):
        return fields.get(path, "")
    return fields.get(path)


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
    """What ``fieldRef`` may name: the downward API's fields."""
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
        fields |= {f"metadata.{kind}['{key}']": value for key, value in entries.items()}
    return fields


def environment(image: Image, own: Mapping[str, str], hostname: str) -> dict[str, str]:
    """All that a process sees: the image's variables, and over them the container's own."""
    return {"PATH": PATH, "HOME": "/tmp", "HOSTNAME": hostname} | image.env | dict(own)  # noqa: S108


def command(image: Image, container: Container, own: Mapping[str, str]) -> tuple[str, ...]:
    """A container's command replaces the image's and its arguments; its args the arguments only."""
    if container.command:
        words = container.command + container.args
    else:
        words = image.command + (container.args or image.args)
    return tuple(expand(word, own) for word in words)
