"""Which entry of the image map stands for an image."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshd.api.yaml import ManifestError
from meshd.demo import bookinfo
from meshd.pods.images import Image, ImageMap, read_image_map

ANY = Image(command=("any",))
EXACT = Image(command=("exact",))
MAP = ImageMap(
    {"docker.io/istio/web": ANY, "docker.io/istio/web:1.2": EXACT, "localhost:5000/app": ANY},
    "images.yaml",
)


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("docker.io/istio/web:1.2", EXACT),
        ("docker.io/istio/web:9", ANY),
        ("docker.io/istio/web", ANY),
        ("istio/web:9", ANY),
        ("docker.io/istio/web@sha256:abc", ANY),
        ("localhost:5000/app:2", ANY),
        ("localhost:5000/other", None),
        ("istio/we", None),
    ],
)
def test_an_image_is_found_by_name_and_tag(name: str, image: Image | None) -> None:
    assert MAP.find(name) == image


def test_a_missing_image_is_named_with_the_nearest_known_one() -> None:
    told = MAP.missing("docker.io/istio/wep:1")
    assert '"docker.io/istio/wep:1"' in told
    assert "images.yaml (did you mean docker.io/istio/web?)" in told


def test_directories_are_relative_to_the_map(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    path = tmp_path / "images.yaml"
    path.write_text("web: {command: [x], directory: app}\n")
    image = read_image_map(path).find("web:1")
    assert image and image.directory == str(tmp_path / "app")


@pytest.mark.parametrize("registry", ["docker.io/istio", "registry.istio.io/release"])
@pytest.mark.parametrize(
    "name",
    [
        *(f"examples-bookinfo-{name}-v1" for name in ("productpage", "details", "ratings")),
        *(f"examples-bookinfo-reviews-v{version}" for version in (1, 2, 3)),
        *("fortio", "tcp-echo-server", "proxyv2"),
    ],
)
def test_the_samples_images_are_known_in_each_of_their_registries(registry: str, name: str) -> None:
    known = read_image_map(Path(bookinfo.__file__).parent / "images.yaml")
    assert known.find(f"{registry}/{name}:1.20.3")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("web:\n  directory: nowhere\n", "images.yaml:2: web.directory: "),
        (
            "web:\n  comand: [x]\n",
            "images.yaml:2: web.comand: unknown field (did you mean command?)",
        ),
        ("web: {command: x}\n", "images.yaml:1: web.command: expected a list, not a text"),
    ],
)
def test_a_mistake_in_the_map_is_named_by_line_and_field(
    tmp_path: Path, text: str, told: str
) -> None:
    path = tmp_path / "images.yaml"
    path.write_text(text)
    with pytest.raises(ManifestError) as error:
        read_image_map(path)
    assert told in str(error.value)
