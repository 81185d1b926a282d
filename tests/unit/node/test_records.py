"""What a node records of its workloads: all of a change, or nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshd.base.errors import SystemRefusedError
from meshd.node.known import Known
from meshd.node.records import Records
from meshd.settings import Paths
from meshd.workloads import record
from meshd.workloads.lifecycle import Life, Phase
from tests.unit.node.world import host_service, pod

WEB, SSH = pod("web"), host_service("ssh")
LIVES = {WEB.uid: Life(WEB, Phase.CAPTURED)}


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    made = Paths(tmp_path / "etc", tmp_path / "lib", tmp_path / "run")
    made.lib.mkdir()
    made.workloads.parent.mkdir(parents=True)
    return made


def saved(paths: Paths) -> Known:
    records = Records(paths)
    records.load()
    records.save({WEB.uid: WEB, SSH.uid: SSH}, LIVES)
    return Records(paths).load()


def test_the_next_process_knows_what_was_recorded(paths: Paths) -> None:
    known = saved(paths)
    assert known == Known(registered={WEB.uid: WEB, SSH.uid: SSH}, lives=LIVES)


def test_of_a_reboot_only_services_of_the_host_are_left(paths: Paths) -> None:
    saved(paths)
    paths.workloads.unlink()
    assert Records(paths).load() == Known(registered={SSH.uid: SSH})


@pytest.mark.parametrize("broken", ["lib", "run"])
def test_a_change_that_one_record_does_not_take_is_in_neither(
    paths: Paths, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, save = saved(paths), record.save

    def fails(path: Path, wanted: record.Record, *, durable: bool = False) -> None:
        if path.is_relative_to(getattr(paths, broken)):
            raise SystemRefusedError(f"{path}: cannot be written: No space left on device")
        save(path, wanted, durable=durable)

    more = {**before.registered, "shop.db": pod("db"), "host.db": host_service("db")}
    with monkeypatch.context() as patched:
        patched.setattr(record, "save", fails)
        for registered in (more, {}):
            records = Records(paths)
            records.load()
            with pytest.raises(SystemRefusedError):
                records.save(registered, {})
    assert Records(paths).load() == before


def test_nothing_is_written_that_is_written_already(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = saved(paths)
    written: list[Path] = []

    def save(path: Path, _: record.Record) -> None:
        written.append(path)

    monkeypatch.setattr(record, "save", save)
    records = Records(paths)
    records.load()
    records.save(known.registered, known.lives)
    assert written == []
    records.save(known.registered, {})
    assert written == [paths.workloads]
