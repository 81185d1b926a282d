"""Containers of a real containerd are in the mesh before their first process starts."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Generator, Iterator
from typing import Any

import pytest

from tests.containers.runtime import BRIDGED, LIST, NET_D, PROGRAMS, Container, Runtime

_SERVER = ("httpd", "-f", "-p", "8080", "-h", "/www")
_IDLE = ("sleep", "2147483647")


@contextlib.contextmanager
def running(runtime: Runtime, name: str, *command: str) -> Generator[Container]:
    container = runtime.run(name, *command)
    try:
        yield container.running()
    finally:
        container.end()


def workload(name: str) -> str:
    """The name of a container of containerd's namespace ``default``."""
    return f"default-{name}"


SERVICE = "198.19.0.80"
"""The address of the server's Service."""


@pytest.fixture(scope="module")
def served(runtime: Runtime) -> Iterator[str]:
    """The URL of a server, which runs for the module."""
    runtime.mesh.apply(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "server", "namespace": "mesh"},
            "spec": {
                "clusterIP": SERVICE,
                "selector": {"app": workload("server")},
                "ports": [{"name": "http", "port": 80, "targetPort": 8080}],
            },
        }
    )
    with running(runtime, "server", *_SERVER):
        yield f"http://{SERVICE}/"


def test_the_first_packet_of_a_container_goes_through_the_mesh(
    runtime: Runtime, served: str
) -> None:
    """It asks at once, and once, and the server takes mutual TLS only."""
    for number in range(3):
        client = runtime.run(f"hasty{number}", "wget", "-qO-", served)
        assert client.process.wait(60) == 0, client.said
        assert client.said == "hello\n"


def test_a_neighbour_outside_the_mesh_does_not_reach_a_strict_container(
    runtime: Runtime, served: str
) -> None:
    address = runtime.workloads()[workload("server")]["address"]
    with running(runtime, "member", *_IDLE) as member:
        assert member.exec("wget", "-qO-", served).stdout == "hello\n"
    for url in (f"http://{address}:8080/", served):
        done = runtime.machine.run("curl", "-sS", "--max-time", "5", url)
        assert (done.stdout, done.returncode == 0) == ("", False)


def test_a_container_is_let_go_with_its_end(runtime: Runtime) -> None:
    with running(runtime, "brief", *_IDLE):
        assert runtime.workloads()[workload("brief")]["proven"]
    assert workload("brief") not in runtime.workloads()
    listed = runtime.machine.ask("ls", str(runtime.mesh.home / "run/netns"))
    assert workload("brief") not in listed


def test_a_container_that_comes_back_has_its_new_namespace(runtime: Runtime) -> None:
    with running(runtime, "again", *_IDLE):
        first = runtime.workloads()[workload("again")]["netns"]
    with running(runtime, "again", *_IDLE):
        second = runtime.workloads()[workload("again")]
    assert second["proven"]
    assert second["netns"] != first


def test_a_container_that_nobody_detached_is_let_go(runtime: Runtime) -> None:
    container = runtime.run("lost", *_IDLE).running()
    container.process.kill()  # ctr, which would have detached it
    runtime.ctr("task", "kill", "--signal", "SIGKILL", "lost")
    runtime.eventually(lambda: workload("lost") not in runtime.workloads(), "it is let go")
    runtime.ctr("task", "rm", "lost")
    runtime.ctr("container", "rm", "lost")


def call(runtime: Runtime, command: str, config: dict[str, Any], **variables: str) -> Any:
    """Run the plugin as a runtime does; return its exit status and its output."""
    given = {"CNI_COMMAND": command, "CNI_PATH": PROGRAMS, "CNI_IFNAME": "eth0", **variables}
    words = [f"{name}={value}" for name, value in given.items()]
    done = runtime.machine.run(
        "env", "-i", *words, f"{PROGRAMS}/meshd-cni", text=json.dumps(config)
    )
    return done.returncode, json.loads(done.stdout or "null")


CONFIG = {"cniVersion": "1.1.0", "name": "containers", "type": "meshd-cni"}


def test_the_plugin_says_which_versions_it_takes(runtime: Runtime) -> None:
    status, said = call(runtime, "VERSION", {"cniVersion": "1.0.0"})
    assert status == 0
    assert {"1.0.0", "1.1.0"} <= set(said["supportedVersions"])


