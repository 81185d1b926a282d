"""The journal of enrollments: what was begun is found again, and damage harms nothing else."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from meshd.base.errors import SystemRefusedError
from meshd.node.enrollment_journal import JOURNAL, Journal
from meshd.workloads.intent import Action, Intent
from tests.unit.node.enrolling_world import hosted

INTENT = Intent(
    number=7, action=Action.ENROLL, uid="shop.web", unit="web.service", workload=hosted()
)


def test_the_next_process_finds_what_was_written_last(tmp_path: Path) -> None:
    async def write() -> None:
        kept = Journal(tmp_path / JOURNAL)
        assert kept.load() == {}
        await asyncio.gather(
            *(kept.write(lambda one=one: one) for one in ({}, {INTENT.key: INTENT}))
        )

    asyncio.run(write())
    assert Journal(tmp_path / JOURNAL).load() == {INTENT.key: INTENT}


def test_a_file_that_cannot_be_used_is_moved_out_of_the_way(tmp_path: Path) -> None:
    for number, content in enumerate((b"{", b'{"other": {"number": 1, "action": "undo"}}'), 1):
        (tmp_path / JOURNAL).write_bytes(content)
        assert Journal(tmp_path / JOURNAL).load() == {}
        assert (tmp_path / f"{JOURNAL}.damaged-{number}").read_bytes() == content


def test_a_file_that_cannot_be_written_is_as_before(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    kept = Journal(tmp_path / "file" / JOURNAL)
    with pytest.raises(SystemRefusedError, match="cannot be written"):
        asyncio.run(kept.write(dict))
