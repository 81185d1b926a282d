"""Requests of container runtimes, and the answers that the specification asks for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from meshd.cni import request as requests
from meshd.cni.describing import of_container
from meshd.cni.request import CniError, Pod, parse

RESULT: dict[str, Any] = {
    "cniVersion": "1.0.0",
    "interfaces": [{"name": "cni0"}, {"name": "eth0", "sandbox": "/run/netns/x"}],
    "ips": [
        {"address": "fd00:198::5/64", "interface": 1},
        {"address": "198.18.0.5/24", "interface": 1, "gateway": "198.18.0.1"},
        {"address": "198.18.0.1/24", "interface": 0},
    ],
    "dns": {"nameservers": ["198.18.0.1"]},
}
CONFIG: dict[str, Any] = {"cniVersion": "1.0.0", "name": "pods", "type": "meshd-cni"}


def sent(
    command: str = "ADD",
    container: str = "abc",
    netns: str = "/run/netns/x",
    arguments: str = "",
    **config: Any,
) -> bytes:
    words = (command, container, netns, "eth0", arguments, "/opt/cni/bin")
    body = json.dumps(CONFIG | {"prevResult": RESULT} | config)
    return "\0".join((*words, body)).encode()


def test_addresses_are_those_inside_the_sandbox_ipv4_first() -> None:
    assert parse(sent()).addresses == ("198.18.0.5", "fd00:198::5")


def test_addresses_of_a_result_without_interfaces_are_all_that_it_has() -> None:
    result = {"cniVersion": "1.0.0", "ips": [{"address": "198.18.0.5/24"}]}
    assert parse(sent(prevResult=result)).addresses == ("198.18.0.5",)


def test_a_pod_is_named_by_the_arguments_of_kubelet() -> None:
    arguments = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_UID=1-2"
    assert parse(sent(arguments=arguments)).pod == Pod("shop", "web-0", "1-2")
    assert parse(sent(arguments="IgnoreUnknown=1")).pod is None


def test_the_result_of_the_plugins_before_is_the_answer() -> None:
    answer = requests.answered(parse(sent()))
    assert answer[:1] == b"0"
    assert json.loads(answer[1:]) == RESULT


@pytest.mark.parametrize("command", ["DEL", "CHECK", "STATUS", "GC"])
def test_other_commands_are_answered_by_nothing(command: str) -> None:
    assert requests.answered(parse(sent(command))) == b"0"


def test_a_container_is_detached_without_a_namespace_and_without_a_result() -> None:
    words = "\0".join(("DEL", "abc", "", "eth0", "", "", json.dumps(CONFIG)))
    request = parse(words.encode())
    assert (request.netns, request.addresses) == ("", ())


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"ADD\0abc", requests.UNDECODED),
        (sent("PLAY"), requests.ENVIRONMENT),
        (sent(container=""), requests.ENVIRONMENT),
        (sent(container="../x"), requests.ENVIRONMENT),
        (sent(container="a" * 300), requests.ENVIRONMENT),
        (sent(netns=""), requests.ENVIRONMENT),
        (sent(cniVersion="0.1.0"), requests.INCOMPATIBLE),
        (sent(cniVersion=7), requests.UNDECODED),
        (sent()[:-1], requests.UNDECODED),
        (b"\0".join((b"ADD", b"a", b"/x", b"", b"", b"", b"[" * 100_000)), requests.UNDECODED),
    ],
)
def test_an_invalid_request_is_refused_with_the_code_of_the_specification(
    data: bytes, code: int
) -> None:
    with pytest.raises(CniError) as caught:
        parse(data)
    assert caught.value.code == code


def test_a_result_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(CniError):
        _ = parse(sent(prevResult={"ips": 1})).addresses


def test_an_error_is_told_in_the_version_of_the_request() -> None:
    answer = requests.refused(CniError(11, "no", "wait"), "0.4.0")
    assert answer[:1] == b"1"
    assert json.loads(answer[1:]) == {
        "cniVersion": "0.4.0",
        "code": 11,
        "msg": "no",
        "details": "wait",
    }


def test_a_container_without_kubernetes_has_the_name_that_its_runtime_gives_it() -> None:
    found = of_container(parse(sent(container="default-Web_1.x")), "shop")
    assert (found.uid, found.name, found.namespace) == (
        "shop.default-web-1-x",
        "default-web-1-x",
        "shop",
    )
    assert (found.netns, found.addresses) == ("/run/netns/x", ("198.18.0.5", "fd00:198::5"))
    assert found.labels == {"app": "default-web-1-x"}
    assert not found.enrolled


def test_a_container_whose_name_has_nothing_usable_is_refused() -> None:
    with pytest.raises(CniError, match="name it"):
        of_container(requests.Request("ADD", "___"), "shop")
