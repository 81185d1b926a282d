"""Settings files keep what people wrote when meshctl join writes its few keys into them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest
import yaml

from meshd.cli.settings_text import with_values
from meshd.settings import Settings, load

WANTED: Final = {
    ("role",): "agent",
    ("server",): "[fd00:198::1]:15012",
    ("identity", "trust_domain"): "other.mesh",
}
EXAMPLE: Final = Path(__file__).parents[3] / "etc" / "meshd.yaml"


def loaded(text: str, path: Path) -> Settings:
    path.write_text(text)
    return load(path)


@pytest.mark.parametrize(
    "before",
    [
        "",
        "# nothing but a comment\n",
        "role: standalone\nserver: old\n",
        'identity:\n  trust_domain: "old"\n  renew_at: 0.4\n',
        "identity:\n    renew_at: 0.4\nnode: n\n",
        "identity: {}\n",
        "node: n # mine\nmesh:\n  domain: d.local\n  # identity: is not here\n",
        EXAMPLE.read_text(),
    ],
)
def test_the_keys_are_set_and_all_else_is_as_it_was(before: str, tmp_path: Path) -> None:
    path = tmp_path / "meshd.yaml"
    old = loaded(before, path)
    new = loaded(with_values(before, WANTED), path)
    assert (new.role, new.server) == ("agent", "[fd00:198::1]:15012")
    assert new.identity.trust_domain == "other.mesh"
    assert (new.node, new.mesh, new.identity.renew_at) == (
        old.node,
        old.mesh,
        old.identity.renew_at,
    )
    assert loaded(with_values(path.read_text(), WANTED), path) == new


def test_comments_stay_and_what_a_comment_shows_is_put_in_its_place() -> None:
    text = with_values(EXAMPLE.read_text(), {("role",): "agent"})
    assert "#role: standalone" not in text
    assert text.replace('role: "agent"', "#role: standalone") == EXAMPLE.read_text()


def test_values_that_yaml_would_misread_are_quoted() -> None:
    text = with_values("", {("node",): "1e3", ("server",): "10.0.0.1:15012"})
    assert yaml.safe_load(text) == {"node": "1e3", "server": "10.0.0.1:15012"}
    assert yaml.safe_load(with_values("", {("node",): "no"})) == {"node": "no"}
