"""meshctl → mesh: changes and shows the configuration."""

from __future__ import annotations

from typing import Any

import msgspec

from meshd.api.base import Seconds
from meshd.api.finding import Finding
from meshd.wire.message import Message


class Apply(Message, frozen=True):
    """YAML documents to store, each source with its text; all or nothing."""

    sources: tuple[tuple[str, str], ...]
    """Pairs of a name for messages (a path, or "-") and the text."""
    namespace: str = "default"
    dry_run: bool = False
    wait: Seconds = 0.0
    """Seconds to wait until every proxy has it; 0: do not wait."""
    delete: bool = False
    only_namespace: bool = False
    """Objects that say another namespace are refused, as with kubectl."""
    ignore_missing: bool = False
    """Of what is deleted: what is not there is no error."""


class DeleteNamed(Message, frozen=True):
    """Delete objects by kind and name."""

    kind: str
    names: tuple[str, ...]
    namespace: str = "default"
    dry_run: bool = False
    wait: Seconds = 0.0
    ignore_missing: bool = False


class Change(msgspec.Struct, frozen=True):
    """The change of one object."""

    kind: str
    namespace: str
    name: str
    result: str
    """created, configured, unchanged or deleted."""


class Changed(Message, frozen=True):
    changes: tuple[Change, ...]
    warnings: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    """What of it is stored and not in force, since proxies refuse it or would; a line each."""


class Get(Message, frozen=True):
    """A question for stored objects of a kind; an empty name or namespace means all."""

    kind: str
    name: str = ""
    namespace: str = ""


class Objects(Message, frozen=True):
    """API objects as JSON values, ``apiVersion`` and ``kind`` included."""

    objects: tuple[dict[str, Any], ...]


class Rejected(Message, frozen=True):
    """The input is not valid. Nothing was changed."""

    findings: tuple[Finding, ...]


Messages = Apply | DeleteNamed | Changed | Get | Objects | Rejected
