"""The program that a runtime runs, as it is installed."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from meshd.cni import request as requests
from meshd.cni import shim
from meshd.cni.installation import program

CONFIG = {"cniVersion": "0.4.0", "name": "pods", "prevResult": {"ips": []}}


class Installed:
    def __init__(self, directory: Path, *, fails_open: bool = False) -> None:
        self.socket = directory / "cni.sock"
        self._path = directory / "meshd-cni"
        self._path.write_text(program(self.socket, ("kube-system", "other"), fails_open=fails_open))
        self._path.chmod(0o755)

    def run(
        self, command: str, config: Any = CONFIG, **variables: str
    ) -> tuple[int, dict[str, Any] | None]:
        given = {"CNI_COMMAND": command, "CNI_CONTAINERID": "abc", **variables}
        done = subprocess.run(
            [self._path],
            env=given,
            input=json.dumps(config),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stderr == ""
        return done.returncode, json.loads(done.stdout) if done.stdout else None

    def answering(self, answer: bytes) -> list[bytes]:
        """Answer one request; return the list that it will be in."""
        seen: list[bytes] = []
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.socket))
        listener.listen()

        def serve() -> None:
            with listener, listener.accept()[0] as connection:
                parts: list[bytes] = []
                while part := connection.recv(65536):
                    parts.append(part)
                seen.append(b"".join(parts))
                connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        return seen


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[Installed]:
    yield Installed(tmp_path)


def test_a_request_is_handed_over_whole_and_its_answer_back(installed: Installed) -> None:
    result = {"cniVersion": "0.4.0", "ips": [{"address": "198.18.0.5/24"}], "text": "ü" * 70_000}
    seen = installed.answering(b"0" + json.dumps(result).encode())
    assert installed.run("ADD", CNI_NETNS="/run/netns/x", CNI_ARGS="A=ü") == (0, result)
    request = requests.parse(seen[0])
    assert (request.command, request.container, request.netns) == ("ADD", "abc", "/run/netns/x")


def test_a_refusal_is_handed_back(installed: Installed) -> None:
    refused = requests.refused(requests.CniError(11, "no", "wait"), "0.4.0")
    installed.answering(refused)
    status, said = installed.run("ADD")
    assert status == 1
    assert said == json.loads(refused[1:])


@pytest.mark.parametrize("command", ["DEL", "GC"])
@pytest.mark.parametrize("hangs_up", [False, True])
def test_what_has_ended_is_let_go_without_meshd(
    installed: Installed, command: str, *, hangs_up: bool
) -> None:
    if hangs_up:
        installed.answering(b"")
    assert installed.run(command) == (0, None)


@pytest.mark.parametrize(("command", "code"), [("ADD", 11), ("CHECK", 11), ("STATUS", 50)])
@pytest.mark.parametrize("hangs_up", [False, True])
def test_nothing_begins_without_meshd_and_the_error_says_what_to_do(
    installed: Installed, command: str, code: int, *, hangs_up: bool
) -> None:
    if hangs_up:
        installed.answering(b"")
    status, said = installed.run(command)
    assert status == 1
    assert said is not None
    assert (said["cniVersion"], said["code"]) == ("0.4.0", code)
    assert "systemctl start meshd" in said["details"]


@pytest.mark.parametrize("config", [{}, {"cniVersion": 1}, {"cniVersion": '"x'}, [], 7])
def test_an_error_is_whole_whatever_the_configuration_is(installed: Installed, config: Any) -> None:
    status, said = installed.run("ADD", config)
    assert status == 1
    assert said is not None
    assert said["cniVersion"] == shim.VERSIONS[-1]


def test_containers_begin_without_meshd_where_it_fails_open(tmp_path: Path) -> None:
    installed = Installed(tmp_path, fails_open=True)
    assert installed.run("ADD") == (0, {"ips": []})
    assert installed.run("CHECK")[0] == 1


def test_versions_are_told_without_meshd(installed: Installed) -> None:
    assert installed.run("VERSION") == (
        0,
        {"cniVersion": "1.1.0", "supportedVersions": list(requests.VERSIONS)},
    )


@pytest.mark.parametrize("namespace", ["kube-system", "other"])
def test_excluded_namespaces_need_no_meshd(installed: Installed, namespace: str) -> None:
    arguments = f"IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME=x"
    assert installed.run("ADD", CNI_ARGS=arguments) == (0, {"ips": []})
    assert installed.run("CHECK", CNI_ARGS=arguments) == (0, None)
    assert installed.run("DEL", CNI_ARGS=arguments) == (0, None)


def test_a_name_that_only_begins_like_an_excluded_one_is_not_excluded(
    installed: Installed,
) -> None:
    status, _ = installed.run("ADD", CNI_ARGS="K8S_POD_NAMESPACE=kube-system-2")
    assert status == 1


def test_it_loads_nothing_but_what_the_interpreter_has_in_it(installed: Installed) -> None:
    """Each module more is processor time at the start of each pod."""
    listed = subprocess.run(
        [sys.executable, "-ISX", "importtime", installed.socket.with_name("meshd-cni")],
        env={"CNI_COMMAND": "VERSION"},
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    bare = subprocess.run(
        [sys.executable, "-ISX", "importtime", "-c", "pass"],
        capture_output=True,
        text=True,
        check=True,
    ).stderr

    def names(text: str) -> set[str]:
        return {line.rpartition("|")[2].strip() for line in text.splitlines()}

    assert names(listed) - names(bare) <= {"_socket", "posix"}
