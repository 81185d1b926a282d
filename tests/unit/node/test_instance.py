"""What a machine says of itself, so that its clones are known."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshd.base import hardware
from meshd.node import instance


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(instance, "_MACHINE", tmp_path / "machine-id")
    monkeypatch.setattr(hardware, "_PRODUCT", tmp_path / "product_uuid")
    monkeypatch.delenv(hardware.VARIABLE, raising=False)
    return tmp_path


def test_a_machine_is_known_by_hashes_of_its_id_and_its_hardware(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "machine-id").write_text("0123\n")
    (place / "product_uuid").write_text("4C4C-AB\n")
    for name, value in hardware.environment().items():
        monkeypatch.setenv(name, value)
    said = instance.machine()
    assert said == f"{hardware.digest('0123')}.{hardware.digest('4c4c-ab')}"
    assert "0123" not in said


@pytest.mark.parametrize("content", [None, "", "uninitialized\n"])
def test_a_machine_without_either_says_nothing(place: Path, content: str | None) -> None:
    if content is not None:
        (place / "machine-id").write_text(content)
    assert hardware.environment() == {}
    assert instance.machine() == "."


def test_a_machine_id_that_is_mounted_for_one_boot_is_not_said(place: Path) -> None:
    (place / "machine-id").write_text("0123\n")
    assert instance.is_kept(place / "machine-id")
    assert not instance.is_kept(Path("/proc"))
    assert not instance.is_kept(place / "missing")
