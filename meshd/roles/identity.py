"""The identity role: serves identity.sock to the mesh role and xds.sock to the proxies."""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Awaitable, Callable
from typing import Final

from meshd import wire
from meshd.api.secret_files import path_problem
from meshd.base import accounts
from meshd.base.attempts import Attempts
from meshd.base.errors import InvalidInputError
from meshd.ca.leaf_files import LeafFiles
from meshd.ca.leaves import Identities
from meshd.ca.standalone import Standalone
from meshd.ca.store import Store
from meshd.fleet.agent.remote import Remote
from meshd.fleet.agent.uplink import Uplink
from meshd.fleet.joining.node import NodeFile
from meshd.fleet.membership.registration_authority import RegistrationAuthority
from meshd.fleet.membership.requests import noting
from meshd.fleet.membership.token_store import TokenStore
from meshd.fleet.server.holders import MACHINE, METADATA
from meshd.node.instance import instance_of, machine
from meshd.sds.ads_proxy import AdsProxy
from meshd.sds.file_secrets import FileSecrets
from meshd.sds.server import Server
from meshd.sds.session_tickets import SessionTickets
from meshd.settings import IdentitySettings, Paths, Settings
from meshd.wire import channel

_FOR_OTHER_NODES: Final = (
    wire.Admit,
    wire.BindNode,
    wire.Certify,
    wire.Enlist,
    wire.RemoveNode,
)
"""What the server role, which talks with them, may ask."""
Answer = Callable[[wire.ToAuthority], Awaitable[wire.Message]]
_SHORTEST_LIFETIME: Final = 2.0
"""Seconds. Certificates count whole ones."""


async def run(settings: Settings, paths: Paths) -> None:
    """Run until cancelled. Raises MeshdError if the role cannot start."""
    chosen = settings.identity
    _check(chosen)
    # A core file would hold every key.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    server = Server()
    directories = chosen.certificate_directories or (str(paths.certificates),)
    files = FileSecrets(directories, server.wanted_files, server.publish_files)
    server.asked = files.wake
    if settings.role == "agent":
        remote, identities = _agent(settings, paths, server, files)
        uplink = Uplink(settings.server, NodeFile(paths.node_file), _instance_metadata(paths))
        await uplink.start(paths.uplink)
    else:
        remote, identities, uplink = None, _authority(settings, paths, server, files), None
    files.tell = identities.tell
    identities.restore()
    tickets = SessionTickets(server.publish_beside)
    tickets.renew()
    ads = AdsProxy(server, paths.plane)
    await server.start(paths.proxy_run / "xds.sock", ads.handler)
    try:
        mesh = accounts.uid_of("mesh", settings.user)
        others = accounts.uid_of("server", settings.user)
        listening = await channel.listen(
            paths.socket("identity"),
            wire.IDENTITY,
            identities.session,
            uids={0, mesh, others},
            only={mesh: (wire.Allow, wire.CheckFiles), others: _FOR_OTHER_NODES},
        )
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(identities.run())
                tasks.create_task(files.run())
                tasks.create_task(tickets.run())
                if remote:
                    tasks.create_task(remote.run())
        finally:
            listening.close()
    finally:
        await server.stop()
        await ads.close()
        if uplink:
            await uplink.stop()


def _authority(settings: Settings, paths: Paths, server: Server, files: FileSecrets) -> Identities:
    """Return the identities of a node with its own authority; a server signs for others, too."""
    chosen = settings.identity
    directory = paths.keys
    signer = Standalone(Store(directory, chosen.trust_domain, chosen.ca_lifetime), time.time())
    attempts = Attempts(paths.own("identity") / "attempts.json")
    registration = RegistrationAuthority(
        signer,
        TokenStore(directory),
        trust_domain=chosen.trust_domain,
        node=settings.node_name,
        lifetime=chosen.certificate_lifetime,
        node_lifetime=chosen.node_certificate_lifetime,
    )
    return Identities(
        signer,
        server.publish,
        paths.allowed,
        lifetime=chosen.certificate_lifetime,
        renew_at=chosen.renew_at,
        files=files.states,
        answer=_answering(
            files,
            noting(attempts, registration.answer) if settings.role == "server" else _no_server,
        ),
        problems=lambda: attempts.problems,
    )


def _agent(
    settings: Settings, paths: Paths, server: Server, files: FileSecrets
) -> tuple[Remote, Identities]:
    """Return the identities of an agent, whose certificates come from its server and are kept on
    disk."""
    chosen = settings.identity
    remote = Remote(
        settings.server,
        NodeFile(paths.node_file),
        renew_at=chosen.renew_at,
        metadata=_instance_metadata(paths),
    )
    identities = Identities(
        remote,
        server.publish,
        paths.allowed,
        lifetime=chosen.certificate_lifetime,
        renew_at=chosen.renew_at,
        kept=LeafFiles(paths.keys / "leaves"),
        others=remote.states,
        files=files.states,
        answer=_answering(files, _no_server),
    )
    remote.changed = identities.tell
    return remote, identities


def _answering(
    files: FileSecrets, otherwise: Answer
) -> Callable[[wire.AboutSecrets], Awaitable[wire.Message]]:
    async def answer(message: wire.AboutSecrets) -> wire.Message:
        if isinstance(message, wire.CheckFiles):
            return wire.CheckedFiles(await files.check(message.names))
        return await otherwise(message)

    return answer


async def _no_server(message: wire.ToAuthority) -> wire.Message:
    asked = wire.CreateToken | wire.ListTokens | wire.DeleteToken | wire.ListNodes
    if isinstance(message, asked):
        raise InvalidInputError(
            "other nodes cannot join this one: it is not a server; set role: server in meshd.yaml, "
            "then systemctl reload meshd"
        )
    raise InvalidInputError(f"the identity role does not take {type(message).__name__}")


def _check(chosen: IdentitySettings) -> None:
    """Raises InvalidInputError."""
    for directory in chosen.certificate_directories:
        if problem := path_problem(directory):
            raise InvalidInputError(f"setting identity.certificate_directories: {problem}")
    if not 0.1 <= chosen.renew_at <= 0.9:
        raise InvalidInputError(
            f"setting identity.renew_at: {chosen.renew_at:g}: must be between 0.1 and 0.9"
        )
    if chosen.certificate_lifetime < _SHORTEST_LIFETIME:
        raise InvalidInputError(
            f"setting identity.certificate_lifetime: {chosen.certificate_lifetime:g}s: must be at "
            f"least {_SHORTEST_LIFETIME:g}s"
        )
    if chosen.ca_lifetime < chosen.certificate_lifetime:
        raise InvalidInputError(
            f"setting identity.ca_lifetime: {chosen.ca_lifetime:g}s: must be longer than "
            f"identity.certificate_lifetime ({chosen.certificate_lifetime:g}s)"
        )


def _instance_metadata(paths: Paths) -> tuple[tuple[str, str], ...]:
    """Return what says to the server which machine this is, and which running of it."""
    return ((METADATA, instance_of(paths.run)), (MACHINE, machine()))
