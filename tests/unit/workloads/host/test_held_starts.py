from __future__ import annotations

from pathlib import Path

import pytest

from meshd.base.errors import SystemRefusedError
from meshd.workloads.host.held_starts import HeldStarts, Step, next_step
from meshd.workloads.host.hold_units import hold_of
from meshd.workloads.host.systemd import described


@pytest.mark.parametrize(
    ("state", "hold", "step"),
    [
        ("failed", "inactive", Step.START),
        ("inactive", "failed", Step.START),  # systemd did not try
        ("inactive", "activating", Step.WAIT),
        ("inactive", "inactive", Step.LEAVE),  # it has done its work, or somebody stopped it
        ("active", "inactive", Step.LEAVE),
        ("active", "failed", Step.LEAVE),
        ("activating", "inactive", Step.WAIT),  # systemd tries again by itself
        ("deactivating", "inactive", Step.WAIT),
        ("", "", Step.LEAVE),
    ],
)
def test_only_what_did_not_start_is_started(state: str, hold: str, step: Step) -> None:
    unit = described("web.service", f"ActiveState={state}")
    assert next_step(unit, described(hold_of("web.service"), f"ActiveState={hold}")) is step


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
def test_a_service_outside_the_mesh_has_no_note(tmp_path: Path, name: str) -> None:
    assert not HeldStarts(tmp_path).has(name)


def test_a_note_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "held").write_text("")
    with pytest.raises(SystemRefusedError, match=r"held/web\.service: cannot be written"):
        HeldStarts(tmp_path / "held").note("web.service")
