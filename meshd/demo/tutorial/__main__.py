"""The program ``python -m meshd.demo.tutorial [--once [--limit SECONDS]]``."""

from __future__ import annotations

import argparse
import sys

from meshd.demo.tutorial.runner import main

parser = argparse.ArgumentParser(prog="demo", description="Walk through meshd's tutorial.")
parser.add_argument("--once", action="store_true", help="do not stay; fail if a step does")
parser.add_argument(
    "--limit", type=float, default=170.0, metavar="SECONDS", help="for all steps of --once together"
)
options = parser.parse_args()
sys.exit(main(once=options.once, limit=options.limit))
