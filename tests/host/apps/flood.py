"""``flood.py LOG SECONDS RATE LEAST``: writes access log lines as a proxy does, of two workloads.

One floods, RATE lines a second, or as many as fit; the other writes ten lines a second, each
another. It goes on until the first has written LEAST lines. Prints how many lines each of them
wrote.
"""

from __future__ import annotations

import errno
import os
import sys
import time

LINE = (
    "meshd-access /run/meshd/netns/mesh.{0}@1 [2026-01-01T00:00:00.000Z] "
    '"GET /{1} HTTP/1.1" 503 UF upstream_reset - "-" 0 91 {1} - "-" "x" "{1}-2" "server" '
    '"198.18.0.10:8080" outbound|8080||server 198.18.0.11:{1} - - default\n'
)
BATCH = 0.02


def main() -> None:
    path, seconds, rate = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
    least = int(sys.argv[4])
    begun, loud, quiet = time.monotonic(), 0, 0
    log = os.open(path, os.O_WRONLY | os.O_APPEND)
    while (passed := time.monotonic() - begun) < seconds or loud < least:
        lines: list[str] = []
        while quiet < passed * 10:
            lines.append(LINE.format("quiet", quiet))
            quiet += 1
        for _ in range(int(rate * passed) - loud):
            lines.append(LINE.format("loud", loud))
            loud += 1
        write(log, "".join(lines).encode())
        time.sleep(BATCH)
    print(loud, quiet)


def write(log: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(log, data) :]
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            time.sleep(BATCH)  # whoever reads it is behind


main()
