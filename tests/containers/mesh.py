"""meshd on a machine, under a home of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.containers.machine import Done, Machine
from tests.waiting import PATIENCE, Missing, eventually


class Mesh:
    eventually = staticmethod(eventually)

    def __init__(self, machine: Machine, settings: dict[str, Any]) -> None:
        self.machine = machine
        self.home = machine.home / "mesh"
        self.settings = settings
        self._meshd: subprocess.Popen[bytes] | None = None

    def write_settings(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        etc = self.home / "etc"
        (etc / "config.d").mkdir(parents=True, exist_ok=True)
        self.home.chmod(0o755)
        (etc / "meshd.yaml").write_text(yaml.safe_dump(settings))

    def reload(self, settings: dict[str, Any]) -> None:
        self.write_settings(settings)
        self.machine.ask("kill", "-HUP", self._supervisor)

    @property
    def _supervisor(self) -> str:
        return (self.home / "run/supervisor/lock").read_text().strip()

    def start(self) -> None:
        self.write_settings(self.settings)
        environment = {"MESHD_HOME": str(self.home)}
        command = (sys.executable, "-P", "-m", "meshd")
        self._meshd = self.machine.begin("meshd", *command, environment=environment)
        self.settle()

    def settle(self) -> None:
        """Wait until meshd answers."""
        self.eventually(self._is_well, "meshd answers")

    def _is_well(self) -> bool | Missing:
        done = self.meshctl("status", "-o", "json")
        return done.returncode == 0 or Missing(done.stderr + self.machine.log("meshd")[-1500:])

    def stop(self) -> None:
        assert self._meshd
        self.machine.ask("kill", self._supervisor)
        self._meshd.wait(PATIENCE)

    def meshctl(self, *arguments: str, text: str = "") -> Done:
        program = Path(sys.executable).with_name("meshctl")
        command = ("env", f"MESHD_HOME={self.home}", str(program), *arguments)
        return self.machine.run(*command, text=text)

    def apply(self, *objects: dict[str, Any]) -> None:
        text = yaml.safe_dump_all(objects)
        done = self.meshctl("apply", "--wait", "-f", "-", text=text)
        assert done.returncode == 0, done.stdout + done.stderr

    def rows(self) -> list[dict[str, Any]]:
        """Return what status says of each workload."""
        done = self.meshctl("status", "-o", "json")
        assert done.returncode in {0, 1}, done.stderr
        return json.loads(done.stdout)

    def workloads(self) -> dict[str, dict[str, Any]]:
        """Return the same by their names."""
        return {row["workload"]: row for row in self.rows()}
