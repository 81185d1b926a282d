"""Runs code inside another network namespace, while the process itself stays outside.

``run`` forks a short-lived child for code that is slow or may crash (iptables, libiptc);
``entered`` moves the thread for some microseconds, to open a socket: a socket stays in the
namespace in which it was opened. The process must not import grpc, which does not survive ``fork``.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import os
import pickle
import signal
import socket
import struct
import traceback
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, Final, TypeVar

from meshd.base.errors import InvalidInputError, MeshdError, NotReadyError, SystemRefusedError

T = TypeVar("T")

_CLONE_NEWNET: Final = 0x40000000
_NS_GET_NSTYPE: Final = 0xB703  # ioctl_ns(2)
_PR_SET_PDEATHSIG: Final = 1
_SO_NETNS_COOKIE: Final = 71  # asm-generic/socket.h
_OWN: Final = Path("/proc/self/ns/net")
TIMEOUT: Final = 20.0
"""Seconds that one child may take."""

_libc = ctypes.CDLL(None, use_errno=True)


def open_namespace(path: Path) -> int:
    """Return a descriptor of a network namespace other than our own. The caller closes it.

    Raises NotReadyError if nothing is at the path (any more), and InvalidInputError if the path is
    not a network namespace, or is our own.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise NotReadyError(f"network namespace {path} not found: {error.strerror}") from None
    except ValueError:  # a NUL, or half of a character
        raise InvalidInputError(f"{str(path)!r} is not usable as a path") from None
    try:
        is_network = fcntl.ioctl(descriptor, _NS_GET_NSTYPE) == _CLONE_NEWNET
    except OSError:
        is_network = False
    if is_network and os.fstat(descriptor).st_ino != _OWN.stat().st_ino:
        return descriptor
    os.close(descriptor)
    if is_network:
        raise InvalidInputError(
            f"{path} is the host's own network namespace; only workloads in one of their own"
            " can be captured"
        )
    raise InvalidInputError(f"{path} is not a network namespace")


@contextlib.contextmanager
def entered(path: Path) -> Generator[None]:
    """Move this thread into the namespace within the block, which must not await."""
    target = open_namespace(path)
    try:
        with entered_by(target):
            yield
    finally:
        os.close(target)


@contextlib.contextmanager
def entered_by(descriptor: int) -> Generator[None]:
    """Enter the open namespace within the block, which must not await."""
    own = _open_own()
    try:
        _enter(descriptor)
        try:
            yield
        finally:
            _enter(own)
    finally:
        os.close(own)


def new_namespace() -> int:
    """Make an empty network namespace, which lives as long as the returned descriptor is open.

    Raises SystemRefusedError if the kernel refuses.
    """
    own = _open_own()
    try:
        if _libc.unshare(_CLONE_NEWNET) != 0:
            reason = os.strerror(ctypes.get_errno())
            raise SystemRefusedError(f"cannot make a network namespace: {reason}")
        try:
            return _open_own()
        finally:
            _enter(own)
    finally:
        os.close(own)


def _open_own() -> int:
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def cookie_of(path: Path) -> int:
    """Return a number that no other network namespace has had since the machine was booted.

    Inode numbers and pids are reused, so they cannot serve. Returns 0 if the kernel has no cookies
    (before 5.14). Raises the same errors as ``open_namespace``.
    """
    with entered(path):
        return own_cookie()


