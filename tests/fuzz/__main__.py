"""``python -m tests.fuzz [DOOR …] [--inputs N]``: altered inputs at each door.

Prints a line for each door and what was found; ends with 1 when anything was.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys

from tests.fuzz.running import HEAD, run
from tests.fuzz.table import table


def main() -> int:
    with table() as doors:
        parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
        parser.add_argument("doors", nargs="*", metavar="DOOR", help=", ".join(doors))
        parser.add_argument("--inputs", type=int, default=1_000_000, help="of each door")
        parser.add_argument("--seconds", type=float, default=7200.0, help="of each door, at most")
        parser.add_argument("--seed", type=int, default=1)
        asked = parser.parse_args()
        if unknown := set(asked.doors) - doors.keys():
            parser.error(f"no such door: {', '.join(sorted(unknown))}")
    context = multiprocessing.get_context("spawn")
    print(HEAD, flush=True)
    failed = False
    for name in asked.doors or list(doors):
        arguments = (name, asked.inputs, asked.seconds, asked.seed)
        process = context.Process(target=run, args=arguments)
        process.start()
        process.join()
        failed = failed or process.exitcode != 0
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
