"""The files of enrolled units, when whoever writes or removes them is stopped in between."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshd.workloads.host import hold_units, systemd
from meshd.workloads.host.hold_units import Preparation
from meshd.workloads.host.systemd import Systemd

WANTED = Preparation(unit="web.service", meshctl="/opt/meshd/bin/meshctl", sockets=("web.socket",))


class Manager:
    """Answers systemctl(1), and counts how often it has read all files."""

    def __init__(self) -> None:
        self.is_stale = False
        self.reloads = 0

    def __call__(self, *words: str) -> str:
        match words[0]:
            case "show":
                text = f"LoadState=loaded\nNeedDaemonReload={'yes' if self.is_stale else 'no'}"
                return "\n\n".join([text] * len(words[words.index("--") + 1 :]))
            case "daemon-reload":
                self.reloads += 1
                self.is_stale = False
            case _:
                pass
        return ""


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> Manager:
    made = Manager()
    monkeypatch.setattr(systemd, "_systemctl", made)
    return made


def files(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def test_the_same_preparation_again_reads_files_anew_only_where_that_was_left_undone(
    manager: Manager, tmp_path: Path
) -> None:
    units = Systemd(tmp_path)
    units.prepare(WANTED)
    units.prepare(WANTED)
    assert manager.reloads == 1
    manager.is_stale = True
    units.prepare(WANTED)
    assert manager.reloads == 2
    units.undo("web.service")
    manager.is_stale = True
    units.undo("web.service")
    assert manager.reloads == 4


def test_units_that_others_require_are_removed_last(manager: Manager, tmp_path: Path) -> None:
    Systemd(tmp_path).prepare(WANTED)
    paths = {one for one in files(tmp_path) if (tmp_path / one).is_file()}
    assert hold_units.in_order_of_removal("web.service", paths)[-1] == "meshd-hold@web.service"


def test_what_a_killed_process_has_left_is_removed(manager: Manager, tmp_path: Path) -> None:
    units = Systemd(tmp_path)
    units.prepare(WANTED)
    (tmp_path / "web.service.d" / ".50-meshd.conf.new").touch()
    (tmp_path / ".meshd-hold@web.service.new").touch()
    (tmp_path / "web.service.d" / "50-meshd.conf").unlink()
    assert units.has_traces("web.service")
    units.undo("web.service")
    assert files(tmp_path) == []
    assert not units.has_traces("web.service")