def own_cookie() -> int:
    """Return the cookie of the namespace that this thread is in."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        try:
            return struct.unpack("=Q", one.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8))[0]
        except OSError:
            return 0


async def run(path: Path, action: Callable[[], T], *, timeout: float = TIMEOUT) -> T:
    """Run ``action`` in a child inside the namespace and return its result.

    A MeshdError of ``action`` is raised here. Raises SystemRefusedError if the child crashes or
    takes longer than ``timeout`` seconds.
    """
    namespace = open_namespace(path)
    try:
        forked = _fork(action, namespace)
    finally:
        os.close(namespace)
    return await _outcome_of(forked, str(path), timeout)


async def run_in_host(action: Callable[[], T], *, timeout: float = TIMEOUT) -> T:
    """Run ``action`` as ``run`` does, but in the namespace of this process, the host's own.

    ``run`` cannot do so, because ``open_namespace`` rejects the host's own namespace.
    """
    return await _outcome_of(_fork(action, None), "the host's namespace", timeout)


async def _outcome_of(forked: tuple[int, int], where: str, timeout: float) -> Any:
    child, reader = forked
    answered = False
    try:
        async with asyncio.timeout(timeout):
            answer = await _read_all(reader)
        answered = True
    except TimeoutError:
        raise SystemRefusedError(
            f"{where}: the child did not finish within {timeout:g} s"
        ) from None
    finally:
        os.close(reader)
        if not answered:
            os.kill(child, signal.SIGKILL)
        status = _reap(child)
    return _result(answer, status, where)


def _reap(child: int) -> int:
    """Reap the child and return its status.

    This does not block for long: the child has closed its end of the pipe, or was killed.
    """
    return os.waitpid(child, 0)[1]


def isolated(action: Callable[[], T], what: str) -> T:
    """Run ``action``, which may crash, in a child in this same namespace and return its result.

    This blocks: it is meant for use inside the child of ``run``. ``what`` names the action in the
    error about a crash. Raises SystemRefusedError if the child crashes.
    """
    child, reader = _fork(action, None)
    with os.fdopen(reader, "rb") as pipe:
        answer = pipe.read()
    return _result(answer, _reap(child), what)


def _fork(action: Callable[[], object], namespace: int | None) -> tuple[int, int]:
    """Return the child's pid, and the descriptor from which its answer is read."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        _live(parent, namespace, writer, action)
    os.close(writer)
    return child, reader


def _result(answer: bytes, status: int, what: str) -> Any:
    if not answer:
        raise SystemRefusedError(f"{what}: {_how_it_died(status)} while it changed the rules")
    result = pickle.loads(answer)  # noqa: S301 - written by our own child
    if isinstance(result, BaseException):
        raise result
    return result


def _how_it_died(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"the child was ended by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"the child ended with status {os.WEXITSTATUS(status)}"


async def _read_all(reader: int) -> bytes:
    os.set_blocking(reader, False)
    loop = asyncio.get_running_loop()
    parts: list[bytes] = []
    done: asyncio.Future[None] = loop.create_future()

    def readable() -> None:
        part = os.read(reader, 1 << 16)
        parts.append(part)
        if not part and not done.done():
            done.set_result(None)

    loop.add_reader(reader, readable)
    try:
        await done
    finally:
        loop.remove_reader(reader)
    return b"".join(parts)


def _live(parent: int, namespace: int | None, writer: int, action: Callable[[], object]) -> None:
    """Run the child, which never returns and does not outlive its parent."""
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            return  # the parent ended before prctl could take effect
        _close_all_but({writer, -1 if namespace is None else namespace})
        if namespace is not None:
            _enter(namespace)
        with os.fdopen(writer, "wb") as pipe:
            pickle.dump(_outcome(action), pipe)
        status = 0
    except Exception:
        traceback.print_exc()
    finally:
        os._exit(status)


def _close_all_but(kept: set[int]) -> None:
    """Close all other descriptors, above all the parent's listening sockets.

    Clients would otherwise reach this child rather than the process that succeeds the parent.
    """
    first = 3
    for descriptor in sorted(kept - {-1}):
        os.closerange(first, descriptor)
        first = descriptor + 1
    os.closerange(first, os.sysconf("SC_OPEN_MAX"))


def _outcome(action: Callable[[], object]) -> object:
    try:
        return action()
    except MeshdError as error:
        return error
    except OSError as error:
        return SystemRefusedError(f"the kernel refused: {error}")


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise SystemRefusedError(f"cannot enter a network namespace: {os.strerror(number)}")
