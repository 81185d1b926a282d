"""``meshctl join`` makes this node an agent of a server."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer

from meshd import wire
from meshd.base import accounts
from meshd.base.disk import replace
from meshd.base.errors import InvalidInputError, MeshdError, NotReadyError, SystemRefusedError
from meshd.cli.output import tell
from meshd.cli.settings_text import with_values
from meshd.fleet.joining.address import address_of, split_address
from meshd.fleet.joining.facts import MeshFacts, SettingPath, differing
from meshd.fleet.joining.joining import join_mesh
from meshd.fleet.joining.node import Credentials, NodeFile, checked_name
from meshd.fleet.membership import tokens
from meshd.settings import Paths, Settings, load
from meshd.wire import channel

_PATIENCE: Final = 60.0
"""Seconds for a running meshd to take up what was joined. It takes one, and forty on a virtual
machine of which the processor is emulated."""
_LOOK: Final = 0.05
_LARGEST: Final = 64 * 1024
"""Bytes: more than keys, certificates and settings are together."""
_TAUGHT: Final = ("identity", "mesh")
"""Roles that must begin anew to be an agent's."""


def join(
    server: Annotated[str, typer.Argument(metavar="SERVER[:PORT]")],
    token: Annotated[str, typer.Option(metavar="TOKEN", help="Token from meshctl token create.")],
    node: Annotated[
        str, typer.Option(metavar="NAME", help="Name of this node. Default: from the settings.")
    ] = "",
) -> None:
    """Take configuration and certificates from a server from now on."""
    paths = Paths.from_environment()
    settings = load(paths.settings)
    name = checked_name(node or settings.node_name)
    tokens.parse(token)  # what is wrong with it is to be said first
    owner = _prepare(paths, settings)
    credentials, facts = asyncio.run(join_mesh(split_address(server), token, name))
    try:
        _write(paths, settings, address_of(server), name, (credentials, facts), owner)
    except SystemRefusedError as error:
        raise SystemRefusedError(
            f"{error}; the token is spent: correct this and join again with a new token: "
            f"meshctl token create --node {name}"
        ) from None
    tell(f"node {name} has joined {address_of(server)}")
    asyncio.run(_take_up(paths, address_of(server)))


def _prepare(paths: Paths, settings: Settings) -> tuple[int, int]:
    """Check everything that can fail before the token is spent; return the owner of the files."""
    if os.geteuid() != 0:
        raise SystemRefusedError("meshctl join writes settings and keys: run it as root")
    if settings.role == "server":
        raise InvalidInputError(
            "this node is a server itself; set role: standalone in meshd.yaml if it is to join "
            "another"
        )
    identity = accounts.find(accounts.name_of("identity", settings.user))
    owner = (identity.pw_uid, identity.pw_gid)
    try:
        paths.etc.mkdir(mode=0o755, parents=True, exist_ok=True)
        # Modes and the other directories are the daemon's to see to, at its start.
        paths.lib.mkdir(mode=0o711, parents=True, exist_ok=True)
        paths.keys.mkdir(mode=0o700, exist_ok=True)
        os.chown(paths.keys, *owner)
        for directory in (paths.etc, paths.keys):
            _check_space(directory / ".join")
    except OSError as error:
        raise SystemRefusedError(
            f"{error.filename or paths.etc}: cannot be written: {error.strerror}; the token was "
            "not used"
        ) from None
    return owner


def _check_space(probe: Path) -> None:
    """Check that the files of a join can be written there. Raises OSError."""
    try:
        with probe.open("wb") as file:
            file.write(os.urandom(_LARGEST))  # a file system may keep zeros in no space at all
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(probe.parent)) from None
    finally:
        probe.unlink(missing_ok=True)


def _write(
    paths: Paths,
    settings: Settings,
    server: str,
    name: str,
    joined: tuple[Credentials, MeshFacts],
    owner: tuple[int, int],
) -> None:
    """Write the keys, then the settings, which put them in force."""
    credentials, facts = joined
    NodeFile(paths.node_file).save(credentials, owner)
    wanted: dict[SettingPath, str] = {("role",): "agent", ("server",): server}
    wanted |= differing(MeshFacts.of(settings), facts)
    if name != settings.node_name:
        wanted["node",] = name
    path = paths.settings
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    _replace_checked(path, with_values(before, wanted), _with(settings, wanted))


def _with(settings: Settings, wanted: dict[SettingPath, str]) -> Settings:
    """Return the settings with these values changed."""
    value: Any = settings
    for path, text in wanted.items():
        value = _changed(value, path, text)
    return value


def _changed(value: Any, path: tuple[str, ...], text: str) -> Any:
    key, *rest = path
    new = _changed(getattr(value, key), tuple(rest), text) if rest else text
    return msgspec.structs.replace(value, **{key: new})


def _replace_checked(path: Path, text: str, expected: Settings) -> None:
    """Write the file only if its new text decodes to the expected settings."""
    trial = path.with_name(f".{path.name}.joined")
    replace(trial, text.encode())
    trial.chmod(path.stat().st_mode & 0o777 if path.exists() else 0o644)
    try:
        fits = load(trial) == expected
    except MeshdError:
        fits = False
    if not fits:
        trial.unlink()
        raise InvalidInputError(
            f"{path}: meshctl cannot change a file of this form; set these by hand and "
            f"restart meshd: role: agent, server: {expected.server}, identity.trust_domain: "
            f"{expected.identity.trust_domain}"
        )
    trial.replace(path)


# ---- a daemon that runs


async def _take_up(paths: Paths, server: str) -> None:
    """Have a running daemon begin anew as an agent. Raises NotReadyError."""
    try:
        answer = await channel.call(paths.socket("supervisor"), wire.RestartRoles(_TAUGHT))
    except MeshdError:
        print("meshd does not run: start it to connect this node")
        return
    if not isinstance(answer, wire.Done):
        raise NotReadyError("restart meshd to put it in force")
    deadline = time.monotonic() + _PATIENCE
    while not (status := await _status(paths)) or not status.connected:
        if time.monotonic() > deadline:
            why = status.problem if status else "the mesh role does not answer"
            raise NotReadyError(f"not connected to {server} yet: {why}; see meshctl status")
        await asyncio.sleep(_LOOK)
    print("connected")


async def _status(paths: Paths) -> wire.ControlStatus | None:
    try:
        answer = await channel.call(paths.socket("mesh"), wire.Status())
    except MeshdError:
        return None
    return answer.control if isinstance(answer, wire.Statuses) else None
