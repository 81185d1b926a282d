"""``meshctl validate`` checks manifests without a daemon."""

from __future__ import annotations

import contextlib
import sys

import msgspec
import typer

from meshd.api.finding import Finding
from meshd.api.yaml import ManifestError
from meshd.base.errors import InvalidInputError
from meshd.cli import sources
from meshd.cli.arguments import FilesOption, NamespaceOption, Output, OutputOption, RecursiveOption
from meshd.cli.output import emit, is_for_scripts, warn
from meshd.config.requests import validate_sources
from meshd.settings import Paths, load


def validate(
    files: FilesOption = None,
    namespace: NamespaceOption = "default",
    recursive: RecursiveOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Check manifests without a daemon: everything that is wrong, with file, line and field."""
    findings = _findings(files, namespace, recursive)
    errors = [finding for finding in findings if finding.severity == "error"]
    if is_for_scripts(output):
        emit([_row(finding) for finding in findings], output)
    else:
        warn(_line(finding) for finding in findings)
        if not errors:
            print("valid")
    if errors:
        sys.stdout.flush()
        raise typer.Exit(1)


def _findings(files: list[str] | None, namespace: str, recursive: bool) -> tuple[Finding, ...]:
    """Return the findings; a file that cannot be read is one, too."""
    try:
        texts = sources.read_sources(files, recursive=recursive)
        return validate_sources(texts, namespace, _directories())
    except ManifestError as error:
        return (Finding(error.source, error.line, error.reason, field=error.field),)
    except InvalidInputError as error:
        name, _, reason = str(error).partition(": ")
        return (Finding(name, 0, reason),)


def _directories() -> tuple[str, ...]:
    """Return the directories of files that manifests may name; the default's if the settings are
    invalid."""
    paths = Paths.from_environment()
    chosen: tuple[str, ...] = ()
    with contextlib.suppress(InvalidInputError):
        chosen = load(paths.settings).identity.certificate_directories
    return chosen or (str(paths.certificates),)


def _row(finding: Finding) -> dict[str, object]:
    """Return the fields in the documented order."""
    row: dict[str, object] = msgspec.to_builtins(finding)
    order = ("file", "line", "kind", "namespace", "name", "field", "severity", "message")
    return {key: row[key] for key in order}


def _line(finding: Finding) -> str:
    return f"{finding}" if finding.severity == "error" else f"warning: {finding}"
