"""``meshctl capture release`` removes the rules of all workloads of this node."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import Final

import typer

from meshd import wire
from meshd.base.errors import InvalidInputError, MeshdError, NotReadyError, UnreachableError
from meshd.capture.pods.namespaces import Pins
from meshd.capture.rules import apply as capture
from meshd.capture.rules import inside
from meshd.capture.rules.targets import HostCapture
from meshd.cli.output import tell, warn
from meshd.cni.installation import Installation
from meshd.model.workload import Workload
from meshd.settings import CaptureSettings, Paths, load
from meshd.wire import channel
from meshd.workloads import record
from meshd.workloads.host import host_services

_LOOK: Final = 2.0
"""Seconds for a daemon to answer that it is there."""


def release() -> None:
    """Take the rules out of all namespaces that meshd knew last, and out of the host's own; and the
    CNI plugin out of the chain of container runtimes.

    For when meshd is removed, or cannot be started. What is enrolled stays so: it is captured again
    when meshd starts.
    """
    if os.geteuid() != 0:
        raise InvalidInputError("only root enters network namespaces; try again with sudo")
    paths = Paths.from_environment()
    settings = load(paths.settings)
    problems = [
        *asyncio.run(_release(paths, settings.capture)),
        *_without_plugin(Installation(settings.kubernetes, paths.cni)),
    ]
    warn(problems)
    if problems:
        raise typer.Exit(1)


def _without_plugin(plugin: Installation) -> Iterator[str]:
    """Take the CNI plugin out; yield why not."""
    try:
        if plugin.remove():
            tell("CNI plugin: removed")
    except MeshdError as error:
        yield f"CNI plugin: {error}"


async def _release(paths: Paths, settings: CaptureSettings) -> list[str]:
    """Remove all rules; return a line for each failure. Raises NotReadyError while meshd runs."""
    if await _runs(paths):
        raise NotReadyError("meshd is running and would capture everything again: stop it first")
    problems: list[str] = []
    for name, removal in _removals(paths, settings):
        try:
            outcome = await removal
        except MeshdError as error:
            problems.append(f"{name}: {error}")
        else:
            if outcome.steps:
                tell(f"{name}: released")
    return problems


async def _runs(paths: Paths) -> bool:
    try:
        await channel.call(paths.socket("supervisor"), wire.Children(), timeout=_LOOK)
    except UnreachableError:
        return False
    return True


def _removals(
    paths: Paths, settings: CaptureSettings
) -> Iterator[tuple[str, Awaitable[capture.Outcome]]]:
    for uid, one in sorted(_known(paths.workloads).items()):
        if one.netns and (namespace := _namespace(one, Pins(paths.netns))):
            yield uid, inside.run(namespace, capture.remove)
    if _known(paths.lib / host_services.RECORD):
        nothing = HostCapture((), (), settings.backend, settings.ipv6)
        yield "this host", inside.run_in_host(functools.partial(capture.apply_host, nothing))


def _known(path: Path) -> dict[str, Workload]:
    """Raises InvalidInputError when the record cannot be read at all."""
    loaded = record.load(path)
    if loaded.lost:
        raise InvalidInputError(loaded.lost)
    return {**loaded.unusable, **loaded.record.registered}


def _namespace(workload: Workload, pins: Pins) -> Path | None:
    """Return the path of the workload's own namespace; another one may be at its old path by
    now."""
    if pin := pins.find(workload.uid):
        return pin.path
    source = Path(workload.netns)
    try:
        known = inside.cookie_of(source)
    except MeshdError:
        return None
    return source if workload.netns_cookie in {0, known} else None
