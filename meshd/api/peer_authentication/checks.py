"""Validates PeerAuthentications.

https://istio.io/latest/docs/reference/config/security/peer_authentication/
"""

from __future__ import annotations

from meshd.api.checks import Report, check_labels, check_port, check_selector
from meshd.api.peer_authentication.types import PeerAuthentication


def check_peer_authentication(report: Report, found: PeerAuthentication) -> None:
    spec = found.spec
    selected = spec.selector is not None and bool(spec.selector.match_labels)
    if spec.port_level_mtls and not selected:
        report.error(
            ("spec", "portLevelMtls"), "is for chosen workloads: it needs selector.matchLabels"
        )
    if spec.port_level_mtls == {}:
        report.error(("spec", "portLevelMtls"), "is empty; leave it out")
    for port in spec.port_level_mtls or ():
        check_port(report, ("spec", "portLevelMtls", str(port)), port)
    if spec.selector:
        check_labels(report, ("spec", "selector", "matchLabels"), spec.selector.match_labels)
        check_selector(report, ("spec", "selector"), spec.selector.match_labels)
