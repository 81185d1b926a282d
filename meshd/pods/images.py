"""The image map: replacements of container images. Pure but for reading the file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import msgspec

from meshd.api.decode import nearest
from meshd.api.yaml import decode, read_documents, read_text

_DEFAULT_REGISTRIES = ("docker.io/", "index.docker.io/", "registry-1.docker.io/")


class Image(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The properties of an image: ``command`` is its entry point, ``args`` its default
    arguments."""

    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    directory: str = ""
    env: dict[str, str] = {}


@dataclasses.dataclass(frozen=True, slots=True)
class ImageMap:
    """Images by name; ``source`` is for messages."""

    images: Mapping[str, Image]
    source: str = "no image map was given (--images FILE)"

    def find(self, name: str) -> Image | None:
        """Return an image; a name with this very tag wins over one without, which stands for all
        tags."""
        wanted = _canonical(name)
        by_name = {_canonical(known): image for known, image in self.images.items()}
        return by_name.get(wanted) or by_name.get(_untagged(wanted))

    def missing(self, name: str) -> str:
        """Return the error for an image that is not found."""
        if not self.images:
            return f'image "{name}" is not known: {self.source}'
        hint = nearest(_untagged(name), self.images)
        return f'image "{name}" is not in {self.source}{hint}; say there what to run for it'


def read_image_map(path: Path) -> ImageMap:
    """Read an image map; its directories become absolute. Raises ManifestError."""
    documents = read_documents(read_text(path), str(path))
    images: dict[str, Image] = {}
    for document in documents:
        found = decode(document, document.value, dict[str, Image])
        for name, image in found.items():
            directory = (path.parent / image.directory).resolve() if image.directory else None
            if directory and not directory.is_dir():
                raise document.error((name, "directory"), f"{directory} is not a directory")
            text = str(directory) if directory else ""
            images[name] = msgspec.structs.replace(image, directory=text)
    return ImageMap(images, str(path))


def _canonical(name: str) -> str:
    for registry in _DEFAULT_REGISTRIES:
        name = name.removeprefix(registry)
    return name.removeprefix("library/")


def _untagged(name: str) -> str:
    name = name.partition("@")[0]
    head, slash, last = name.rpartition("/")
    return head + slash + last.partition(":")[0]
