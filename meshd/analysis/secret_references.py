"""Checks the Secrets that Gateways and DestinationRules name.

Each proxy reads the Secrets of its own namespace: of a gateway's workload, not of the Gateway.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from meshd.api.base import Key, Object, exported
from meshd.api.decode import Path
from meshd.api.destination_rule.types import ClientTLSSettings, DestinationRule
from meshd.api.file_references import tls_settings
from meshd.api.gateway.types import Gateway, GatewaySelection, ServerTLSSettings
from meshd.api.kubernetes.types import Secret
from meshd.api.yaml import show_path
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
    certificate: bool
    """It is to show."""
    authority: bool
    """It is to verify by."""
    namespaces: tuple[str, ...] | None = None
    """Where proxies look for it; None: that is not known."""

    def lack(self, key: Key, objects: Objects) -> str:
        """Return what an existing Secret lacks."""
        found, beside = (
            objects[key],
            objects.get(Key(key.kind, key.namespace, key.name + _AUTHORITY)),
        )
        secrets = [one for one in (found, beside) if isinstance(one, Secret)]
        own = secrets[0]
        is_pair = own.entry("tls.crt", "cert") and own.entry("tls.key", "key")
        if self.certificate and not is_pair:
            return "has no tls.crt and tls.key"
        if self.authority and not any(one.entry("ca.crt", "cacert") for one in secrets):
            return "has no ca.crt"
        return ""


def of_secrets(
    found: Object,
    objects: Objects,
    workloads: Sequence[Workload] | None,
    selection: GatewaySelection,
) -> Said:
    """Return remarks about Secrets that one object names and that are missing or incomplete."""
    if isinstance(found, Secret):
        for user, named in _users(found.key, objects, workloads, selection):
            if lack := named.lack(found.key, objects):
                yield (), f"{lack}, which {user.key} needs: {show_path(named.path)}; {_ENDS}"
    for named in _named(found, objects, workloads, selection):
        if isinstance(found, DestinationRule) and found.spec.workload_selector is None:
            text = (
                "is for gateways: the rule has no workloadSelector, so other clients connect in"
                " plaintext"
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
        for namespace in sorted(
            there & set(there if named.namespaces is None else named.namespaces)
        ):
            key = Key("Secret", namespace, named.name)
            if lack := named.lack(key, objects):
                yield named.path, f"{key} {lack}; {_ENDS}"


def left_without(
    deleted: Collection[Key],
    objects: Objects,
    workloads: Sequence[Workload] | None,
    selection: GatewaySelection,
) -> tuple[str, ...]:
    """Return a line for each deleted Secret that the remaining ``objects`` name."""
    gone = [key for key in deleted if key.kind == "Secret"]
    return tuple(
        f"{key} is in use: {found.key}: {show_path(named.path)}; {_ENDS}"
        for key in gone
        for found, named in _users(key, objects, workloads, selection)
    )


def _users(
    key: Key,
    objects: Objects,
    workloads: Sequence[Workload] | None,
    selection: GatewaySelection,
) -> Iterator[tuple[Object, Named]]:
    """Yield the objects that name a Secret, or the one whose authority it is."""
    for found in objects.values():
        for named in _named(found, objects, workloads, selection):
            is_it = key.name in {named.name, named.name + _AUTHORITY}
            if is_it and key.namespace in (named.namespaces or ()):
                yield found, named


def _named(
    found: Object,
    objects: Objects,
    workloads: Sequence[Workload] | None,
    selection: GatewaySelection,
) -> Iterator[Named]:
    if not isinstance(found, Gateway | DestinationRule):
        return
    fields = [field for path, tls in tls_settings(found) for field in _fields(path, tls)]
    if not fields:
        return
    namespaces = None if workloads is None else _namespaces(found, objects, workloads, selection)
    for named in fields:
        owner, _, short = named.name.rpartition("/")
        own = None if namespaces is None else tuple(n for n in namespaces if owner in {"", n})
        yield dataclasses.replace(named, name=short, namespaces=own)


def _fields(path: Path, tls: ClientTLSSettings | ServerTLSSettings) -> Iterator[Named]:
    if isinstance(tls, ClientTLSSettings):
        if (name := tls.credential_name) and tls.mode in {"SIMPLE", "MUTUAL"}:
            is_verified = not tls.insecure_skip_verify
            yield Named((*path, "credentialName"), name, tls.mode == "MUTUAL", is_verified)
        return
    places: list[tuple[Path, str]] = [(("credentialName",), tls.credential_name or "")]
    places += [(("credentialNames", at), one) for at, one in enumerate(tls.credential_names)]
    places += [(("caCertCredentialName",), tls.ca_cert_credential_name or "")]
    if tls.mode in {"SIMPLE", "MUTUAL", "OPTIONAL_MUTUAL"}:
        for place, name in places:
            is_shown = place[0] != "caCertCredentialName"
            if name:
                yield Named((*path, *place), name, is_shown, name == tls.authority_secret)


def _namespaces(
    found: Gateway | DestinationRule,
    objects: Objects,
    workloads: Sequence[Workload],
    selection: GatewaySelection,
) -> tuple[str, ...] | None:
    """Return the namespaces of workloads whose proxies read what the object names; None: there is
    none yet."""
    if isinstance(found, Gateway):
        return _of(_selected([found], workloads, selection))
    spec, owner = found.spec, found.metadata.namespace
    if spec.workload_selector:
        return (owner,)
    gateways = [one for one in objects.values() if isinstance(one, Gateway)]
    chosen = _selected(gateways, workloads, selection)
    return _of(one for one in chosen if exported(spec.export_to, owner, one.namespace))


def _of(workloads: Iterable[Workload]) -> tuple[str, ...] | None:
    return tuple(sorted({workload.namespace for workload in workloads})) or None


def _selected(
    gateways: Sequence[Gateway], workloads: Iterable[Workload], selection: GatewaySelection
) -> Iterator[Workload]:
    for one in workloads:
        if any(gateway.selects(one.labels, one.namespace, selection) for gateway in gateways):
            yield one
