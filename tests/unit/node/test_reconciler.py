"""What the reconciler does upon each event, and when a port fails."""

from __future__ import annotations

import pytest

from meshd.base.errors import InvalidInputError, NotReadyError, SystemRefusedError
from meshd.model.interception import HOST_PORTS
from meshd.model.short_way import ShortWay
from meshd.model.snapshot import MeshOptions
from meshd.model.workload import Identity, Stage
from meshd.node.known import Known
from meshd.workloads.lifecycle import Life, Phase
from tests.unit.node.world import (
    BAD,
    GROUP,
    IN_GROUP,
    World,
    host_service,
    pod,
    remote,
    service,
)

WEB = pod("web", account="web")
UID = WEB.uid


@pytest.fixture
def world() -> World:
    """A world in which a workload is captured, and nothing is left to be done."""
    made = World()
    made.configure(service("web"))
    made.reconciler.register([WEB])
    made.rest()
    made.calls.clear()
    return made


def stages(world: World) -> dict[str, Stage]:
    return {one.workload.uid: one.stage for one in world.placed}


def accounts(world: World) -> list[str]:
    return [one.service_account for one in world.allowed]


def served(world: World) -> dict[str, str]:
    return {uid: one.netns for uid, one in world.published[1].items()} if world.published else {}


# ---- events


def test_a_registered_workload_is_captured_only_when_the_proxies_serve_it() -> None:
    world = World()
    world.reconciler.register([WEB])
    world.settle()
    assert (stages(world), served(world)) == ({UID: Stage.PINNED}, {})
    assert accounts(world) == ["web"]
    world.capture()
    world.settle()
    assert (stages(world), served(world)) == ({UID: Stage.PINNED}, {UID: f"/pins/{UID}"})
    world.accept()
    world.settle()
    assert stages(world) == {UID: Stage.CAPTURED}


def test_what_was_pinned_before_it_was_registered_is_served_without_further_word() -> None:
    world = World()
    world.reconciler.register([WEB])
    world.settle()
    world.capture()
    world.recorded = ({}, {})
    world.restart()
    world.capture()
    world.settle()
    world.reconciler.register([WEB])
    world.settle()
    assert served(world) == {UID: f"/pins/{UID}"}


def test_an_unregistered_workload_leaves_without_a_trace(world: World) -> None:
    world.reconciler.unregister([UID])
    world.rest()
    assert (stages(world), served(world), accounts(world)) == ({}, {}, [])
    assert world.recorded == ({}, {})


def test_nothing_is_published_before_capture_has_told_where_namespaces_are_pinned(
    world: World,
) -> None:
    world.restart()
    world.settle()
    assert world.published is None
    assert stages(world) == {UID: Stage.CAPTURED}
    world.capture()
    world.settle()
    assert served(world) == {UID: f"/pins/{UID}"}


def test_an_address_that_is_seen_is_an_endpoint(world: World) -> None:
    assert world.published
    assert world.published[0].workloads[UID].addresses == ("198.18.1.1",)


def test_workloads_of_other_nodes_are_endpoints_and_are_not_placed(world: World) -> None:
    world.configure(service("web"), service("db"))
    world.hear(remote("db", "198.18.5.1"))
    world.rest()
    assert "198.18.5.1" in str(world.resolved)
    assert stages(world) == {UID: Stage.CAPTURED}
    world.hear()
    world.rest()
    assert "198.18.5.1" not in str(world.resolved)


def test_a_new_configuration_is_resolved_and_published(world: World) -> None:
    world.configure(service("web"), service("db"))
    world.rest()
    assert world.published
    assert set(world.resolved) == set(world.published[0].services)
    assert "db.shop.svc.cluster.local" in world.resolved


def test_a_service_of_the_host_has_the_addresses_that_the_host_has_now(world: World) -> None:
    world.reconciler.register([host_service("ssh")])
    world.rest()
    world.move("198.18.0.2")
    world.rest()
    assert world.published
    assert world.published[0].workloads["host.ssh"].addresses == ("198.18.0.2",)
    assert served(world)["host.ssh"] == ""


def test_a_member_of_a_group_receives_traffic_when_it_is_healthy() -> None:
    world = World()
    world.configure(GROUP)
    world.reconciler.register([pod("web", annotations=IN_GROUP)])
    world.rest()
    assert list(world.checked) == [UID]
    assert world.published
    assert not world.published[0].workloads[UID].ready
    world.health(UID, True)
    world.rest()
    assert world.published[0].workloads[UID].ready


