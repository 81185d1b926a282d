"""A cluster of one node: Kubernetes' own programs and Debian's containerd on a machine.

Everything ends with the machine, also if the process that made it is killed.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from meshd.kubernetes import access
from tests.containers import images, programs
from tests.containers.machine import Done, Machine
from tests.containers.mesh import Mesh
from tests.kube.credentials import Credentials
from tests.node.daemon import DEFAULTS
from tests.waiting import PATIENCE, Missing, eventually

NODE: Final = "node1"
ADDRESS: Final = "198.18.248.1"
PODS: Final = "198.18.249.0/24"
SERVICES: Final = "198.19.248.0/22"
_FIRST_SERVICE: Final = "198.19.248.1"
DNS: Final = "198.19.248.10"
_SERVER: Final = f"https://{ADDRESS}:6443"
NET_D: Final = "/etc/cni/net.d"
CHAIN: Final = "10-pods.conflist"
_CNI_PROGRAMS: Final = "/opt/cni/bin"
_BRIDGED: Final = {
    "cniVersion": "1.0.0",
    "name": "pods",
    "plugins": [
        {
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": True,
            "ipMasq": True,
            "hairpinMode": True,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": PODS}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        },
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ],
}
_CONTAINERD: Final = f"""\
version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{images.PAUSE}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  disable_hugetlb_controller = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{_CNI_PROGRAMS}"
    conf_dir = "{NET_D}"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
