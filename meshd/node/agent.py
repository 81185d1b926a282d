"""Connects an agent's mesh role with its server: configuration comes down, workloads go up.

The received state is kept on disk. The configuration is the server's: changes on the agent are
refused with an error that names the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from meshd import wire
from meshd.api import checked, kinds
from meshd.api.authorization_policy.types import AuthorizationPolicy
from meshd.api.base import Key, Object
from meshd.api.peer_authentication.types import PeerAuthentication
from meshd.api.request_authentication.types import RequestAuthentication
from meshd.api.write import api_version
from meshd.base import kept_file
from meshd.base.attempts import Begun
from meshd.base.errors import InvalidInputError
from meshd.base.json_values import mapping_at
from meshd.base.kept_file import KeptFile
from meshd.base.moments import rfc3339
from meshd.base.once import SaidOnce
from meshd.base.threads import in_thread
from meshd.config import admission, lost_configuration, policy_digest, withheld
from meshd.config.withheld import Closed
from meshd.fleet.agent import following, uplink
from meshd.fleet.agent.client import Client
from meshd.fleet.agent.inbox import Inbox
from meshd.fleet.joining import clocks, facts
from meshd.fleet.joining.facts import MeshFacts
from meshd.fleet.joining.node import node_uri
from meshd.fleet.server import mcp
from meshd.model.workload import Workload, shown
from meshd.node.mesh import Mesh
from meshd.settings import Paths, Settings

_KINDS: Final = tuple(mcp.type_url(api_version(kind), kind.KIND) for kind in kinds.STORED)
_CONTACT: Final = 10.0
"""Seconds between updates of the kept file's time, and between checks of the clock: how exactly the
time of the last contact is known after a restart, and how soon a wrong clock is noticed."""
_PAUSE: Final = 10.0
"""The pause after the use of what the server tells, as a multiple of the time that this took."""
_POLICIES: Final = tuple(
    mcp.type_url(api_version(kind), kind.KIND)
    for kind in (PeerAuthentication, AuthorizationPolicy, RequestAuthentication)
)
TYPES: Final = (*_POLICIES, *(url for url in _KINDS if url not in _POLICIES), mcp.WORKLOAD)
"""The types that the server is asked for. Policies come first, so that they are known before any
other object is received."""
_IN_PLACE: Final = (
    "it is not in force on the server, or the server cannot tell it: correct or delete it there"
    " (meshctl status on the server says why)"
)
_log = logging.getLogger(__name__)


def decode(type_url: str, name: str, body: bytes) -> Any:
    """Return an object of the configuration, or a workload. Raises InvalidInputError."""
    if type_url != mcp.WORKLOAD:
        value = mcp.decode(type_url, body)
        if policy_digest.NOT_IN_FORCE in mapping_at(value, "spec"):
            raise InvalidInputError(_IN_PLACE)
        return admission.admit(value)
    try:
        return checked.convert(mcp.decode_body(body), Workload)
    except InvalidInputError as error:
        raise InvalidInputError(f"Workload {name}: {error}") from None


def closed_objects(url: str, objects: Mapping[str, bytes]) -> tuple[Closed, ...]:
    """Return closed objects in place of objects of one type that could not be taken.

    Without them, their hosts would be reached in plaintext, or without their egress gateway.
    """
    found: list[Closed] = []
    for _, body in sorted(objects.items()):
        with contextlib.suppress(InvalidInputError):
            if known := withheld.closed_value(mcp.decode(url, body)):
                found.append(known)
    return tuple(found)


def lost_objects(url: str, objects: Mapping[str, bytes]) -> tuple[str, ...]:
    """Return the objects that could not be taken, and of which it is not known what they are
    about."""
    kind = url.rpartition("/")[2]
    return tuple(f"{kind} {name}" for name, body in sorted(objects.items()) if _is_lost(url, body))


def _is_lost(url: str, body: bytes) -> bool:
    try:
        return withheld.is_lost(mcp.decode(url, body))
    except InvalidInputError:
        return True


def is_superseded(url: str, held: bytes, refused: bytes | None) -> bool:
    """Return whether a policy is to be closed of which one version is held and another one was
    refused: unless both are known to ask for the same, the refused one may be stricter.

    ``refused``: None if it is not to be read.
    """
    if refused is None:
        return True
    try:
        told = mcp.decode(url, refused)
    except InvalidInputError:
        return True
    return policy_digest.is_superseded(mcp.decode(url, held), told)


def _key(url: str, full_name: str) -> Key:
    namespace, _, name = full_name.partition("/")
    return Key(url.rpartition("/")[2], namespace, name)


def _closed(inbox: Inbox) -> Iterator[Object]:
    """Yield replacements of the refused objects whose absence would open something."""
    for url, full_name in inbox.refused:
        key = _key(url, full_name)
        if found := withheld.in_place_of(key.kind, key.namespace, key.name):
            yield found


def _superseded(inbox: Inbox) -> Iterator[Key]:
    """Yield the policies of which the version that is held is not the one that was asked for."""
    for url in _POLICIES:
        for name, (held, refused) in inbox.kept(url).items():
            if is_superseded(url, held, refused):
                yield _key(url, name)


@dataclasses.dataclass(frozen=True, slots=True)
class Told:
    """What follows from all that a server has told."""

    objects: Mapping[Key, Object]
    unserved: tuple[Closed, ...]
    """The replacements of objects that could not be taken."""
    lost: tuple[str, ...]
    """Content that the server cannot read, and objects of which it is not known what they are
    about."""
    unread: tuple[Key, ...]
    workloads: tuple[Workload, ...]
    """Those of other nodes."""

    @classmethod
    def of(cls, inbox: Inbox, server: str, node: str) -> Told:
        """Look at each resource: a thread does it. Nothing else may change the inbox meanwhile."""
        held = {one.key: one for url in _KINDS for one in inbox.values(url).values()}
        closed = {one.key: one for one in _closed(inbox)}
        superseded = {key: closed[key] for key in _superseded(inbox) if key in closed}
        never_good = [(url, inbox.never_good(url)) for url in _KINDS]
        elsewhere = (f"{path} of {server}" for path in lost_configuration.heard(held.values()))
        unknown = (one for given in never_good for one in lost_objects(*given))
        workloads = inbox.values(mcp.WORKLOAD).values()
        return cls(
            {**closed, **held, **superseded},
            tuple(one for given in never_good for one in closed_objects(*given)),
            (*elsewhere, *unknown),
            tuple(_key(url, name) for url, name in inbox.refused if url in _KINDS),
            tuple(one for one in workloads if one.node != node),
        )


class Agent:
    def __init__(self, mesh: Mesh, settings: Settings, paths: Paths) -> None:
        """Load the last good state from disk, so that nothing waits for the server.

        Raises InvalidInputError if the settings name no server.
        """
        if not settings.server:
            raise InvalidInputError(
                "setting server: an agent must have one; run: meshctl join SERVER --token TOKEN"
            )
        self._mesh = mesh
        self._server = settings.server
        self._node = settings.node_name
        self._facts = MeshFacts.of(settings)
        self._different = SaidOnce({"MESHD_EVENT": "settings"})
        self._uri = node_uri(settings.identity.trust_domain, self._node)
        self._inbox = Inbox(decode, mesh.work.attempts, TYPES)
        self._kept = KeptFile(paths.lib / "server-state", self._inbox.dumping, mesh.settling.touch)
        self._lost: tuple[str, ...] = ()
        self._news = asyncio.Event()
        """The server has told something that is not used yet."""
        self._load()
        self._client = Client(
            self._node,
            TYPES,
            self._inbox,
            connect=lambda: uplink.open_channel(paths.uplink),
            explain=lambda error: uplink.explain(error, paths.uplink, self._server, time.time()),
            taken=self._news.set,
            changed=mesh.settling.touch,
            heard=self._heard,
        )
        self._client.since = self._last_contact()
        mesh.further_problems.extend(
            (
                lambda: self._kept.problem,
                self._not_renewed,
                self._clock_problem,
                self._settings_problem,
            )
        )

    async def run(self) -> None:
        """Run until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._client.run())
            tasks.create_task(self._use_for_ever())
            tasks.create_task(self._tell_for_ever())
            tasks.create_task(self._kept.run())
            tasks.create_task(self._look_for_ever())

    async def _tell_for_ever(self) -> None:
        while True:
            count = self._mesh.settling.count
            roster = self._mesh.settling.answer(lambda: self._mesh.roster(self._node))
            if roster is not None:
                self._client.tell(roster)
            await self._mesh.settling.after(count)

    # ---- from the server

    async def _use_for_ever(self) -> None:
        """Use what the server tells, at once or, while it tells a large mesh in hundreds of
        responses, for a small share of the time. Runs until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            began = time.monotonic()
            await self._take()
            await asyncio.sleep((time.monotonic() - began) * _PAUSE)

    async def _take(self) -> None:
        """Use all that the inbox has now. What comes meanwhile is used the next time."""
        self._lost = ()
        use, unused, told = self._client.using(), self._inbox.unused, self._telling()
        found = await in_thread("putting together what the server tells", told)
        self._use(found, unused)
        self._client.used(use)
        self._kept.touch()

    def _telling(self) -> Callable[[], Told]:
        """Return what puts together what the inbox has now, whatever changes meanwhile."""
        return functools.partial(Told.of, self._inbox.copy(), self._server, self._node)

    def _use(self, told: Told, unused: frozenset[Begun]) -> None:
        """Put in force what the server has told; ``unused``: see ``Inbox``."""
        self._inbox.used(unused)
        lost = (*self._lost, *told.lost)
        self._mesh.store.follow(told.objects, told.unserved, lost, told.unread)
        self._mesh.hear_of(told.workloads)

    def _load(self) -> None:
        consequence = (
            "there is no configuration until the server answers, and workloads take mutual TLS only"
        )
        for reason in kept_file.load(self._kept.path, self._inbox.load, consequence) or ():
            _log.warning("%s: %s", self._kept.path, reason, extra={"MESHD_EVENT": "record"})
        self._lost = kept_file.lost(self._kept.path)
        for url in _POLICIES:
            self._inbox.doubt(url)
        self._use(self._telling()(), self._inbox.unused)

    async def _look_for_ever(self) -> None:
        """Check the clock, and update the time of the kept file while the server is connected.

        The time of the file tells the last contact even if this process crashes. Runs until
        cancelled.
        """
        said = False
        while True:
            await asyncio.sleep(_CONTACT)
            problem = self._clock_problem()
            if problem and not said:
                _log.error("%s", problem, extra={"MESHD_EVENT": "clock"})
            said = bool(problem)
            if self._client.connected:
                with contextlib.suppress(OSError):
                    os.utime(self._kept.path)

    def _last_contact(self) -> float:
        try:
            return self._kept.path.stat().st_mtime
        except OSError:
            return 0.0

    # ---- from meshctl

    async def changed(self, request: wire.Apply | wire.DeleteNamed) -> wire.Message:
        """Accept a request that changes nothing.

        Raises InvalidInputError for any other request: changes are made at the server.
        """
        services = (await self._mesh.snapshot()).services.values()
        return following.answer(self._mesh.store, request, self._server, services)

    def _clock_problem(self) -> str:
        """Return the difference of the clocks as a problem.

        Empty: the clocks agree, or the time of the server is unknown.
        """
        theirs = self._client.server_time
        return clocks.difference(time.time(), theirs, f"server {self._server}") if theirs else ""

    def _heard(self) -> None:
        """Note that the server knows what runs here, and has said its settings."""
        self._different.say(filter(None, (self._settings_problem(),)))
        self._mesh.reconciler.contacted()
        self._mesh.settling.touch()

    def _settings_problem(self) -> str:
        """Return the settings that differ from the server's as a problem; empty: none do, as far as
        it has said them."""
        theirs = self._client.facts
        return facts.difference(self._facts, theirs, self._server) if theirs else ""

    def _not_renewed(self) -> str:
        own = self._mesh.certificates.states.get(self._uri)
        why = own.problem if own else ""
        return f"the certificate of this node is not renewed: {why}" if why else ""

    def status(self) -> wire.ControlStatus:
        client = self._client
        certificates = [one for one in self._mesh.certificates.states.values() if one.expires]
        first = min(certificates, key=lambda one: one.expires, default=None)
        refused = self._inbox.refused.items()
        return wire.ControlStatus(
            server=self._server,
            connected=client.connected,
            since=client.since,
            problem=client.problem,
            rejected=tuple(
                f"{url.rpartition('/')[2]} {name}: {why}" for (url, name), why in refused
            ),
            kept_out=tuple(f"{shown(uid)}: {why}" for uid, why in client.kept_out.items()),
            ends_first=first.uri if first else "",
            ends_at=rfc3339(first.expires) if first else None,
        )
