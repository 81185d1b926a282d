"""The type of what is decoded from JSON or YAML, and how to read one that has no type of its own.

A value that has one is decoded into that at once; this is for objects that are passed on as they
came, and for answers of other programs of which few fields are read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    Json: TypeAlias = bool | int | float | str | list["Json"] | dict[str, "Json"] | None
else:
    # msgspec takes no recursive types, and passes on what is annotated so.
    Json = Any

JsonObject: TypeAlias = dict[str, Json]


def mapping_in(value: Json) -> JsonObject:
    """Return a mapping; an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def list_in(value: Json) -> list[Json]:
    """Return a list; an empty one for anything else."""
    return value if isinstance(value, list) else []


def text_in(value: Json) -> str:
    """Return a text; an empty one for anything else."""
    return value if isinstance(value, str) else ""


def mapping_at(value: Json, *keys: str) -> JsonObject:
    """Return the mapping below some keys; an empty one where there is none."""
    return mapping_in(value_at(value, *keys))


def value_at(value: Json, *keys: str) -> Json:
    """Return the value below some keys; None where there is none."""
    for key in keys:
        value = mapping_in(value).get(key)
    return value


def list_at(value: Json, *keys: str) -> list[Json]:
    """Return the list below some keys; an empty one where there is none."""
    return list_in(value_at(value, *keys))


def text_at(value: Json, *keys: str) -> str:
    """Return the text below some keys; an empty one where there is none."""
    return text_in(value_at(value, *keys))


def texts_at(value: Json, *keys: str) -> dict[str, str]:
    """Return the mapping of texts to texts below some keys, without values that are no texts."""
    found = mapping_at(value, *keys)
    return {key: part for key, part in found.items() if isinstance(part, str)}
