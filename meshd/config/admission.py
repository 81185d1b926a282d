"""Validates one object from elsewhere, given as plain values, as if it had been applied here.

What a server sends, and what is read back from disk, was validated by another process, maybe of
another version, maybe not at all.
"""

from __future__ import annotations

from typing import Final

from meshd.analysis import validate
from meshd.api.base import Object
from meshd.api.decode import Path
from meshd.api.kubernetes.types import Namespace, Service
from meshd.api.read import Read, label_problem, subdomain_problem
from meshd.api.write import from_json
from meshd.api.yaml import Document
from meshd.base.errors import InvalidInputError
from meshd.base.json_values import Json

_NOWHERE: Final[dict[Path, int]] = {}


def admit(value: Json) -> Object:
    """Return the object, however much it counts: it has been accepted before.

    Raises InvalidInputError with the first thing that is wrong with it.
    """
    try:
        found = from_json(value)
    except RecursionError:
        raise InvalidInputError("nested too deeply") from None
    if problem := _name_problem(found):
        raise InvalidInputError(f"{found.KIND}: metadata: {problem}")
    if problem := refusal(Read(found, Document("", 0, value, _NOWHERE))):
        raise InvalidInputError(f"{found.key}: {problem}")
    return found


def refusal(read: Read) -> str:
    """Return the first thing that is wrong with an object that was accepted before; empty: it may
    stay in force."""
    for finding in validate.check_accepted(read):
        if finding.severity == "error":
            return f"{finding.field}: {finding.message}"
    return ""


def _name_problem(found: Object) -> str:
    meta = found.metadata
    if found.NAMESPACED and (problem := label_problem(meta.namespace)):
        return f"namespace: {problem}"
    is_label = isinstance(found, Namespace | Service)
    problem = (label_problem if is_label else subdomain_problem)(meta.name)
    return f"name: {problem}" if problem else ""
