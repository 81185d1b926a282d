"""What all API objects share: metadata, the registry of kinds, and scalar types.

Fields are the API's own JSON names in snake case (``matchLabels`` is ``match_labels``). Unknown
fields are errors in Istio's kinds, and ignored in Kubernetes' (see ``Ignoring``).
"""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Final

import msgspec

NETWORKING_VERSIONS = ("v1alpha3", "v1beta1", "v1")
"""Of networking.istio.io; the kinds are the same in all of them."""

_DURATION_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(h|ms|us|µs|ns|m|s)")
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}


LONGEST: Final = 9_223_372_035
"""Seconds: 64 bits of nanoseconds, which is what Go, and so Istio's API, can hold; Envoy refuses
the last of these seconds."""
_LONGEST_TEXT: Final = 128
"""Characters of a duration: Go, which has hours at most, needs 40 for any."""
_MOST_SHOWN: Final = 64
"""Characters of what somebody wrote that a message repeats."""


class Duration(float):
    """A number of seconds, written as in Go: ``1.5s``, ``1h30m``, ``100ms``."""

    @classmethod
    def parse(cls, text: object) -> Duration:
        """Raises ValueError when the text is not a duration."""
        written = text if isinstance(text, str) else str(text)
        # What is longer is none, and finding its parts would take time that grows with its square.
        parts = _DURATION_PART.findall(written) if len(written) <= _LONGEST_TEXT else []
        if not parts or "".join(number + unit for number, unit in parts) != written:
            raise ValueError(f"{_shown(written)} is not a duration such as 1.5s, 100ms or 1h")
        seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
        if not seconds <= LONGEST:
            raise ValueError(f"{_shown(written)} is longer than {LONGEST}s (292 years)")
        return cls(seconds)


def _shown(written: str) -> str:
    return repr(written if len(written) <= _MOST_SHOWN else f"{written[:_MOST_SHOWN]}…")


Seconds = Annotated[float, msgspec.Meta(ge=0, le=LONGEST)]
UnixSeconds = Annotated[float, msgspec.Meta(ge=0, le=253_402_300_799)]
"""A time before the year 10000, so that it can be shown."""


class Strict(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    rename="camel",
    omit_defaults=True,
    forbid_unknown_fields=True,
):
    """A value of Istio's API: an unknown field is an error."""


class PortSelector(Strict, frozen=True):
    number: int | None = None


class WorkloadSelector(Strict, frozen=True):
    match_labels: dict[str, str] = {}


class Ignoring(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A value of Kubernetes' API: unknown fields are ignored, as they cannot matter here."""


class ObjectMeta(Ignoring, frozen=True):
    """An object's metadata.

    https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/object-meta/
    """

    name: str = ""
    namespace: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    creation_timestamp: str | None = None
    resource_version: str | None = None
    generate_name: str = ""


class Key(msgspec.Struct, frozen=True, order=True):
    """The name of one object of the mesh, in whatever API version it was written."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return (
            f"{self.kind} {self.namespace}/{self.name}"
            if self.namespace
            else (f"{self.kind} {self.name}")
        )


class Object(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Base of all kinds. ``metadata.namespace`` is filled in by the reader."""

    GROUP: ClassVar[str] = ""
    VERSIONS: ClassVar[tuple[str, ...]] = ("v1",)
    KIND: ClassVar[str] = ""
    NAMESPACED: ClassVar[bool] = True
    PLURALS: ClassVar[tuple[str, ...]] = ()  # kubectl's names: plural, singular, short names

    metadata: ObjectMeta = ObjectMeta()

    @property
    def key(self) -> Key:
        return Key(self.KIND, self.metadata.namespace, self.metadata.name)


def decode_scalar(expected: type, value: object) -> object:
    """Decode scalar types that are ours, for msgspec. Raises ValueError with a reason."""
    if expected is Duration:
        return Duration.parse(value)
    raise NotImplementedError(expected)


def encode_scalar(value: object) -> object:
    """Encode what ``decode_scalar`` decodes."""
    if isinstance(value, Duration):
        return f"{float(value):.9f}".rstrip("0").rstrip(".") + "s"
    raise NotImplementedError(type(value))


def exported_to_all(export_to: tuple[str, ...]) -> bool:
    return not export_to or "*" in export_to


def exported(export_to: tuple[str, ...], owner: str, client: str) -> bool:
    """Return whether namespace ``client`` sees what namespace ``owner`` exports to these."""
    if exported_to_all(export_to):
        return True
    return client in export_to or ("." in export_to and owner == client)
