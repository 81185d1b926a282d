"""Fetches a set of keys over HTTP, from an address that may be asked.

Each address of a host is looked at, and the connection is opened to one of them, so that no second
look-up leads elsewhere. The same holds for each redirection, and for what an issuer's configuration
names.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import urllib.parse
from collections.abc import Iterable
from typing import Final

import msgspec

from meshd.api.request_authentication.checks import uri_problem
from meshd.api.request_authentication.discovery import configured_issuer, is_configuration
from meshd.api.request_authentication.key_sets import LONGEST, NoKeySetError, key_set
from meshd.base import http, own_addresses
from meshd.base.errors import UNDECODABLE, MeshdError, UnreachableError
from meshd.issuers.addresses import refusal
from meshd.model.issuer import KeyAnswer, KeyQuestion

_MOST_REDIRECTIONS: Final = 3
_REDIRECTIONS: Final = frozenset({301, 302, 303, 307, 308})
_OK: Final = 200


async def fetched(question: KeyQuestion) -> KeyAnswer:
    """Return the keys, or why there are none."""
    try:
        async with asyncio.timeout(question.seconds):
            return KeyAnswer(keys=await _keys(question))
    except TimeoutError:
        return KeyAnswer(problem=f"there is no whole answer within {question.seconds:g} s")
    except NoKeySetError as error:
        return KeyAnswer(problem=f"the answer {error}")
    except OSError as error:
        return KeyAnswer(problem=_told(error))
    except MeshdError as error:
        return KeyAnswer(problem=str(error))


def _told(error: OSError) -> str:
    if error.errno and not isinstance(error, ssl.SSLError | socket.gaierror):
        return os.strerror(error.errno)
    return str(error.strerror or error)


async def _keys(question: KeyQuestion) -> str:
    url = question.url
    if is_configuration(url):
        url = configured(await _body(url, question), url)
    try:
        text = (await _body(url, question)).decode()
    except UnicodeDecodeError:
        raise NoKeySetError("is no JSON Web Key Set: it is no UTF-8") from None
    return key_set(text).text


class _Configuration(msgspec.Struct, frozen=True):
    issuer: str
    jwks_uri: str


def configured(body: bytes, url: str) -> str:
    """Return the URL of keys that an issuer's configuration names. Raises UnreachableError."""
    try:
        found = msgspec.json.decode(body, type=_Configuration)
    except UNDECODABLE as error:
        raise UnreachableError(f"{url} is no configuration of an issuer: {error}") from None
    if found.issuer.rstrip("/") != configured_issuer(url):
        raise UnreachableError(f"{url} is the configuration of another issuer")
    return _next(url, found.jwks_uri)


def _next(url: str, location: str) -> str:
    """Return where a URL leads. Raises UnreachableError if nobody should go there."""
    found = urllib.parse.urljoin(url, location)
    if problem := uri_problem(found):
        raise UnreachableError(f"{url} leads elsewhere: {problem}")
    if url.startswith("https:") and not found.startswith("https:"):
        raise UnreachableError(f"{url} leads to {found[:100]}, which is not https")
    return found


async def _body(url: str, question: KeyQuestion) -> bytes:
    """Raises OSError and UnreachableError."""
    for _ in range(_MOST_REDIRECTIONS + 1):
        parts: list[bytes] = []
        status, location = await _ask(url, question, parts)
        if status in _REDIRECTIONS and location:
            url = _next(url, location)
        elif status == _OK:
            return b"".join(parts)
        else:
            raise UnreachableError(f"{url[:200]} answers {status}")
    raise UnreachableError(f"more than {_MOST_REDIRECTIONS} redirections")


async def _ask(url: str, question: KeyQuestion, parts: list[bytes]) -> tuple[int, str]:
    found = urllib.parse.urlsplit(url)
    host, is_tls = found.hostname or "", found.scheme == "https"
    port = found.port or (443 if is_tls else 80)
    addresses = await _addresses(host, port, question)
    context = _context(question.authorities) if is_tls else None
    reader, writer = await _connect(addresses, port, host, context)
    target = urllib.parse.urlunsplit(("", "", found.path or "/", found.query, ""))
    try:
        return await http.get(reader, writer, found.netloc, target, parts.append, most=LONGEST)
    finally:
        writer.close()


async def _addresses(host: str, port: int, question: KeyQuestion) -> tuple[str, ...]:
    """Return the addresses of a host, all of which may be asked. Raises OSError and
    UnreachableError."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = tuple(dict.fromkeys(str(one[4][0]) for one in found))
    own = own_addresses.every()
    for address in addresses:
        if why := refusal(address, question.reach, own):
            raise UnreachableError(f"{host} is not asked: {why}")
    return addresses


async def _connect(
    addresses: Iterable[str], port: int, host: str, context: ssl.SSLContext | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    last: OSError = OSError("no address")
    for address in addresses:
        try:
            if context is None:
                return await asyncio.open_connection(address, port)
            return await asyncio.open_connection(address, port, ssl=context, server_hostname=host)
        except OSError as error:
            last = error
    raise last


def _context(authorities: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if authorities:
        try:
            context.load_verify_locations(authorities)
        except OSError as error:
            raise UnreachableError(f"{authorities}: {error.strerror or error}") from None
    return context
