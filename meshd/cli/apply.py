"""meshctl apply, delete: change what is stored."""

from __future__ import annotations

from typing import Annotated

import typer

from meshd import wire
from meshd.cli import sources
from meshd.cli.arguments import (
    DEFAULT_TIMEOUT,
    DryRunOption,
    FilesOption,
    NamespaceOption,
    Output,
    OutputOption,
    RecursiveOption,
    TimeoutOption,
    WaitOption,
)
from meshd.cli.daemon import Target
from meshd.cli.output import emit, is_for_scripts, tell, warn
from meshd.cli.references import Reference, parse_references, qualified


def apply(
    context: typer.Context,
    files: FilesOption = None,
    namespace: NamespaceOption = "default",
    recursive: RecursiveOption = False,
    dry_run: DryRunOption = False,
    wait: WaitOption = False,
    timeout: TimeoutOption = DEFAULT_TIMEOUT,
    output: OutputOption = Output.TABLE,
) -> None:
    """Store objects from manifests: all of them or, if one is not valid, none."""
    request = wire.Apply(
        sources=sources.read_sources(files, recursive=recursive),
        namespace=namespace,
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
    namespace: NamespaceOption = "default",
    recursive: RecursiveOption = False,
    dry_run: DryRunOption = False,
    wait: WaitOption = False,
    timeout: TimeoutOption = DEFAULT_TIMEOUT,
    output: OutputOption = Output.TABLE,
) -> None:
    """Delete objects by manifest, or by kind and name."""
    if bool(words) == bool(files):
        raise typer.BadParameter("say what to delete: -f PATH, KIND NAME or KIND/NAME")
    patience = float(timeout) if wait else 0.0
    requests: list[wire.Message] = [
        wire.DeleteNamed(reference.kind.KIND, reference.names, namespace, dry_run, patience)
        for reference in (_named(words) if words else ())
    ]
    if files:
        texts = sources.read_sources(files, recursive=recursive)
        requests = [wire.Apply(texts, namespace, dry_run, patience, delete=True)]
    target: Target = context.obj
    answers = [target.ask(request, wire.Changed, wait=patience) for request in requests]
    _report(answers, output, dry_run)


def _named(words: list[str]) -> tuple[Reference, ...]:
    references = parse_references(words)
    if any(not reference.names for reference in references):
        raise typer.BadParameter(f'say which {words[0]} to delete, by name, or use "-f PATH"')
    return references


def _report(answers: list[wire.Changed], output: Output, dry_run: bool) -> None:
    changes = [change for answer in answers for change in answer.changes]
    warn(f"warning: {warning}" for answer in answers for warning in answer.warnings)
    if not changes:
        warn(["nothing was done: there are no objects in what was given"])
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
