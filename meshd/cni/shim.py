"""The plugin that a container runtime runs: it hands the request to meshd, and the answer back.

It is copied to the runtime's directory of plugins and runs there with the system's own Python, so
it imports nothing of meshd; nor ``json``, ``os`` and ``socket``, which would double the processor
time that a pod costs. When meshd is away, it answers itself: what has ended is let go, and nothing
begins outside the mesh. The specification is https://www.cni.dev/docs/spec/.
"""

import _socket
import posix
import sys

SOCKET = "/run/meshd/cni/cni.sock"
EXCLUDED = ("kube-system",)
"""Namespaces of Kubernetes that meshd leaves alone, so that a node comes up without it."""
FAILS_OPEN = False
"""A container begins outside the mesh while meshd is away; meshd takes it in when it is back."""
TIMEOUT = 90.0
VERSIONS = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
NAMES = ("CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS", "CNI_PATH")
TRY_AGAIN = 11
NOT_AVAILABLE = 50


def main() -> int:
    command = variable("CNI_COMMAND")
    if command == "VERSION":
        listed = ", ".join(f'"{version}"' for version in VERSIONS)
        return answer(f'{{"cniVersion": "{VERSIONS[-1]}", "supportedVersions": [{listed}]}}')
    given = read(0)
    if is_excluded(variable("CNI_ARGS")):
        return pass_on(command, given)
    try:
        status, text = ask(given)
    except OSError as error:
        if command in {"DEL", "GC"}:
            return 0
        if command == "ADD" and FAILS_OPEN:
            return pass_on(command, given)
        return fail(command, given, str(error))
    answer(text)
    return status


def variable(name: str) -> str:
    return posix.environ.get(name.encode(), b"").decode("utf-8", "replace")


def is_excluded(arguments: str) -> bool:
    return any(f"K8S_POD_NAMESPACE={name}" in arguments.split(";") for name in EXCLUDED)


def pass_on(command: str, given: bytes) -> int:
    """Print the result of the plugins before this one, as a plugin that does nothing does."""
    if command != "ADD":
        return 0
    import json  # noqa: PLC0415 - takes longer than all else

    return answer(json.dumps(json.loads(given).get("prevResult", {})))


def ask(given: bytes) -> tuple[int, str]:
    """Return meshd's exit status and output. Raises OSError, whose text is for people."""
    words = "\0".join(variable(name) for name in NAMES)
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    connection.settimeout(TIMEOUT)
    connection.connect(SOCKET)
    connection.sendall(words.encode() + b"\0" + given)
    connection.shutdown(_socket.SHUT_WR)
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    said = b"".join(parts).decode("utf-8", "replace")
    if not said:
        raise OSError("it hung up without an answer")
    return int(said[0]), said[1:]


def read(descriptor: int) -> bytes:
    parts = []
    while part := posix.read(descriptor, 65536):
        parts.append(part)
    return b"".join(parts)


def answer(text: str) -> int:
    content = text.encode()
    while content:
        content = content[posix.write(1, content) :]
    return 0


def fail(command: str, given: bytes, reason: str) -> int:
    """Print an error as the specification has it."""
    code = NOT_AVAILABLE if command == "STATUS" else TRY_AGAIN
    reason = "".join(one if one.isprintable() and one not in '"\\' else "?" for one in reason)
    answer(
        f'{{"cniVersion": "{version_of(given)}", "code": {code}, "msg": "meshd does not answer",'
        f' "details": "{SOCKET}: {reason}; start it (systemctl start meshd), and this is tried'
        ' again, or take it out of the chain: meshctl capture release"}'
    )
    return 1


def version_of(given: bytes) -> str:
    """Return the version that a configuration is written in, without reading all of it."""
    _, found, rest = given.decode("utf-8", "replace").partition('"cniVersion"')
    version = rest.split('"', 2)[1] if found and rest.count('"') > 1 else ""
    return version if version in VERSIONS else VERSIONS[-1]


if __name__ == "__main__":
    sys.exit(main())
