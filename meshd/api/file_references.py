"""The files that objects name: certificates, keys, authorities, revocation lists. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from meshd.api import secret_files
from meshd.api.base import Object
from meshd.api.decode import Path
from meshd.api.destination_rule.types import ClientTLSSettings, DestinationRule, TrafficPolicy
from meshd.api.finding import Finding
from meshd.api.gateway.types import Gateway, ServerTLSSettings, TLSCertificate
from meshd.api.read import Read
from meshd.api.secret_files import SYSTEM, SecretFiles
from meshd.api.yaml import show_path

Named = tuple[Path, str]
"""A field, and the file that it names."""
_CLIENT = ("client_certificate", "private_key", "ca_certificates", "ca_crl")
_SERVER = ("server_certificate", "private_key", "ca_certificates", "ca_crl")
_ONE_OF_SERVER = ("server_certificate", "private_key", "ca_certificates")


def files_named(found: Object) -> Iterator[Named]:
    """Yield the files that the fields of one object name."""
    for path, tls in tls_settings(found):
        if isinstance(tls, ClientTLSSettings):
            yield from _given(path, tls, _CLIENT)
            continue
        yield from _given(path, tls, _SERVER)
        for index, one in enumerate(tls.tls_certificates):
            yield from _given((*path, "tlsCertificates", index), one, _ONE_OF_SERVER)


def secrets_named(found: Object) -> Iterator[tuple[Path, SecretFiles]]:
    """Yield the secrets that proxies ask for because of one object, each with its field."""
    for path, tls in tls_settings(found):
        if isinstance(tls, ClientTLSSettings):
            shown, authority = secret_files.of_client(tls)
            asked: Iterable[SecretFiles | None] = (shown, authority)
        else:
            certificates, authority = secret_files.of_server(tls)
            asked = (*certificates, authority)
        yield from ((path, one) for one in asked if one)


def names_of(objects: Iterable[Object]) -> tuple[str, ...]:
    """Return the names of secrets in files that objects name, without the system's roots."""
    asked = (one for found in objects for _, one in secrets_named(found) if one.paths)
    return tuple(dict.fromkeys(one.name for one in asked))


def problems(objects: Iterable[Object], states: Mapping[str, str]) -> tuple[str, ...]:
    """Return a line for each file that cannot be served; ``states`` has the reasons by name."""
    if not states:
        return ()
    return tuple(
        f"{found.key}: {show_path(path)}: {states[one.name]}"
        for found in objects
        for path, one in secrets_named(found)
        if one.name in states
    )


def outside(reads: Iterable[Read], directories: Sequence[str]) -> tuple[Finding, ...]:
    """Return warnings of files that are not below the directories from which a node reads."""
    where = f"not below {' or '.join(directories)} (setting identity.certificate_directories)"
    return tuple(
        read.finding(path, f"{file} is not read on a node: it is {where}", "warning")
        for read in reads
        for path, file in files_named(read.object)
        if file != SYSTEM and not secret_files.is_below(file, directories)
    )


def tls_settings(found: Object) -> Iterator[tuple[Path, ClientTLSSettings | ServerTLSSettings]]:
    match found:
        case DestinationRule():
            spec = found.spec
            yield from _of_policy(("spec", "trafficPolicy"), spec.traffic_policy)
            for index, subset in enumerate(spec.subsets):
                path: Path = ("spec", "subsets", index, "trafficPolicy")
                yield from _of_policy(path, subset.traffic_policy)
        case Gateway():
            for index, server in enumerate(found.spec.servers):
                if server.tls:
                    yield ("spec", "servers", index, "tls"), server.tls
        case _:
            pass


def _of_policy(
    path: Path, policy: TrafficPolicy | None
) -> Iterator[tuple[Path, ClientTLSSettings]]:
    if policy is None:
        return
    if policy.tls:
        yield (*path, "tls"), policy.tls
    for index, settings in enumerate(policy.port_level_settings):
        if settings.tls:
            yield (*path, "portLevelSettings", index, "tls"), settings.tls


def _given(
    path: Path,
    holder: ServerTLSSettings | ClientTLSSettings | TLSCertificate,
    fields: Iterable[str],
) -> Iterator[Named]:
    for field in fields:
        if file := getattr(holder, field):
            head, *rest = field.split("_")
            yield (*path, head + "".join(map(str.capitalize, rest))), file
