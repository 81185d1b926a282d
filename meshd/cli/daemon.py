"""One request to the daemon and one answer; errors are exceptions."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Final, TypeVar

from meshd import wire
from meshd.base.errors import MeshdError, UnreachableError
from meshd.wire import channel

T = TypeVar("T", bound=wire.Message)

_PATIENCE: Final = 10.0
"""Seconds that an answer may take beyond what the request itself waits for."""


class RefusedError(MeshdError):
    """The daemon refused the request."""

    def __init__(self, reason: str, code: int) -> None:
        self.code = code
        super().__init__(reason)


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """The daemon that a call of meshctl addresses."""

    socket: Path

    def beside(self, role: str) -> Target:
        """Return another process of the same node."""
        return Target(self.socket.with_name(f"{role}.sock"))

    def ask(self, request: wire.Message, expected: type[T], *, wait: float = 0.0) -> T:
        """Raises RefusedError with the daemon's reason, UnreachableError when it is not there."""
        try:
            answer = asyncio.run(channel.call(self.socket, request, timeout=wait + _PATIENCE))
        except UnreachableError as error:
            raise type(error)(f"{error}{self.advice(error.__cause__)}") from None
        if isinstance(answer, expected):
            return answer
        if isinstance(answer, wire.Failed):
            raise RefusedError(answer.reason, answer.code)
        if isinstance(answer, wire.Rejected):
            raise RefusedError("\n".join(str(finding) for finding in answer.findings), 1)
        raise RefusedError(
            f"the daemon at {self.socket} answered {type(answer).__name__}, not "
            f"{expected.__name__}; check that its version is that of meshctl",
            1,
        )

    def advice(self, cause: BaseException | None) -> str:
        """Return what the user can do about an unreachable daemon."""
        if isinstance(cause, PermissionError):
            return "; it answers only root: try sudo"
        if not isinstance(cause, OSError):
            return "; see journalctl -u meshd"
        if self.socket.name == "server.sock" and self.socket.with_name("mesh.sock").exists():
            return (
                "; only a server has other nodes: set role: server in meshd.yaml, then systemctl "
                "reload meshd"
            )
        return "; does it run? See systemctl status meshd"
