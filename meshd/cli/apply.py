"""``meshctl apply`` and ``delete`` change what is stored."""

from __future__ import annotations

from typing import Annotated

import typer

from meshd import wire
from meshd.cli import sources
from meshd.cli.arguments import (
    DEFAULT_TIMEOUT,
    DryRunOption,
    FilesOption,
    Output,
    OutputOption,
    OwnNamespaceOption,
    RecursiveOption,
    SelectorOption,
    TimeoutOption,
    WaitOption,
)
from meshd.cli.daemon import Target
from meshd.cli.output import emit, is_for_scripts, tell, warn
from meshd.cli.references import Reference, parse_references, qualified
from meshd.cli.selectors import is_selected, parse_selector


def apply(
    context: typer.Context,
    files: FilesOption = None,
    namespace: OwnNamespaceOption = None,
    recursive: RecursiveOption = False,
    dry_run: DryRunOption = False,
    wait: WaitOption = False,
    timeout: TimeoutOption = DEFAULT_TIMEOUT,
    output: OutputOption = Output.TABLE,
) -> None:
    """Store objects from manifests: all of them or, if one is not valid, none."""
    request = wire.Apply(
        sources=sources.read_sources(files, recursive=recursive),
        namespace=namespace or "default",
        only_namespace=namespace is not None,
        dry_run=dry_run,
        wait=float(timeout) if wait else 0.0,
    )
    target: Target = context.obj
    _report([target.ask(request, wire.Changed, wait=request.wait)], output, dry_run)


def delete(
    context: typer.Context,
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[KIND NAME | KIND/NAME]...", show_default=False)
    ] = None,
    files: FilesOption = None,
    namespace: OwnNamespaceOption = None,
    recursive: RecursiveOption = False,
    selector: SelectorOption = "",
    everything: Annotated[
        bool, typer.Option("--all", help="Delete all objects of the kinds in the namespace.")
    ] = False,
    ignore_not_found: Annotated[
        bool, typer.Option("--ignore-not-found", help="Missing objects are no error.")
    ] = False,
    dry_run: DryRunOption = False,
    wait: WaitOption = False,
    timeout: TimeoutOption = DEFAULT_TIMEOUT,
    output: OutputOption = Output.TABLE,
) -> None:
    """Delete objects by manifest, by kind and name, by kind and labels, or all of a kind."""
    if bool(words) == bool(files):
        raise typer.BadParameter("say what to delete: -f PATH, KIND NAME or KIND/NAME")
    target: Target = context.obj
    here, patience = namespace or "default", float(timeout) if wait else 0.0
    if files:
        texts = sources.read_sources(files, recursive=recursive)
        request = wire.Apply(
            texts,
            here,
            dry_run,
            patience,
            delete=True,
            only_namespace=namespace is not None,
            ignore_missing=ignore_not_found,
        )
        _report([target.ask(request, wire.Changed, wait=patience)], output, dry_run)
        return
    chosen = _chosen(target, words or [], here, selector, everything=everything)
    answers = [
        target.ask(
            wire.DeleteNamed(
                one.kind.KIND, one.names, here, dry_run, patience, ignore_missing=ignore_not_found
            ),
            wire.Changed,
            wait=patience,
        )
        for one in chosen
    ]
    _report(answers, output, dry_run, quiet=ignore_not_found)


def _chosen(
    target: Target, words: list[str], namespace: str, selector: str, *, everything: bool
) -> tuple[Reference, ...]:
    """Return the references that a command names, or those of all objects with these labels."""
    references = parse_references(words)
    if all(reference.names for reference in references):
        if selector or everything:
            raise typer.BadParameter("give names, -l or --all, not several of them")
        return references
    if not (selector or everything) or any(reference.names for reference in references):
        message = f'say which {words[0]} to delete: by name, -l KEY=VALUE, --all or "-f PATH"'
        raise typer.BadParameter(message)
    requirements = parse_selector(selector)
    found: list[Reference] = []
    for reference in references:
        inside = namespace if reference.kind.NAMESPACED else ""
        stored = target.ask(wire.Get(reference.kind.KIND, "", inside), wire.Objects).objects
        names = [one["metadata"]["name"] for one in stored if is_selected(one, requirements)]
        found += [Reference(reference.kind, tuple(names))] if names else []
    return tuple(found)


def _report(
    answers: list[wire.Changed], output: Output, dry_run: bool, *, quiet: bool = False
) -> None:
    changes = [change for answer in answers for change in answer.changes]
    warn(f"warning: {warning}" for answer in answers for warning in answer.warnings)
    if not changes and not quiet:
        warn(["nothing was done: the manifests contain no objects"])
    if is_for_scripts(output):
        emit(changes, output)
        _fail_if_refused(answers)
        return
    for change in changes:
        done = "" if output is Output.NAME else f" {change.result}"
        suffix = " (dry run)" if dry_run and done else ""
        tell(f"{qualified(change.kind)}/{change.name}{done}{suffix}")
    _fail_if_refused(answers)


def _fail_if_refused(answers: list[wire.Changed]) -> None:
    if refused := [line for answer in answers for line in answer.refused]:
        warn(f"stored, but not in force: {line}" for line in refused)
        raise typer.Exit(1)
