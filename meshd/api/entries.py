"""The objects of a document as they are written, before they are typed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from meshd.api import kinds, retired
from meshd.api.base import Key, ObjectMeta
from meshd.api.decode import Path
from meshd.api.finding import Finding
from meshd.api.yaml import Document
from meshd.base.json_values import Json, JsonObject, mapping_in, text_in


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One object as it is written, before it is typed."""

    document: Document
    at: Path
    value: Json

    @property
    def fields(self) -> JsonObject:
        """Return the fields of the object; none if it is not a mapping."""
        return mapping_in(self.value)

    @property
    def api_version(self) -> str:
        return text_in(self.fields.get("apiVersion"))

    @property
    def kind(self) -> str:
        return text_in(self.fields.get("kind"))

    @property
    def is_retired(self) -> bool:
        return retired.is_policy(self.api_version, self.kind)

    def finding(
        self, path: Path, message: str, meta: ObjectMeta | None = None, severity: str = "error"
    ) -> Finding:
        """Return a finding; ``meta`` is the object's metadata as far as it is known."""
        meta = meta or self.rough_meta()
        about = Key(self.kind, meta.namespace, meta.name)
        return self.document.finding(self.at, path, message, about, severity)

    def rough_meta(self) -> ObjectMeta:
        """Return the name, as far as it can be read, for messages."""
        metadata = mapping_in(self.fields.get("metadata"))
        return ObjectMeta(
            name=text_in(metadata.get("name")), namespace=text_in(metadata.get("namespace"))
        )


def entries_of(document: Document) -> Iterator[Entry]:
    """Yield the objects of a document: itself, or the items of a list. Raises ManifestError.

    ``get -o json`` prints a List; several objects may also be a sequence of YAML.
    """
    for at, value in _placed(document):
        yield Entry(document, at, value)


def _placed(document: Document) -> Iterator[tuple[Path, Json]]:
    value = document.value
    if isinstance(value, list):
        yield from (((index,), item) for index, item in enumerate(value))
        return
    own = _kind_of_items(value) if isinstance(value, dict) else None
    if not isinstance(value, dict) or own is None:
        yield (), value
        return
    items = value.get("items")
    if not isinstance(items, list | None):
        raise document.error(("items",), f"the items of a {value['kind']} are a list")
    head: JsonObject = {"apiVersion": value.get("apiVersion"), "kind": own} if own else {}
    for index, item in enumerate(items or ()):
        yield ("items", index), {**head, **item} if isinstance(item, dict) else item


def _kind_of_items(value: JsonObject) -> str | None:
    """Return the kind of a list's items; empty if each item says its own, None if it is no list.

    Kubernetes' API returns a VirtualServiceList, for example, whose items say no kind.
    """
    kind = value.get("kind")
    if not isinstance(kind, str) or not kind.endswith("List"):
        return None
    own = kind.removesuffix("List")
    return own if not own or own in {known.KIND for known in kinds.ALL} else None
