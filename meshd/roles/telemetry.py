"""The telemetry role: listens on an address and serves metrics and the web page."""

from __future__ import annotations

import contextlib
import logging

from meshd.settings import Paths, Settings
from meshd.telemetry.page import make_app
from meshd.telemetry.server import bind, serve

_log = logging.getLogger(__name__)


async def run(settings: Settings, paths: Paths) -> None:
    """Run until cancelled. Raises SystemRefusedError if the address is not available."""
    wanted = settings.telemetry
    with contextlib.closing(bind(wanted.address, wanted.port)) as listener:
        port = listener.getsockname()[1]
        paths.telemetry_port.parent.mkdir(parents=True, exist_ok=True)
        paths.telemetry_port.write_text(f"{port}\n", encoding="ascii")
        _log.info("serving http://%s:%d/", wanted.address, port, extra={"MESHD_EVENT": "listening"})
        await serve(make_app(settings, paths), listener)
