"""The program ``python -m meshd.demo.tutorial [--once]``."""

from __future__ import annotations

import argparse
import sys

from meshd.demo.tutorial.runner import main

parser = argparse.ArgumentParser(prog="demo", description="Walk through meshd's tutorial.")
parser.add_argument("--once", action="store_true", help="do not stay; fail if a step does")
sys.exit(main(once=parser.parse_args().once))
