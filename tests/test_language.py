"""Holds the rules of CONTRIBUTING.md, "Language", that can be checked cheaply."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parent.parent
PROSE: Final = (
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "etc/debian/meshd.8",
    ROOT / "etc/meshd.yaml",
)
BANNED: Final = {
    r"\benrol(s|ment|ments)?\b(?!\.py)": "enroll, enrollment",
    r"\bmachines that people (really )?have\b": "VMs, bare-metal hosts and Kubernetes nodes",
    r"\bis nobody\b": "is rejected",
    r"\bto and fro\b": "in both directions",
    r"\bthe second time they find\b": "later runs reuse it",
    r"\bas if there were no mesh\b": "bypasses the mesh",
    r"\bnobody's policy\b": "no policy",
    r"\bplain text\b": "plaintext",
}
"""Patterns, regardless of case, and what to write instead."""
SPEAKS_OF_WORDS: Final = {"CONTRIBUTING.md"}
"""Pages whose tables list the words that are not to be used."""


def banned(text: str) -> Iterator[str]:
    for pattern, better in BANNED.items():
        for match in re.finditer(pattern, text, re.I):
            line = text.count("\n", 0, match.start()) + 1
            yield f"line {line}: {match[0]!r}: write {better!r}"


@pytest.mark.parametrize("path", PROSE, ids=lambda path: str(path.relative_to(ROOT)))
def test_pages_use_the_words_of_the_glossary(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if path.name in SPEAKS_OF_WORDS:
        text = "\n".join(line for line in text.splitlines() if not line.startswith("|"))
    assert list(banned(text)) == []


def test_a_banned_word_is_found_with_its_line() -> None:
    assert list(banned("One.\nAn Enrolment.")) == [
        "line 2: 'Enrolment': write 'enroll, enrollment'"
    ]
