"""What a container runtime asks a CNI plugin, and the answers. Pure.

https://www.cni.dev/docs/spec/
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from meshd.api.base import Ignoring
from meshd.base.errors import UNDECODABLE, MeshdError
from meshd.model.workload import address_problem

VERSIONS: Final = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
COMMANDS: Final = ("ADD", "DEL", "CHECK", "STATUS", "GC")
"""Those that the daemon answers; the plugin itself answers VERSION."""
INVALID: Final = 7
INCOMPATIBLE: Final = 1
ENVIRONMENT: Final = 4
UNDECODED: Final = 6
TRY_AGAIN: Final = 11
NOT_AVAILABLE: Final = 50
_CONTAINER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*", re.ASCII)
_LONGEST: Final = 253


class CniError(MeshdError):
    """An error with a code of the specification, and what is to be done about it."""

    def __init__(self, code: int, message: str, details: str = "") -> None:
        super().__init__(f"{message}: {details}" if details else message)
        self.code, self.message, self.details = code, message, details


class Address(Ignoring, frozen=True):
    address: str
    """With the length of its network."""
    interface: int | None = None


class Interface(Ignoring, frozen=True):
    name: str = ""
    sandbox: str = ""


class Result(Ignoring, frozen=True):
    """The part that matters of what the plugins before this one have made."""

    ips: tuple[Address, ...] = ()
    interfaces: tuple[Interface, ...] = ()


class Attachment(Ignoring, frozen=True):
    container_id: str = msgspec.field(default="", name="containerID")


class Config(Ignoring, frozen=True):
    cni_version: str = ""
    name: str = ""
    prev_result: msgspec.Raw = msgspec.Raw()
    valid: tuple[Attachment, ...] | None = msgspec.field(
        default=None, name="cni.dev/valid-attachments"
    )


class Pod(msgspec.Struct, frozen=True):
    """A pod of Kubernetes, as kubelet names it to its runtime."""

    namespace: str
    name: str
    uid: str = ""


class Request(msgspec.Struct, frozen=True):
    command: str
    container: str = ""
    """The runtime's own name of the container, or of the sandbox of a pod."""
    netns: str = ""
    pod: Pod | None = None
    config: Config = Config()

    @property
    def addresses(self) -> tuple[str, ...]:
        """Return the addresses that the plugins before gave it, IPv4 first. Raises CniError."""
        if not bytes(self.config.prev_result):
            return ()
        found = _decoded(bytes(self.config.prev_result), Result, "prevResult")
        inside = {number for number, one in enumerate(found.interfaces) if one.sandbox}
        given = (
            one.address.partition("/")[0]
            for one in found.ips
            if one.interface is None or one.interface in inside or not inside
        )
        usable = [address for address in given if not address_problem(address)]
        return tuple(sorted(dict.fromkeys(usable), key=lambda address: ":" in address))


def parse(data: bytes) -> Request:
    """Return what the plugin hands over: its variables, each ended by a NUL, and its standard
    input. Raises CniError."""
    parts = data.split(b"\0", 6)
    if len(parts) != 7:
        raise CniError(UNDECODED, "not what this version's plugin sends", "restart meshd")
    command, container, netns, _, arguments, _ = (
        part.decode("utf-8", "replace") for part in parts[:6]
    )
    if command not in COMMANDS:
        raise CniError(ENVIRONMENT, f"CNI_COMMAND is {command!r}", f"known: {', '.join(COMMANDS)}")
    config = _decoded(parts[6], Config, "the configuration")
    if config.cni_version not in VERSIONS:
        raise CniError(
            INCOMPATIBLE,
            f"cniVersion {config.cni_version!r} is not supported",
            f"write one of {', '.join(VERSIONS)}",
        )
    is_about_one = command in {"ADD", "DEL", "CHECK"}
    if is_about_one and (len(container) > _LONGEST or not _CONTAINER.fullmatch(container)):
        raise CniError(ENVIRONMENT, f"CNI_CONTAINERID is {container[:64]!r}")
    if command in {"ADD", "CHECK"} and not netns.startswith("/"):
        raise CniError(ENVIRONMENT, f"CNI_NETNS is {netns[:64]!r}", "it must be a path")
    return Request(command, container, netns, _pod(arguments), config)


def _pod(arguments: str) -> Pod | None:
    split = (part.split("=", 1) for part in arguments.split(";") if "=" in part)
    pairs = {one[0]: one[1] for one in split}
    namespace, name = pairs.get("K8S_POD_NAMESPACE", ""), pairs.get("K8S_POD_NAME", "")
    if not namespace or not name:
        return None
    return Pod(namespace, name, pairs.get("K8S_POD_UID", ""))


def _decoded(data: bytes, expected: Any, what: str) -> Any:
    try:
        return msgspec.json.decode(data, type=expected)
    except UNDECODABLE as error:
        raise CniError(UNDECODED, f"{what} cannot be read", str(error)) from None


def answered(request: Request) -> bytes:
    """Return the answer to a request that went well: the result of the plugins before, as it
    came."""
    result = bytes(request.config.prev_result) or b"{}"
    return b"0" + (result if request.command == "ADD" else b"")


def refused(error: CniError, version: str = VERSIONS[-1]) -> bytes:
    """Return the answer to a request that did not."""
    body = {
        "cniVersion": version if version in VERSIONS else VERSIONS[-1],
        "code": error.code,
        "msg": error.message,
        "details": error.details,
    }
    return b"1" + msgspec.json.encode(body)
