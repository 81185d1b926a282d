"""Holds the rules of CONTRIBUTING.md, "Language", that can be checked cheaply."""

from __future__ import annotations

import ast
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
    r"\benrol(s|ment|ments)?\b": "enroll, enrollment",
    r"\bmachines that people (really )?have\b": "VMs, bare-metal hosts and Kubernetes nodes",
    r"\bis nobody\b": "is rejected",
    r"\bto and fro\b": "in both directions",
    r"\bthe second time they find\b": "later runs reuse it",
    r"\bas if there were no mesh\b": "bypasses the mesh",
    r"\bnobody's policy\b": "no policy",
    r"\b(?<!a )(plain|clear) text\b": "plaintext",
}
"""Patterns, regardless of case, and what to write instead."""
SPEAKS_OF_WORDS: Final = {"CONTRIBUTING.md"}
"""Pages whose tables list the words that are not to be used."""

FRAGMENT: Final = re.compile(
    r"""(?:
    A | All | Also | An | And | As | At | Before | Beside | Beyond | Both | By | Each | Either
    | Else | Empty | Every | Everything | For | From | Has | He | How | If | In | Into | It |
    Its | Nobody | None | No | Nothing | Of | On | Once | One | Only | Or | Some | Somebody |
    That | The | Their | They | These | This | Those | To | Together | Under | Until | Was |
    What | Whatever | When | Where | Whether | Which | While | Who | Whoever | Whom | Whose |
    Why | With | Within | Without
    )\b""",
    re.VERBOSE,
)
"""Words with which no docstring of a function begins: its first word is the verb."""
Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


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


def test_texts_of_the_program_use_the_words_of_the_glossary() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {fault}"
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for fault in banned(node.value)
    ]
    assert found == []


def test_a_banned_word_is_found_with_its_line() -> None:
    assert list(banned("One.\nAn Enrolment.")) == [
        "line 2: 'Enrolment': write 'enroll, enrollment'"
    ]


def sources() -> list[Path]:
    return sorted((ROOT / "meshd").rglob("*.py"))


def faults(node: Documented, text: str) -> Iterator[str]:
    summary = " ".join(text.partition("\n\n")[0].split())
    name = getattr(node, "name", "the module")
    if not re.match(r"[A-Z`]|meshd|meshctl|gRPC|asyncio|[a-z]+(, [a-z]+)* [→↔] [a-z]", summary):
        yield f"{name}: begins with a small letter: {summary}"
    if not re.search(r"[.…:](``)?\)?$|https?://\S+$", summary):
        yield f"{name}: is not a sentence with a full stop: {summary}"
    is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    if is_function and (FRAGMENT.match(summary) or not re.match(r"\w", summary)):
        yield f"{name}: does not begin with a verb: {summary}"


def docstrings(path: Path) -> Iterator[tuple[Documented, str]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, Documented) and (text := ast.get_docstring(node)):
            yield node, text


def test_docstrings_are_sentences_and_those_of_functions_begin_with_a_verb() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {fault}"
        for path in sources()
        for node, text in docstrings(path)
        for fault in faults(node, text)
    ]
    assert found == []


@pytest.mark.parametrize(
    "code",
    [
        "def f(): 'Whether it is so.'",
        "def f(): '``name``: of the node.'",
        "def f(): 'Return it'",
        "class A: 'of a node.'",
    ],
)
def test_a_docstring_that_is_no_sentence_is_found(code: str) -> None:
    (node,) = ast.parse(code).body
    assert isinstance(node, Documented)
    assert list(faults(node, ast.get_docstring(node) or ""))
