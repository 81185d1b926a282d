"""``meshctl capture`` handles the rules of one namespace, without the daemon."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Final

import typer

from meshd.base.errors import InvalidInputError, MeshdError
from meshd.base.json_values import JsonObject
from meshd.capture.host import hold as holding
from meshd.capture.host.hosted import host_workload
from meshd.capture.host.rules import HostWorkload
from meshd.capture.probes.outbound import listens_here
from meshd.capture.rules import apply as capture
from meshd.capture.rules import inside
from meshd.capture.rules.options import CaptureOptions, options_for
from meshd.cli import release
from meshd.cli.arguments import Output, OutputOption
from meshd.cli.output import emit, is_for_scripts, tell, warn
from meshd.model.workload import Placement, Stage, Workload, shown
from meshd.settings import CaptureSettings, Paths, Settings, load
from meshd.workloads import record as workloads
from meshd.workloads.host import host_services
from meshd.workloads.host.held_starts import HeldStarts
from meshd.workloads.host.preparation import prepare_all

app: Final = typer.Typer(
    no_args_is_help=True, help="The redirecting rules of one network namespace, without the daemon."
)

NetnsOption = Annotated[
    Path, typer.Option("--netns", metavar="PATH", help="Network namespace, e.g. /run/netns/NAME.")
]
AnnotationOption = Annotated[
    list[str] | None,
    typer.Option(
        "--annotation",
        metavar="KEY=VALUE",
        help="As on a pod: traffic.sidecar.istio.io/excludeOutboundPorts=5432. May be repeated.",
    ),
]


@app.command()
def plan(
    netns: NetnsOption, output: OutputOption = Output.TABLE, annotation: AnnotationOption = None
) -> None:
    """Show what apply would change."""
    options = _options(netns, annotation)
    _show(_run(netns, functools.partial(capture.plan, options)), output)


@app.command()
def apply(
    netns: NetnsOption, output: OutputOption = Output.TABLE, annotation: AnnotationOption = None
) -> None:
    """Redirect the namespace's traffic; print what changed. Doing it again changes nothing."""
    options = _options(netns, annotation)
    _show(_run(netns, functools.partial(capture.apply, options)), output)


@app.command()
def remove(netns: NetnsOption, output: OutputOption = Output.TABLE) -> None:
    """Remove everything of meshd from the namespace; print what was removed."""
    _show(_run(netns, capture.remove), output)


@app.command()
def check(
    netns: NetnsOption, output: OutputOption = Output.TABLE, annotation: AnnotationOption = None
) -> None:
    """Compare the rules with what apply would write: status 1 and the differences if they
    differ."""
    options = _options(netns, annotation)
    outcome = _run(netns, functools.partial(capture.plan, options))
    _show(outcome, output)
    if outcome.steps:
        raise typer.Exit(1)


@app.command()
def hold(service: Annotated[str, typer.Argument(metavar="UNIT|UID")]) -> None:
    """Capture an enrolled service before it starts, or drop its traffic until it is captured.

    A service that is not enrolled is left alone. Under failure_policy: open, all are. If it does
    not start while nobody serves it, meshd starts it once it can.
    """
    paths = Paths.from_environment()
    is_unit, starts = service.endswith(".service"), HeldStarts(paths.held)
    if is_unit:
        starts.note(service)  # whatever becomes of us
    if _is_served(paths, service) and is_unit:
        starts.forget(service)


def _is_served(paths: Paths, service: str) -> bool:
    """Return whether nothing needs to be held before the service starts, or started again."""
    whole = _settings_or_defaults(paths.settings)
    settings = whole.capture
    path = paths.lib / host_services.RECORD
    record = workloads.load(path)
    # One of which not all can be read is held as well.
    known = {**record.unusable, **record.record.registered}
    starting = [one for one in known.values() if one.host and service in {one.host.unit, one.uid}]
    if whole.fails_open:
        return True
    if not starting:
        untold = [why for uid, why in record.problems.items() if not _is_hosted(known.get(uid))]
        if reason := record.lost or "; ".join(untold):
            raise InvalidInputError(
                f"{service} is not started, since it may be enrolled: {reason}; run meshctl"
                " enroll again for each service of this host"
            )
        return True
    own = _host_workload(starting[0], settings)
    enrolled = tuple(_host_workloads(known.values(), settings))
    action = functools.partial(holding.hold, own, enrolled, settings.backend)
    if asyncio.run(inside.run_in_host(action)):
        tell(f"{shown(own.uid)}: held until its traffic is captured")
        return False
    return listens_here(own.outbound_port)


def _settings_or_defaults(path: Path) -> Settings:
    """Return the settings, or the defaults if the file has a mistake: services start, and stay
    closed."""
    try:
        return load(path)
    except MeshdError as error:
        warn([f"{error}; until the file is corrected, services are held by the default settings"])
        return Settings()


app.command()(release.release)


@app.command()
def prepare() -> None:
    """Make systemd hold enrolled services as this version does; part of an upgrade.

    Does what meshctl enroll did for each of them, as this version of meshd does it; restarts none.
    """
    warn(prepare_all())


def _is_hosted(workload: Workload | None) -> bool:
    return workload is not None and workload.host is not None


def _host_workloads(known: Iterable[Workload], settings: CaptureSettings) -> Iterator[HostWorkload]:
    """Yield the host's services; one that cannot be captured is left out and delays no other."""
    for one in known:
        with contextlib.suppress(InvalidInputError):
            yield _host_workload(one, settings)


def _host_workload(workload: Workload, settings: CaptureSettings) -> HostWorkload:
    placement = Placement(workload, Stage.CAPTURED)
    return dataclasses.replace(host_workload(placement, settings), held=True)


def _options(netns: Path, annotations: list[str] | None) -> CaptureOptions:
    workload = Workload(
        uid=netns.name,
        name=netns.name,
        namespace="default",
        netns=str(netns),
        annotations=dict(map(_key_and_value, annotations or ())),
    )
    settings = load(Paths.from_environment().settings)
    return options_for(
        Placement(workload, Stage.CAPTURED), settings.capture, fail_open=settings.fails_open
    )


def _key_and_value(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise typer.BadParameter(f"{text!r} is not of the form KEY=VALUE")
    return key, value


def _run(netns: Path, action: Callable[[], capture.Outcome]) -> capture.Outcome:
    if os.geteuid() != 0:
        raise InvalidInputError("only root enters network namespaces; try again with sudo")
    return asyncio.run(inside.run(netns, action))


def _show(outcome: capture.Outcome, output: Output) -> None:
    if is_for_scripts(output):
        emit({"changes": [_row(step) for step in outcome.steps]}, output)
    elif not outcome.steps:
        print("nothing to change")
    else:
        for step in outcome.steps:
            tell(f"{step.family}  {step.backend}  {step.change}")
            print("".join(f"        {rule}\n" for rule in step.rules), end="")


def _row(step: capture.Step) -> JsonObject:
    return {
        "family": step.family,
        "backend": step.backend,
        "change": step.change,
        "rules": list(step.rules),
    }
