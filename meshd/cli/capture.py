"""``meshctl capture``: the rules of one namespace, without the daemon."""

from __future__ import annotations

import asyncio
import enum
import functools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

import typer
import yaml

from meshd.capture import apply as capture
from meshd.capture import inside
from meshd.capture.options import CaptureOptions, options_for
from meshd.errors import InvalidInputError, MeshdError
from meshd.model.workload import Placement, Stage, Workload
from meshd.settings import CaptureSettings, Paths, load

app: Final = typer.Typer(
    no_args_is_help=True, help="The redirecting rules of one network namespace, without the daemon."
)


class Output(enum.StrEnum):
    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


NetnsOption = Annotated[
    Path, typer.Option("--netns", metavar="PATH", help="The namespace, as in /run/netns/NAME.")
]
OutputOption = Annotated[Output, typer.Option("-o", "--output", help="How to print it.")]
AnnotationOption = Annotated[
    list[str] | None,
    typer.Option(
        "--annotation",
        metavar="KEY=VALUE",
        help="As on a pod: traffic.sidecar.istio.io/excludeOutboundPorts=5432. Repeatable.",
    ),
]


@app.command()
def plan(
    netns: NetnsOption, output: OutputOption = Output.TABLE, annotation: AnnotationOption = None
) -> None:
    """Show what apply would change."""
    _show(_run(netns, lambda: functools.partial(capture.plan, _options(netns, annotation))), output)


@app.command()
def apply(
    netns: NetnsOption, output: OutputOption = Output.TABLE, annotation: AnnotationOption = None
) -> None:
    """Redirect the namespace's traffic; print what changed. Doing it again changes nothing."""
    _show(
        _run(netns, lambda: functools.partial(capture.apply, _options(netns, annotation))), output
    )


@app.command()
def remove(netns: NetnsOption, output: OutputOption = Output.TABLE) -> None:
    """Leave nothing of meshd in the namespace."""
    _show(_run(netns, lambda: capture.remove), output)


@app.command()
def check(
    netns: NetnsOption, output: OutputOption = Output.TABLE, annotation: AnnotationOption = None
) -> None:
    """Whether the rules are as apply leaves them: status 1 and the differences if not."""
    outcome = _run(netns, lambda: functools.partial(capture.plan, _options(netns, annotation)))
    _show(outcome, output)
    if outcome.steps:
        raise typer.Exit(1)


def _options(netns: Path, annotations: list[str] | None) -> CaptureOptions:
    workload = Workload(
        uid=netns.name,
        name=netns.name,
        namespace="default",
        netns=str(netns),
        annotations=dict(map(_key_and_value, annotations or ())),
    )
    return options_for(Placement(workload, Stage.CAPTURED), _settings())


def _key_and_value(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise typer.BadParameter(f"--annotation {text}: write KEY=VALUE")
    return key, value


def _settings() -> CaptureSettings:
    return load(Paths.from_environment().settings).capture


def _run(netns: Path, action: Callable[[], Callable[[], capture.Outcome]]) -> capture.Outcome:
    """The outcome, or one line and status 1."""
    try:
        if os.geteuid() != 0:
            raise InvalidInputError("only root enters network namespaces; use sudo")
        return asyncio.run(inside.run(netns, action()))
    except MeshdError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None


def _show(outcome: capture.Outcome, output: Output) -> None:
    rows = [
        {
            "family": step.family,
            "backend": step.backend,
            "change": step.change,
            "rules": list(step.rules),
        }
        for step in outcome.steps
    ]
    if output is Output.JSON:
        typer.echo(json.dumps({"changes": rows}, indent=2))
    elif output is Output.YAML:
        typer.echo(yaml.safe_dump({"changes": rows}, sort_keys=False), nl=False)
    elif not rows:
        typer.echo("nothing to change")
    else:
        for step in outcome.steps:
            typer.echo(f"{step.family}  {step.backend}  {step.change}")
            for rule in step.rules:
                typer.echo(f"        {rule}")