def test_pods_of_excluded_namespaces_are_passed_on(runtime: Runtime) -> None:
    arguments = "IgnoreUnknown=1;K8S_POD_NAMESPACE=kube-system;K8S_POD_NAME=dns"
    result = {"cniVersion": "1.1.0", "ips": [{"address": "198.18.253.200/24"}]}
    given = {"CNI_CONTAINERID": "x", "CNI_NETNS": "/run/netns/none", "CNI_ARGS": arguments}
    assert call(runtime, "ADD", CONFIG | {"prevResult": result}, **given) == (0, result)
    assert call(runtime, "DEL", CONFIG, **given) == (0, None)


def test_what_was_never_attached_is_detached(runtime: Runtime) -> None:
    for _ in range(2):
        assert call(runtime, "DEL", CONFIG, CNI_CONTAINERID="unknown") == (0, None)


def test_a_check_tells_what_is_attached_from_what_is_not(runtime: Runtime) -> None:
    with running(runtime, "checked", *_IDLE):
        netns = runtime.workloads()[workload("checked")]["netns"]
        known = {"CNI_CONTAINERID": "default-checked", "CNI_NETNS": netns}
        assert call(runtime, "CHECK", CONFIG, **known) == (0, None)
        unknown = {"CNI_CONTAINERID": "default-other", "CNI_NETNS": netns}
        status, said = call(runtime, "CHECK", CONFIG, **unknown)
        assert (status, said["cniVersion"]) == (1, "1.1.0")
        assert call(runtime, "STATUS", CONFIG) == (0, None)


def test_what_is_no_valid_attachment_is_collected(runtime: Runtime) -> None:
    with running(runtime, "kept", *_IDLE), running(runtime, "collected", *_IDLE):
        valid = [{"containerID": "default-kept", "ifname": "eth0"}]
        config = CONFIG | {"cni.dev/valid-attachments": valid}
        assert call(runtime, "GC", config) == (0, None)
        runtime.eventually(lambda: workload("collected") not in runtime.workloads(), "collected")
        assert workload("kept") in runtime.workloads()


def test_the_plugin_is_put_back_when_another_tool_writes_the_chain(runtime: Runtime) -> None:
    runtime.write_list(BRIDGED)

    def is_last() -> bool:
        return runtime.read_list()["plugins"][-1] == {"type": "meshd-cni"}

    runtime.eventually(is_last, "it is the last again")
    runtime.machine.ask("rm", f"{PROGRAMS}/meshd-cni")
    runtime.eventually(
        lambda: runtime.machine.run("test", "-x", f"{PROGRAMS}/meshd-cni").returncode == 0,
        "the program is there again",
    )


def test_nothing_starts_outside_the_mesh_while_meshd_is_away_and_what_runs_can_end(
    runtime: Runtime,
) -> None:
    before = runtime.run("before", *_IDLE).running()
    runtime.mesh.stop()
    refused = runtime.run("refused", *_IDLE)
    assert refused.process.wait(60) != 0
    assert "systemctl start meshd" in refused.said
    before.end()
    status, said = call(runtime, "STATUS", CONFIG)
    assert (status, said["code"]) == (1, 50)
    assert call(runtime, "GC", CONFIG) == (0, None)
    runtime.mesh.start()
    runtime.eventually(lambda: workload("before") not in runtime.workloads(), "it is let go")
    with running(runtime, "after", *_IDLE):
        assert runtime.workloads()[workload("after")]["proven"]


def test_the_chain_is_as_it_was_while_the_plugin_is_switched_off(runtime: Runtime) -> None:
    is_on = runtime.mesh.settings
    runtime.mesh.reload({**is_on, "kubernetes": {"enabled": False}})
    try:
        runtime.eventually(lambda: runtime.read_list() == BRIDGED, "the chain is as it was")
        runtime.eventually(
            lambda: runtime.machine.run("test", "-e", f"{PROGRAMS}/meshd-cni").returncode != 0,
            "the program is gone",
        )
        assert runtime.machine.ask("ls", NET_D).split() == [LIST]
        runtime.mesh.settle()
        with running(runtime, "plain", *_IDLE):
            assert workload("plain") not in runtime.workloads()
    finally:
        runtime.mesh.reload(is_on)
    runtime.eventually(lambda: len(runtime.read_list()["plugins"]) == 2, "it is installed again")
    runtime.eventually(lambda: call(runtime, "STATUS", CONFIG)[0] == 0, "containers are taken")
    runtime.mesh.settle()
