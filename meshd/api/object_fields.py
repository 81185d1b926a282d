"""Reads the fields that all API objects have, from their JSON form. Pure."""

from __future__ import annotations

from meshd.base.json_values import JsonObject, text_at, texts_at


def api_version_of(found: JsonObject) -> str:
    return text_at(found, "apiVersion")


def kind_of(found: JsonObject) -> str:
    return text_at(found, "kind")


def namespace_of(found: JsonObject) -> str:
    """Return the namespace; empty for what is in none."""
    return text_at(found, "metadata", "namespace")


def name_of(found: JsonObject) -> str:
    return text_at(found, "metadata", "name")


def labels_of(found: JsonObject) -> dict[str, str]:
    return texts_at(found, "metadata", "labels")