def test_a_changed_account_keeps_its_certificate_until_proxies_have_the_new_one(
    world: World,
) -> None:
    world.reconciler.register([pod("web", account="new")])
    world.settle()
    assert accounts(world) == ["new", "web"]
    world.accept()
    world.settle()
    assert accounts(world) == ["new"]


def test_certificates_are_asked_for_again_when_the_server_has_heard(world: World) -> None:
    world.reconciler.contacted()
    world.settle()
    assert (world.calls, world.contacts) == (["allow"], 1)
    assert world.allowed == (Identity("cluster.local", "shop", "web"),)


def test_events_that_change_nothing_lead_to_no_call(world: World) -> None:
    world.reconciler.register([WEB])
    world.capture()
    world.hear()
    world.reconciler.unregister(["shop.unknown"])
    assert not world.dirty
    world.configure(service("web"))
    world.move("198.18.0.1")
    world.rest()
    assert world.calls == []


def test_a_restart_tells_what_was_told_before_and_records_nothing(world: World) -> None:
    before = world.outcome
    world.restart()
    world.rest()
    assert world.outcome == before
    assert "save" not in world.calls


# ---- while a compilation runs


@pytest.fixture
def compiling(world: World) -> World:
    """The world, in which a new configuration is being compiled."""
    world.configure(service("web"), service("db"))
    while not world.publisher.is_compiling:
        world.round()
        world.work()
    world.rounds()
    return world


def test_a_workload_leaves_without_waiting_for_a_compilation(compiling: World) -> None:
    compiling.reconciler.unregister([UID])
    while compiling.dirty:
        compiling.rounds()
        compiling.capture()
        compiling.accept()
    assert compiling.publisher.is_compiling
    assert (stages(compiling), compiling.recorded) == ({}, ({}, {}))


def test_a_workload_that_left_during_a_compilation_is_not_served_after_it(
    compiling: World,
) -> None:
    compiling.reconciler.unregister([UID])
    compiling.rounds()
    compiling.capture()
    compiling.rounds()
    compiling.work()
    assert compiling.published
    assert "db.shop.svc.cluster.local" in compiling.published[0].services
    assert served(compiling) == {}


def test_a_workload_is_pinned_and_certified_during_a_compilation(compiling: World) -> None:
    compiling.reconciler.register([pod("db", account="db")])
    compiling.rounds()
    assert compiling.publisher.is_compiling
    assert stages(compiling)["shop.db"] is Stage.PINNED
    assert accounts(compiling) == ["db", "web"]


def test_a_workload_is_served_only_with_a_snapshot_that_has_seen_it(world: World) -> None:
    world.reconciler.register([pod("db", account="db")])
    for _ in range(3):
        world.rounds()
        world.capture()
    assert world.publisher.wanted
    assert world.publisher.wanted.served.keys() == {UID}
    world.rest()
    assert served(world).keys() == {UID, "shop.db"}


def test_each_account_under_which_proxies_may_act_is_certified(world: World) -> None:
    for account in ("second", "third"):
        world.reconciler.register([pod("web", account=account)])
        world.rounds()
    assert {"web", "third"} <= set(accounts(world))
    world.rest()
    assert accounts(world) == ["third"]


def test_a_former_account_is_certified_until_listeners_of_the_new_one_are_compiled(
    compiling: World,
) -> None:
    compiling.reconciler.register([pod("web", account="new")])
    compiling.rounds()
    compiling.accept()
    compiling.rounds()
    assert accounts(compiling) == ["new", "web"]
    compiling.rest()
    assert accounts(compiling) == ["new"]


def test_a_namespace_is_captured_when_listeners_in_that_one_are_compiled(
    compiling: World,
) -> None:
    """The listeners that proxies have accepted are in the former one."""
    other = pod("web", netns="2", account="web")
    for one in ([UID], [other]):
        if isinstance(one[0], str):
            compiling.reconciler.unregister([UID])
        else:
            compiling.reconciler.register([other])
        for _ in range(5):
            compiling.rounds()
            compiling.capture()
    assert compiling.publisher.is_compiling
    assert stages(compiling) == {UID: Stage.PINNED}
    compiling.rest()
    assert {one.workload.netns for one in compiling.placed} == {other.netns}
    assert stages(compiling) == {UID: Stage.CAPTURED}


def test_changes_during_a_compilation_are_part_of_the_next(compiling: World) -> None:
    compiling.configure(service("web"), service("db"), service("news"))
    compiling.rounds()
    compiling.work()
    assert compiling.published
    assert "news.shop.svc.cluster.local" not in compiling.published[0].services
    compiling.rest()
    assert "news.shop.svc.cluster.local" in compiling.published[0].services


