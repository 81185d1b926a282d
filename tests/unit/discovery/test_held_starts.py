from __future__ import annotations

from pathlib import Path

import pytest

from meshd.discovery.held_starts import HeldStarts, Step, next_step
from meshd.discovery.units import Unit
from meshd.errors import SystemRefusedError


@pytest.mark.parametrize(
    ("state", "result", "step"),
    [
        ("failed", "timeout", Step.START),
        ("failed", "start-limit-hit", Step.START),
        ("inactive", "exec-condition", Step.START),
        ("inactive", "success", Step.LEAVE),  # it has done its work, or somebody stopped it
        ("active", "success", Step.LEAVE),
        ("activating", "exit-code", Step.WAIT),  # systemd tries again by itself
        ("deactivating", "timeout", Step.WAIT),
        ("", "", Step.LEAVE),
    ],
)
def test_only_what_did_not_start_is_started(state: str, result: str, step: Step) -> None:
    unit = Unit("web.service", exists=True, state=state, result=result, cgroup="")
    assert next_step(unit) is step


def test_a_note_stays_until_it_is_taken_back(tmp_path: Path) -> None:
    starts = HeldStarts(tmp_path / "run" / "held")
    assert not starts.has("web.service")
    starts.forget("web.service")
    starts.note("web.service")
    starts.note("web.service")
    assert starts.has("web.service")
    assert not starts.has("web@1.service")
    starts.forget("web.service")
    assert not starts.has("web.service")


@pytest.mark.parametrize("name", ["../x.service", "sshd.service", "x.socket"])
def test_what_is_no_service_of_the_mesh_has_no_note(tmp_path: Path, name: str) -> None:
    assert not HeldStarts(tmp_path).has(name)


def test_a_note_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "held").write_text("")
    with pytest.raises(SystemRefusedError, match=r"held/web\.service: cannot be written"):
        HeldStarts(tmp_path / "held").note("web.service")
