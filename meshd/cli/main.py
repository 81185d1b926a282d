"""The program meshctl: its verbs and exit statuses.

0: done; 1: the answer is negative; 2: wrong usage; 3: meshd does not answer. A verb's module is
imported when the verb is used, so that each is quick.
"""

from __future__ import annotations

import io
import itertools
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from meshd.base.errors import MeshdError, UnreachableError
from meshd.base.printable import printable
from meshd.cli.daemon import RefusedError, Target
from meshd.cli.deferred import Deferred
from meshd.settings import Paths

_VERBS: Final = {
    "apply": ("apply:apply", "Store objects from manifests: all of them or none."),
    "delete": ("apply:delete", "Delete objects by manifest, or by kind and name."),
    "get": ("get:get", "Show stored objects."),
    "validate": ("validate:validate", "Check manifests without the daemon."),
    "status": ("status:status", "Show each workload: captured, certified, synced, proven."),
    "proxy-config": (
        "proxy_config:proxy_config",
        "Show the configuration that the proxies have. Alias: pc.",
    ),
    "proxies": ("proxies:app", "Replace the proxies of this node without losing a request."),
    "top": ("top:top", "Show what each workload uses: CPU, memory, disk, connections, bytes."),
    "explain": ("explain:explain", "Show how a request would travel, stage by stage."),
    "authz": ("authz:app", "Show who may send what to a workload, and why."),
    "enroll": ("enroll:enroll", "Put a service or a namespace of this host into the mesh."),
    "unenroll": ("enroll:unenroll", "Remove it from the mesh."),
    "capture": ("capture:app", "Handle the redirecting rules without the daemon."),
    "token": ("token:app", "Manage the tokens with which nodes join this server."),
    "node": ("node:app", "List, bound and remove the nodes of this server."),
    "join": ("join:join", "Make this node an agent of a server."),
    "kubernetes": ("kubernetes:app", "Print what a cluster is given."),
    "testbed": ("testbed:app", "Run Kubernetes manifests on this host."),
    "suppressed": ("suppressed:suppressed", "Show rate-limited and repeated log lines, by source."),
    "version": ("version:version", "Show the version."),
}
_ALIASES: Final = {"pc": "proxy-config"}


class _Verbs(TyperGroup):
    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands: dict[str, Any] = {
            name: Deferred(name, f"meshd.cli.{place}", summary)
            for name, (place, summary) in _VERBS.items()
        }

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - click's signature
        return self.commands.get(_ALIASES.get(cmd_name, cmd_name))


app = typer.Typer(
    cls=_Verbs,
    name="meshctl",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=False)
def _begin(  # pyright: ignore[reportUnusedFunction]  # typer calls it
    context: typer.Context,
    socket: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="The daemon's socket. Default: mesh.sock of this node."),
    ] = None,
) -> None:
    """Configure and inspect this node's service mesh."""
    context.obj = Target(socket or Paths.from_environment().meshctl)


def run(arguments: Sequence[str]) -> int:
    """Run one call of meshctl and return its exit status. Errors go to stderr, a line each."""
    try:
        status = _called(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of the output (head, a pager) has closed it.
        sys.stderr.close()
        return 1
    except OSError as error:
        place = f"{printable(str(error.filename))}: " if error.filename else "output: "
        print(f"{place}{error.strerror or error}", file=sys.stderr)
        _drop_output()
        return 1
    return status


def _called(arguments: Sequence[str]) -> int:
    try:
        _check_texts(arguments, os.environ)
        app(as_typed(arguments))
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else 1
    except (MeshdError, UnicodeError) as error:
        # Several errors are several lines.
        print(printable(_said(error), keep="\t\n"), file=sys.stderr)
        return _status(error)
    return 0


def _drop_output() -> None:
    """Discard output that could not be written; the interpreter would try again at exit."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, sys.stdout.fileno())
    os.close(nothing)


def _check_texts(arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """Raises _NotTextError for an argument or MESHD_HOME that is not UTF-8.

    Behind ``--`` stands a command of the user's, which may have any bytes.
    """
    own = itertools.takewhile(lambda word: word != "--", arguments)
    for text in (*own, environment.get("MESHD_HOME", "")):
        try:
            text.encode()
        except UnicodeEncodeError:
            raise _NotTextError(_not_text(text)) from None


def as_typed(arguments: Sequence[str]) -> list[str]:
    """Reorder kubectl's habits for typer: a namespace before the verb, ``--dry-run=client``."""
    own = list(itertools.takewhile(lambda word: word != "--", arguments))
    rest = arguments[len(own) :]
    general: list[str] = []
    moved: list[str] = []
    while own and own[0].startswith("-"):
        count = 2 if own[0] in {"-n", "--namespace", "--socket"} else 1
        is_moved = own[0].startswith(("-n", "--namespace", "-A", "--all-namespaces"))
        (moved if is_moved else general).extend(own[:count])
        own = own[count:]
    ours = {"--dry-run=client": "--dry-run", "--dry-run=server": "--dry-run"}
    words = (*general, *own[:1], *moved, *own[1:])
    return [*(ours.get(word, word) for word in words if word != "--dry-run=none"), *rest]


class _NotTextError(MeshdError):
    """An argument or a variable of the environment is not UTF-8."""


def _said(error: MeshdError | UnicodeError) -> str:
    """Return the message for an error, also for text that a verb could not read or send."""
    match error:
        case UnicodeEncodeError() | UnicodeDecodeError():
            text = error.object[error.start :][:64]
            return _not_text(text if isinstance(text, str) else os.fsdecode(text))
        case _:
            return str(error)


def _not_text(text: str) -> str:
    return f'"{printable(text)}" is not UTF-8 text'


def _status(error: MeshdError | UnicodeError) -> int:
    """Return the exit status after an error."""
    match error:
        case RefusedError():
            return error.code
        case UnreachableError():
            return 3
        case _NotTextError():
            return 2
        case _:
            return 1


def _open_closed_outputs() -> None:
    """Discard what is written to a closed output, which would otherwise go to the next file that is
    opened, or errors to the output."""
    if sys.stdout is None:  # pyright: ignore[reportUnnecessaryComparison]
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123
    if sys.stderr is None:  # pyright: ignore[reportUnnecessaryComparison]
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123


def main() -> None:
    _open_closed_outputs()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Where a locale has no letter for a name, the name is still told.
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
