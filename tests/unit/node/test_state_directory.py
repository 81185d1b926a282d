from __future__ import annotations

import os

import pytest

from meshd.node.state_directory import why_not


def found(
    *, free: int = 1000, files: int = 1000, left: int = 10, flags: int = 0
) -> os.statvfs_result:
    # bsize, frsize, blocks, bfree, bavail, files, ffree, favail, flag, namemax
    return os.statvfs_result((4096, 4096, 9999, free + 50, free, files, left + 5, left, flags, 255))


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (found(), ""),
        (found(files=0, left=0), ""),  # btrfs
        (found(free=16), ""),
        (found(free=15), "No space left on device"),
        (found(left=0), "No space left on device"),
        (found(flags=os.ST_RDONLY), "Read-only file system"),
        (found(flags=os.ST_NOSUID), ""),
    ],
)
def test_why_nothing_can_be_written(state: os.statvfs_result, reason: str) -> None:
    assert why_not(state) == reason
