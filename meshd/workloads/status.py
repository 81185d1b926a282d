"""Builds the rows of ``meshctl status``: how far each workload is in the mesh. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from meshd import wire
from meshd.base.moments import rfc3339
from meshd.model.pool import lack
from meshd.model.workload import Identity, Observation, Stage, Workload
from meshd.workloads.lifecycle import Facts, Life, Phase

_ABSENT = Observation("", Stage.ABSENT)


def row(
    workload: Workload,
    life: Life | None,
    facts: Facts,
    certificates: Mapping[str, wire.CertificateState],
    *,
    node: str,
    proxy: str = "",
    rejected: str = "",
    outside: str = "",
    short_way: str = "",
    hbone: str = "",
) -> wire.WorkloadStatus:
    """Return the row of one workload.

    ``certificates`` are by URI. ``rejected`` says why a proxy refused the workload's listeners;
    ``outside`` why the workload is not enrolled. ``short_way``, ``hbone``: as the status has them.
    """
    seen = facts.observations.get(workload.uid, _ABSENT)
    identity = Identity(facts.trust_domain, workload.namespace, workload.service_account)
    certificate = certificates.get(identity.uri)
    return wire.WorkloadStatus(
        workload=workload.name,
        namespace=workload.namespace,
        service_account=workload.service_account,
        node=workload.node or node,
        address=workload.addresses[0] if workload.addresses else "",
        netns=workload.netns,
        cgroup=workload.host.cgroup if workload.host else "",
        proxy=proxy,
        captured=seen.stage is Stage.CAPTURED,
        certificate_expires=rfc3339(certificate.expires)
        if certificate and certificate.serial
        else None,
        synced=workload.uid in facts.accepted,
        proven=seen.stage is Stage.CAPTURED and seen.proven,
        enrolled=not outside,
        unprotected=seen.unprotected,
        interruptions=seen.interruptions,
        unseen=seen.unseen if seen.proven else "",
        dropped=seen.dropped,
        slower=seen.slower,
        uid=workload.uid,
        unit=workload.host.unit if workload.host else "",
        declared=workload.host is not None and workload.host.declared,
        problem=_problem(life, seen, facts, certificate, rejected) if life else outside,
        short_way=short_way,
        hbone=hbone,
    )


def _problem(
    life: Life,
    seen: Observation,
    facts: Facts,
    certificate: wire.CertificateState | None,
    rejected: str,
) -> str:
    """Return the first problem that applies; it explains those after it."""
    unproven = life.phase is Phase.CAPTURED and seen.stage is Stage.CAPTURED and not seen.proven
    found = (
        seen.problem,
        "" if facts.observed else "the capture role does not answer",
        *(lack(pool) for pool in facts.missing),
        f"refused by a proxy: {rejected}" if rejected else "",
        certificate.problem if certificate else "",
        "its traffic is redirected, but no probe has reached the proxy" if unproven else "",
        seen.dropped.limited,
        seen.dropped.uncounted,
    )
    return next(filter(None, found), "")