"""
_MASTERS: Final = "system:masters"


class Cluster:
    """The admin's view of it: ``kubectl``, ``apply``, ``get`` and ``eventually``."""

    eventually = staticmethod(eventually)

    def __init__(self) -> None:
        network = [
            ["ip", "link", "add", "eth0", "type", "veth", "peer", "name", "wire"],
            ["ip", "address", "add", f"{ADDRESS}/24", "dev", "eth0"],
            ["ip", "link", "set", "wire", "up"],
            ["ip", "link", "set", "eth0", "up"],
            ["ip", "route", "add", "default", "dev", "eth0"],
        ]
        self.machine = Machine(
            NODE,
            path=programs.PATH,
            directories=("/var/lib/containerd", "/var/lib/kubelet", "/var/log/pods"),
            commands=network,
        )
        names = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost")
        addresses = (ADDRESS, _FIRST_SERVICE, "127.0.0.1")
        self.credentials = Credentials(self.machine.home / "credentials", names, addresses)
        self._links = self.machine.home / "programs"
        self._links.mkdir()
        for name in programs.NAMES:
            (self._links / name).symlink_to(programs.kubernetes())
        self._admin = self.kubeconfig("admin", _MASTERS)
        self._kubeconfig = str(self.machine.home / "meshd.kubeconfig")
        settings = {"enabled": True, "kubeconfig": self._kubeconfig}
        self.mesh = Mesh(self.machine, DEFAULTS | {"kubernetes": settings})

    def kubeconfig(self, user: str, *groups: str) -> str:
        """Return the path of a user's kubeconfig, which is seen inside, too. New users have to be
        made before the API server starts."""
        return self.credentials.kubeconfig(_SERVER, user, *groups)

    def start(self) -> None:
        self.machine.start()
        self._start_containerd()
        self._start_control_plane()
        self._start_node()

    # ---- its programs

    def _begin(self, name: str, *options: str) -> None:
        self.machine.begin(name, str(self._links / name), *options)

    def _start_containerd(self) -> None:
        machine = self.machine
        settings = machine.write("containerd.toml", _CONTAINERD)
        machine.ask("mkdir", "-p", NET_D, _CNI_PROGRAMS, "/var/log/containers")
        machine.ask("sh", "-c", f"ln -s {programs.CNI}/* {_CNI_PROGRAMS}/")
        machine.ask("tee", f"{NET_D}/{CHAIN}", text=json.dumps(_BRIDGED))
        machine.begin("containerd", "containerd", "--config", settings)
        archives = images.write_all(machine.home)
        self.eventually(lambda: self.ctr("version").returncode == 0, "containerd answers")
        for path in archives:
            done = self.ctr("images", "import", str(path))
            assert done.returncode == 0, done.stderr

    def ctr(self, *arguments: str) -> Done:
        return self.machine.run("ctr", "--namespace", "k8s.io", *arguments)

    def _start_control_plane(self) -> None:
        own = self.credentials
        data = self.machine.home / "etcd"
        self._begin("etcd", f"--data-dir={data}", "--unsafe-no-fsync")
        certificate, key = own.server
        client, client_key = own.client
        controllers = self.kubeconfig("system:kube-controller-manager")
        scheduler = self.kubeconfig("system:kube-scheduler")
        self._kubelet = self.kubeconfig(f"system:node:{NODE}", "system:nodes")
        self._proxy = self.kubeconfig("system:kube-proxy")
        self._begin(
            "kube-apiserver",
            "--etcd-servers=http://127.0.0.1:2379",
            f"--advertise-address={ADDRESS}",
            f"--tls-cert-file={certificate}",
            f"--tls-private-key-file={key}",
            f"--client-ca-file={own.ca}",
            f"--token-auth-file={own.tokens}",
            f"--kubelet-client-certificate={client}",
            f"--kubelet-client-key={client_key}",
            "--kubelet-preferred-address-types=InternalIP",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={own.accounts_key}",
            f"--service-account-signing-key-file={own.accounts_key}",
            f"--service-cluster-ip-range={SERVICES}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
        )
        self.eventually(self._is_ready, "the API server is ready", 2 * PATIENCE)
        self._begin(
            "kube-controller-manager",
            f"--kubeconfig={controllers}",
            f"--service-account-private-key-file={own.accounts_key}",
            f"--root-ca-file={own.ca}",
            "--use-service-account-credentials",
            "--leader-elect=false",
        )
        self._begin("kube-scheduler", f"--kubeconfig={scheduler}", "--leader-elect=false")

    def _is_ready(self) -> bool | Missing:
        done = self.kubectl("get", "--raw", "/readyz")
        said = self.machine.log("kube-apiserver")[-500:]
        return done.stdout == "ok" or Missing(done.stderr + said)

    def _start_node(self) -> None:
        settings = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": self.credentials.ca},
            },
            "authorization": {"mode": "Webhook"},
            "cgroupDriver": "cgroupfs",
            "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
            "clusterDomain": "cluster.local",
            "clusterDNS": [DNS],
            "failSwapOn": False,
            "oomScoreAdj": 0,
            "evictionHard": {"memory.available": "1%", "nodefs.available": "1%"},
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            "syncFrequency": "1s",
        }
        self._begin(
            "kubelet",
            f"--config={self.machine.write('kubelet.json', json.dumps(settings))}",
            f"--kubeconfig={self._kubelet}",
            f"--hostname-override={NODE}",
            f"--node-ip={ADDRESS}",
        )
        self._begin(
            "kube-proxy",
            f"--kubeconfig={self._proxy}",
            f"--hostname-override={NODE}",
            "--proxy-mode=nftables",
            f"--cluster-cidr={PODS}",
            *("--conntrack-max-per-core=0", "--oom-score-adj=0"),
            *("--conntrack-tcp-timeout-established=0s", "--conntrack-tcp-timeout-close-wait=0s"),
        )
        self.eventually(self._node_is_ready, "the node is ready", 2 * PATIENCE)
        self.eventually(
            lambda: self.kubectl("get", "serviceaccount", "default").returncode == 0,
            "pods can be made",
        )

    def _node_is_ready(self) -> bool | Missing:
        path = "{.items[0].status.conditions[?(@.type=='Ready')].status}"
        done = self.kubectl("get", "nodes", "-o", f"jsonpath={path}")
        return done.stdout == "True" or Missing(done.stderr + self.machine.log("kubelet")[-800:])

    def start_mesh(self) -> None:
        """Start meshd on the node, under the account that it says that it needs."""
        self.mesh.write_settings(self.mesh.settings)
        for what in ("access", "crds"):
            done = self.mesh.meshctl("kubernetes", what)
            assert done.returncode == 0, done.stderr
            self.ask("apply", "-f", "-", text=done.stdout)
        path = "jsonpath={.data.token}"
        secret = ("get", "secret", access.ACCOUNT, "-n", access.NAMESPACE, "-o", path)
        token = self.eventually(lambda: self.kubectl(*secret).stdout, "the account has a token")
        text = self.credentials.kubeconfig_text(_SERVER, base64.b64decode(token).decode())
        Path(self._kubeconfig).write_text(text)
        self.mesh.start()

    # ---- its objects

    def kubectl(self, *arguments: str, text: str = "", timeout: float = PATIENCE) -> Done:
        return self.machine.run(
            *("kubectl", f"--kubeconfig={self._admin}", *arguments), text=text, timeout=timeout
        )

    def ask(self, *arguments: str, text: str = "") -> str:
        """Return what kubectl printed; AssertionError unless it went well."""
        done = self.kubectl(*arguments, text=text)
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done.stdout

    def apply(self, *objects: Mapping[str, Any]) -> None:
        listed = {"apiVersion": "v1", "kind": "List", "items": objects}
        self.ask("apply", "-f", "-", text=json.dumps(listed))

    def get(self, *arguments: str) -> Any:
        return json.loads(self.ask("get", *arguments, "-o", "json"))

    def running(self, namespace: str, name: str) -> dict[str, Any]:
        """Wait until a pod is ready; return it."""
        return self.eventually(
            lambda: self._ready_pod(namespace, name), f"pod {namespace}/{name} is ready"
        )

    def _ready_pod(self, namespace: str, name: str) -> dict[str, Any] | Missing:
        done = self.kubectl("get", "pod", "-n", namespace, name, "-o", "json")
        if done.returncode:
            return Missing(done.stderr)
        pod = json.loads(done.stdout)
        conditions = {one["type"]: one["status"] for one in pod["status"].get("conditions", ())}
        if conditions.get("Ready") == "True":
            return pod
        told = self.ask("describe", "pod", "-n", namespace, name)[-1500:]
        return Missing(f"{told}\n{self.machine.log('meshd')[-2000:]}")

    def exec(self, namespace: str, name: str, *command: str, timeout: float = PATIENCE) -> Done:
        return self.kubectl("exec", "-n", namespace, name, "--", *command, timeout=timeout)

    def logs(self) -> str:
        """Return the end of what each program has written."""
        names = (*programs.NAMES, "containerd", "meshd")
        return "\n".join(f"---- {name}\n{self.machine.log(name)[-1500:]}" for name in names)

    def close(self) -> None:
        self.machine.close()
