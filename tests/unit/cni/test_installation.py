"""The plugin in a runtime's directories: there, put back, and gone without a trace."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from meshd.base.errors import SystemRefusedError
from meshd.cni.chain import PLUGIN
from meshd.cni.installation import Installation
from meshd.settings import KubernetesSettings

LIST = {"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "bridge"}]}
TEXT = json.dumps(LIST)


class Place:
    def __init__(self, root: Path, home: str = "a") -> None:
        self.configuration = root / "net.d"
        self.programs = root / "bin"
        settings = KubernetesSettings(
            cni_configuration=str(self.configuration), cni_programs=str(self.programs)
        )
        self.installed = Installation(settings, root / home / "cni.sock")

    def with_network(self) -> Path:
        self.configuration.mkdir(parents=True, exist_ok=True)
        path = self.configuration / "10-pods.conflist"
        path.write_text(TEXT)
        return path

    @property
    def program(self) -> Path:
        return self.programs / PLUGIN


def test_it_is_installed_once_there_is_a_network(tmp_path: Path) -> None:
    place = Place(tmp_path)
    assert "no CNI configuration yet" in place.installed.install()
    path = place.with_network()
    assert place.installed.install() == ""
    assert json.loads(path.read_text())["plugins"][-1] == {"type": PLUGIN}
    assert os.access(place.program, os.X_OK)


def test_nothing_is_written_where_it_is_installed(tmp_path: Path) -> None:
    place = Place(tmp_path)
    files = (place.with_network(), place.program)
    place.installed.install()
    before = [file.stat().st_ino for file in files]
    place.installed.install()
    assert [file.stat().st_ino for file in files] == before


def test_a_changed_program_is_replaced(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.installed.install()
    text = place.program.read_text()
    place.program.write_text("#!/bin/sh\n")
    place.installed.install()
    assert place.program.read_text() == text


def test_it_is_removed_without_a_trace(tmp_path: Path) -> None:
    place = Place(tmp_path)
    path = place.with_network()
    place.installed.install()
    assert place.installed.remove()
    assert json.loads(path.read_text()) == LIST
    assert [one.name for one in place.configuration.iterdir()] == [path.name]
    assert list(place.programs.iterdir()) == []
    assert not place.installed.remove()


def test_that_of_another_meshd_stays(tmp_path: Path) -> None:
    place, other = Place(tmp_path), Place(tmp_path, "b")
    path = place.with_network()
    place.installed.install()
    before = path.read_text(), place.program.read_text()
    assert not other.installed.remove()
    assert (path.read_text(), place.program.read_text()) == before


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "bin").write_text("")
    with pytest.raises(SystemRefusedError, match="bin"):
        Place(tmp_path).installed.install()
