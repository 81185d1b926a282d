"""Pods for real: namespaces, processes, probes, restarts, and nothing left afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from meshd.pods import kernel
from meshd.pods.network import host_link
from tests.network_lease import leased_network
from tests.waiting import PATIENCE, eventually

NETWORKS = [f"198.18.{third}.{last}/26" for third in range(16, 32) for last in range(0, 256, 64)]
IMAGES = """
web:
  command: [python3, -u, -m, http.server, "80", --bind, "::"]
  directory: web
sh: {}
"""
WEB = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: web
        ports: [{name: http, containerPort: 80}]
        readinessProbe: {httpGet: {port: http}}
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  containers:
  - {name: main, image: sh, command: [sleep, infinity], env: [{name: WHO, value: main}]}
  - {name: other, image: sh, command: [sleep, infinity], env: [{name: WHO, value: other}]}
"""


def pod(name: str, script: str, more: str = "") -> str:
    return f"""
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  containers:
  - name: main
    image: sh
    command: [sh, -c, {json.dumps(script)}]
    {more}
"""


def runs(pid: int) -> bool:
    """Whether it is a process, and not only its entry that nobody has fetched."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Testbed:
    """One testbed below a home of its own."""

    __test__ = False

    def __init__(self, home: Path, cidr: str) -> None:
        self.home = home
        self.cidr = cidr
        (home / "web").mkdir()
        (home / "web/index.html").write_text("hello\n")
        (home / "images.yaml").write_text(IMAGES)

    @property
    def directory(self) -> Path:
        return self.home / "run/testbed"

    def __call__(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "meshd.cli.main", "testbed", *arguments],
            env={**os.environ, "MESHD_HOME": str(self.home)},
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE,
            check=False,
        )
        assert not check or done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        return done

    def up(
        self, manifests: str, *more: str, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        path = self.home / "pods.yaml"
        path.write_text(manifests)
        images = str(self.home / "images.yaml")
        given = ("-f", str(path), "--images", images, "--cidr", self.cidr, *more)
        return self("up", *given, check=check)

    def pods(self) -> list[dict[str, Any]]:
        return json.loads(self("ps", "-o", "json").stdout)

    def pod(self, name: str) -> dict[str, Any]:
        return next(pod for pod in self.pods() if pod["pod"].startswith(name))

    def inside(self, name: str, *command: str) -> str:
        return self("exec", name, "--", *command).stdout

    def supervisor(self) -> int:
        return int((self.home / "run/testbed.lock").read_text())

    def leftovers(self) -> list[str]:
        """All that a testbed makes and that is still there."""
        left = [str(path) for path in (self.home / "run").rglob("*")]
        left += kernel.mounts_below(self.home)
        if Path("/sys/class/net", host_link(self.directory)).exists():
            left.append(host_link(self.directory))
        return left + [f"process {pid}" for pid in self.processes(str(self.home))]

    @staticmethod
    def processes(mark: str) -> list[int]:
        """Those that have a text in their environment."""
        pids: list[int] = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                environ = (entry / "environ").read_bytes() if entry.name.isdigit() else b""
                if mark.encode() in environ:
                    pids.append(int(entry.name))
        return pids


@pytest.fixture
def testbed() -> Iterator[Testbed]:
    home = Path(tempfile.mkdtemp(prefix="mtb-"))
    with leased_network(NETWORKS) as cidr:
        bed = Testbed(home, cidr)
        try:
            yield bed
        finally:
            bed("down", check=False)
            left = bed.leftovers()
            shutil.rmtree(home)
            assert left == []


def test_pods_reach_each_other_and_the_host_reaches_them(testbed: Testbed) -> None:
    testbed.up(WEB)
    addresses = [pod["address"] for pod in testbed.pods() if pod["pod"].startswith("web-")]
    assert len(set(addresses)) == 2
    for address in addresses:
        assert testbed.inside("client", "curl", "-s", f"http://{address}/") == "hello\n"
        with urllib.request.urlopen(f"http://{address}/", timeout=PATIENCE) as response:
            assert response.read() == b"hello\n"
    address = testbed.pod("web")["address_v6"]
    assert testbed.inside("client", "curl", "-s", f"http://[{address}]/") == "hello\n"


def test_probes_come_from_the_pod_itself(testbed: Testbed) -> None:
    testbed.up(WEB)
    own = testbed.pod("web")["address"]
    asked = f"::ffff:{own} - - ["
    eventually(lambda: asked in testbed("logs", "deploy/web").stdout, "the probe is logged")


def test_the_switch_stays_where_pods_know_it_whatever_comes_and_goes(testbed: Testbed) -> None:
    def in_switch(*words: str) -> str:
        command = ["nsenter", f"--net={testbed.directory / 'switch'}", "ip", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    testbed.up(pod("client", "sleep infinity"))
    before = in_switch("-br", "link", "show", "br0").split()[2]
    in_switch("link", "add", "low", "address", "02:00:00:00:00:01", "type", "veth")
    in_switch("link", "set", "low", "master", "br0", "up")
    assert in_switch("-br", "link", "show", "br0").split()[2] == before
    in_switch("link", "delete", "low")
    assert in_switch("-br", "link", "show", "br0").split()[2] == before


def test_a_container_sees_its_pod_and_nothing_of_meshd(testbed: Testbed) -> None:
    testbed.up(WEB)
    found = testbed.pod("client")
    status = testbed.inside("client", "cat", "/proc/self/status")
    values = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert int(values["Uid"].split()[0]) > 200_000
    assert int(values["CapEff"], 16) == int(values["CapPrm"], 16) == 0
    assert values["NoNewPrivs"] == "1"
    assert testbed.inside("client", "hostname") == "client\n"
    # A copy of a mount would keep other pods' namespaces alive.
    assert " - nsfs " not in testbed.inside("client", "cat", "/proc/self/mountinfo")
    assert found["address"] in testbed.inside("client", "cat", "/etc/hosts")
    assert testbed.inside("client", "cat", "/etc/resolv.conf").splitlines() == [
        "nameserver 198.19.0.10",
        "search default.svc.cluster.local svc.cluster.local cluster.local",
        "options ndots:5",
    ]
    seen = testbed("exec", "client", "--", "ls", "-a", str(testbed.home / "run"), check=False)
    assert "testbed" not in seen.stdout


VOLUMES = """
apiVersion: v1
kind: ConfigMap
metadata: {name: site}
data: {index.html: hello, LEVEL: debug}
---
apiVersion: v1
kind: Secret
metadata: {name: key}
stringData: {key.pem: secret}
---
apiVersion: v1
kind: Pod
metadata: {name: reader, labels: {app: reader}}
spec:
  containers:
  - name: main
    image: sh
    command: [sh, -c, "echo first > /scratch/deep/down/note; exec sleep infinity"]
    envFrom: [{configMapRef: {name: site}}]
    env: [{name: KEY, valueFrom: {secretKeyRef: {name: key, key: key.pem}}}]
    volumeMounts: &mounts
    - {name: site, mountPath: /site}
    - {name: site, mountPath: /etc/site.d/start.html, subPath: index.html}
    - {name: key, mountPath: /etc/reader/tls}
    - {name: pod, mountPath: /var/run/podinfo}
    - {name: scratch, mountPath: /scratch/deep/down}
    - {name: scratch, mountPath: /tmp/part, subPath: a/b}
  - {name: other, image: sh, command: [sleep, infinity], volumeMounts: *mounts}
  volumes:
  - {name: site, configMap: {name: site}}
  - {name: key, secret: {secretName: key, defaultMode: 256}}
  - {name: pod, downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}
  - {name: scratch, emptyDir: {}}
