"""Validates a Gateway's TLS settings.

https://istio.io/latest/docs/reference/config/networking/gateway/#ServerTLSSettings
"""

from __future__ import annotations

import base64
import re
from typing import Final

from meshd.api.checks import Report, check_path
from meshd.api.decode import Path, nearest
from meshd.api.gateway.types import CIPHER_SUITES, ServerTLSSettings, TLSCertificate
from meshd.api.read import subdomain_problem

ENCRYPTED: Final = {"HTTPS", "TLS"}
"""Protocols of ports on which TLS is spoken."""
_VERSIONS: Final = ("TLS_AUTO", "TLSV1_0", "TLSV1_1", "TLSV1_2", "TLSV1_3")
_SHA256: Final = re.compile(r"[0-9a-fA-F]{64}|[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){31}")
_MOST_CERTIFICATES: Final = 2
"""One with an RSA key and one with an ECDSA key."""


def check_server_tls(report: Report, path: Path, tls: ServerTLSSettings, protocol: str) -> None:
    _check_paths(report, path, tls)
    if protocol not in ENCRYPTED:
        if tls.secrets or tls.server_certificate or tls.mode != "PASSTHROUGH":
            report.error(path, f"{protocol} has no TLS; of this only httpsRedirect is possible")
        elif not tls.https_redirect:
            report.warning(path, f"has no effect: {protocol} has no TLS")
        return
    if tls.https_redirect:
        message = "has no effect: it is for servers that speak HTTP"
        report.warning((*path, "httpsRedirect"), message)
    if tls.mode == "AUTO_PASSTHROUGH":
        use = "use PASSTHROUGH, and a VirtualService with tls routes"
        report.error((*path, "mode"), f"AUTO_PASSTHROUGH is not supported; {use}")
    if tls.mode in {"SIMPLE", "MUTUAL", "OPTIONAL_MUTUAL"}:
        _check_certificates(report, path, tls)
    else:
        _check_nothing_given(report, path, tls)
    _check_clients(report, path, tls)
    _check_versions(report, path, tls)
    for index, name in enumerate(tls.cipher_suites):
        if name not in CIPHER_SUITES or name in tls.cipher_suites[:index]:
            what = "is written twice" if name in CIPHER_SUITES else "is unknown"
            hint = "" if name in CIPHER_SUITES else nearest(name, CIPHER_SUITES)
            message = f'"{name}" {what}{hint}; it is ignored'
            report.warning((*path, "cipherSuites", index), message)


def _sources(tls: ServerTLSSettings) -> list[str]:
    """Return the fields that say where the server's certificate comes from."""
    given = {
        "credentialName": tls.credential_name,
        "credentialNames": tls.credential_names,
        "tlsCertificates": tls.tls_certificates,
        "serverCertificate": tls.server_certificate or tls.private_key,
    }
    return [name for name, value in given.items() if value]


def _check_nothing_given(report: Report, path: Path, tls: ServerTLSSettings) -> None:
    authority = {
        "caCertificates": tls.ca_certificates,
        "caCertCredentialName": tls.ca_cert_credential_name,
    }
    for name in (*_sources(tls), *(name for name, value in authority.items() if value)):
        # Istio refuses it with its own certificates, and passes it over where TLS does not end.
        say = report.error if tls.mode == "ISTIO_MUTUAL" else report.warning
        say((*path, name), f"has no meaning with {tls.mode}; remove it")


def _check_certificates(report: Report, path: Path, tls: ServerTLSSettings) -> None:
    sources = _sources(tls)
    if len(sources) > 1 and not _is_secret_beside_files(sources):
        report.error(path, f"has {' and '.join(sources)}; only one of them is possible")
        return
    if len(sources) > 1 or (tls.credential_name and tls.ca_certificates):
        message = "stands in place of files, which are ignored"
        report.warning((*path, "credentialName"), message)
        return
    if not sources:
        needed = "the name of a Secret (or serverCertificate, privateKey)"
        report.error((*path, "credentialName"), f"{tls.mode} needs {needed}")
    for name, listed in (
        ("credentialNames", tls.credential_names),
        ("tlsCertificates", tls.tls_certificates),
    ):
        if len(listed) > _MOST_CERTIFICATES:
            most = "at most two are possible, one RSA and one ECDSA"
            report.error((*path, name), f"has {len(listed)} entries; {most}")
    for place, name in (
        (("credentialName",), tls.credential_name),
        (("caCertCredentialName",), tls.ca_cert_credential_name),
        *((("credentialNames", index), name) for index, name in enumerate(tls.credential_names)),
    ):
        if name is not None and (problem := subdomain_problem(name)):
            report.error((*path, *place), problem)
    _check_files(report, path, tls)


