from __future__ import annotations

import msgspec
import pytest

from meshd import wire
from meshd.model.pool import Pool
from meshd.model.workload import DroppedConnections, Observation, Stage, Workload
from meshd.workloads.lifecycle import Facts, Life, Phase
from meshd.workloads.status import row

_WORKLOAD = Workload(
    uid="default.a",
    name="a",
    namespace="default",
    netns="/n/a",
    service_account="sa",
    addresses=("198.18.0.1", "fd00:198::1"),
)
_URI = "spiffe://cluster.local/ns/default/sa/sa"
_LIFE = Life(_WORKLOAD, Phase.CAPTURED)
_SEEN = Observation("default.a", Stage.CAPTURED, True)
_GOOD = Facts(observations={"default.a": _SEEN}, accepted={"default.a"})
_CERTIFICATES = {_URI: wire.CertificateState(_URI, 1_700_000_000.5, "1")}


def test_a_workload_that_is_well() -> None:
    assert row(_WORKLOAD, _LIFE, _GOOD, _CERTIFICATES, node="n", proxy="p") == wire.WorkloadStatus(
        workload="a",
        namespace="default",
        service_account="sa",
        node="n",
        address="198.18.0.1",
        netns="/n/a",
        proxy="p",
        captured=True,
        certificate_expires="2023-11-14T22:13:20Z",
        synced=True,
        proven=True,
        problem="",
        uid="default.a",
    )


def test_a_workload_outside_the_mesh_says_why() -> None:
    found = row(_WORKLOAD, None, Facts(), {}, node="n", outside="no label says")
    assert (found.captured, found.synced, found.proven) == (False, False, False)
    assert found.certificate_expires is None
    assert found.problem == "no label says"


@pytest.mark.parametrize(
    ("facts", "rejected", "problem"),
    [
        ({"observations": {"default.a": Observation("default.a", Stage.PINNED, False, "boom")}},
         "", "boom"),
        ({"observed": False, "observations": {}}, "", "the capture role does not answer"),
        ({"missing": (Pool.TRAFFIC,)}, "", "no proxy is connected"),
        ({"missing": (Pool.DNS,)}, "", "no dns proxy is connected"),
        ({}, "port taken", "refused by a proxy: port taken"),
        ({"observations": {"default.a": Observation("default.a", Stage.CAPTURED)}},
         "", "its traffic is redirected, but no probe has reached the proxy"),
    ],
)  # fmt: skip
def test_the_problem_of_a_workload_is_said_in_one_line(
    facts: dict[str, object], rejected: str, problem: str
) -> None:
    facts_now = msgspec.structs.replace(_GOOD, **facts)
    found = row(_WORKLOAD, _LIFE, facts_now, _CERTIFICATES, node="n", rejected=rejected)
    assert found.problem == problem


def test_a_certificate_that_cannot_be_had_is_a_problem() -> None:
    certificates = {_URI: wire.CertificateState(_URI, 0, "", "the CA does not answer")}
    found = row(_WORKLOAD, _LIFE, _GOOD, certificates, node="n")
    assert found.problem == "the CA does not answer"


def test_a_workload_above_its_limit_of_connections_is_in_the_mesh_and_has_a_problem() -> None:
    dropped = DroppedConnections(7, 0, "it opens too many")
    seen = msgspec.structs.replace(_SEEN, dropped=dropped)
    facts = msgspec.structs.replace(_GOOD, observations={"default.a": seen})
    found = row(_WORKLOAD, _LIFE, facts, _CERTIFICATES, node="n")
    assert found.proven
    assert (found.problem, found.dropped) == ("it opens too many", dropped)
