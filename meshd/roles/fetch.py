"""The process that asks an issuer for its keys: ``python -m meshd.roles.fetch``, a question on
standard input, an answer on standard output.

It is started for one question, has the rights of a stranger, and is killed when it takes too long.
"""

from __future__ import annotations

import asyncio
import os
import sys

import msgspec

from meshd.issuers.fetching import fetched
from meshd.model.issuer import KeyQuestion
from meshd.proxy.launch import confine
from meshd.roles import NOT_FOR_ROLES


def main() -> None:
    confine(*NOT_FOR_ROLES)
    question = msgspec.json.decode(sys.stdin.buffer.read(), type=KeyQuestion)
    answer = asyncio.run(fetched(question))
    sys.stdout.buffer.write(msgspec.json.encode(answer))
    sys.stdout.flush()
    # A look-up that hangs in a thread would keep this process.
    os._exit(0)


if __name__ == "__main__":
    main()
