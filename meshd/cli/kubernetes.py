"""``meshctl kubernetes``: what a cluster of Kubernetes is given."""

from __future__ import annotations

import typer
import yaml

from meshd.base.json_values import JsonObject
from meshd.kubernetes import access as accesses
from meshd.kubernetes import crds as definitions

app = typer.Typer(help="Print what a cluster is given.", no_args_is_help=True)


@app.callback()
def _begin() -> None:  # pyright: ignore[reportUnusedFunction]  # typer calls it
    """Print what a cluster is given."""


@app.command()
def crds() -> None:
    """Print the definitions of Istio's kinds, for ``kubectl apply -f -``.

    They are made from what this version of meshd reads: the API server refuses what it cannot read.
    A cluster that has Istio's own definitions needs none of these.
    """
    _print(definitions.definitions())


@app.command()
def access() -> None:
    """Print the account of the nodes and what it may read, for ``kubectl apply -f -``.

    The token of the kubeconfig that the setting kubernetes.kubeconfig names is in the Secret.
    """
    _print(accesses.objects())


def _print(objects: list[JsonObject]) -> None:
    print(yaml.dump_all(objects, Dumper=_Plain, sort_keys=False), end="")


class _Plain(yaml.SafeDumper):
    """Writes each value where it stands, also one that stands in several places."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - the library's signature
        return True
