"""Serves secrets from files that configuration names, and follows their changes.

The files are read here, where keys are: no other process opens such a file. A pair that does not
fit, as while it is being replaced, leaves the pair before in use.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from meshd import wire
from meshd.api.secret_files import SYSTEM, SecretFiles, parse
from meshd.base import credentials, journal
from meshd.base.errors import InvalidInputError
from meshd.base.threads import in_thread
from meshd.sds.files import read_any, read_below
from meshd.sds.server import certificate_secret, trust_secret
from meshd.sds.subscriber import Secret

_LOOK: Final = 2.0
"""Seconds between looks at the files."""
_PATIENCE: Final = 5.0
"""Seconds for a file system to answer. What does not is tried again when it has."""
_MOST: Final = 1000
"""Secrets at a time."""
_AT_ONCE: Final = 64
"""Secrets that are read side by side, in a thread each."""
_OF_SYSTEM: Final = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
)
"""Where distributions have the authorities that they trust; the first that is there counts."""

_log = logging.getLogger(__name__)
Files = Mapping[str, Secret | None]
"""By name; None: there is nothing usable in them."""
Contents = tuple[bytes, bytes]


class FileSecrets:
    """Secrets in files.

    ``wanted`` returns the names that proxies ask for; ``publish`` takes what they are served;
    ``tell`` is called when ``states`` has changed.
    """

    def __init__(
        self,
        directories: Sequence[str],
        wanted: Callable[[], frozenset[str]],
        publish: Callable[[Files], None],
        tell: Callable[[], None] = lambda: None,
    ) -> None:
        self.tell = tell
        self._directories = tuple(directories)
        self._wanted = wanted
        self._publish = publish
        self._wake = asyncio.Event()
        self._served: dict[str, Secret | None] = {}
        self._problems: dict[str, str] = {}
        self._read_before: dict[str, tuple[Contents, Secret]] = {}
        self._reading: dict[str, asyncio.Future[Contents]] = {}
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._silent: set[str] = set()
        """Names of what a file system did not answer for in time, and may still answer."""

    def wake(self) -> None:
        """Look at the wanted names again."""
        self._wake.set()

    def states(self) -> tuple[wire.FileState, ...]:
        return tuple(wire.FileState(name, why) for name, why in sorted(self._problems.items()))

    async def run(self) -> None:
        """Follow the files until cancelled."""
        while True:
            self._wake.clear()
            await self.look()
            pause = _LOOK if self._served else None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()

    async def look(self) -> None:
        """Read whatever is wanted, and serve it."""
        names = sorted(self._wanted())[:_MOST]
        served: dict[str, Secret | None] = {}
        problems: dict[str, str] = {}
        # Side by side: a file system that does not answer holds up its own files only once.
        for name, read in zip(names, await asyncio.gather(*map(self._tried, names)), strict=True):
            if isinstance(read, InvalidInputError):
                served[name], problems[name] = self._served.get(name), str(read)
            else:
                served[name] = read
        self._read_before = {
            name: read for name, read in self._read_before.items() if name in served
        }
        if served != self._served:
            self._served = served
            self._publish(served)
        if problems != self._problems:
            self._note(problems)

    async def check(self, names: Sequence[str]) -> tuple[wire.FileState, ...]:
        """Return the state of secrets that proxies may not have asked for yet."""
        wanted = names[:_MOST]
        reads = zip(wanted, await asyncio.gather(*map(self._tried, wanted)), strict=True)
        return tuple(
            wire.FileState(name, str(read))
            for name, read in reads
            if isinstance(read, InvalidInputError)
        )

    def _note(self, problems: dict[str, str]) -> None:
        for name in problems.keys() - self._problems.keys():
            served = (
                "the previous one stays in use" if self._served.get(name) else "it is not served"
            )
            text = "%s; %s"
            journal.event(_log, logging.ERROR, "secret-file", text, problems[name], served)
        for name in self._problems.keys() - problems.keys():
            if name in self._served:
                journal.event(_log, logging.INFO, "secret-file", "%s: is usable again", name)
        self._problems = problems
        self.tell()

    async def _tried(self, name: str) -> Secret | InvalidInputError:
        """Return the secret, or why there is none."""
        async with self._places:
            try:
                return await self._read(name)
            except InvalidInputError as error:
                return error

    async def _read(self, name: str) -> Secret:
        """Raises InvalidInputError."""
        files = parse(name)
        if files is None:
            raise InvalidInputError(f"{name}: no name of a secret in files")
        contents = await self._contents(name, files)
        before = self._read_before.get(name)
        if before and before[0] == contents:
            return before[1]
        secret = secret_of(files, contents)
        self._read_before[name] = contents, secret
        return secret

    async def _contents(self, name: str, files: SecretFiles) -> Contents:
        """Raises InvalidInputError."""
        reading = self._reading.get(name)
        if reading is None or reading.done():
            self._silent.discard(name)
            # A file system may never answer, or fail when nobody waits for it any more.
            reading = in_thread(
                "reading secrets", functools.partial(contents_of, files, self._directories)
            )
            reading.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._reading[name] = reading
        done, _ = await asyncio.wait((reading,), timeout=0 if name in self._silent else _PATIENCE)
        if not done:
            self._silent.add(name)
            raise InvalidInputError(f"{', '.join(files.paths)}: the file system does not answer")
        if self._reading.get(name) is reading:
            del self._reading[name]
        return reading.result()


def contents_of(files: SecretFiles, directories: Sequence[str]) -> Contents:
    """Return the present contents of the files. Raises InvalidInputError."""

    def content(path: str) -> bytes:
        if path == SYSTEM:
            return read_any(_OF_SYSTEM)
        return read_below(path, directories) if path else b""

    if files.certificate:
        return content(files.certificate), content(files.private_key)
    return content(files.authority), content(files.revoked)


def secret_of(files: SecretFiles, contents: Contents) -> Secret:
    """Raises InvalidInputError when proxies could not use them."""
    is_pair = bool(files.certificate)
    try:
        (credentials.check_certificate if is_pair else credentials.check_authority)(*contents)
    except InvalidInputError as error:
        raise InvalidInputError(f"{', '.join(files.paths)}: {error}") from None
    make = certificate_secret if is_pair else trust_secret
    return make(files.name, _version(*contents), *contents)


def _version(*contents: bytes) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for content in contents:
        digest.update(len(content).to_bytes(8) + content)
    return digest.hexdigest()
