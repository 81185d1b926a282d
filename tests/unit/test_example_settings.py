"""etc/meshd.yaml shows every setting with its default: it cannot drift from settings.py."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import msgspec

from meshd.api.base import encode_scalar
from meshd.api.yaml import decode, read_documents
from meshd.settings import Settings, load

EXAMPLE: Final = Path(__file__).parent.parent.parent / "etc" / "meshd.yaml"


def uncommented() -> Any:
    """The file with its keys put in force; prose has a space after the number sign."""
    text = re.sub(r"^( *)#(?=[a-z0-9_]+:)", r"\1", EXAMPLE.read_text(encoding="utf-8"), flags=re.M)
    (document,) = read_documents(text, str(EXAMPLE))
    return document


def keys(value: Any, prefix: str = "") -> set[str]:
    if not isinstance(value, dict):
        return {prefix}
    return {found for key, part in value.items() for found in keys(part, f"{prefix}.{key}")}


def test_the_example_as_it_stands_changes_nothing() -> None:
    assert load(EXAMPLE) == Settings()


def test_every_value_in_the_example_is_the_default() -> None:
    document = uncommented()
    assert decode(document, document.value, Settings) == Settings()


def test_every_setting_is_in_the_example() -> None:
    assert keys(uncommented().value) == keys(
        msgspec.to_builtins(Settings(), enc_hook=encode_scalar)
    )
