"""``meshctl capture``, as people and scripts use it: without the daemon."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from meshd.cli.main import run

PORTS = "traffic.sidecar.istio.io/excludeOutboundPorts="


@pytest.fixture(autouse=True)
def no_settings_of_this_host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MESHD_HOME", str(tmp_path))


def changes(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return json.loads(capsys.readouterr().out)["changes"]


def test_plan_apply_check_remove(network: Any, capsys: pytest.CaptureFixture[str]) -> None:
    netns = f"--netns={network.workload.netns}"
    before = network.workload.save()
    assert run(["capture", "plan", netns, "-o", "json"]) == 0
    planned = changes(capsys)
    assert network.workload.save() == before
    assert run(["capture", "check", netns, "-o", "json"]) == 1
    assert changes(capsys) == planned
    assert run(["capture", "apply", netns, "-o", "json"]) == 0
    assert changes(capsys) == planned
    assert run(["capture", "check", netns, "-o", "json"]) == 0
    assert changes(capsys) == []
    assert run(["capture", "remove", netns, "-o", "json"]) == 0
    assert changes(capsys)
    assert network.workload.save() == before


def test_changes_are_readable(network: Any, capsys: pytest.CaptureFixture[str]) -> None:
    netns = f"--netns={network.workload.netns}"
    assert run(["capture", "apply", netns]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert "ipv6  nft  nat: add jump OUTPUT → MESHD_OUTPUT" in shown
    assert "        -p tcp -j REDIRECT --to-ports 15001" in shown
    assert run(["capture", "apply", netns]) == 0
    assert capsys.readouterr().out == "nothing to change\n"


def test_annotations_are_taken_as_on_a_pod(
    network: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    netns = f"--netns={network.workload.netns}"
    assert run(["capture", "apply", netns, "--annotation", PORTS + "5432"]) == 0
    assert "--dport 5432 -j RETURN" in capsys.readouterr().out
    assert run(["capture", "check", netns]) == 1


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--netns=/run/netns/nowhere"], 1, "network namespace /run/netns/nowhere not found"),
        (["--netns=/proc/self/ns/net"], 1, "the host's own network namespace"),
        (["--netns=/etc/passwd"], 1, "/etc/passwd is not a network namespace"),
        (["--netns=/x", "--annotation", PORTS + "http"], 1, "'http' is not a port"),
        (["--netns=/x", "--annotation", "nothing"], 2, "not of the form KEY=VALUE"),
        ([], 2, "--netns"),
    ],
)
def test_failures_are_explained_in_words(
    capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, words: str
) -> None:
    assert run(["capture", "plan", *arguments]) == status
    printed = capsys.readouterr()
    assert words in printed.err
    assert "Traceback" not in printed.err
    assert printed.out == ""