"""


def test_a_container_finds_its_volumes_where_the_host_has_nothing(testbed: Testbed) -> None:
    host = set(Path("/etc").iterdir()) | set(Path("/").iterdir())
    testbed.up(VOLUMES)
    script = """
        cat /site/index.html /etc/site.d/start.html /etc/reader/tls/key.pem /var/run/podinfo/labels
        echo $LEVEL $KEY; stat -c %a /etc/reader/tls/key.pem
        touch /site/more 2>/dev/null || echo read-only
        touch /tmp/part/mine && ls /scratch/deep/down
        test -s /etc/passwd && test -w /dev/null && echo the rest is there
    """
    done = testbed.inside("reader", "sh", "-c", script)
    assert done.split() == [
        *('hellohellosecretapp="reader"debug', "secret", "400", "read-only"),
        *("a", "note", "the", "rest", "is", "there"),
    ]
    other = ("exec", "reader", "-c", "other", "--", "cat", "/scratch/deep/down/note")
    assert testbed(*other).stdout == "first\n"
    assert set(Path("/etc").iterdir()) | set(Path("/").iterdir()) == host


def test_containers_of_a_pod_share_its_network_but_no_environment(testbed: Testbed) -> None:
    testbed.up(WEB)
    networks: set[str] = set()
    for container in ("main", "other"):
        script = "readlink /proc/self/ns/net; echo $WHO"
        told = testbed("exec", "client", "-c", container, "--", "sh", "-c", script).stdout.split()
        networks.add(told[0])
        assert told[1] == container
    assert len(networks) == 1
    assert testbed("exec", "client", "--", "sh", "-c", "exit 7", check=False).returncode == 7


def test_applying_again_changes_only_what_differs(testbed: Testbed) -> None:
    testbed.up(WEB)
    before = {pod["pod"]: pod["containers"] for pod in testbed.pods()}
    testbed.up(WEB)
    assert {pod["pod"]: pod["containers"] for pod in testbed.pods()} == before
    testbed.up(WEB.replace("replicas: 2", "replicas: 1"))
    fewer = {pod["pod"]: pod["containers"] for pod in testbed.pods()}
    assert len(fewer) == 2
    assert fewer.items() <= before.items()
    testbed.up(WEB.replace("value: main", "value: changed"))
    after = {pod["pod"]: pod["containers"] for pod in testbed.pods()}
    assert after["client"] != before["client"]
    assert {name for name in after if name.startswith("web-")} == set(before) - {"client"}
    assert testbed.inside("client", "sh", "-c", "echo $WHO") == "changed\n"


def test_a_pod_is_ready_when_its_probe_passes_and_no_longer_when_it_fails(
    testbed: Testbed,
) -> None:
    probe = "{exec: {command: [test, -e, /tmp/up]}, periodSeconds: 1, failureThreshold: 1}"
    manifest = pod("slow", "sleep infinity", f"readinessProbe: {probe}")
    refused = testbed.up(manifest, "--timeout", "1s", check=False)
    assert refused.returncode == 1
    eventually(
        lambda: (
            testbed.up(manifest, "--timeout", "1s", check=False).stderr
            == "pod default/slow is not ready: running\n"
        ),
        "it runs and is not ready",
    )
    testbed.inside("slow", "touch", "/tmp/up")
    testbed.up(manifest)
    testbed.inside("slow", "rm", "/tmp/up")
    eventually(lambda: not testbed.pod("slow")["ready"], "the pod is not ready")


def test_a_port_probe_waits_for_the_port(testbed: Testbed) -> None:
    probe = "readinessProbe: {tcpSocket: {port: 81}}"
    testbed.up(pod("late", "sleep 0.3; exec python3 -m http.server 81", probe))
    address = testbed.pod("late")["address"]
    with urllib.request.urlopen(f"http://{address}:81/", timeout=PATIENCE) as response:
        assert response.status == 200


def test_a_container_that_is_killed_is_started_again(testbed: Testbed) -> None:
    testbed.up(pod("one", "exec sleep infinity"))
    killed = testbed.pod("one")["containers"][0]["pid"]
    os.kill(killed, signal.SIGKILL)

    def again() -> bool:
        container = testbed.pod("one")["containers"][0]
        return container["restarts"] == 1 and container["pid"] not in {0, killed}

    eventually(again, "another process runs")


def test_containers_that_keep_ending_are_named_with_their_last_words(testbed: Testbed) -> None:
    crashing = pod("bad", "echo no luck >&2; exit 3")
    missing = pod("worse", "").replace('[sh, -c, ""]', "[no-such-program]")
    done = testbed.up(crashing + "---" + missing, check=False)
    assert done.returncode == 1
    eventually(lambda: all(each["restarts"] > 2 for each in testbed.pods()), "both have ended")
    done = testbed.up(crashing + "---" + missing, check=False)
    assert "pod default/bad is not ready: container main ended with status 3" in done.stderr
    assert "its last output: no luck\n" in done.stderr
    assert "cannot run no-such-program: No such file or directory" in done.stderr


def test_init_containers_are_done_before_the_others_begin(testbed: Testbed) -> None:
    init = """
  initContainers:
  - {name: first, image: sh, command: [sh, -c, "echo first"]}
  - {name: second, image: sh, command: [sh, -c, "! curl -s http://127.0.0.1:82/"]}
