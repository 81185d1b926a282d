"""Keeps a certificate for each allowed identity, and publishes it as soon as it exists.

This module owns the keys of leaves, which are in memory only, and the record of allowed identities.
``rotation`` decides when to issue, the signer certifies, ``sds`` tells clients.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Final

import msgspec
from cryptography.hazmat.primitives import serialization

from meshd import wire
from meshd.base import kept_file
from meshd.base.disk import replace
from meshd.base.errors import InvalidInputError, MeshdError, SystemRefusedError
from meshd.base.tasks import first_of
from meshd.base.unwritten import Unwritten
from meshd.ca import authority, names, rotation
from meshd.ca.authority import Signer
from meshd.ca.leaf_files import Kept, LeafFiles
from meshd.ca.rotation import Failure, Held
from meshd.model.workload import Identity
from meshd.sds import server as sds
from meshd.sds.subscriber import Secret, Secrets
from meshd.wire import channel

_DISK_PAUSE: Final = 5.0
"""Seconds after which what the disk did not take is written again."""
_SOON: Final = 1.0
"""Seconds for the signer to answer, before nobody waits any longer for what is not signed yet."""
_LONGEST_SLEEP: Final = 60.0
"""Seconds after which the clock is looked at again: it may have been set, or the host slept."""

_log = logging.getLogger(__name__)


def _identities(record: bytes) -> frozenset[Identity]:
    """Raises InvalidInputError, and what msgspec raises."""
    return frozenset(map(names.parse, msgspec.json.decode(record, type=tuple[str, ...])))


@dataclasses.dataclass(frozen=True, slots=True)
class _Leaf:
    held: Held
    secret: Secret
    of_client: Secret


async def _refuse(message: wire.AboutSecrets) -> wire.Message:
    raise InvalidInputError(f"the identity role does not take {type(message).__name__}")


class Identities:
    """The identities of this node and their certificates.

    ``lifetime`` in seconds, ``renew_at`` a fraction of it; ``record``: the file of allowed
    identities. ``kept``: leaves on disk, for a node that cannot get new ones at any time.
    ``others``: certificates to report that are not served. ``files``: the states of secrets in
    files. ``answer``: handles all other requests. ``problems``: further ones to report.
    """

    def __init__(
        self,
        signer: Signer,
        publish: Callable[[Secrets], None],
        record: Path,
        *,
        lifetime: float,
        renew_at: float,
        clock: Callable[[], float] = time.time,
        kept: LeafFiles | None = None,
        others: Callable[[], Iterable[wire.CertificateState]] = tuple,
        files: Callable[[], tuple[wire.FileState, ...]] = tuple,
        answer: Callable[[wire.AboutSecrets], Awaitable[wire.Message]] = _refuse,
        problems: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        self._signer = signer
        self._publish = publish
        self._record = record
        self._unwritten = Unwritten(record)
        self._lifetime = lifetime
        self._renew_at = renew_at
        self._clock = clock
        self._kept = kept
        self._others = others
        self._files = files
        self._answer = answer
        self._problems = problems
        self._allowed: frozenset[Identity] | None = None
        self._leaves: dict[Identity, _Leaf] = {}
        self._failed: dict[Identity, Failure] = {}
        self._nameless: dict[str, str] = {}
        """Why what was asked for can have no certificate, by URI."""
        self._told = False
        """The mesh role has said who is allowed, since this process began."""
        self._slow = False
        """The signer lets everybody wait."""
        self._contacts = 0
        self._trust: tuple[bytes, Secret] | None = None
        self._wake = asyncio.Event()
        self._listeners: set[asyncio.Event] = set()

    # ---- who is allowed

    def restore(self) -> None:
        """Go on with whoever was allowed when this process ended; without a record, wait."""
        consequence = "nothing is served until the mesh role reports identities"
        found = kept_file.load(self._record, _identities, consequence)
        if found is not None:
            self._set(found)

    def allow(self, identities: Iterable[Identity], contacts: int = 0) -> None:
        """Serve these identities and no others from now on; one without a proper name never is.

        If ``contacts`` has changed, what failed is tried again at once.
        """
        if contacts != self._contacts:
            self._contacts = contacts
            self._failed = {one: failure.forgiven for one, failure in self._failed.items()}
            self._wake.set()
        proper: set[Identity] = set()
        self._nameless = {}
        for identity in identities:
            try:
                proper.add(names.checked(identity))
            except InvalidInputError as error:
                self._nameless[identity.uri] = str(error)
        allowed = frozenset(proper)
        if self._told and allowed == self._allowed:
            return
        self._told = True
        self._set(allowed)
        self._show()
        self._save()

    def _set(self, allowed: frozenset[Identity]) -> None:
        self._allowed = allowed
        self._failed = {one: failure for one, failure in self._failed.items() if one in allowed}
        self._leaves = {one: leaf for one, leaf in self._leaves.items() if one in allowed}
        if self._kept:
            self._kept.drop(allowed)
        self._take_kept(allowed - self._leaves.keys())
        self._wake.set()

    def _take_kept(self, identities: Iterable[Identity]) -> None:
        if self._kept is None:
            return
        for identity in identities:
            if kept := self._kept.get(identity):
                self._leaves[identity] = _leaf(identity, kept)

    def _save(self) -> None:
        uris = sorted(identity.uri for identity in self._allowed or ())
        try:
            # It need not outlive the host: network namespaces do not either.
            replace(self._record, msgspec.json.encode(uris), durable=False)
        except SystemRefusedError as error:
            self._unwritten.note(
                f"{error}; after a restart nothing is served until the mesh role reports the "
                "allowed identities"
            )
        else:
            self._unwritten.note("")

    # ---- certificates

    async def run(self) -> None:
        """Issue and renew until cancelled."""
        self._show()
        while True:
            self._wake.clear()
            wake = await self._step()
            pause = _LONGEST_SLEEP if wake is None else max(wake - self._clock(), 0.0)
            longest = _DISK_PAUSE if self._kept and self._kept.waits else _LONGEST_SLEEP
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(pause, longest)):
                    await self._wake.wait()
            if self._kept and self._kept.waits:
                self._kept.put_waiting()
                self.tell()

    async def _step(self) -> float | None:
        """Issue what is due, the most urgent first; return the time to come back."""
        plan = self._plan()
        for identity in plan.issue:
            await self._renew(identity)
            self._show()
            # Let go, so that what is issued is sent at once, and notice who is not allowed now.
            await asyncio.sleep(0)
            if self._wake.is_set():
                return self._clock()
        return self._plan().wake if plan.issue else plan.wake

    def _plan(self) -> rotation.Plan:
        held = {identity: leaf.held for identity, leaf in self._leaves.items()}
        return rotation.plan(
            self._allowed or frozenset(), held, self._failed, self._clock(), self._renew_at
        )

    async def _renew(self, identity: Identity) -> None:
        now = self._clock()
        key = authority.new_key()
        patience = asyncio.get_running_loop().call_later(_SOON, self._tire)
        try:
            issued = await self._signer.sign(authority.request(identity, key, self._lifetime), now)
        except MeshdError as error:
            if identity in (self._allowed or ()):
                self._fail(identity, now, str(error))
            return
        finally:
            patience.cancel()
        self._slow = False
        if identity not in (self._allowed or ()):
            return  # not any more: that was told while the signer was at it
        self._failed.pop(identity, None)
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        kept = Kept(now, issued, private)
        self._leaves[identity] = _leaf(identity, kept)
        if self._kept:
            self._kept.put(identity, kept)

    def _tire(self) -> None:
        self._slow = True
        self._show()

    def _fail(self, identity: Identity, now: float, problem: str) -> None:
        if problem not in {failure.reason for failure in self._failed.values()}:
            _log.error(
                "no certificate for %s: %s", identity.uri, problem, extra={"MESHD_EVENT": "ca"}
            )
        attempts = self._failed[identity].attempts + 1 if identity in self._failed else 1
        self._failed[identity] = Failure(now, attempts, problem)

    # ---- who is told

    def _show(self) -> None:
        self._publish(self._secrets())
        self.tell()

    def tell(self) -> None:
        """Report that ``certificates`` may have changed."""
        for changed in self._listeners:
            changed.set()

    def _secrets(self) -> Secrets:
        served = {identity.uri: leaf.secret for identity, leaf in self._leaves.items()}
        served |= {one.client_secret: leaf.of_client for one, leaf in self._leaves.items()}
        served[names.TRUST_BUNDLE] = self._trust_bundle()
        if not self._told or self._allowed is None:
            # A name outside the record may be new: denying it could cost a proxy what it has.
            return Secrets(served, None, self._late())
        wanted = ((identity.uri, identity.client_secret) for identity in self._allowed)
        return Secrets(served, frozenset(name for both in wanted for name in both), self._late())

    def _late(self) -> frozenset[str]:
        """Return names that are denied while they are late, which are those of servers.

        A proxy waits for them at its start. A client's name is asked for when a connection needs
        it, which then waits a while; it would ask again for each.
        """
        missing = (self._allowed or frozenset()) - self._leaves.keys()
        return frozenset(one.uri for one in missing if self._slow or one in self._failed)

    def _trust_bundle(self) -> Secret:
        roots = self._signer.roots()
        if self._trust is None or self._trust[0] != roots:
            version = hashlib.blake2b(roots, digest_size=8).hexdigest()
            self._trust = roots, sds.trust_secret(names.TRUST_BUNDLE, version, roots)
        return self._trust[1]

    def certificates(self) -> wire.Certificates:
        """Return what is served now, and what should be but is not, with the reason."""
        problems = self._nameless | {
            identity.uri: failure.reason for identity, failure in self._failed.items()
        }
        served = {identity.uri: leaf for identity, leaf in self._leaves.items()}
        states = [
            wire.CertificateState(
                uri, leaf.held.expires, leaf.secret.version, problems.pop(uri, "")
            )
            for uri, leaf in served.items()
        ]
        states += [wire.CertificateState(uri, 0.0, "", why) for uri, why in problems.items()]
        states += self._others()
        problem = "; ".join(
            filter(None, (self._kept.problem if self._kept else "", *self._problems()))
        )
        listed = tuple(sorted(states, key=lambda state: state.uri))
        return wire.Certificates(listed, problem, self._files())

    async def session(self, connection: channel.Connection[wire.ToIdentity]) -> None:
        """Serve one ``wire`` connection: takes ``Allow``, sends ``Certificates`` as they change."""
        changed = asyncio.Event()
        try:
            await first_of(self._receive(connection, changed), self._send(connection, changed))
        finally:
            self._listeners.discard(changed)

    async def _receive(
        self, connection: channel.Connection[wire.ToIdentity], changed: asyncio.Event
    ) -> None:
        while (message := await connection.receive()) is not None:
            if not isinstance(message, wire.Allow):
                await connection.send(await self._answer(message))
                continue
            self.allow(message.identities, message.contacts)
            self._listeners.add(changed)
            changed.set()

    async def _send(
        self, connection: channel.Connection[wire.ToIdentity], changed: asyncio.Event
    ) -> None:
        while True:
            await changed.wait()
            changed.clear()
            await connection.send(self.certificates())


def _leaf(identity: Identity, kept: Kept) -> _Leaf:
    issued = kept.certificate
    serial = f"{issued.serial:x}"
    return _Leaf(
        Held(kept.issued, issued.begins, issued.expires),
        *(
            sds.certificate_secret(name, serial, issued.chain, kept.key)
            for name in (identity.uri, identity.client_secret)
        ),
    )
