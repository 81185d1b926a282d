"""``meshctl version`` prints the version."""

from __future__ import annotations

import meshd
from meshd.cli.arguments import Output, OutputOption
from meshd.cli.output import emit, is_for_scripts


def version(output: OutputOption = Output.TABLE) -> None:
    """Show the version."""
    if is_for_scripts(output):
        emit({"version": meshd.__version__}, output)
    else:
        print(f"meshctl {meshd.__version__}")
