"""One rule of iptables, as iptables-save prints it. Pure."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterator
from typing import Final


class Family(enum.Enum):
    IPV4 = 4
    IPV6 = 6

    @property
    def label(self) -> str:
        return f"ipv{self.value}"


@dataclasses.dataclass(frozen=True, slots=True)
class Option:
    """An option: ``--name values``, or ``! --name values``."""

    name: str
    values: tuple[str, ...]
    inverted: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Extension:
    """A match or a target with its options."""

    name: str
    options: tuple[Option, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule. ``str(rule)`` is what iptables-save prints of it after ``-A CHAIN``."""

    target: Extension
    protocol: str = ""
    source: str = ""
    destination: str = ""
    in_interface: str = ""
    """A leading ``!`` inverts, here and in ``out_interface``."""
    out_interface: str = ""
    matches: tuple[Extension, ...] = ()

    def __str__(self) -> str:
        words = [
            *_flag("-s", self.source),
            *_flag("-d", self.destination),
            *_flag("-i", self.in_interface),
            *_flag("-o", self.out_interface),
            *_flag("-p", self.protocol),
        ]
        for match in self.matches:
            words += ["-m", match.name, *_option_words(match)]
        return " ".join([*words, "-j", self.target.name, *_option_words(self.target)])


def _flag(flag: str, value: str) -> list[str]:
    if not value:
        return []
    return ["!", flag, value[1:]] if value.startswith("!") else [flag, value]


def _option_words(extension: Extension) -> Iterator[str]:
    for option in extension.options:
        if option.inverted:
            yield "!"
        yield "--" + option.name
        quoted = option.name in _QUOTED
        yield from (f'"{value}"' for value in option.values) if quoted else option.values


_QUOTED: Final = frozenset({"path", "comment"})
"""Options whose values iptables-save quotes, as it does with all that has more than letters."""
