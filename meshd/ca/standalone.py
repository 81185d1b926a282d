"""The node's own authority: it signs with the keys of its store and renews its intermediate."""

from __future__ import annotations

import logging
from typing import Final

from meshd.base.errors import MeshdError
from meshd.ca.authority import Authority, Issued, Request, half_life
from meshd.ca.store import Store

_PAUSE: Final = 60.0
"""Seconds between attempts to renew the intermediate; they begin half its life before its end."""

_log = logging.getLogger(__name__)


class Standalone:
    """A ``Signer``. Opening the store makes the authority if there is none."""

    def __init__(self, store: Store, now: float) -> None:
        """Raises MeshdError when the store cannot be used."""
        self._store = store
        self._authority: Authority = store.open(now)
        self._opened = now

    async def sign(self, request: Request, now: float) -> Issued:
        """Raises MeshdError."""
        return await self.authority(now).sign(request, now)

    def authority(self, now: float) -> Authority:
        """Return the authority to sign with at this moment."""
        if now >= half_life(self._authority.issuer) and now >= self._opened + _PAUSE:
            self._reopen(now)
        return self._authority

    def roots(self) -> bytes:
        return self._authority.roots()

    def _reopen(self, now: float) -> None:
        self._opened = now
        try:
            self._authority = self._store.open(now)
        except MeshdError as error:
            _log.warning(
                "the intermediate CA is not renewed: %s", error, extra={"MESHD_EVENT": "ca"}
            )
