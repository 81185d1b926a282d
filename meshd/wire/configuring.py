"""meshctl → mesh: changes and shows the configuration."""

from __future__ import annotations

from typing import Final

import msgspec

from meshd.api.base import Seconds
from meshd.api.finding import Finding
from meshd.base.json_values import JsonObject
from meshd.wire.message import Message

STORED_WITHIN: Final = 60.0
"""Seconds within which a change is stored, or not at all: the client waits longer."""


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


class Named(msgspec.Struct, frozen=True):
    """Objects of one kind."""

    kind: str
    names: tuple[str, ...]


class DeleteNamed(Message, frozen=True):
    """Delete objects by kind and name; all or nothing."""

    objects: tuple[Named, ...]
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


class Detail(msgspec.Struct, frozen=True):
    """A fact about a part of the plan that becomes another one."""

    fact: str
    before: str
    """Empty: the default, or nothing."""
    after: str


class Effect(msgspec.Struct, frozen=True):
    """What becomes of a part of what proxies are told."""

    change: str
    """added, removed or changed."""
    kind: str
    """host, route, connections, upstream, endpoints, listener, port, policy or certificate."""
    name: str
    details: tuple[Detail, ...] = ()
    namespaces: tuple[str, ...] = ()
    """Those whose clients see it."""
    workloads: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    """Workloads that are gateways."""
    object: str = ""
    """The object that asks for it; empty: it is a default."""
    field: str = ""
    place: str = ""
    """``file:line`` of the field; empty: the object is in no file."""


class Foreseen(msgspec.Struct, frozen=True):
    """What a change would do, were it more than a dry run."""

    effects: tuple[Effect, ...] = ()
    more: int = 0
    """How many further effects there are, which are left out."""
    left_out: tuple[str, ...] = ()
    """What the change would put out of force, a line each."""
    unpopulated: tuple[str, ...] = ()
    """Namespaces in which no workload runs: the effects are those on clients that may come."""


class Changed(Message, frozen=True):
    changes: tuple[Change, ...]
    warnings: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    """What of it is stored and not in force, since proxies refuse it or would; a line each."""
    foreseen: Foreseen | None = None
    """Of a dry run."""


class Get(Message, frozen=True):
    """A question for stored objects of a kind; an empty name or namespace means all."""

    kind: str
    name: str = ""
    namespace: str = ""


class Objects(Message, frozen=True):
    """API objects as JSON values, ``apiVersion`` and ``kind`` included."""

    objects: tuple[JsonObject, ...]


class Rejected(Message, frozen=True):
    """The input is not valid. Nothing was changed."""

    findings: tuple[Finding, ...]


Messages = Apply | DeleteNamed | Changed | Get | Objects | Rejected
