"""The manual's pages: ``manual.py SOURCE VERSION OUTPUT``.

meshctl(1) is written out of the program's own help and meshd.yaml(5) out of the example of the
settings, so that neither can say what is not so. meshd(8) is written by hand.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import typer

from meshd.cli.main import app

_KEY: Final = re.compile(r"( *)#?([a-z0-9_]+):(?: (.*))?$")
_STATUSES: Final = (
    ("0", "Done."),
    (
        "1",
        "The answer is negative: an invalid file or one without objects, a workload that is not"
        " proven; after `--dry-run`, that something would change.",
    ),
    ("2", "Wrong usage; after `--dry-run`, an invalid file."),
    ("3", "The daemon does not answer."),
    (
        "130",
        "Interrupted; meshd goes on with an enrollment, and does not store a change that it has not"
        " begun to write.",
    ),
)


def roff(text: str) -> str:
    """Text of ours as text of man(7): no character of it is a request."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("`", "\\(ga")
    return re.sub(r"^([.'])", r"\\&\1", escaped, flags=re.MULTILINE)


def head(name: str, section: int, version: str, summary: str) -> Iterator[str]:
    yield f'.TH {name.upper()} {section} "" "meshd {version}" "Service mesh"'
    yield ".SH NAME"
    yield f"{roff(name)} \\- {roff(summary)}"


def paragraphs(text: str) -> Iterator[str]:
    for number, paragraph in enumerate(re.split(r"\n\s*\n", text.strip())):
        if number:
            yield ".PP"
        yield roff(" ".join(paragraph.split()))


# ---- meshctl(1)


@dataclasses.dataclass(frozen=True, slots=True)
class Verb:
    """One command, as its own help has it."""

    usage: str
    summary: str
    options: tuple[tuple[str, str], ...]


def verbs(command: Any, parent: Any, words: str) -> Iterator[Verb]:
    """Of a click command: itself if it does something, else all that is in it."""
    context = command.make_context(words, [], parent=parent, resilient_parsing=True)
    real = context.command
    if hasattr(real, "list_commands"):
        for name in real.list_commands(context):
            yield from verbs(real.get_command(context, name), context, name)
        return
    options = tuple(
        record
        for parameter in real.get_params(context)
        if "--help" not in parameter.opts and (record := _record(parameter, context))
    )
    usage = " ".join((context.command_path, *real.collect_usage_pieces(context)))
    yield Verb(usage, real.help or "", options)


def _record(parameter: Any, context: Any) -> tuple[str, str] | None:
    """What it is called and what it means; None for an argument that the usage line explains."""
    if parameter.param_type_name == "option":
        return parameter.get_help_record(context)
    return (parameter.metavar or parameter.name.upper(), parameter.help) if parameter.help else None


def meshctl(version: str) -> Iterator[str]:
    group: Any = typer.main.get_command(app)
    yield from head("meshctl", 1, version, "configure and inspect this node's service mesh")
    yield ".SH SYNOPSIS"
    yield ".B meshctl"
    yield roff("[--socket PATH] VERB [OPTIONS] [ARGUMENTS]")
    yield ".SH DESCRIPTION"
    yield from paragraphs(
        "Output is a table, or -o json and -o yaml for scripts; -n and -A mean what they mean to"
        " kubectl. Run it as root."
    )
    yield ".SH VERBS"
    for verb in verbs(group, None, "meshctl"):
        yield f'.SS "{roff(verb.usage)}"'
        yield from paragraphs(verb.summary)
        for option, meaning in verb.options:
            yield from (".TP", f".B {roff(option)}", roff(meaning) or "\\&")
    yield ".SH EXIT STATUS"
    for status, meaning in _STATUSES:
        yield from (".TP", f".B {status}", roff(meaning))
    yield ".SH ENVIRONMENT"
    yield from (".TP", ".B MESHD_HOME", "A directory below which all files of meshd are.")
    yield ".SH SEE ALSO"
    yield ".BR meshd (8), meshd.yaml (5)"


# ---- meshd.yaml(5)


def settings(text: str, version: str) -> Iterator[str]:
    """A key's meaning is the comment before it; its default, what stands behind it."""
    yield from head("meshd.yaml", 5, version, "settings of the service mesh of a node")
    yield ".SH SYNOPSIS"
    yield ".I /etc/meshd/meshd.yaml"
    yield ".SH DESCRIPTION"
    introduction, _, rest = text.partition("\n\n")
    yield from paragraphs(_prose(introduction.splitlines()))
    yield ".PP"
    yield roff(
        "systemctl reload meshd puts changes in force, and traffic does not notice. A mistake in"
        " the file fails that, names the line and leaves everything as it was; meshd --check only"
        " looks for mistakes."
    )
    yield ".SH SETTINGS"
    yield from _keys(rest.splitlines())
    yield ".SH SEE ALSO"
    yield ".BR meshd (8), meshctl (1)"


def _keys(lines: Iterable[str]) -> Iterator[str]:
    comment: list[str] = []
    for line in lines:
        if not (found := _KEY.match(line)):
            comment = [*comment, line] if line.strip() else []
            continue
        indent, name, default = found.groups()
        meaning = roff(_prose(comment))
        comment = []
        if default is None:
            yield from (f'.SS "{name}:"', meaning)
        else:
            tag = f'.B "{"  " if indent else ""}{name}"'
            shown = f"Default: {roff(default)}."
            yield from (".TP", tag, f"{meaning} {shown}".strip())


def _prose(lines: Iterable[str]) -> str:
    return " ".join(line.strip().removeprefix("#").strip() for line in lines)


def write(source: Path, version: str, output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    example = (source / "etc/meshd.yaml").read_text(encoding="utf-8")
    daemon = (source / "etc/debian/meshd.8").read_text(encoding="utf-8")
    pages = {
        "meshctl.1": "\n".join(meshctl(version)) + "\n",
        "meshd.yaml.5": "\n".join(settings(example, version)) + "\n",
        "meshd.8": daemon.replace("@VERSION@", version),
    }
    for name, text in pages.items():
        (output / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
