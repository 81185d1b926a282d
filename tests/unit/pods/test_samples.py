"""The sample's manifests and configuration are valid, each for itself with Bookinfo around it."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshd.config.requests import validate_sources
from meshd.demo import bookinfo
from meshd.pods.addresses import Subnet
from meshd.pods.client import read
from meshd.pods.images import read_image_map
from meshd.pods.plan import Bed, make_plan

HOME = Path(bookinfo.__file__).parent
MANIFESTS = tuple(sorted((HOME / "manifests").glob("*.yaml")))
NETWORKING = tuple(sorted((HOME / "networking").glob("*.yaml")))
SUBSETS = HOME / "networking/destination-rule-all-mtls.yaml"


def sources(*paths: Path) -> tuple[tuple[str, str], ...]:
    return tuple((path.name, path.read_text()) for path in paths)


@pytest.mark.parametrize("path", NETWORKING, ids=lambda path: path.stem)
def test_a_file_of_the_tutorial_fits_bookinfo(path: Path) -> None:
    around = () if path.stem.startswith("destination-rule-all") else (SUBSETS,)
    assert validate_sources(sources(*MANIFESTS, *around, path)) == ()


def test_all_manifests_together_can_be_planned() -> None:
    images = read_image_map(HOME / "images.yaml")
    bed = Bed(Subnet.parse("198.18.0.0/16"), images, "n1", {})
    plan = make_plan(read(sources(*MANIFESTS), "default"), bed)
    by_owner = {pod.owner: pod for pod in plan.pods}
    assert plan.notes == ()
    assert by_owner["Deployment default/reviews-v3"].service_account == "bookinfo-reviews"
    assert by_owner["Deployment default/reviews-v3"].enrolled
    assert by_owner["Deployment istio-system/istio-ingressgateway"].enrolled
    assert not by_owner["Deployment legacy/curl"].enrolled
