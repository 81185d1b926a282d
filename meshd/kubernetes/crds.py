"""Istio's kinds as CustomResourceDefinitions, made from the types that meshd reads them with. Pure.

What the API server then refuses is what cannot be read at all: types, unknown fields, and values of
enumerations. The rest is judged by the checks, as of all that comes from the API server.
https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from meshd.api import kinds
from meshd.api.base import Duration, Object
from meshd.base.json_values import Json, JsonObject, list_at, mapping_at, mapping_in, text_at

_REF: Final = "#/"
_KEPT: Final = (
    *("type", "description", "enum", "minimum", "maximum", "minLength", "maxLength"),
    *("minItems", "maxItems"),
)
"""What is the same in a structural schema."""
_ANYTHING: Final[JsonObject] = {"x-kubernetes-preserve-unknown-fields": True}
LABEL: Final = "meshd.io/crds"
"""Tells meshd's definitions from those of another installation, which are left alone."""


def definitions() -> list[JsonObject]:
    """Return a definition of each of Istio's kinds."""
    return [_definition(kind) for kind in kinds.STORED if kind.GROUP]


def _definition(kind: type[Object]) -> JsonObject:
    plural, singular, *short = kind.PLURALS
    names: JsonObject = {
        "kind": kind.KIND,
        "listKind": f"{kind.KIND}List",
        "plural": plural,
        "singular": singular,
        "shortNames": [*short],
        "categories": ["istio-io", kind.GROUP.replace(".", "-")],
    }
    schema = _schema(kind)
    versions: list[Json] = [
        {
            "name": version,
            "served": True,
            "storage": version == kind.VERSIONS[-1],
            "schema": {"openAPIV3Schema": schema},
            "subresources": {"status": {}},
            "additionalPrinterColumns": [
                {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}
            ],
        }
        for version in kind.VERSIONS
    ]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{kind.GROUP}", "labels": {LABEL: "true"}},
        "spec": {
            "group": kind.GROUP,
            "names": names,
            "scope": "Namespaced" if kind.NAMESPACED else "Cluster",
            "versions": versions,
        },
    }


def _schema(kind: type[Object]) -> JsonObject:
    (_,), parts = msgspec.json.schema_components(
        [kind], schema_hook=_scalar, ref_template=f"{_REF}{{name}}"
    )
    whole = mapping_at(parts, kind.__name__, "properties")
    spec = _structural(whole.get("spec"), parts)
    properties: JsonObject = {"spec": spec, "status": {"type": "object", **_ANYTHING}}
    return {"type": "object", "properties": properties}


def _scalar(found: type) -> dict[str, Any]:
    """Return the schema of a type of ours, for msgspec."""
    if found is Duration:
        return {"type": "string"}
    raise NotImplementedError(found)


def _structural(value: Json, parts: Mapping[str, Any]) -> JsonObject:
    """Return a schema without references and alternatives, which the API server does not take."""
    schema = mapping_in(value)
    if name := text_at(schema, "$ref").removeprefix(_REF):
        return _structural(parts[name], parts)
    if "anyOf" in schema:
        return _of_alternatives(list_at(schema, "anyOf"), parts)
    if not text_at(schema, "type") and "enum" not in schema:
        return dict(_ANYTHING)
    made: JsonObject = {key: schema[key] for key in _KEPT if key in schema}
    made.setdefault("type", "string")
    if properties := mapping_at(schema, "properties"):
        made["properties"] = {key: _structural(one, parts) for key, one in properties.items()}
        if required := list_at(schema, "required"):
            made["required"] = required
    elif made["type"] == "object":
        values = schema.get("additionalProperties")
        made |= {"additionalProperties": _structural(values, parts)} if values else _ANYTHING
    if made["type"] == "array":
        made["items"] = _structural(schema.get("items"), parts)
    return made


def _of_alternatives(alternatives: list[Json], parts: Mapping[str, Any]) -> JsonObject:
    """Return a schema for one of several: null is as good as nothing, and a port may be a number or
    a name."""
    found = [one for one in alternatives if text_at(one, "type") != "null"]
    if len(found) == 1:
        return {**_structural(found[0], parts), "nullable": True}
    named = {text_at(one, "type") for one in found}
    if named == {"integer", "string"}:
        return {"x-kubernetes-int-or-string": True}
    if named == {"integer", "number"}:
        return {"type": "number"}
    return dict(_ANYTHING)
