"""Bytes that resemble valid ones: altered, cut, repeated, or put together of two. Pure."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Final

LONGEST: Final = 64 * 1024
"""Bytes of an input."""
_WORDS: Final = (
    *(b"\0", b"\xff", b"\r\n", b"\n\n", b"\xc2\xb2", b"\xe2\x80\xa8", b"\xed\xa0\x80", b"\x1b[2J"),
    *(b"-1", b"0", b"65536", b"4294967296", b"18446744073709551616", b"1e999", b"NaN", b"Infinity"),
    *(
        b"9" * 5000,
        b"&a ",
        b"*a",
        b"<<: ",
        b"{",
        b"}",
        b"[",
        b"]",
        b"[[[[",
        b": ",
        b"- ",
        b"!!int ",
    ),
    *(b'"', b"'", b"\\u0000", b"\\ud800", b"null", b"%", b"%00", b"..", b"/", b"//", b"@", b"|"),
    *(b"=", b",", b"~", b" ", b"\t", b"(", b")", b"*", b"-", b"#", b"[::1]", b"::ffff:1.2.3.4"),
    *(b"---\n", b"-----BEGIN CERTIFICATE-----\n", b"-----END CERTIFICATE-----\n", b"\x80\x80\x80"),
)
_NUMBERS: Final = (0, 1, 0x7F, 0x80, 0xFE, 0xFF)
_EDITS: Final = (1, 1, 1, 2, 3, 8, 20)


def mutated(seeds: Sequence[bytes], rng: random.Random) -> bytes:
    """One of the seeds after some edits. Now and then it is not changed at all."""
    data = bytearray(rng.choice(seeds))
    if rng.random() < 0.01:
        return bytes(data)
    for _ in range(rng.choice(_EDITS)):
        rng.choice(_WAYS)(data, seeds, rng)
    return bytes(data[:LONGEST])


def grown(seed: bytes, size: int) -> Iterator[bytes]:
    """Inputs of about that many bytes: parts of ``seed`` and single words, repeated inside it."""
    middle = len(seed) // 2
    parts = {seed, seed[middle:], *seed.splitlines(keepends=True)[:8], *_WORDS}
    parts |= {bytes([byte]) for byte in b"\0a1 .,:;=-/*([{\"'\n\xff"}
    for part in sorted(parts - {b""}):
        count = max(1, size // len(part))
        yield seed[:middle] + part * count + seed[middle:]
        yield part * count


def _set_byte(data: bytearray, _: Sequence[bytes], rng: random.Random) -> None:
    if data:
        data[rng.randrange(len(data))] = rng.choice((*_NUMBERS, rng.randrange(256)))


def _flip_bit(data: bytearray, _: Sequence[bytes], rng: random.Random) -> None:
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _delete(data: bytearray, _: Sequence[bytes], rng: random.Random) -> None:
    at = rng.randrange(len(data) + 1)
    del data[at : at + rng.choice((1, 2, 4, 16, 64))]


def _cut(data: bytearray, _: Sequence[bytes], rng: random.Random) -> None:
    del data[rng.randrange(len(data) + 1) :]


def _repeat(data: bytearray, _: Sequence[bytes], rng: random.Random) -> None:
    at = rng.randrange(len(data) + 1)
    data[at:at] = data[at : at + rng.randrange(1, 40)] * rng.choice((1, 1, 2, 20))


def _insert_word(data: bytearray, _: Sequence[bytes], rng: random.Random) -> None:
    at = rng.randrange(len(data) + 1)
    data[at : at + rng.choice((0, 0, 1, 4))] = rng.choice(_WORDS)


def _splice(data: bytearray, seeds: Sequence[bytes], rng: random.Random) -> None:
    other = rng.choice(seeds)
    at, start = rng.randrange(len(data) + 1), rng.randrange(len(other) + 1)
    data[at:] = other[start:]


_WAYS: Final[Sequence[Callable[[bytearray, Sequence[bytes], random.Random], None]]] = (
    *(_set_byte, _flip_bit, _delete, _repeat, _insert_word, _insert_word, _splice),
    _cut,
)
