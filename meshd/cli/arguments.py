"""Options that several verbs share, under the names that kubectl gives them."""

from __future__ import annotations

import enum
from typing import Annotated, Any, Final

import typer

from meshd.api.base import Duration

DEFAULT_TIMEOUT: Final = Duration(30)
"""Of ``--wait``."""


class Output(enum.StrEnum):
    """The forms of ``-o``. JSON and YAML are for scripts and only ever gain fields."""

    JSON = "json"
    YAML = "yaml"
    TABLE = "table"
    WIDE = "wide"
    NAME = "name"


def parse_duration(text: str | Duration) -> Duration:
    try:
        return Duration.parse(text if isinstance(text, str) else f"{float(text)}s")
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


OutputOption = Annotated[
    Output, typer.Option("--output", "-o", help="Output format.", show_default=True)
]
NamespaceOption = Annotated[
    str, typer.Option("--namespace", "-n", metavar="NAME", help="Namespace.", show_default=True)
]
OwnNamespaceOption = Annotated[
    str | None,
    typer.Option(
        "--namespace",
        "-n",
        metavar="NAME",
        help="Namespace for objects without one; objects of another are refused. Default: default.",
    ),
]
SelectorOption = Annotated[
    str,
    typer.Option(
        "--selector",
        "-l",
        metavar="LABELS",
        help="Only objects with these labels: a=b, a!=b, a, !a, a in (b,c), a notin (b,c).",
    ),
]
BoundsOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAMESPACE[/ACCOUNT]",
        help=(
            "Namespace or NAMESPACE/SERVICE_ACCOUNT that its workloads may have. May be "
            "repeated. Default: any."
        ),
    ),
]
AllNamespacesOption = Annotated[
    bool, typer.Option("--all-namespaces", "-A", help="In all namespaces.")
]
FilesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--filename",
        "-f",
        metavar="PATH",
        help="A manifest, a directory of them, or - for standard input. May be repeated.",
    ),
]
RecursiveOption = Annotated[
    bool, typer.Option("--recursive", "-R", help="Read directories recursively.")
]
DryRunOption = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Show what would change, and for which workloads; change nothing."
    ),
]
WaitOption = Annotated[
    bool,
    typer.Option("--wait", help="Wait until every proxy has the change; fail if one refuses it."),
]


def duration_option(what: str, default: str) -> Any:
    """Return an option for a duration; ``default`` is written as a user writes it."""
    text = f"{what} Default: {default}."
    return typer.Option(metavar="DURATION", parser=parse_duration, help=text, show_default=False)


TimeoutOption = Annotated[Duration, duration_option("How long --wait waits.", "30s")]
