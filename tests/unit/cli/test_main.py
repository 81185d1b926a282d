"""Exit status, wrong usage, and what every verb has in common."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import meshd
from meshd import wire
from meshd.__main__ import main as daemon_main
from meshd.cli.daemon import Target
from meshd.cli.main import run


def test_help_lists_every_verb(meshctl: Any) -> None:
    result = meshctl("--help")
    assert result.code == 0
    verbs = {line.split()[0] for line in result.out.partition("Commands:")[2].splitlines() if line}
    assert verbs >= {"apply", "delete", "get", "validate", "status", "proxy-config", "explain"}
    assert verbs >= {"capture", "testbed", "version"}


@pytest.mark.parametrize(
    "verb",
    [
        "apply",
        "delete",
        "get",
        "validate",
        "status",
        "proxy-config",
        "pc",
        "explain",
        "capture",
        "testbed",
        "version",
    ],
)
def test_every_verb_has_help(meshctl: Any, verb: str) -> None:
    result = meshctl(verb, "--help")
    assert (result.code, result.err) == (0, "")
    assert f"meshctl {verb}" in result.out or f"{verb} [OPTIONS]" in result.out


def test_version(meshctl: Any) -> None:
    assert meshctl("version").out == f"meshctl {meshd.__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("frobnicate",),
        ("get",),
        ("get", "nonsense"),
        ("get", "vs", "-o", "xml"),
        ("get", "vs/a/b"),
        ("get", "-A", "vs", "reviews"),
        ("apply",),
        ("apply", "-f", "x", "--timeout", "soon"),
        ("delete",),
        ("delete", "vs"),
        ("delete", "vs", "reviews", "-f", "x"),
        ("proxy-config", "nonsense"),
        ("explain", "only-one"),
        ("explain", "a", "b", "--header", "no-equals-sign"),
    ],
)
def test_wrong_usage_is_status_2_and_says_why(meshctl: Any, arguments: tuple[str, ...]) -> None:
    result = meshctl(*arguments)
    assert (result.code, result.out) == (2, "")
    assert "Error: " in result.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("get", "vs"),
        ("status",),
        ("delete", "vs", "reviews"),
        ("proxy-config", "listeners"),
        ("explain", "a", "b"),
    ],
)
def test_no_daemon_is_status_3_and_one_line(meshctl: Any, arguments: tuple[str, ...]) -> None:
    result = meshctl(*arguments)
    assert (result.code, result.out) == (3, "")
    assert "cannot reach meshd" in result.err
    assert result.err.count("\n") == 1


def test_the_daemons_own_status_and_reason_are_passed_on(daemon: Any, meshctl: Any) -> None:
    daemon.says(wire.Failed("no proxy is connected", 7))
    result = meshctl("proxy-config", "listeners")
    assert (result.code, result.out, result.err) == (7, "", "no proxy is connected\n")


def test_an_answer_of_another_version_is_named(daemon: Any, meshctl: Any) -> None:
    daemon.says(wire.Done())
    result = meshctl("status")
    assert result.code == 1
    assert "check that its version is that of meshctl" in result.err


def test_the_default_socket_is_that_of_the_home(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MESHD_HOME", "/nowhere")
    assert run(["status"]) == 3
    assert "/nowhere/run/mesh.sock" in capsys.readouterr().err


def test_help_loads_neither_the_rooms_nor_rich() -> None:
    program = (
        "import sys; from meshd.cli.main import run; run(['--help']);"
        "print(*sorted(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30
    )
    loaded = set(done.stderr.split())
    assert "meshd.cli.main" in loaded
    assert not loaded & {"rich", "meshd.api.read", "meshd.capture", "meshd.pods", "grpc"}


def test_a_reader_that_has_seen_enough_is_no_traceback() -> None:
    done = subprocess.run(
        ["/bin/bash", "-c", f"{sys.executable} -m meshd.cli.main --help | true"],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert "Traceback" not in done.stderr


def test_completion_offers_the_verbs() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from meshd.cli.main import app; app(prog_name='meshctl')"],
        env={
            "_MESHCTL_COMPLETE": "complete_bash",
            "COMP_WORDS": "meshctl proxy",
            "COMP_CWORD": "1",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.stdout.split() == ["proxy-config"]


def test_the_verb_that_was_probably_meant_is_named(meshctl: Any) -> None:
    assert "Did you mean 'status'?" in meshctl("statsu").err


def test_who_does_not_reach_the_daemon_is_told_what_to_do(meshctl: Any, tmp_path: Path) -> None:
    result = meshctl("get", "vs")
    assert result.err.endswith(
        "No such file or directory; does it run? See systemctl status meshd\n"
    )
    (tmp_path / "mesh.sock").touch()
    result = meshctl("node", "remove", "alpha")
    assert result.code == 3
    assert "set role: server in meshd.yaml" in result.err


def test_who_may_not_ask_is_told_who_may() -> None:
    target = Target(Path("/run/meshd/mesh.sock"))
    assert target.advice(PermissionError()).endswith("try sudo")


def test_settings_are_checked_before_they_are_put_in_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MESHD_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["meshd", "--check"])
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "meshd.yaml").write_text("role: server\n")
    assert daemon_main() == 0
    (tmp_path / "etc" / "meshd.yaml").write_text("rule: server\n")
    assert daemon_main() == 1
    assert "meshd.yaml:1: rule: unknown field (did you mean role?)" in capsys.readouterr().err
