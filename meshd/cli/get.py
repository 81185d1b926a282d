"""meshctl get: what is stored."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from meshd import wire
from meshd.cli import objects
from meshd.cli.arguments import (
    AllNamespacesOption,
    NamespaceOption,
    Output,
    OutputOption,
    SelectorOption,
)
from meshd.cli.daemon import RefusedError, Target
from meshd.cli.output import emit, is_for_scripts, show, tell, warn
from meshd.cli.references import Reference, parse_references, qualified
from meshd.cli.selectors import is_selected, parse_selector


def get(
    context: typer.Context,
    words: Annotated[
        list[str],
        typer.Argument(metavar="KIND[,KIND] [NAME] | KIND/NAME | all", show_default=False),
    ],
    namespace: NamespaceOption = "default",
    all_namespaces: AllNamespacesOption = False,
    selector: SelectorOption = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """Show the objects that are stored."""
    references = parse_references(words)
    if all_namespaces and any(reference.names for reference in references):
        raise typer.BadParameter("a name belongs to one namespace: use -n, not -A")
    target: Target = context.obj
    groups, problems = _fetch(target, references, "" if all_namespaces else namespace)
    requirements = parse_selector(selector)
    groups = [tuple(one for one in group if is_selected(one, requirements)) for group in groups]
    everything = [found for group in groups for found in group]
    warn(problems)
    if is_for_scripts(output):
        emit(everything, output)
    elif output is Output.NAME:
        for found in everything:
            tell(f"{qualified(found['kind'])}/{found['metadata']['name']}")
    elif everything:
        _show([group for group in groups if group], output is Output.WIDE, all_namespaces)
    elif not problems:
        where = "" if all_namespaces else f" in namespace {namespace}"
        warn([f"nothing found{where}"])
    if problems:
        raise typer.Exit(1)


def _fetch(
    target: Target, references: tuple[Reference, ...], namespace: str
) -> tuple[list[tuple[dict[str, Any], ...]], list[str]]:
    """The objects of each reference, and why some are not among them."""
    groups: list[tuple[dict[str, Any], ...]] = []
    problems: list[str] = []
    for reference in references:
        inside = namespace if reference.kind.NAMESPACED else ""
        for name in reference.names or ("",):
            request = wire.Get(reference.kind.KIND, name, inside)
            try:
                groups.append(target.ask(request, wire.Objects).objects)
            except RefusedError as error:
                problems.append(str(error))
    return groups, problems


def _show(groups: list[tuple[dict[str, Any], ...]], wide: bool, with_namespace: bool) -> None:
    merged: dict[str, list[dict[str, Any]]] = {}
    for found in (found for group in groups for found in group):
        merged.setdefault(found["kind"], []).append(found)
    for index, (kind, group) in enumerate(merged.items()):
        if index:
            print()
        prefix = f"{qualified(kind)}/" if len(merged) > 1 else ""
        show(objects.table(group, prefix=prefix, wide=wide, with_namespace=with_namespace))