"""
    testbed.up(pod("one", "exec python3 -m http.server 82") + init)
    states = {each["name"]: each["state"] for each in testbed.pod("one")["containers"]}
    assert states == {"first": "Completed", "second": "Completed", "main": "Running"}
    assert testbed("logs", "one", "-c", "first").stdout == "first\n"


def test_what_a_container_started_ends_with_it(testbed: Testbed) -> None:
    mark = f"{testbed.home}/mark"
    script = f"MARK={mark} setsid sleep 1000 & exec sleep infinity"
    testbed.up(pod("one", script))
    eventually(lambda: len(testbed.processes(mark)) == 1, "it runs in the background")
    (first,) = testbed.processes(mark)
    os.kill(testbed.pod("one")["containers"][0]["pid"], signal.SIGKILL)
    eventually(lambda: not runs(first), "it has ended too")


def test_down_leaves_nothing_and_may_be_said_twice(testbed: Testbed) -> None:
    testbed.up(WEB)
    assert testbed("down").stdout == "the testbed is down\n"
    assert testbed.leftovers() == []
    assert testbed("down").stdout == "no testbed is up\n"


def test_down_leaves_nothing_after_the_supervisor_was_killed(testbed: Testbed) -> None:
    testbed.up(WEB)
    pids = [each["pid"] for found in testbed.pods() for each in found["containers"]]
    os.kill(testbed.supervisor(), signal.SIGKILL)
    assert all(runs(pid) for pid in pids)
    testbed("down")
    assert testbed.leftovers() == []
    assert not any(runs(pid) for pid in pids)


def test_down_leaves_nothing_when_killed_at_any_moment_of_up(testbed: Testbed) -> None:
    manifest = testbed.home / "pods.yaml"
    manifest.write_text(WEB)
    images = str(testbed.home / "images.yaml")
    arguments = ("-f", str(manifest), "--images", images, "--cidr", testbed.cidr)
    lock = testbed.home / "run/testbed.lock"
    for moment in range(8):
        with subprocess.Popen(
            [sys.executable, "-m", "meshd.cli.main", "testbed", "up", *arguments],
            env={**os.environ, "MESHD_HOME": str(testbed.home)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as up:
            eventually(lambda: lock.exists() and lock.read_text().isdigit(), "it has begun")
            time.sleep(moment * 0.03)  # the moment is what is varied
            os.kill(testbed.supervisor(), signal.SIGKILL)
            up.wait(PATIENCE)
        testbed("down")
        assert testbed.leftovers() == [], f"killed in moment {moment}"


def test_up_after_a_kill_begins_anew(testbed: Testbed) -> None:
    testbed.up(WEB)
    before = {found["pod"]: found["containers"][0]["pid"] for found in testbed.pods()}
    os.kill(testbed.supervisor(), signal.SIGKILL)
    testbed.up(WEB)
    assert {found["pod"] for found in testbed.pods()} == set(before)
    assert not any(runs(pid) for pid in before.values())


def test_a_mistake_in_a_manifest_changes_nothing(testbed: Testbed) -> None:
    testbed.up(WEB)
    before = testbed.pods()
    wrong = WEB.replace("image: web", "image: wep:1").replace("replicas: 2", "replicas: 5")
    done = testbed.up(wrong, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"{testbed.home}/pods.yaml:13: Deployment default/web: ")
    assert 'image "wep:1" is not in' in done.stderr
    old = testbed.up(WEB.replace("apps/v1", "extensions/v1beta1"), check=False)
    assert "write apiVersion: apps/v1" in old.stderr
    assert testbed.up("a: [", check=False).returncode == 1
    assert testbed.pods() == before


def test_pods_of_the_mesh_need_a_mesh(testbed: Testbed) -> None:
    labels = "metadata: {name: client, labels: {istio.io/dataplane-mode: ambient}}"
    done = testbed.up(WEB.replace("metadata: {name: client}", labels), check=False)
    assert done.returncode == 3
    assert "pod default/client belongs into the mesh, but meshd does not answer" in done.stderr
    assert testbed("ps", check=False).returncode == 3


def test_a_failed_start_is_explained_in_one_line_and_undone(
    testbed: Testbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as without:
        without.setenv("PATH", "/nowhere")
        done = testbed.up(WEB, check=False)
    assert done.returncode == 1
    assert done.stderr.endswith("there is no program ip; install iproute2\n")
    assert testbed.pods() == []
    assert not kernel.mounts_below(testbed.home)


def test_another_network_for_a_running_testbed_is_refused(testbed: Testbed) -> None:
    testbed.up(WEB)
    done = testbed.up(WEB, "--cidr", "198.18.127.0/28", check=False)
    assert done.returncode == 1
    assert f"this testbed's network is {testbed.cidr}" in done.stderr
