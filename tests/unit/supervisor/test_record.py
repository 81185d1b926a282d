"""What an earlier supervisor left."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshd.settings import Paths
from meshd.supervisor import record
from meshd.supervisor.home import Home


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff", b'[{"name":"\xff"}]'])
def test_a_damaged_record_is_none_at_all(tmp_path: Path, content: bytes) -> None:
    home = Home(Paths(tmp_path / "etc", tmp_path / "lib", tmp_path / "run"))
    home.directory.mkdir(parents=True)
    home.record.write_bytes(content)

    assert record.read(home) == ()
