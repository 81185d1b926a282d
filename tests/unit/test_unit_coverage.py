"""The exceptions from the coverage of unit tests name what there is."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_each_module_that_does_not_count_exists() -> None:
    """A pattern that matches nothing would go on to excuse a module of that name."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns: list[str] = settings["tool"]["coverage"]["run"]["omit"]
    missing = [
        pattern
        for pattern in patterns
        if not any(
            ROOT.glob(pattern.removeprefix("*") if "/" in pattern else f"meshd/**/{pattern}")
        )
    ]
    assert missing == []
