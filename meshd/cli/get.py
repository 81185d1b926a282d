"""``meshctl get`` shows stored objects."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import time
from typing import Annotated, Final

import typer

from meshd import wire
from meshd.api.object_fields import kind_of, name_of, namespace_of
from meshd.base.json_values import JsonObject
from meshd.cli import objects
from meshd.cli.arguments import (
    AllNamespacesOption,
    NamespaceOption,
    Output,
    SelectorOption,
)
from meshd.cli.daemon import RefusedError, Target
from meshd.cli.jsonpath import render
from meshd.cli.output import emit, is_for_scripts, plain_lines, show, tell, warn
from meshd.cli.references import Reference, parse_references, qualified
from meshd.cli.selectors import is_selected, parse_selector

_JSONPATH: Final = "jsonpath="
_LOOK: Final = 1.0
"""Seconds between looks at what is stored, with ``--watch``."""


@dataclasses.dataclass(frozen=True, slots=True)
class Form:
    """How objects are printed; ``template`` is a jsonpath."""

    output: Output
    template: str = ""
    labels: bool = False
    namespaces: bool = False


def parse_form(text: str | Form) -> Form:
    if isinstance(text, Form):
        return text
    if text.startswith(_JSONPATH):
        return Form(Output.JSON, text.removeprefix(_JSONPATH))
    with contextlib.suppress(ValueError):
        return Form(Output(text))
    raise typer.BadParameter(f'"{text}" is not one of {", ".join(Output)}, {_JSONPATH}TEMPLATE')


FormOption = Annotated[
    Form,
    typer.Option(
        "--output",
        "-o",
        metavar=f"{'|'.join(Output)}|{_JSONPATH}…",
        parser=parse_form,
        help="Output format. Default: table.",
        show_default=False,
    ),
]


def get(
    context: typer.Context,
    words: Annotated[
        list[str],
        typer.Argument(metavar="KIND[,KIND] [NAME] | KIND/NAME | all", show_default=False),
    ],
    namespace: NamespaceOption = "default",
    all_namespaces: AllNamespacesOption = False,
    selector: SelectorOption = "",
    show_labels: Annotated[
        bool, typer.Option("--show-labels", help="Add a column of labels.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Show changes until Ctrl-C.")
    ] = False,
    output: FormOption = Form(Output.TABLE),
) -> None:
    """Show the objects that are stored."""
    references = parse_references(words)
    if all_namespaces and any(reference.names for reference in references):
        raise typer.BadParameter("a name belongs to one namespace: use -n, not -A")
    form = dataclasses.replace(
        output, labels=show_labels or output.output is Output.WIDE, namespaces=all_namespaces
    )
    looking = _Looking(context.obj, references, "" if all_namespaces else namespace, selector)
    groups, problems = looking.look()
    warn(problems)
    if form.template:
        one = len(references) == 1 and len(references[0].names) == 1
        everything = [found for group in groups for found in group]
        whole: JsonObject = {"apiVersion": "v1", "kind": "List", "items": [*everything]}
        if everything or not one:
            print(render(form.template, everything[0] if one else whole), end="")
    elif any(groups) or is_for_scripts(form.output):
        _print(groups, form)
    elif not problems:
        where = "" if all_namespaces else f" in namespace {namespace}"
        warn([f"nothing found{where}"])
    if watch:
        _watch(looking, groups, form)
    if problems:
        raise typer.Exit(1)


_Groups = list[tuple[JsonObject, ...]]


@dataclasses.dataclass(frozen=True, slots=True)
class _Looking:
    """A query for objects of one namespace, or of all."""

    target: Target
    references: tuple[Reference, ...]
    namespace: str
    selector: str

    def look(self) -> tuple[_Groups, list[str]]:
        """Return the objects of each reference, and the reasons why some are missing."""
        requirements = parse_selector(self.selector)
        groups, problems = _fetch(self.target, self.references, self.namespace)
        chosen = [tuple(one for one in group if is_selected(one, requirements)) for group in groups]
        return chosen, problems


def _watch(looking: _Looking, groups: _Groups, form: Form) -> None:
    """Tell what is new or another, and what is there no more."""
    seen = _by_name(groups)
    sys.stdout.flush()
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            time.sleep(_LOOK)
            now = _by_name(looking.look()[0])
            for key, found in now.items():
                if seen.get(key) != found:
                    _print_change(found, form)
            for kind, _, name in seen.keys() - now.keys():
                warn([f"{qualified(kind)}/{name} deleted"])
            seen = now


def _by_name(groups: _Groups) -> dict[tuple[str, str, str], JsonObject]:
    return {
        (kind_of(found), namespace_of(found), name_of(found)): found
        for group in groups
        for found in group
    }


def _print_change(found: JsonObject, form: Form) -> None:
    if form.template:
        print(render(form.template, found), end="", flush=True)
    elif form.output in {Output.TABLE, Output.WIDE}:
        table = objects.table([found], wide=form.labels, with_namespace=form.namespaces)
        print(plain_lines(table)[1], flush=True)
    else:
        _print([(found,)], form)


def _print(groups: _Groups, form: Form) -> None:
    everything = [found for group in groups for found in group]
    if is_for_scripts(form.output):
        emit(everything, form.output)
    elif form.output is Output.NAME:
        for found in everything:
            tell(f"{qualified(kind_of(found))}/{name_of(found)}")
    elif everything:
        _show([group for group in groups if group], form.labels, form.namespaces)


def _fetch(
    target: Target, references: tuple[Reference, ...], namespace: str
) -> tuple[list[tuple[JsonObject, ...]], list[str]]:
    """Return the objects of each reference, and the reasons why some are missing."""
    groups: list[tuple[JsonObject, ...]] = []
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


def _show(groups: list[tuple[JsonObject, ...]], wide: bool, with_namespace: bool) -> None:
    merged: dict[str, list[JsonObject]] = {}
    for found in (found for group in groups for found in group):
        merged.setdefault(kind_of(found), []).append(found)
    for index, (kind, group) in enumerate(merged.items()):
        if index:
            print()
        prefix = f"{qualified(kind)}/" if len(merged) > 1 else ""
        show(objects.table(group, prefix=prefix, wide=wide, with_namespace=with_namespace))
