"""``meshctl proxy-config`` shows the configuration that the proxies have."""

from __future__ import annotations

import enum
from typing import Annotated, Final

import typer

from meshd import wire
from meshd.cli import proxy_rows
from meshd.cli.arguments import NamespaceOption, Output, OutputOption
from meshd.cli.daemon import Target
from meshd.cli.output import emit, is_for_scripts, show, tell, warn


class Section(enum.StrEnum):
    LISTENERS = "listeners"
    CLUSTERS = "clusters"
    ROUTES = "routes"
    ENDPOINTS = "endpoints"
    SECRETS = "secrets"


_NAMES: Final = {
    **{section.value: section for section in Section},
    **{section.value.removesuffix("s"): section for section in Section},
    "l": Section.LISTENERS,
    "c": Section.CLUSTERS,
    "r": Section.ROUTES,
    "ep": Section.ENDPOINTS,
    "s": Section.SECRETS,
}
"""istioctl's names for them."""


def parse_section(text: str) -> Section:
    if section := _NAMES.get(text.lower()):
        return section
    raise typer.BadParameter(f'"{text}" is not one of {", ".join(Section)}')


def proxy_config(
    context: typer.Context,
    section: Annotated[
        Section, typer.Argument(metavar="|".join(Section), parser=parse_section, show_default=False)
    ],
    workload: Annotated[str, typer.Argument(help="Show only this workload's part.")] = "",
    namespace: NamespaceOption = "default",
    proxy: Annotated[
        str, typer.Option(metavar="NAME", help="Member of the pool. Default: any.")
    ] = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """Show what the proxies really have, from Envoy itself."""
    target: Target = context.obj
    request = wire.ProxyConfig(section.value, workload, namespace, proxy)
    found = target.ask(request, wire.Objects).objects
    if is_for_scripts(output):
        emit(found, output)
    elif output is Output.NAME:
        for one in found:
            tell(proxy_rows.name_of(section.value, one))
    elif found:
        show(proxy_rows.table(section.value, found))
    else:
        warn([f"the proxy has no {section.value}"])
