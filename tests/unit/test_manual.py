"""The manual's pages say what the program and the settings are."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import msgspec
import pytest

from meshd.api.base import encode_scalar
from meshd.cli.main import run
from meshd.settings import Settings

ROOT: Final = Path(__file__).parent.parent.parent
REQUESTS: Final = {".TH", ".SH", ".SS", ".TP", ".PP", ".B", ".BR", ".I", ".IR"}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    output = tmp_path_factory.mktemp("man")
    subprocess.run(
        [sys.executable, ROOT / "etc/debian/manual.py", ROOT, "1.2.3", output],
        check=True,
        timeout=60,
    )
    return {path.name: path.read_text(encoding="utf-8") for path in output.iterdir()}


def test_there_is_a_page_for_the_daemon_the_program_and_the_settings(
    pages: dict[str, str],
) -> None:
    assert pages.keys() == {"meshd.8", "meshctl.1", "meshd.yaml.5"}
    for name, text in pages.items():
        assert text.startswith(f'.TH {name[:-2].upper()} {name[-1]} "" "meshd 1.2.3"')


def test_no_line_of_text_is_taken_for_a_request(pages: dict[str, str]) -> None:
    for text in pages.values():
        dotted = {line.split(" ")[0] for line in text.splitlines() if line[:1] in {".", "'"}}
        assert dotted <= REQUESTS


def test_every_verb_is_in_the_page(
    pages: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["--help"]) == 0
    listed = re.findall(r"^  (\S+)  ", capsys.readouterr().out.partition("Commands:")[2], re.M)
    page = pages["meshctl.1"].replace("\\-", "-")
    assert len(listed) > 10
    for verb in listed:
        assert f'.SS "meshctl {verb} ' in page, verb


def test_every_event_is_in_the_page(pages: dict[str, str]) -> None:
    code = "".join(path.read_text() for path in (ROOT / "meshd").rglob("*.py"))
    told = re.findall(r'"MESHD_EVENT": "([a-z-]+)"', code)
    told += re.findall(r'journal\.event\([^"]*"([a-z-]+)"', code)
    told += re.findall(r'Unwritten\(path, "([a-z-]+)"', code)
    section = pages["meshd.8"].partition(".SH JOURNAL")[2].partition(".SH ")[0]
    listed = {
        name
        for line in re.findall(r"^\.TP\n\.B (.*)$", section, re.M)
        for name in line.replace("\\-", "-").split(", ")
    }
    assert len(told) > 40
    assert listed == {*told, "access", "suppressed"}


def test_every_setting_is_in_the_page(pages: dict[str, str]) -> None:
    for key, value in msgspec.to_builtins(Settings(), enc_hook=encode_scalar).items():
        if isinstance(value, dict):
            section = pages["meshd.yaml.5"].partition(f'\n.SS "{key}:"\n')[2].partition(".SS")[0]
            for inner in value:
                assert f'.B "  {inner}"\n' in section, f"{key}.{inner}"
        else:
            assert f'\n.B "{key}"\n' in pages["meshd.yaml.5"], key
