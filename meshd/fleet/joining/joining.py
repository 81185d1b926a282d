"""The joining node's end: from a token to credentials. Each failure is one line."""

from __future__ import annotations

import asyncio
import hmac
import socket
import ssl
import time
from collections.abc import Callable
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from meshd.base.credentials import UNREADABLE
from meshd.base.errors import InvalidInputError, MeshdError, UnreachableError
from meshd.base.moments import date
from meshd.ca import answers, authority
from meshd.fleet.joining import clocks, join
from meshd.fleet.joining.facts import MeshFacts
from meshd.fleet.joining.join import ALPN, AskRoots, AskToJoin, Message, Roots, Welcome
from meshd.fleet.joining.node import (
    SERVER_NAME,
    Credentials,
    checked_name,
    new_request,
    node_uri,
    private_pem,
)
from meshd.fleet.membership import tokens
from meshd.fleet.membership.tokens import Token

_TIMEOUT: Final = 10.0
"""Seconds for each step of the two questions."""
_NOT_YET_VALID: Final = 9  # X509_V_ERR_CERT_NOT_YET_VALID, x509_vfy.h
_EXPIRED: Final = 10  # X509_V_ERR_CERT_HAS_EXPIRED

Address = tuple[str, int]


async def join_mesh(
    server: Address, token_text: str, node: str, *, clock: Callable[[], float] = time.time
) -> tuple[Credentials, MeshFacts]:
    """Raises MeshdError. Until the second connection is verified, the token stays here."""
    token = tokens.parse(token_text)
    checked_name(node)
    told = await ask_roots(server)
    root = _pinned(server, told, token)
    _check_clock(server, told, root, clock())
    key = authority.new_key()
    uri = node_uri(told.trust_domain, node)
    csr = new_request(key, uri)
    text = csr.public_bytes(Encoding.PEM).decode()
    answer = await _ask(server, _verifying(root), AskToJoin(token.text, node, text))
    if not isinstance(answer, Welcome):
        raise _unexpected(server, answer)
    chain, roots = answer.chain.encode(), answer.roots.encode()
    try:
        answers.check(csr, chain, roots)
    except InvalidInputError as error:
        raise InvalidInputError(f"{show(server)}: {error}") from None
    return Credentials(private_pem(key), chain, roots), answer.facts


async def ask_roots(server: Address) -> Roots:
    """Ask a server for its roots; nothing of the answer may be trusted yet."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    answer = await _ask(server, context, AskRoots())
    if not isinstance(answer, Roots):
        raise _unexpected(server, answer)
    return answer


def _pinned(server: Address, told: Roots, token: Token) -> x509.Certificate:
    try:
        found = x509.load_pem_x509_certificates(told.pem.encode())
    except UNREADABLE:
        raise InvalidInputError(f"{show(server)} has no usable root certificate") from None
    for root in found:
        if hmac.compare_digest(tokens.pin_of(root.public_bytes(Encoding.DER)), token.pin):
            return root
    raise InvalidInputError(
        f"{show(server)} has another certificate authority than the one that the token names: "
        "the token is another server's, or the connection is intercepted; nothing was handed over"
    )


def _check_clock(server: Address, told: Roots, root: x509.Certificate, now: float) -> None:
    """Blame the clock if it is what makes certificates invalid."""
    if problem := clocks.difference(now, told.now, show(server)):
        raise InvalidInputError(problem)
    begins = root.not_valid_before_utc.timestamp()
    if now < begins:
        raise InvalidInputError(_not_yet(server, date(begins), now))


def _not_yet(server: Address, begins: str, now: float) -> str:
    return (
        f"{show(server)}: its certificate is valid from {begins} only, and this host's clock says "
        f"{date(now)}: set the clock that is wrong"
    )


def _verifying(root: x509.Certificate) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cadata=root.public_bytes(Encoding.PEM).decode())
    return context


async def _ask(server: Address, context: ssl.SSLContext, question: Message) -> Message:
    """Raises UnreachableError, InvalidInputError."""
    try:
        line = await asyncio.to_thread(_answer_of, server, context, join.encode(question))
    except TimeoutError:
        raise UnreachableError(
            f"{show(server)} did not answer within {_TIMEOUT:g} s: check the address and the "
            "firewalls in between"
        ) from None
    except ssl.SSLCertVerificationError as error:
        raise _not_verified(server, error) from None
    except (ssl.SSLError, ConnectionResetError, ValueError) as error:
        raise UnreachableError(
            f"{show(server)} is not a meshd server that nodes can join ({_reason(error)})"
        ) from None
    except OSError as error:
        raise UnreachableError(f"{show(server)} cannot be reached: {_reason(error)}") from None
    if not line:
        raise UnreachableError(f"{show(server)} closed the connection without an answer; try again")
    return join.decode(line)


def _answer_of(server: Address, context: ssl.SSLContext, question: bytes) -> bytes:
    """Ask in a thread: the asyncio of some of our processes speaks no TLS (``meshd.__main__``)."""
    context.set_alpn_protocols([ALPN])
    with (
        socket.create_connection(server, _TIMEOUT) as plain,
        context.wrap_socket(plain, server_hostname=SERVER_NAME) as connection,
        connection.makefile("rb") as answer,
    ):
        connection.sendall(question)
        line = answer.readline(join.LIMIT)
    if len(line) == join.LIMIT:
        raise ValueError("its answer has no end")
    return line


def _not_verified(server: Address, error: ssl.SSLCertVerificationError) -> MeshdError:
    if error.verify_code in {_NOT_YET_VALID, _EXPIRED}:
        what = "not valid yet" if error.verify_code == _NOT_YET_VALID else "expired"
        return InvalidInputError(
            f"{show(server)}: its certificate is {what} by this host's clock "
            f"({date(time.time())}): set the clock that is wrong"
        )
    return InvalidInputError(
        f"{show(server)}: its certificate is not one of the authority that the token names "
        f"({error.verify_message}); nothing was handed over"
    )


def _unexpected(server: Address, answer: Message) -> MeshdError:
    if isinstance(answer, join.Refused):
        return InvalidInputError(f"{show(server)} refused: {answer.reason}")
    return UnreachableError(f"{show(server)} speaks another version of meshd")


def show(server: Address) -> str:
    host, port = server
    return f"server [{host}]:{port}" if ":" in host else f"server {host}:{port}"


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
