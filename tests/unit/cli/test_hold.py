"""Before an enrolled service starts: what cannot be read of the record never lets it start open."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import Meshctl


def record(home: Path, content: bytes) -> None:
    path = home / "lib" / "services.json"
    path.parent.mkdir()
    path.write_bytes(content)


def entries(*values: Any) -> bytes:
    return json.dumps({"registered": {f"mesh.s{n}": one for n, one in enumerate(values)}}).encode()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MESHD_HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"\xff",
        entries(None),
        entries({"labels": 5}),
        entries({"host": {"unit": "a.service"}}),
    ],
)
def test_a_unit_that_may_be_enrolled_is_not_started(
    home: Path, meshctl: Meshctl, content: bytes
) -> None:
    record(home, content)
    done = meshctl("capture", "hold", "a.service")
    assert done.code == 1
    assert "a.service is not started" in done.err
    assert "services.json" in done.err


def test_a_unit_that_is_surely_not_enrolled_is_left_alone(home: Path, meshctl: Meshctl) -> None:
    record(home, entries({"labels": 5, "host": {"cgroup": "x", "unit": "x.service"}}))
    assert meshctl("capture", "hold", "a.service").code == 0


def test_without_a_record_nothing_is_held(home: Path, meshctl: Meshctl) -> None:
    assert meshctl("capture", "hold", "a.service").code == 0
