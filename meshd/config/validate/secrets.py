"""Which Secrets Gateways and DestinationRules name, and whether those are there.

Each proxy reads the Secrets of its own namespace: of a gateway's workload, not of the Gateway.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from meshd.config.file_references import tls_settings
from meshd.decoding import Path
from meshd.manifest import show_path
from meshd.model.base import Key, Object, exported
from meshd.model.destinations import ClientTLSSettings, DestinationRule
from meshd.model.gateways import Gateway, ServerTLSSettings
from meshd.model.workload import Workload

Said = Iterator[tuple[Path, str]]
Objects = Mapping[Key, Object]
_AUTHORITY = "-cacert"
_ENDS = "no TLS connection succeeds there until there is one"


@dataclasses.dataclass(frozen=True, slots=True)
class Named:
    """A field that names a Secret."""

    path: Path
    name: str
    namespaces: tuple[str, ...] | None
    """Where proxies look for it; None: that is not known."""


def of_secrets(found: Object, objects: Objects, workloads: Sequence[Workload] | None) -> Said:
    """What one object names that is not where it is looked for."""
    for named in _named(found, objects, workloads):
        if isinstance(found, DestinationRule) and found.spec.workload_selector is None:
            text = (
                "is for gateways: the rule has no workloadSelector, so other clients connect in"
                " clear text"
            )
            yield named.path, text
        there = {
            key.namespace for key in objects if key.kind == "Secret" and key.name == named.name
        }
        if named.namespaces is None and not there:
            text = (
                f'there is no Secret "{named.name}" in any namespace; it is looked for in the one'
            )
            yield named.path, f"{text} of the gateway's workload, and {_ENDS}"
        for namespace in sorted(set(named.namespaces or ()) - there):
            key = Key("Secret", namespace, named.name)
            seen = f" (the one in {min(there)} is not read from there)" if there else ""
            yield named.path, f"there is no {key}, in the namespace of the proxy{seen}; {_ENDS}"


def left_without(
    deleted: Collection[Key], objects: Objects, workloads: Sequence[Workload] | None
) -> tuple[str, ...]:
    """What ``objects``, which are left, name of the deleted ones: a line each."""
    gone = [key for key in deleted if key.kind == "Secret"]
    return tuple(
        f"{key} is in use: {found.key}: {show_path(named.path)}; {_ENDS}"
        for key in gone
        for found in objects.values()
        for named in _named(found, objects, workloads)
        if key.name in {named.name, named.name + _AUTHORITY}
        and key.namespace in (named.namespaces or ())
    )


def _named(
    found: Object, objects: Objects, workloads: Sequence[Workload] | None
) -> Iterator[Named]:
    if not isinstance(found, Gateway | DestinationRule):
        return
    fields = [field for path, tls in tls_settings(found) for field in _fields(path, tls)]
    if not fields:
        return
    namespaces = None if workloads is None else _namespaces(found, objects, workloads)
    for path, name in fields:
        owner, slash, short = name.rpartition("/")
        own = None if namespaces is None else tuple(n for n in namespaces if owner in {"", n})
        yield Named(path, short if slash else name, own)


def _fields(path: Path, tls: ClientTLSSettings | ServerTLSSettings) -> Iterator[tuple[Path, str]]:
    if tls.credential_name:
        yield (*path, "credentialName"), tls.credential_name
    if isinstance(tls, ServerTLSSettings):
        if tls.ca_cert_credential_name:
            yield (*path, "caCertCredentialName"), tls.ca_cert_credential_name
        for index, name in enumerate(tls.credential_names):
            yield (*path, "credentialNames", index), name


def _namespaces(
    found: Gateway | DestinationRule, objects: Objects, workloads: Sequence[Workload]
) -> tuple[str, ...] | None:
    """Of the workloads whose proxies read what the object names; None: there is none yet."""
    if isinstance(found, Gateway):
        return _of(_selected(found.spec.selector, workloads))
    spec, owner = found.spec, found.metadata.namespace
    if spec.workload_selector:
        return (owner,)
    gateways = (one.spec.selector for one in objects.values() if isinstance(one, Gateway))
    chosen = [workload for selector in gateways for workload in _selected(selector, workloads)]
    return _of(one for one in chosen if exported(spec.export_to, owner, one.namespace))


def _of(workloads: Iterable[Workload]) -> tuple[str, ...] | None:
    return tuple(sorted({workload.namespace for workload in workloads})) or None


def _selected(selector: Mapping[str, str], workloads: Sequence[Workload]) -> Iterator[Workload]:
    for workload in workloads:
        if selector and selector.items() <= workload.labels.items():
            yield workload