# ---- failures


def test_a_registration_that_cannot_be_recorded_is_refused_and_changes_nothing(
    world: World,
) -> None:
    before = world.outcome
    world.failing.add("save")
    with pytest.raises(SystemRefusedError):
        world.reconciler.register([pod("db")])
    with pytest.raises(SystemRefusedError):
        world.reconciler.unregister([UID])
    assert not world.dirty
    world.failing.clear()
    world.restart()
    world.rest()
    assert world.outcome == before


def test_a_workload_goes_no_step_further_than_is_recorded(world: World) -> None:
    world.reconciler.register([pod("db")])
    world.failing.add("save")
    for _ in range(2):
        with pytest.raises(SystemRefusedError):
            world.settle()
    assert stages(world) == {UID: Stage.CAPTURED}
    world.failing.clear()
    world.rest()
    assert stages(world) == {UID: Stage.CAPTURED, "shop.db": Stage.CAPTURED}


@pytest.mark.parametrize("step", ["begins", "is captured", "leaves", "is gone", "moves"])
def test_a_step_that_cannot_be_recorded_delays_no_other_workload(world: World, step: str) -> None:
    db, moved = pod("db", account="db"), pod("db", netns="2", account="db")
    if step == "is captured":
        world.reconciler.register([db])
        world.settle()
        world.capture()
        world.settle()
    elif step != "begins":
        world.reconciler.register([db])
        world.rest()
    world.reconciler.register([moved if step == "moves" else db])
    if step in {"leaves", "is gone"}:
        world.reconciler.unregister([db.uid])
    if step == "is gone":
        while world.reconciler.known.lives[db.uid].phase is not Phase.LETTING_GO:
            world.settle()
            world.capture()
            world.accept()
    before = stages(world).get(db.uid)
    world.accept()
    world.failing.add("save")
    world.configure(service("web"), service("news"))
    for _ in range(3):  # the others are told, whoever asks for it
        with pytest.raises(SystemRefusedError, match="save"):
            world.settle()
    assert world.published
    assert "news.shop.svc.cluster.local" in world.published[0].services
    assert "news.shop.svc.cluster.local" in world.resolved
    assert stages(world).get(db.uid) is before
    assert stages(world)[UID] is Stage.CAPTURED
    world.failing.clear()
    world.rest()
    left = {"leaves", "is gone"}
    assert stages(world).get(db.uid) is (None if step in left else Stage.CAPTURED)


def test_a_workload_changes_while_the_step_of_another_cannot_be_recorded(world: World) -> None:
    world.reconciler.register([pod("web", account="new"), pod("db")])
    world.failing.add("save")
    with pytest.raises(SystemRefusedError):
        world.settle()
    assert world.published
    assert world.published[1][UID].service_account == "new"
    assert stages(world) == {UID: Stage.CAPTURED}


def test_a_step_is_tried_again_when_only_its_own_record_failed(world: World) -> None:
    """A disk may be full for one moment: what was not recorded then is due, and said to be."""
    world.reconciler.register([pod("db")])
    world.failing_once.add("save")
    with pytest.raises(SystemRefusedError):
        world.round()
    world.rest()
    assert stages(world)["shop.db"] is Stage.CAPTURED


def test_new_addresses_count_even_if_they_cannot_be_recorded(world: World) -> None:
    world.reconciler.register([host_service("ssh")])
    world.rest()
    world.failing.add("save")
    world.move("198.18.0.2")
    with pytest.raises(SystemRefusedError):
        world.settle()
    assert world.published
    assert world.published[0].workloads["host.ssh"].addresses == ("198.18.0.2",)
    world.failing.clear()
    world.calls.clear()
    world.settle()
    assert world.calls == ["save"]


@pytest.mark.parametrize("port", ["place", "allow", "follow", "check", "publish"])
def test_a_port_that_fails_is_told_again_and_keeps_no_other_from_being_told(
    world: World, port: str
) -> None:
    others = {"place", "allow", "follow", "publish"} - {port}
    if port == "publish":  # names are answered for once they are published
        others.remove("follow")
    world.failing.add(port)
    world.configure(service("web"), service("db"), GROUP)
    db = pod("db", account="db", annotations=IN_GROUP)
    world.reconciler.register([db])
    for _ in range(2):
        with pytest.raises(SystemRefusedError):
            world.settle()
    assert others <= set(world.calls)
    assert port not in world.calls
    world.failing.clear()
    world.rest()
    assert port in world.calls
    assert stages(world) == {UID: Stage.CAPTURED, db.uid: Stage.CAPTURED}


