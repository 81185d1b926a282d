"""Exit status, wrong usage, and what every verb has in common."""

from __future__ import annotations

import os
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
from tests.waiting import PATIENCE


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
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    loaded = set(done.stderr.split())
    assert "meshd.cli.main" in loaded
    assert not loaded & {"rich", "meshd.api.read", "meshd.capture", "meshd.pods", "grpc"}


LATIN_1 = os.fsdecode("café".encode("latin-1"))


@pytest.mark.parametrize(
    "arguments",
    [
        (LATIN_1,),
        ("--socket", LATIN_1, "status"),
        ("apply", "-f", LATIN_1),
        ("get", "vs", LATIN_1),
        ("get", "vs", f"-o=jsonpath={{.{LATIN_1}}}"),
        ("status", "-n", LATIN_1),
        ("explain", LATIN_1, "b"),
        ("explain", "a", "b", "--header", f"x={LATIN_1}"),
        ("enroll", LATIN_1),
        ("token", "create", "--namespace", LATIN_1),
        ("join", LATIN_1, "--token", "a"),
    ],
)
def test_an_argument_that_is_not_utf_8_is_wrong_usage(
    meshctl: Any, arguments: tuple[str, ...]
) -> None:
    result = meshctl(*arguments)
    assert (result.code, result.out) == (2, "")
    assert result.err.endswith('caf\\xe9" is not UTF-8 text\n') or "xe9}" in result.err


def test_what_stands_behind_the_options_and_is_not_utf_8_is_not_sent(
    daemon: Any, meshctl: Any
) -> None:
    result = meshctl("explain", "--", LATIN_1, "b")
    assert (result.code, result.out, result.err) == (1, "", '"caf\\xe9" is not UTF-8 text\n')
    assert daemon.asked == []


def test_a_home_that_is_not_utf_8_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MESHD_HOME", LATIN_1)
    assert run(["status"]) == 2
    assert capsys.readouterr().err == '"caf\\xe9" is not UTF-8 text\n'


def test_a_manifest_whose_name_is_not_utf_8_is_read_and_named(
    meshctl: Any, daemon: Any, tmp_path: Path
) -> None:
    path = tmp_path / "manifests" / f"{LATIN_1}.yaml"
    path.parent.mkdir()
    path.write_text("kind: Nonsense")
    daemon.says(wire.Changed(()))
    result = meshctl("validate", "-f", str(path.parent))
    assert result.code == 1
    assert r"caf\xe9.yaml" in result.out + result.err
    meshctl("apply", "-f", str(path.parent))
    ((name, _),) = daemon.asked[0].sources
    assert name.endswith(r"caf\xe9.yaml")


def test_a_letter_that_the_output_cannot_hold_is_escaped() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "meshd.cli.main", "validate", "-f", "é.yaml", "-o", "json"],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert "Traceback" not in done.stderr
    assert r"\xe9.yaml" in done.stderr + done.stdout


def test_a_reader_that_has_seen_enough_is_no_traceback() -> None:
    done = subprocess.run(
        ["/bin/bash", "-c", f"{sys.executable} -m meshd.cli.main --help | true"],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert "Traceback" not in done.stderr


def shell(command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in which ``meshctl`` is our own."""
    own = f'meshctl() {{ {sys.executable} -m meshd.cli.main "$@"; }}; '
    return subprocess.run(
        ["bash", "-c", own + command], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("validate -f - <&-", "-: standard input is closed; give it a manifest, or name a file"),
        ("apply -f - <&-", "-: standard input is closed; give it a manifest, or name a file"),
        ("version > /dev/full", "output: No space left on device"),
    ],
)
def test_unreadable_and_unwritable_files_give_one_line_and_status_1(
    command: str, said: str
) -> None:
    done = shell(f"meshctl {command}")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"{said}\n")


def test_errors_do_not_go_where_the_output_goes_when_theirs_is_closed() -> None:
    done = shell("meshctl get vs -o json 2>&-")
    assert (done.returncode, done.stdout) == (3, "")
    assert shell("meshctl version >&-").returncode == 0


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("", 2, "-f needs the path of a manifest; the path given is empty"),
        ("a" * 300, 1, "file name too long"),
        ("{tmp}/file/b", 1, "not a directory"),
        ("{tmp}/loop", 1, "too many levels of symbolic links"),
        ("{tmp}/none", 1, "no such file or directory"),
    ],
)
def test_a_manifest_that_cannot_be_opened_is_named_with_the_reason(
    meshctl: Any, tmp_path: Path, name: str, code: int, said: str
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    for verb in ("validate", "apply", "delete"):
        done = meshctl(verb, "-f", name.format(tmp=tmp_path))
        assert done.code == code
        assert said in done.err


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
        timeout=PATIENCE,
    )
    assert done.stdout.split() == ["proxy-config"]


def test_the_verb_that_was_probably_meant_is_named(meshctl: Any) -> None:
    assert "Did you mean 'status'?" in meshctl("statsu").err


def test_an_unreachable_daemon_is_reported_with_a_remedy(meshctl: Any, tmp_path: Path) -> None:
    result = meshctl("get", "vs")
    assert result.err.endswith(
        "No such file or directory; does it run? See systemctl status meshd\n"
    )
    (tmp_path / "mesh.sock").touch()
    result = meshctl("node", "remove", "alpha")
    assert result.code == 3
    assert "set role: server in meshd.yaml" in result.err


def test_a_user_whose_connection_is_refused_is_told_to_try_sudo() -> None:
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
