"""The documentation agrees with the program: links, commands, settings, make targets, packages."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
import typer

from meshd.api.base import encode_scalar
from meshd.cli.main import app, run
from meshd.settings import Settings

ROOT: Final = Path(__file__).parent.parent.parent
PAGES: Final = (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")))
FENCE: Final = re.compile(r"^```.*?^```", re.M | re.S)
LINK: Final = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CODE: Final = re.compile(r"`([^`\n]+)`")
PLACEHOLDER: Final = re.compile(r"[A-Z\[]")
"""How words begin that stand for others, or may be left out: ``UNIT``, ``[WORKLOAD]``."""

OF_ALL: Final = {"--help", "--install-completion"}


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def section(page: str, title: str) -> str:
    return text_of(ROOT / page).partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub forms them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", text_of(page)), re.M)
    return {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}


def commands(page: Path) -> Iterator[str]:
    """The lines of code blocks, and code within text."""
    for block in FENCE.findall(text_of(page)):
        yield from block.splitlines()[1:-1]
    yield from CODE.findall(FENCE.sub("", text_of(page)).replace("\\|", "|"))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for link in LINK.findall(FENCE.sub("", text_of(page))):
        if re.match(r"https?://", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_linked_from_another_page() -> None:
    linked = {
        (page.parent / link.partition("#")[0]).resolve()
        for page in PAGES
        for link in LINK.findall(text_of(page))
    }
    assert [name(page) for page in PAGES if page not in linked and page.name != "README.md"] == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_command_of_meshctl_exists(page: Path) -> None:
    root: Any = typer.main.get_command(app)
    for line in commands(page):
        if match := re.search(r"(?:^|[(;|] *)meshctl (.*)", line):
            words = shlex.split(match[1].partition("|")[0].partition("…")[0], comments=True)
            check_words(root, words, line)


def check_words(command: Any, words: list[str], line: str) -> None:
    """Check that words up to the first argument are commands, and options those of the command."""
    context = command.make_context("meshctl", [], resilient_parsing=True)
    command = context.command
    options = {option for one in command.get_params(context) for option in one.opts}
    for position, word in enumerate(words):
        if word == "--":
            return
        if word.startswith("--"):
            assert word.partition("=")[0] in options | OF_ALL, f"{line}: {word}"
        elif hasattr(command, "list_commands") and not PLACEHOLDER.match(word):
            deeper = command.get_command(context, word)
            assert deeper is not None, f"{line}: {word}"
            check_words(deeper, words[position + 1 :], line)
            return


def test_every_verb_is_in_the_page_of_meshctl(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    listed = re.findall(r"^  (\S+)  ", capsys.readouterr().out.partition("Commands:")[2], re.M)
    written = re.findall(r"`([a-z-]+)[^`]*`", text_of(ROOT / "docs/meshctl.md"))
    assert len(listed) > 10
    assert set(listed) <= set(written)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_setting_that_is_named_exists(page: Path) -> None:
    known: dict[str, Any] = msgspec.to_builtins(Settings(), enc_hook=encode_scalar)
    groups = {key: value for key, value in known.items() if isinstance(value, dict)}
    for code in CODE.findall(FENCE.sub("", text_of(page))):
        if match := re.fullmatch(rf"({'|'.join(groups)})\.([a-z_]+)(?:[:=].*)?", code):
            assert match[2] in {*groups[match[1]], "sock", "py"}, code


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_make_target_exists(page: Path) -> None:
    makefile = text_of(ROOT / "Makefile")
    for line in commands(page):
        for target in re.findall(r"(?:^|[;,] *)make ([a-z-]+)", line):
            assert re.search(rf"^{target}:", makefile, re.M), target


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_path_of_the_repository_that_is_named_exists(page: Path) -> None:
    for code in CODE.findall(FENCE.sub("", text_of(page))):
        if re.fullmatch(r"(?:meshd|tests|etc|systemd|vagrant|docs)/[\w./-]+", code):
            assert (ROOT / code).exists(), code


def test_every_part_of_the_package_is_in_the_table_of_places() -> None:
    parts = {
        path.name + ("/" if path.is_dir() else "")
        for place in ("meshd", "tests")
        for path in (ROOT / place).iterdir()
        if path.name == "__main__.py"
        or (not path.name.startswith("__") and (place == "meshd" or path.is_dir()))
    }
    shown = set(re.findall(r"^  (\S+)  ", section("CONTRIBUTING.md", "Where to change what"), re.M))
    assert parts <= shown


def test_every_decision_is_in_the_list() -> None:
    pages = {path.name for path in (ROOT / "docs/decisions").glob("0*.md")}
    listed = re.findall(r"^\| \[\d{4}\]\((.*?)\)", text_of(ROOT / "docs/decisions/README.md"), re.M)
    assert sorted(pages) == sorted(listed)
    assert [int(one[:4]) for one in listed] == list(range(1, len(listed) + 1))


@pytest.mark.parametrize(
    "page",
    [path for path in PAGES if path.parent.name == "decisions" and path.name[0] == "0"],
    ids=name,
)
def test_a_decision_says_context_decision_and_consequences(page: Path) -> None:
    headings = re.findall(r"^## (.*)$", text_of(page), re.M)
    assert headings == ["Context", "Decision", "Consequences", "Measured or tried"]
