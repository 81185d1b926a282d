"""Which pod people mean, and what is run in it."""

from __future__ import annotations

import pytest

from meshd.base.errors import InvalidInputError, NotReadyError
from meshd.model.pod import ContainerPlan, ContainerState, PodPlan, PodState
from meshd.pods.client import command_inside, log_of, select
from meshd.pods.files import resolv_conf


def pod(name: str, *, ready: bool = True, namespace: str = "default", pid: int = 7) -> PodState:
    plan = PodPlan(
        uid=f"{namespace}.{name}",
        name=name,
        namespace=namespace,
        owner=f"Deployment {namespace}/{name.rpartition('-')[0]}",
        address="198.18.0.10",
        address_v6="fd00:198::1",
        user=200_010,
        containers=(ContainerPlan(name="app", command=("x",), environment={"A": "1"}),),
    )
    container = ContainerState(name="app", state="Running", pid=pid, log="/logs/app.log")
    return PodState(plan=plan, netns="/n", state="Running", ready=ready, containers=(container,))


PODS = (pod("web-1", ready=False), pod("web-2"), pod("webber-1"), pod("web-1", namespace="other"))


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("web-1", "web-1"),
        ("pod/web-1", "web-1"),
        ("deploy/web", "web-2"),
        ("deployment/webber", "webber-1"),
        ("web", "web-2"),
        ("webb", "webber-1"),
    ],
)
def test_a_pod_is_found_by_name_beginning_or_deployment(name: str, found: str) -> None:
    assert select(PODS, name, "default").plan.name == found


@pytest.mark.parametrize("name", ["nothing", "deploy/we", "web-1x"])
def test_no_pod_is_an_error_that_lists_those_there_are(name: str) -> None:
    with pytest.raises(InvalidInputError, match="there are: web-1, web-2, webber-1"):
        select(PODS, name, "default")


def test_a_command_runs_as_the_pods_user_with_the_containers_environment() -> None:
    argv, environment = command_inside(PODS[1], "", ("curl", "http://x"))
    assert argv[:2] == ("nsenter", "--target=7")
    assert "--reuid=200010" in argv
    assert argv[-2:] == ("curl", "http://x")
    assert environment == {"A": "1"}
    assert log_of(PODS[1], "app") == "/logs/app.log"


def test_a_container_that_is_not_there_or_does_not_run_is_an_error() -> None:
    with pytest.raises(InvalidInputError, match=r"has no container x \(it has: app\)"):
        command_inside(PODS[1], "x", ("true",))
    with pytest.raises(NotReadyError, match="container app of pod web-9 does not run"):
        command_inside(pod("web-9", pid=0), "", ("true",))


def test_names_are_searched_as_in_kubernetes() -> None:
    assert resolv_conf("shop", "cluster.local").splitlines()[1:] == [
        "search shop.svc.cluster.local svc.cluster.local cluster.local",
        "options ndots:5",
    ]
