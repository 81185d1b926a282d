"""A child that a test forks says what it has to say where a child of meshd does: on stderr."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import sys

from meshd.capture.rules import inside


def test_what_a_child_says_goes_into_none_of_its_sockets() -> None:
    def said() -> list[bytes]:
        pairs = [socket.socketpair() for _ in range(20)]
        logging.getLogger("meshd").warning("it is slow")
        print("it is odd", file=sys.stderr)
        print("it is done")
        found: list[bytes] = []
        for one in (end for pair in pairs for end in pair):
            one.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                found.append(one.recv(1000))
        return found

    assert asyncio.run(inside.run_in_host(said)) == []
