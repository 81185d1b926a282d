"""An agent's mesh role and its server: configuration down, workloads up, all of it kept on disk.

The configuration is the server's: other changes are refused here, with its name.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final

from meshd import wire
from meshd.api import checked, kinds
from meshd.api.base import Object
from meshd.api.destination_rule.types import DestinationRule
from meshd.api.write import api_version
from meshd.base.errors import InvalidInputError, MeshdError
from meshd.base.kept_file import KeptFile
from meshd.base.moments import rfc3339
from meshd.config import admission, withheld
from meshd.fleet.agent import following, uplink
from meshd.fleet.agent.client import Client
from meshd.fleet.agent.inbox import Inbox
from meshd.fleet.joining import clocks
from meshd.fleet.joining.node import node_uri
from meshd.fleet.server import mcp
from meshd.model.workload import Workload
from meshd.node.reconciler import Mesh
from meshd.settings import Paths, Settings

_KINDS: Final = tuple(mcp.type_url(api_version(kind), kind.KIND) for kind in kinds.STORED)
_RULE: Final = mcp.type_url(api_version(DestinationRule), DestinationRule.KIND)
_CONTACT: Final = 10.0
"""Seconds: how exactly it is known, after a restart, since when the server has been away; and how
soon a clock that is wrong is noticed."""
TYPES: Final = (*_KINDS, mcp.WORKLOAD)
_log = logging.getLogger(__name__)


def decode(type_url: str, name: str, body: bytes) -> Any:
    """Return an object of the configuration, or a workload. Raises InvalidInputError."""
    if type_url != mcp.WORKLOAD:
        return admission.admit(mcp.decode(type_url, body))
    try:
        return checked.convert(mcp.decode_body(body), Workload)
    except InvalidInputError as error:
        raise InvalidInputError(f"Workload {name}: {error}") from None


def closed_hosts(rules: Mapping[str, bytes]) -> tuple[tuple[str, str], ...]:
    """Return namespace and host of what DestinationRules are about that could not be taken.

    Without their TLS settings, those services would be spoken to in plaintext.
    """
    found: list[tuple[str, str]] = []
    for body in rules.values():
        with contextlib.suppress(InvalidInputError):
            if known := withheld.about(mcp.decode(_RULE, body)):
                found.append(known)
    return tuple(sorted(found))


class Agent:
    def __init__(self, mesh: Mesh, settings: Settings, paths: Paths) -> None:
        """Load the last good state from disk, so that nothing waits for the server."""
        if not settings.server:
            raise InvalidInputError(
                "setting server: an agent must have one; run: meshctl join SERVER --token TOKEN"
            )
        self._mesh = mesh
        self._server = settings.server
        self._node = settings.node_name
        self._uri = node_uri(settings.identity.trust_domain, self._node)
        self._inbox = Inbox(decode, mesh.work.attempts)
        self._kept = KeptFile(paths.lib / "server-state", self._inbox.dump, mesh.touch)
        self._load()
        self._client = Client(
            self._node,
            TYPES,
            self._inbox,
            connect=lambda: uplink.open_channel(paths.uplink),
            explain=lambda error: uplink.explain(error, paths.uplink, self._server, time.time()),
            taken=self._take,
            changed=mesh.touch,
            heard=self._note_contact,
        )
        self._client.since = self._last_contact()
        mesh.worries += [lambda: self._kept.problem, self._not_renewed, self._clock_problem]

    async def run(self) -> None:
        """Run until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._client.run())
            tasks.create_task(self._tell_for_ever())
            tasks.create_task(self._kept.run())
            tasks.create_task(self._look_for_ever())

    async def _tell_for_ever(self) -> None:
        while True:
            count = self._mesh.settlings
            self._client.tell(self._mesh.roster(self._node))
            await self._mesh.settled_after(count)

    def _note_contact(self) -> None:
        """Ask again for certificates that the server did not give before."""
        self._mesh.contacts += 1
        self._mesh.touch()

    # ---- what the server tells

    def _take(self) -> None:
        self._use()
        self._kept.touch()

    def _use(self) -> None:
        found = (found for url in _KINDS for found in self._inbox.values(url).values())
        closed = {one.key: one for one in self._closed()}
        unserved = closed_hosts(self._inbox.never_good(_RULE))
        self._mesh.store.follow({**closed, **{one.key: one for one in found}}, unserved)
        elsewhere = self._inbox.values(mcp.WORKLOAD).values()
        self._mesh.hear_of(tuple(one for one in elsewhere if one.node != self._node))

    def _closed(self) -> Iterator[Object]:
        """Yield objects in place of refused ones that could open something."""
        for url, full_name in self._inbox.refused:
            namespace, _, name = full_name.partition("/")
            if found := withheld.in_place_of(url.rpartition("/")[2], namespace, name):
                yield found

    def _load(self) -> None:
        try:
            for reason in self._inbox.load(self._kept.path.read_bytes()):
                _log.warning("%s: %s", self._kept.path, reason, extra={"MESHD_EVENT": "record"})
        except FileNotFoundError:
            pass
        except (OSError, MeshdError) as error:
            _log.warning(
                "%s: not usable, so there is no configuration until the server answers: %s",
                *(self._kept.path, error),
                extra={"MESHD_EVENT": "record-lost"},
            )
        self._use()

    async def _look_for_ever(self) -> None:
        """Update the file's time, which says how old it is, whatever becomes of this process."""
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

    # ---- what people ask

    def changed(self, request: wire.Apply | wire.DeleteNamed) -> wire.Message:
        """Accept a request that changes nothing; anything else is the server's. Raises
        InvalidInputError."""
        services = self._mesh.snapshot.services.values()
        return following.answer(self._mesh.store, request, self._server, services)

    def _clock_problem(self) -> str:
        """Return a problem of the clocks; empty if they agree, or the server's is unknown."""
        theirs = self._client.server_time
        return clocks.difference(time.time(), theirs, f"server {self._server}") if theirs else ""

    def _not_renewed(self) -> str:
        own = self._mesh.certificates.get(self._uri)
        why = own.problem if own else ""
        return f"the certificate of this node is not renewed: {why}" if why else ""

    def status(self) -> wire.ControlStatus:
        client = self._client
        certificates = [one for one in self._mesh.certificates.values() if one.expires]
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
            kept_out=tuple(f"{uid}: {why}" for uid, why in client.kept_out.items()),
            ends_first=first.uri if first else "",
            ends_at=rfc3339(first.expires) if first else None,
        )
