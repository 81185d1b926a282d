"""The README and the program do not drift apart."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

from meshd.cli.main import app, run

ROOT: Final = Path(__file__).parent.parent.parent
README: Final = (ROOT / "README.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    return README.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_every_verb_is_in_the_readme(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.info.name == "meshctl"
    assert run(["--help"]) == 0
    listed = re.findall(r"^  (\S+)  ", capsys.readouterr().out.partition("Commands:")[2], re.M)
    written = re.findall(r"`([a-z-]+)[^`]*`", section("meshctl"))
    assert set(listed) <= set(written)


def test_every_make_target_is_in_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"\bmake ([a-z-]+)", README):
        assert re.search(rf"^{target}:", makefile, re.M), target


def test_every_part_of_the_package_is_in_the_picture() -> None:
    parts = {
        path.name + ("/" if path.is_dir() else "")
        for path in (ROOT / "meshd").iterdir()
        if not path.name.startswith("__") or path.name == "__main__.py"
    }
    shown = set(re.findall(r"^  (\S+)  ", section("Where to change what"), re.M))
    assert parts <= shown