def test_values_that_a_port_refuses_are_not_tried_again_until_they_change(world: World) -> None:
    world.configure(service("web"), service(BAD))
    for _ in range(3):
        with pytest.raises(InvalidInputError):
            world.settle()
    assert world.calls.count("refused") == 1
    assert world.published
    assert not any(host.startswith(BAD) for host in world.published[0].services)
    world.configure(service("web"))
    world.rest()
    assert world.outcome.published


def test_a_workload_is_captured_only_when_proxies_can_be_told_of_it(world: World) -> None:
    world.configure(service(BAD))
    world.reconciler.register([pod("db")])
    for _ in range(3):
        with pytest.raises(InvalidInputError):
            world.settle()
        world.capture()
        world.accept()
    assert stages(world) == {UID: Stage.CAPTURED, "shop.db": Stage.PINNED}
    assert set(served(world)) == {UID}


def test_a_workload_leaves_also_when_the_configuration_cannot_be_compiled(world: World) -> None:
    world.configure(service(BAD))
    world.reconciler.unregister([UID])
    for _ in range(5):
        with pytest.raises(InvalidInputError):
            world.settle()
        world.capture()
        world.accept()
    assert (stages(world), served(world), world.recorded) == ({}, {}, ({}, {}))


def test_a_service_of_the_host_without_a_free_port_is_refused(world: World) -> None:
    many = [host_service(f"s{number}") for number in range(len(HOST_PORTS) // 2 + 1)]
    with pytest.raises(NotReadyError):
        world.reconciler.register(many)
    assert list(world.reconciler.known.registered) == [UID]


def test_a_workload_whose_record_is_damaged_stays_captured_until_it_is_registered_again() -> None:
    world = World()
    held = Known(lives={UID: Life(WEB, Phase.HELD)}, damaged={UID: "damaged"})
    world.reconciler.known = held
    world.rest()
    assert (stages(world), served(world)) == ({UID: Stage.CAPTURED}, {})
    assert accounts(world) == []
    world.reconciler.register([WEB])
    assert not world.reconciler.known.damaged
    world.rest()
    assert served(world) == {UID: f"/pins/{UID}"}


def test_while_services_of_the_host_are_not_known_capture_is_told_so_until_one_is() -> None:
    world = World()
    world.reconciler.known = Known(host_is_known=False)
    world.rest()
    assert not world.host_is_known
    world.reconciler.register([pod("web")])
    world.rest()
    assert not world.host_is_known
    world.reconciler.register([host_service("ssh")])
    world.rest()
    assert world.host_is_known


# ---- the short way


def test_the_short_way_is_open_to_workloads_that_are_captured_and_certified() -> None:
    world = World()
    world.configure(service("web"))
    world.reconciler.register([WEB])
    world.rest()
    assert world.published
    uri = Identity("cluster.local", WEB.namespace, "web").uri
    assert world.published[0].short_way == ShortWay((uri,), (UID,))


def test_after_a_restart_nothing_is_published_before_it_is_known_who_has_a_certificate() -> None:
    """Proxies go on with what they have: published at once, it would refuse all callers."""
    world = World()
    world.configure(service("web"))
    world.reconciler.register([WEB])
    world.rest()
    world.restart()
    uri = Identity("cluster.local", WEB.namespace, "web").uri
    world.uncertified = {uri}
    world.published = None
    world.rest()
    assert world.published is None
    assert UID in {one.workload.uid for one in world.placed}
    world.uncertified = set()
    world.touch()
    world.rest()
    assert world.published
    assert world.published[0].short_way == ShortWay((uri,), (UID,))


def test_without_the_setting_nobody_takes_the_short_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.unit.node.world.OPTIONS", MeshOptions(short_way=False))
    world = World()
    world.configure(service("web"))
    world.reconciler.register([WEB])
    world.rest()
    assert world.published
    assert world.published[0].short_way == ShortWay()


def test_a_name_is_answered_for_once_proxies_lead_connections_to_it(world: World) -> None:
    web, db = service("web"), service("db")
    world.configure(web)
    world.rest()
    world.lead = False
    world.configure(web, db)
    world.settle()
    assert world.published
    assert "db.shop.svc.cluster.local" in world.published[0].services
    assert "db.shop.svc.cluster.local" not in world.resolved
    world.configure(db)  # and not any more, as soon as it is not there
    world.settle()
    assert world.resolved == {}
    world.lead = True
    world.touch()
    world.rest()
    assert {*world.resolved} == {"db.shop.svc.cluster.local"}
