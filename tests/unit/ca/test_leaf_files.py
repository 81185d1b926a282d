"""Certificates that outlive the process: whoever cannot ask for new ones goes on with them."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from meshd.base.errors import UnreachableError
from meshd.ca.authority import Issued, Request
from meshd.ca.leaf_files import Kept, LeafFiles
from meshd.ca.leaves import Identities
from meshd.ca.standalone import Standalone
from meshd.ca.store import Store
from meshd.model.workload import Identity
from meshd.sds.subscriber import Secrets

WEB = Identity("cluster.local", "shop", "web")
DB = Identity("cluster.local", "shop", "db")
NOW = 1_700_000_000.0
KEPT = Kept(NOW, Issued(b"chain", 0xABC, NOW - 60, NOW + 100), b"key")


def test_a_kept_certificate_is_read_back_by_its_identity(tmp_path: Path) -> None:
    files = LeafFiles(tmp_path / "leaves")
    assert files.get(WEB) is None
    files.put(WEB, KEPT)
    assert LeafFiles(tmp_path / "leaves").get(WEB) == KEPT
    assert files.get(DB) is None


def test_nobody_else_may_read_it_and_it_is_never_shown(tmp_path: Path) -> None:
    LeafFiles(tmp_path / "leaves").put(WEB, KEPT)
    (path,) = (tmp_path / "leaves").iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert "key" not in repr(KEPT).replace("kept", "")


def test_what_has_ended_is_removed_when_a_new_one_shows_what_time_it_is(tmp_path: Path) -> None:
    files = LeafFiles(tmp_path / "leaves")
    files.put(WEB, KEPT)
    later = NOW + 4000
    for moment, left in ((NOW + 200, 2), (later, 1)):
        issued = Issued(b"chain", 0xABD, moment - 60, moment + 100)
        files.put(DB, Kept(moment, issued, b"key"))
        assert len(list((tmp_path / "leaves").iterdir())) == left
    assert files.get(DB)


def test_a_damaged_file_is_as_good_as_none(tmp_path: Path) -> None:
    files = LeafFiles(tmp_path / "leaves")
    files.put(WEB, KEPT)
    (path,) = (tmp_path / "leaves").iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    assert files.get(WEB) is None
    assert list((tmp_path / "leaves").iterdir()) == []  # it has a private key
    files.put(WEB, KEPT)
    assert files.get(WEB) == KEPT


def test_keys_that_no_certificate_uses_are_removed(tmp_path: Path) -> None:
    directory = tmp_path / "leaves"
    LeafFiles(directory).put(WEB, KEPT)
    (path,) = directory.iterdir()
    written = path.read_bytes()
    for name in (f"{path.name}.damaged-1", f"{path.name}.damaged-12", f".{path.name}.new"):
        (directory / name).write_bytes(written)
    files = LeafFiles(directory)
    assert list(directory.iterdir()) == [path]
    (directory / "another.json").write_bytes(written[:-1])  # of a workload that never comes back
    later = NOW + 4000
    files.put(DB, Kept(later, Issued(b"chain", 0xABD, later - 60, later + 100), b"key"))
    assert files.get(DB)
    assert len(list(directory.iterdir())) == 1


def test_a_failure_to_write_is_reported_once_and_the_file_is_written_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "leaves").write_text("a file")
    files = LeafFiles(tmp_path / "leaves")
    with caplog.at_level(logging.INFO):
        for identity in (WEB, DB):
            files.put(identity, KEPT)
        files.put_waiting()
        assert files.waits
        assert files.problem.startswith(f"{tmp_path}/leaves: cannot be written: File exists")
        (tmp_path / "leaves").unlink()
        files.drop({WEB})
        files.put_waiting()
    assert (files.waits, files.problem) == (False, "")
    assert (files.get(WEB), files.get(DB)) == (KEPT, None)
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]


class _Away:
    """A server that answers no more."""

    def __init__(self, signer: Standalone) -> None:
        self._signer = signer
        self.away = False

    async def sign(self, request: Request, now: float) -> Issued:
        if self.away:
            raise UnreachableError("away")
        return await self._signer.sign(request, now)

    def roots(self) -> bytes:
        return self._signer.roots()


@pytest.mark.parametrize("reboot", [False, True])
def test_after_a_restart_without_the_server_the_same_certificate_is_served(
    tmp_path: Path, reboot: bool
) -> None:
    signer = _Away(Standalone(Store(tmp_path / "ca", "cluster.local", 10**8), NOW))
    told: list[Secrets] = []

    async def life(*, first: bool) -> str:
        service = Identities(
            signer,
            told.append,
            tmp_path / "record.json",
            lifetime=100,
            renew_at=0.5,
            clock=lambda: NOW,
            kept=LeafFiles(tmp_path / "leaves"),
        )
        service.restore()
        if first or reboot:
            service.allow([])  # what the mesh role says before any pod has come back
            service.allow([WEB])
        task = asyncio.create_task(service.run())
        async with asyncio.timeout(60):
            while WEB.uri not in (told[-1].served if told else {}):  # noqa: ASYNC110
                await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return told.pop().served[WEB.uri].version

    before = asyncio.run(life(first=True))
    signer.away = True
    told.clear()
    if reboot:
        (tmp_path / "record.json").unlink()
    assert asyncio.run(life(first=False)) == before
