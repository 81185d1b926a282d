"""Values of a type as strangers make them: most of each is right, so that the rest gets far."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Sequence
from typing import Any, Final

from msgspec import inspect

from meshd.api.base import Duration

TEXTS: Final = (
    *("web", "db", "shop", "default", "v1", "http", "tcp-raw", "grpc-x", "app", "edge", "a.test"),
    *("*", "*.test", ".", "~", "mesh", "web.shop", "web.shop.svc.cluster.local", "shop/web"),
    *("198.18.0.9", "198.18.0.0/16", "fd00:198::9", "0.0.0.0/0", "/a/b", "a|b", "region/zone/sub"),
    *("HTTP", "HTTPS", "TLS", "GET", "spiffe://cluster.local/ns/shop/sa/web", "x-user", "https"),
    *("5xx,reset", "UNAVAILABLE", "a.*[0-9]+", "(?i)x", "topology.kubernetes.io/zone", "None"),
    *("2026-11-29T00:00:00Z", "kubernetes.io/tls", "aGFsbG8=", "%REQ(:path)%", "{a}", "host:80"),
    *("cluster.local/ns/shop/sa/web", "/a/{*}/b", "/{**}", "source.ip", "request.headers[x-a]"),
    *("destination.port", "source.principal", "remote.ip", "x*", "*x"),
)
BAD_TEXTS: Final = (
    *("", " ", "\0", "\n", "a\nb", "\x1b]0;x\x07", "\u202e", "\x9b31m", "\x7f", "\ud800", "\udcff"),
    *("İ", "ß", "\U0001f9ff", "a" * 64, "a" * 300, "x." * 200, "-a", "a-", "_", "..", "../../etc"),
    *("%s", "%", "%%", "%REQ(", "{{", "}", "(", "[", "(a{1000}){1000}", "\\", "'", '"', "#", ","),
    *("256.0.0.1", "1.2.3.4/33", "::ffff:1.2.3.4", "fe80::1%eth0", "127.0.0.1", "0.0.0.0", "::"),
    *("99999-12-31T00:00:00Z", "0000-00-00T00:00:00Z", "NaN", "1e999", "unix:/x", "*.*", "**"),
    *("=", "A" * 5000, "a/b/c/d", "http://[", "spiffe://", "kubernetes://", "\u2028", "a\tb", "@"),
)
NUMBERS: Final = (0, 1, 2, 5, 20, 80, 100, 200, 301, 443, 503, 8080, 65535)
BAD_NUMBERS: Final = (
    *(-1, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64, 10**30),
    *(-(2**31), -(2**63), -(10**30)),
)
FLOATS: Final = (0.0, 0.1, 1.0, 20.0, 50.0, 99.9, 100.0)
BAD_FLOATS: Final = (-0.1, 1e-320, 1e308, 3.5e38, float("inf"), float("-inf"), float("nan"))
DURATIONS: Final = ("0s", "1ms", "1.5s", "10s", "1h", "1h30m")
BAD_DURATIONS: Final = (
    *("1ns", "0.1ms", "-1s", "9999999999999999h", "2562047h", "4294967296s", "315576000001s", "s"),
    *("1e9s", "1", "1 s", "9" * 400 + "s", "1s" * 5000, "0." + "0" * 400 + "1s"),
)


class Maker:
    """``badness``: how likely each part is wrong in some way."""

    def __init__(self, rng: random.Random, badness: float = 0.02) -> None:
        self._rng = rng
        self._badness = badness
        self._made: dict[type, Callable[[Any, int], Any]] = {
            inspect.IntType: lambda _, __: self._pick(NUMBERS, BAD_NUMBERS),
            inspect.FloatType: lambda _, __: self._pick(FLOATS, BAD_FLOATS),
            inspect.BoolType: lambda _, __: rng.random() < 0.5,
            inspect.StrType: lambda _, __: self._pick(TEXTS, BAD_TEXTS),
            inspect.NoneType: lambda _, __: None,
            inspect.AnyType: self._anything,
            inspect.LiteralType: lambda info, _: rng.choice(info.values),
            inspect.EnumType: lambda info, _: rng.choice([one.value for one in info.cls]),
            inspect.CustomType: self._custom,
            inspect.StructType: self._struct,
            inspect.DictType: self._dict,
            inspect.VarTupleType: self._list,
            inspect.ListType: self._list,
            inspect.TupleType: lambda info, depth: [self.of(one, depth) for one in info.item_types],
            inspect.UnionType: lambda info, depth: self.of(rng.choice(info.types), depth),
            inspect.Metadata: lambda info, depth: self.of(info.type, depth),
            inspect.BytesType: lambda _, __: self._pick(TEXTS, BAD_TEXTS),
        }

    def make(self, kind: Any) -> Any:
        return self.of(_info(kind), 0)

    def altered(self, kind: Any, value: Any) -> Any:
        """``value``, which is valid, but for one part of it, at whatever depth."""
        return self._altered(_info(kind), value, 0)

    def _altered(self, info: Any, value: Any, depth: int) -> Any:
        if isinstance(info, inspect.UnionType | inspect.Metadata):
            types = info.types if isinstance(info, inspect.UnionType) else (info.type,)
            info = next((one for one in types if _suits(one, value)), types[0])
        inside = _inside(info, value)
        if not inside or self._rng.random() < (0.02 if depth < 2 else 0.2):
            return self.of(info, depth)
        key, part = self._rng.choice(inside)
        if isinstance(value, list):
            changed = [*value]
            changed[key] = self._altered(part, value[key], depth + 1)
            return changed
        return {**value, key: self._altered(part, value.get(key), depth + 1)}

    def of(self, info: Any, depth: int) -> Any:
        if self._rng.random() < self._badness / 4:
            return self._anything(info, depth)
        return self._made[type(info)](info, depth)

    def _pick(self, good: Sequence[Any], bad: Sequence[Any]) -> Any:
        return self._rng.choice(bad if self._rng.random() < self._badness else good)

    def _custom(self, info: Any, _: int) -> Any:
        assert info.cls is Duration
        return self._pick(DURATIONS, BAD_DURATIONS)

    def _struct(self, info: Any, depth: int) -> dict[str, Any]:
        likely = 0.6 if depth < 3 else 0.25
        made = {
            field.encode_name: self.of(field.type, depth + 1)
            for field in info.fields
            if field.required or self._rng.random() < likely
        }
        if self._rng.random() < self._badness / 4:
            made[self._pick(TEXTS, BAD_TEXTS)] = self._anything(info, depth)
        return made

    def _dict(self, info: Any, depth: int) -> dict[Any, Any]:
        return {
            self._key(info.key_type): self.of(info.value_type, depth + 1)
            for _ in range(self._rng.choice((0, 1, 1, 2)))
        }

    def _key(self, info: Any) -> str:
        if isinstance(info, inspect.IntType):
            return str(self._pick(NUMBERS, BAD_NUMBERS))
        return self._pick(TEXTS, BAD_TEXTS)

    def _list(self, info: Any, depth: int) -> list[Any]:
        return [
            self.of(info.item_type, depth + 1) for _ in range(self._rng.choice((0, 1, 1, 1, 2)))
        ]

    def _anything(self, _: Any, depth: int) -> Any:
        return self._rng.choice(
            (
                *(None, True, [], {}, [[]], {"a": {}}, self._rng.choice(BAD_NUMBERS)),
                *(self._rng.choice(BAD_FLOATS), self._rng.choice(BAD_TEXTS)),
                _deep(self._rng.choice((3, 70, 2000))) if depth < 4 else 1.5,
            )
        )


def _suits(info: Any, value: Any) -> bool:
    if isinstance(value, dict):
        return isinstance(info, inspect.StructType | inspect.DictType)
    if isinstance(value, list):
        return isinstance(info, inspect.VarTupleType | inspect.ListType)
    return not isinstance(info, inspect.NoneType)


def _inside(info: Any, value: Any) -> list[tuple[Any, Any]]:
    """Keys of its parts, or of those that it may have, with the types of each."""
    if isinstance(info, inspect.StructType) and isinstance(value, dict):
        return [(field.encode_name, field.type) for field in info.fields]
    if isinstance(info, inspect.DictType) and isinstance(value, dict):
        return [(key, info.value_type) for key in value]
    if isinstance(info, inspect.VarTupleType | inspect.ListType) and isinstance(value, list):
        return [(index, info.item_type) for index in range(len(value))]
    return []


_info = functools.cache(inspect.type_info)


def _deep(levels: int) -> Any:
    value: Any = {}
    for _ in range(levels):
        value = [value]
    return value
