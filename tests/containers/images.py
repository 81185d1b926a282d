"""Images of containers, written as archives that ``ctr images import`` reads.

The format is that of ``docker save``: manifest.json names a configuration and the layers, which are
archives themselves: https://github.com/moby/docker-image-spec
"""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.containers.programs import BUSYBOX

PAUSE: Final = "meshd.test/pause:1"
BOX: Final = "meshd.test/box:1"


def write(path: Path, name: str, layer: bytes, command: Sequence[str]) -> None:
    """Write an image of one layer, whose containers run ``command`` if not told otherwise."""
    digest = hashlib.sha256(layer).hexdigest()
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": list(command), "Env": ["PATH=/bin:/usr/bin"], "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    files = {
        "config.json": json.dumps(config).encode(),
        "layer.tar": layer,
        "manifest.json": json.dumps(manifest).encode(),
    }
    path.write_bytes(archive(files))


def archive(files: Mapping[str, bytes], links: Mapping[str, str] | None = None) -> bytes:
    """Return an archive with files that everybody may run, and symbolic links."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, io.BytesIO(content))
        for name, target in (links or {}).items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            tar.addfile(entry)
    return made.getvalue()


def box() -> bytes:
    """Return a layer with busybox and its programs."""
    listed = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True)
    names = [name for name in listed.stdout.split() if name != "busybox"]
    files = {
        "bin/busybox": BUSYBOX.read_bytes(),
        "etc/passwd": b"root:x:0:0:root:/:/bin/sh\n",
        "www/index.html": b"hello\n",
    }
    return archive(files, {f"bin/{name}": "busybox" for name in names})


def write_all(directory: Path) -> list[Path]:
    """Write the images that every cluster has; return the archives."""
    layer = box()
    made = {PAUSE: ("sleep", "2147483647"), BOX: ("sh",)}
    paths: list[Path] = []
    for name, command in made.items():
        paths.append(directory / f"{name.split('/')[1].split(':')[0]}.tar")
        write(paths[-1], name, layer, command)
    return paths
