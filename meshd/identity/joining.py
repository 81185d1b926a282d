"""The joining node's end: from a token to credentials. Each way to fail is one line."""

from __future__ import annotations

import asyncio
import hmac
import ssl
import time
from collections.abc import Callable
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from meshd.errors import InvalidInputError, MeshdError, UnreachableError
from meshd.identity import authority, join, tokens
from meshd.identity.join import ALPN, AskRoots, AskToJoin, MeshFacts, Message, Roots, Welcome
from meshd.identity.node import (
    SERVER_NAME,
    Credentials,
    checked_name,
    new_request,
    node_uri,
    private_pem,
)
from meshd.identity.tokens import Token, show_time

_TIMEOUT: Final = 10.0
"""Seconds for each of the two questions."""
_CLOCK_TOLERANCE: Final = 60.0
"""Seconds by which two clocks may differ; certificates allow for twice that."""
_NOT_YET_VALID: Final = 9  # X509_V_ERR_CERT_NOT_YET_VALID, x509_vfy.h
_EXPIRED: Final = 10  # X509_V_ERR_CERT_HAS_EXPIRED

Address = tuple[str, int]


async def join_mesh(
    server: Address, token_text: str, node: str, *, clock: Callable[[], float] = time.time
) -> tuple[Credentials, MeshFacts]:
    """Raises MeshdError. The token is used up only when the server has answered with a welcome."""
    token = tokens.parse(token_text)
    checked_name(node)
    root, facts_of_clock = await _pinned_root(server, token)
    _check_clock(server, facts_of_clock, root, clock())
    context = _verified(root)
    key = authority.new_key()
    trust_domain = await _trust_domain(server, context)
    uri = node_uri(trust_domain, node)
    request = new_request(key, uri).public_bytes(Encoding.PEM).decode()
    answer = await _ask(server, context, AskToJoin(token_text, node, request))
    if not isinstance(answer, Welcome):
        raise _unexpected(server, answer)
    chain = answer.chain.encode()
    credentials = Credentials(private_pem(key), chain, answer.roots.encode())
    if credentials.leaf.public_key() != key.public_key() or credentials.uri != uri:
        raise InvalidInputError(f"server {_show(server)} answered with somebody else's certificate")
    return credentials, answer.facts
