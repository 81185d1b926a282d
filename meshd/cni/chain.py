"""The configuration of a node's container network, with the plugin as the last of its chain. Pure.

A runtime takes the first usable file of its directory, in the order of their names:
https://www.cni.dev/docs/spec/#configuration-format
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import PurePath
from typing import Final

from meshd.base.json_values import Json, JsonObject, list_at, mapping_in, text_at

PLUGIN: Final = "meshd-cni"
"""The plugin's type, which is the name of its program."""
SUFFIXES: Final = (".conf", ".conflist", ".json")
_FROM_PLUGIN: Final = ("cniVersion", "name")
"""Fields of a single plugin's file that belong to the whole list."""


def first(files: Mapping[str, bytes]) -> str:
    """Return the name of the file that a runtime takes; empty if there is none."""
    return next((name for name in sorted(files) if _chain(name, files[name]) is not None), "")


def with_plugin(files: Mapping[str, bytes]) -> dict[str, bytes | None]:
    """Return the files that change so that the plugin is the last of the chain; None: is removed.

    Nothing changes where it is so already, or where there is no network yet.
    """
    name = first(files)
    chain = _chain(name, files[name]) if name else None
    if chain is None:
        return {}
    ours: JsonObject = {"type": PLUGIN}
    wanted: JsonObject = {**chain, "plugins": [*_others(chain), ours]}
    if wanted == chain and name.endswith(".conflist"):
        return {}
    listed = f"{PurePath(name).stem}.conflist"
    changed: dict[str, bytes | None] = {listed: _written(wanted)}
    if listed != name:
        # It comes before the list in the order of names.
        changed |= {name: None, _kept(name): files[name]}
    return changed


def without_plugin(files: Mapping[str, bytes]) -> dict[str, bytes | None]:
    """Return the files that change so that the plugin is in no chain."""
    changed: dict[str, bytes | None] = {}
    for name, content in files.items():
        chain = _chain(name, content)
        if chain is None or _others(chain) == list_at(chain, "plugins"):
            continue
        original = next(
            (kept for suffix in SUFFIXES if (kept := _kept(_with_suffix(name, suffix))) in files),
            "",
        )
        if original:
            restored = original.removesuffix(_ASIDE)
            changed |= {name: None, original: None, restored: files[original]}
        else:
            left: JsonObject = {**chain, "plugins": _others(chain)}
            changed[name] = _written(left)
    return changed


_ASIDE: Final = ".before-meshd"


def _kept(name: str) -> str:
    """Return the name of a copy, which no runtime takes for a configuration."""
    return f"{name}{_ASIDE}"


def _with_suffix(name: str, suffix: str) -> str:
    return str(PurePath(name).with_suffix(suffix))


def _others(chain: JsonObject) -> list[Json]:
    return [one for one in list_at(chain, "plugins") if text_at(one, "type") != PLUGIN]


def _chain(name: str, content: bytes) -> JsonObject | None:
    """Return the list of plugins of a file; None if no runtime takes it."""
    if not name.endswith(SUFFIXES):
        return None
    try:
        value = mapping_in(json.loads(content))
    except (ValueError, RecursionError):
        return None
    if name.endswith(".conflist"):
        usable = text_at(value, "name") and any(map(mapping_in, list_at(value, "plugins")))
        return value if usable else None
    if not text_at(value, "type"):
        return None
    whole = {key: value[key] for key in _FROM_PLUGIN if key in value}
    return {**whole, "plugins": [value]}


def _written(chain: JsonObject) -> bytes:
    return json.dumps(chain, indent=2).encode() + b"\n"
