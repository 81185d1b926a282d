"""``meshctl proxies`` manages the pool of this node."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from meshd import wire
from meshd.api.base import Duration
from meshd.cli.arguments import parse_duration
from meshd.cli.daemon import Target

_PATIENCE: Final = Duration(300)

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Manage the proxies of this node."
)


@app.callback()
def _proxies() -> None:  # pyright: ignore[reportUnusedFunction]  # so that "replace" is a word
    """Manage the proxies of this node."""


@app.command()
def replace(
    context: typer.Context,
    timeout: Annotated[
        Duration,
        typer.Option(metavar="DURATION", parser=parse_duration, help="Time limit."),
    ] = _PATIENCE,
) -> None:
    """Replace each proxy by a new one, e.g. after an update of Envoy; the old one is drained.

    No request fails. Connections that stay open get proxy.drain_time to end. When a new one does
    not come up, the old one stays and nothing has changed.
    """
    target: Target = context.obj
    target.beside("supervisor").ask(wire.ReplacePool(), wire.Done, wait=float(timeout))
    print("proxies replaced")
