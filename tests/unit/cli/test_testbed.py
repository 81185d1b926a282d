"""testbed: what it does while the settings have a mistake."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings cannot be read, and no testbed is up."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/meshd.yaml").write_text("proxyy: {}\n")
    monkeypatch.setenv("MESHD_HOME", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 0)


@pytest.mark.usefixtures("broken")
def test_a_testbed_is_taken_down_whatever_the_settings_say(meshctl: Any) -> None:
    ended = meshctl("testbed", "down")
    assert (ended.code, ended.out) == (0, "no testbed is up\n"), ended.err


@pytest.mark.usefixtures("broken")
def test_pods_are_not_started_by_settings_that_cannot_be_read(meshctl: Any, tmp_path: Path) -> None:
    manifest = tmp_path / "pods.yaml"
    manifest.write_text("apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n")
    refused = meshctl("testbed", "up", "-f", str(manifest))
    assert refused.code == 1
    assert "proxyy: unknown field (did you mean proxy?)" in refused.err