def _is_secret_beside_files(sources: list[str]) -> bool:
    return sources == ["credentialName", "serverCertificate"]


def _check_paths(report: Report, path: Path, tls: ServerTLSSettings) -> None:
    check_path(report, (*path, "caCrl"), tls.ca_crl)
    places: list[tuple[Path, ServerTLSSettings | TLSCertificate]] = [
        (path, tls),
        *(((*path, "tlsCertificates", at), one) for at, one in enumerate(tls.tls_certificates)),
    ]
    for place, one in places:
        check_path(report, (*place, "serverCertificate"), one.server_certificate)
        check_path(report, (*place, "privateKey"), one.private_key)
        check_path(report, (*place, "caCertificates"), one.ca_certificates)


def _check_files(report: Report, path: Path, tls: ServerTLSSettings) -> None:
    pairs: list[tuple[Path, str | None, str | None]] = [
        (("tlsCertificates", index), one.server_certificate, one.private_key)
        for index, one in enumerate(tls.tls_certificates)
    ]
    if tls.server_certificate or tls.private_key:
        pairs.append(((), tls.server_certificate, tls.private_key))
    for place, certificate, key in pairs:
        for name, value in (("serverCertificate", certificate), ("privateKey", key)):
            if not value:
                report.error((*path, *place, name), "is required, unless a Secret is named")
    if pairs and tls.asks_for_certificates and not (tls.authority_secret or tls.authority_file):
        message = f"{tls.mode} needs it, or a caCertCredentialName"
        report.error((*path, "caCertificates"), message)


def _check_clients(report: Report, path: Path, tls: ServerTLSSettings) -> None:
    """Check what is required of clients' certificates."""
    if not tls.asks_for_certificates:
        for name, value in (
            ("subjectAltNames", tls.subject_alt_names),
            ("verifyCertificateSpki", tls.verify_certificate_spki),
            ("verifyCertificateHash", tls.verify_certificate_hash),
            ("caCrl", tls.ca_crl),
        ):
            if value:
                message = f"has no effect with {tls.mode}, which asks clients for no certificate"
                report.warning((*path, name), message)
    if tls.ca_crl and tls.authority_secret:
        report.error(
            (*path, "caCrl"), "is a file; a Secret brings its own list, under the key ca.crl"
        )
    for index, text in enumerate(tls.verify_certificate_hash):
        if not _SHA256.fullmatch(text):
            report.error(
                (*path, "verifyCertificateHash", index),
                f'"{text}" is not a SHA-256 in hexadecimal digits, with or without colons',
            )
    for index, text in enumerate(tls.verify_certificate_spki):
        if not _is_base64_of_sha256(text):
            report.error(
                (*path, "verifyCertificateSpki", index), f'"{text}" is not a SHA-256 in base64'
            )


def _is_base64_of_sha256(text: str) -> bool:
    try:
        return len(base64.b64decode(text, validate=True)) == 32
    except ValueError:
        return False


def _check_versions(report: Report, path: Path, tls: ServerTLSSettings) -> None:
    low, high = tls.min_protocol_version, tls.max_protocol_version
    if low in {"TLSV1_0", "TLSV1_1"} and not tls.cipher_suites:
        message = f"{low} has no ciphers of its own any more; name some in cipherSuites"
        report.warning((*path, "minProtocolVersion"), message)
    if not low or not high or "TLS_AUTO" in {low, high}:
        return
    if _VERSIONS.index(low) > _VERSIONS.index(high):
        report.error((*path, "minProtocolVersion"), f"{low} is above the maximum, {high}")
