"""``meshctl apply`` and ``delete`` change what is stored."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Annotated, Final

import typer

from meshd import wire
from meshd.api.object_fields import name_of
from meshd.base.errors import MeshdError, UnansweredError, UnreachableError
from meshd.cli import effects, sources
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
from meshd.cli.daemon import RefusedError, Target
from meshd.cli.output import emit, is_for_scripts, tell, warn
from meshd.cli.references import Reference, parse_references, qualified
from meshd.cli.selectors import is_selected, parse_selector

_PLANNING: Final = 120.0
"""Seconds that the daemon may take to plan a large mesh twice."""
_TOLD: Final = 30.0
"""Seconds for all but checking a change and waiting for it, such as reading files."""
_UNKNOWN: Final = (
    "; the change will not be stored, unless it was being written just then: see meshctl get"
)


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
    with _trouble(dry_run):
        texts = sources.read_sources(files, recursive=recursive)
    request = wire.Apply(
        sources=texts,
        namespace=namespace or "default",
        only_namespace=namespace is not None,
        dry_run=dry_run,
        wait=float(timeout) if wait else 0.0,
    )
    target: Target = context.obj
    with _trouble(dry_run):
        answer = _changed(target, request)
        if not answer.changes and not answer.warnings:
            raise RefusedError("nothing was done: the manifests contain no objects", 1)
        _report(answer, output, dry_run)


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
    if words and files:
        raise typer.BadParameter("say what to delete by -f PATH or by names, not by both")
    if not words and not files:
        raise typer.BadParameter("say what to delete: -f PATH, KIND NAME or KIND/NAME")
    target: Target = context.obj
    here, patience = namespace or "default", float(timeout) if wait else 0.0
    if files:
        with _trouble(dry_run):
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
        with _trouble(dry_run):
            _report(_changed(target, request), output, dry_run)
        return
    with _trouble(dry_run):
        chosen = _chosen(target, words or [], here, selector, everything=everything)
    objects = tuple(wire.Named(one.kind.KIND, one.names) for one in chosen)
    named = wire.DeleteNamed(objects, here, dry_run, patience, ignore_missing=ignore_not_found)
    with _trouble(dry_run):
        # One request, so that all or none are deleted, and planned together.
        answer = _changed(target, named) if objects else wire.Changed(())
        _report(answer, output, dry_run, quiet=ignore_not_found)


def _changed(target: Target, request: wire.Apply | wire.DeleteNamed) -> wire.Changed:
    """Raises RefusedError, UnreachableError."""
    if request.dry_run:
        return target.ask(request, wire.Changed, wait=_PLANNING)
    try:
        return target.ask(request, wire.Changed, wait=request.wait + wire.STORED_WITHIN + _TOLD)
    except UnansweredError as error:
        raise UnansweredError(f"{error}{_UNKNOWN}") from None


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
        names = [name_of(one) for one in stored if is_selected(one, requirements)]
        found += [Reference(reference.kind, tuple(names))] if names else []
    return tuple(found)


def _report(answer: wire.Changed, output: Output, dry_run: bool, *, quiet: bool = False) -> None:
    changes, foreseen = answer.changes, answer.foreseen
    warn(f"warning: {warning}" for warning in answer.warnings)
    if not changes and not quiet:
        warn(["nothing was done: there are no such objects"])
    if is_for_scripts(output):
        plans = [foreseen] if foreseen else []
        emit({"changes": changes, "foreseen": plans} if dry_run else changes, output)
        _fail_if_refused(answer)
        _say_whether_anything_changes(answer, dry_run)
        return
    for change in changes:
        done = "" if output is Output.NAME else f" {change.result}"
        suffix = " (dry run)" if dry_run and done else ""
        tell(f"{qualified(change.kind)}/{change.name}{done}{suffix}")
    if output is not Output.NAME and foreseen:
        warn(f"warning: would be put out of force: {line}" for line in foreseen.left_out)
        for line in effects.lines(foreseen):
            tell(line)
    _fail_if_refused(answer)
    _say_whether_anything_changes(answer, dry_run)


@contextlib.contextmanager
def _trouble(dry_run: bool) -> Generator[None]:
    """Have errors of a dry run end in status 2, for 1 means that something would change."""
    try:
        yield
    except UnreachableError:
        raise
    except MeshdError as error:
        code = error.code if isinstance(error, RefusedError) else 1
        raise RefusedError(str(error), 2 if dry_run and code == 1 else code) from None


def _say_whether_anything_changes(answer: wire.Changed, dry_run: bool) -> None:
    """Leave with the status of ``kubectl diff`` after a dry run."""
    results = {change.result for change in answer.changes}
    has_effects = bool(answer.foreseen and answer.foreseen.effects)
    if dry_run and (results - {"unchanged"} or has_effects):
        raise typer.Exit(1)


def _fail_if_refused(answer: wire.Changed) -> None:
    if answer.refused:
        warn(f"stored, but not in force: {line}" for line in answer.refused)
        raise typer.Exit(1)
