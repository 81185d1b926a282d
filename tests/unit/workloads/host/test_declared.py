from __future__ import annotations

import msgspec

from meshd.api.base import ObjectMeta
from meshd.api.service_entry.types import WorkloadEntry, WorkloadEntrySpec
from meshd.model.workload import NamedPort, Workload
from meshd.workloads.host.declared import ANNOTATION, compare
from meshd.workloads.host.host_services import with_ports

HERE = ("198.18.0.1", "fd00:198::1")


def entry(
    unit: str = "nginx.service", address: str = "198.18.0.1", name: str = "web"
) -> WorkloadEntry:
    return WorkloadEntry(
        metadata=ObjectMeta(
            name=name, namespace="mesh", annotations={ANNOTATION: unit} if unit else {}
        ),
        spec=WorkloadEntrySpec(
            address=address, ports={"http": 80}, labels={"app": "web"}, service_account="web"
        ),
    )


def registered(*entries: WorkloadEntry) -> dict[str, Workload]:
    found = compare(entries, {}, HERE).register
    return {one.uid: one for one in with_ports(found, {})}


def test_an_entry_of_this_host_is_a_service_of_it() -> None:
    (found,) = compare([entry()], {}, HERE).register
    assert (found.uid, found.service_account, found.labels) == ("mesh.web", "web", {"app": "web"})
    assert found.ports == (NamedPort("http", 80),)
    assert found.host
    assert found.host.unit == "nginx.service"
    assert found.host.cgroup == "meshd_services.slice/meshd_services-nginx.slice"
    assert found.host.declared


def test_entries_of_other_hosts_and_without_a_unit_are_none() -> None:
    entries = [entry(address="198.18.0.9"), entry(unit="", name="other")]
    assert compare(entries, {}, HERE).register == ()


def test_a_unit_registered_as_declared_is_left_alone() -> None:
    known = registered(entry())
    found = compare([entry()], known, HERE)
    assert (found.register, found.unregister) == ((), ())
    changed = msgspec.structs.replace(
        entry(), spec=msgspec.structs.replace(entry().spec, service_account="other")
    )
    (again,) = compare([changed], known, HERE).register
    assert again.service_account == "other"


def test_it_stays_when_the_host_has_lost_its_address_and_goes_with_the_entry() -> None:
    known = registered(entry())
    assert compare([entry()], known, ()).unregister == ()
    assert compare([], known, HERE).unregister == ("mesh.web",)


def test_units_enrolled_by_hand_are_not_released() -> None:
    (found,) = registered(entry()).values()
    assert found.host
    by_hand = msgspec.structs.replace(
        found, host=msgspec.structs.replace(found.host, declared=False)
    )
    assert compare([], {"mesh.web": by_hand}, HERE).unregister == ()


def test_impossible_declarations_are_reported() -> None:
    (problem,) = compare([entry("ssh.service")], {}, HERE).problems
    assert "mesh/web" in problem
    assert "ssh.service is never captured" in problem


def test_an_entry_that_no_workload_can_be_made_of_is_named_and_the_others_are_taken() -> None:
    known = registered(entry())
    moved, good = entry(address="vm.example.com"), entry(name="good")
    found = compare([moved, good], known, HERE)
    assert [one.uid for one in found.register] == ["mesh.good"]
    assert found.unregister == ()
    (problem,) = found.problems
    assert "WorkloadEntry mesh/web" in problem
    assert "'vm.example.com' is not an IP address" in problem
