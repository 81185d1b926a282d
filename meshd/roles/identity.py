"""The identity role: serves identity.sock to the mesh role and sds.sock to the proxies."""

from __future__ import annotations

import resource
import time
from typing import Final

from meshd import channel
from meshd.errors import InvalidInputError
from meshd.identity.sds import Server
from meshd.identity.service import Identities
from meshd.identity.standalone import Standalone
from meshd.identity.store import Store
from meshd.settings import IdentitySettings, Paths, Settings

_SHORTEST_LIFETIME: Final = 2.0
"""Seconds. Certificates count whole ones."""


async def run(settings: Settings, paths: Paths) -> None:
    """Until cancelled. Raises MeshdError when it cannot start."""
    chosen = settings.identity
    _check(chosen)
    # A core file would hold every key.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    store = Store(paths.lib / "identity", chosen.trust_domain, chosen.ca_lifetime)
    server = Server()
    identities = Identities(
        Standalone(store, time.time()),
        server.publish,
        paths.run / "identities.json",
        lifetime=chosen.certificate_lifetime,
        renew_at=chosen.renew_at,
    )
    identities.restore()
    await server.start(paths.proxy_run / "sds.sock")
    try:
        listening = await channel.listen(
            paths.socket("identity"), identities.session, uids=channel.own_uids()
        )
        try:
            await identities.run()
        finally:
            listening.close()
    finally:
        await server.stop()


def _check(chosen: IdentitySettings) -> None:
    """Raises InvalidInputError."""
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
