"""Finds the workloads that a user names. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from meshd.base.errors import InvalidInputError
from meshd.model.workload import Workload

_PODS: Final = {"po", "pod", "pods", "workload"}
_HASH: Final = r"[a-z0-9]{1,10}"
_SUFFIXES: Final = {
    "deploy": rf"-{_HASH}-[a-z0-9]{{5}}",
    "deployment": rf"-{_HASH}-[a-z0-9]{{5}}",
    "deployments": rf"-{_HASH}-[a-z0-9]{{5}}",
    "sts": r"-\d+",
    "statefulset": r"-\d+",
    "statefulsets": r"-\d+",
    "ds": r"-[a-z0-9]{5}",
    "daemonset": r"-[a-z0-9]{5}",
    "daemonsets": r"-[a-z0-9]{5}",
}
"""What Kubernetes puts behind the name of an object that asks for pods."""


def find(workloads: Iterable[Workload], asked: str, namespace: str) -> tuple[Workload, ...]:
    """Return workloads by name, by the beginning of one, or as ``TYPE/NAME``, each also with
    ``.NAMESPACE``; or as ``NAMESPACE/NAME``, which is how messages call them.

    An exact name wins over beginnings. Raises InvalidInputError.
    """
    known = tuple(workloads)
    first, slash, name = asked.partition("/")
    kind, name = (first.lower(), name) if slash else ("", asked)
    if slash and kind not in _PODS and kind not in _SUFFIXES:
        if any(one.namespace == first for one in known) and "/" not in name:
            return find(known, name, first)
        raise InvalidInputError(
            f'"{asked}" is not a workload: before the / stands a namespace in which workloads run,'
            " or one of pod, deploy, sts, ds"
        )
    # A name may have dots: what is behind the last one is a namespace only if nothing fits before.
    head, dot, tail = name.rpartition(".")
    for wanted, place in ((name, namespace), *(((head, tail),) if dot and head else ())):
        here = [one for one in known if one.namespace == place]
        if suffix := _SUFFIXES.get(kind):
            pattern = re.compile(re.escape(wanted) + suffix)
            found = [one for one in here if pattern.fullmatch(one.name)]
        else:
            found = [one for one in here if one.name == wanted]
            found = found or [one for one in here if one.name.startswith(wanted)]
        if found:
            return tuple(found)
    raise InvalidInputError(f"workload {namespace}/{asked} not found: see meshctl status")
