"""``meshctl testbed`` runs Kubernetes manifests as processes in network namespaces of this host."""

from __future__ import annotations

import asyncio
import functools
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Final

import typer

from meshd.api.base import Duration
from meshd.base.errors import InvalidInputError
from meshd.cli.arguments import (
    AllNamespacesOption,
    FilesOption,
    NamespaceOption,
    Output,
    OutputOption,
    RecursiveOption,
    duration_option,
)
from meshd.cli.output import Table, emit, is_for_scripts, show, warn, yes_no
from meshd.cli.sources import read_sources
from meshd.model.pod import PodState
from meshd.pods.client import Client, command_inside, log_of, select
from meshd.pods.files import Home
from meshd.pods.images import ImageMap, read_image_map
from meshd.pods.logs import read_log
from meshd.settings import Paths

_TIMEOUT: Final = Duration(60)
Tell = Callable[[tuple[PodState, ...]], None]

app: Final = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Run Kubernetes manifests on this host, as processes in network namespaces.",
)

ContainerOption = Annotated[
    str, typer.Option("--container", "-c", metavar="NAME", help="Container. Default: the first.")
]
PodArgument = Annotated[
    str, typer.Argument(metavar="POD", help="A pod, the beginning of its name, or deploy/NAME.")
]


def _client() -> Client:
    if os.geteuid() != 0:
        raise InvalidInputError(
            "meshctl testbed works with namespaces of the kernel: run it as root"
        )
    return Client(Home(Paths.from_environment()))


@app.command()
def up(
    filename: FilesOption = None,
    images: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Image map: the command that runs for each image."),
    ] = None,
    namespace: NamespaceOption = "default",
    recursive: RecursiveOption = False,
    cidr: Annotated[
        str,
        typer.Option(metavar="NETWORK", help="Network of the pods. Default: 198.18.0.0/16."),
    ] = "",
    timeout: Annotated[Duration, duration_option("Time limit.", "1m")] = _TIMEOUT,
    output: OutputOption = Output.TABLE,
) -> None:
    """Run the pods of manifests, and wait until all are ready. Only what differs is changed.

    The mesh is given the manifests' other objects. Pods of namespaces that are in the mesh run
    nothing before their traffic is captured. Pods take the places of others as the Deployment's
    strategy says: one that does not get ready leaves those of before where they are.
    """
    sources = read_sources(filename, recursive=recursive)
    image_map = read_image_map(images) if images else ImageMap({})
    pods = asyncio.run(_up(sources, image_map, namespace, cidr, timeout))
    _print(pods, output)


async def _up(
    sources: tuple[tuple[str, str], ...],
    images: ImageMap,
    namespace: str,
    cidr: str,
    timeout: float,
) -> tuple[PodState, ...]:
    client = _client()
    plan, network = await client.plan(sources, namespace, images, cidr)
    warn(plan.notes)
    await client.apply(sources, namespace)
    await client.run(plan, network)
    return await _wait(len(plan.pods), functools.partial(client.wait_ready, plan, timeout))


async def _wait(
    total: int, waiting: Callable[[Tell], Awaitable[tuple[PodState, ...]]]
) -> tuple[PodState, ...]:
    """Wait, and show the progress on a terminal."""
    if not sys.stderr.isatty():
        return await waiting(_say_nothing)
    from rich.console import Console  # noqa: PLC0415  # costs 50 ms, which scripts need not pay
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("pods ready", total=total)

        def tell(states: tuple[PodState, ...]) -> None:
            late = next((pod for pod in states if not pod.ready), None)
            what = f"{late.plan.name}: {late.state.lower()}" if late else "pods ready"
            progress.update(bar, completed=sum(pod.ready for pod in states), description=what)

        return await waiting(tell)


def _say_nothing(_states: tuple[PodState, ...]) -> None:
    """Ignore the progress where there is no terminal."""


@app.command()
def down() -> None:
    """End all pods and leave nothing of them. Doing it again is no error."""
    done = asyncio.run(_client().down())
    print("the testbed is down" if done else "no testbed is up")


@app.command()
def ps(
    namespace: NamespaceOption = "",
    all_namespaces: AllNamespacesOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """List the pods and their states; of all namespaces, unless -n names one."""
    only = "" if all_namespaces else namespace
    pods = asyncio.run(_client().pods()).pods
    _print(tuple(pod for pod in pods if only in {"", pod.plan.namespace}), output)


@app.command("exec")
def exec_(
    pod: PodArgument,
    command: Annotated[list[str], typer.Argument(metavar="-- CMD", help="Command to run there.")],
    namespace: NamespaceOption = "default",
    container: ContainerOption = "",
) -> None:
    """Run a command in a container: its namespaces, its user, its environment."""
    found = select(asyncio.run(_client().pods()).pods, pod, namespace)
    argv, environment = command_inside(found, container, tuple(command))
    terminal = {"TERM": os.environ["TERM"]} if "TERM" in os.environ else {}
    sys.stdout.flush()
    os.execvpe(argv[0], argv, terminal | dict(environment))  # noqa: S606


@app.command()
def logs(
    pod: PodArgument,
    namespace: NamespaceOption = "default",
    container: ContainerOption = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Follow the log.")] = False,
) -> None:
    """Print what a container wrote to its standard output and error."""
    found = select(asyncio.run(_client().pods()).pods, pod, namespace)
    for part in read_log(Path(log_of(found, container)), follow=follow):
        sys.stdout.buffer.write(part)
        sys.stdout.buffer.flush()


def _print(pods: tuple[PodState, ...], output: Output) -> None:
    if is_for_scripts(output):
        emit([_row(pod) for pod in pods], output)
    elif output is Output.NAME:
        print("\n".join(f"pod/{pod.plan.name}" for pod in pods))
    else:
        show(
            Table(
                ("NAMESPACE", "POD", "READY", "STATE", "RESTARTS", "ADDRESS", "MESH"),
                tuple(
                    (
                        pod.plan.namespace,
                        pod.plan.name,
                        f"{sum(each.ready for each in pod.containers)}/{len(pod.containers)}",
                        pod.problem or pod.state,
                        str(pod.restarts),
                        pod.plan.address,
                        yes_no(pod.plan.enrolled),
                    )
                    for pod in pods
                ),
            )
        )


def _row(pod: PodState) -> dict[str, object]:
    """Return a pod in the form that scripts get."""
    plan = pod.plan
    return {
        "pod": plan.name,
        "namespace": plan.namespace,
        "workload": plan.uid,
        "owner": plan.owner,
        "service_account": plan.service_account,
        "labels": plan.labels,
        "address": plan.address,
        "address_v6": plan.address_v6,
        "netns": pod.netns,
        "state": pod.state,
        "ready": pod.ready,
        "restarts": pod.restarts,
        "enrolled": plan.enrolled,
        "problem": pod.problem,
        "containers": list(pod.containers),
    }
