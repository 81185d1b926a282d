#!/bin/bash
# bookinfo.sh NAME NAME=ADDRESS… : run this node's part of Bookinfo, now and after each boot. A
# node's place in the list decides which network its pods have.
set -euo pipefail

name=$1
shift
install -m 0755 /dev/stdin /usr/local/sbin/bookinfo <<END
#!/bin/bash
set -euo pipefail
name=$name
nodes=($*)
END
cat >>/usr/local/sbin/bookinfo <<'END'
python=/opt/meshd/bin/python
bookinfo=$("$python" -c 'import meshd.demo.bookinfo as found; print(found.__path__[0])')
declare -A parts=(
    [server]="productpage-v1"
    [agent-1]="details-v1 ratings-v1"
    [agent-2]="reviews-v1 reviews-v2 reviews-v3"
)

# All but the deployments that are another node's.
part() {
    "$python" -c '
import sys, yaml
names, documents = sys.argv[1:], yaml.safe_load_all(sys.stdin)
print(yaml.safe_dump_all(
    one for one in documents if one["kind"] != "Deployment" or one["metadata"]["name"] in names
))' ${parts[$name]}
}

# Pods reach pods of other nodes by way of both hosts; nobody else is routed to.
routes() {
    local number=0 node switch=/run/meshd/testbed/switch
    sysctl -qw net.ipv4.ip_forward=1
    nsenter --net="$switch" sysctl -qw net.ipv4.ip_forward=1
    for node in "${nodes[@]}"; do
        number=$((number + 1))
        if [[ ${node%%=*} == "$name" ]]; then
            nsenter --net="$switch" ip route replace 198.18.0.0/20 via "198.18.$number.2"
        else
            ip route replace "198.18.$number.0/24" via "${node#*=}"
        fi
    done
}

# On a slow machine the roles answer some time after meshd has started.
answers() {
    meshctl status >/dev/null 2>&1 || (($? != 3))
}
for _ in {1..100}; do
    ! answers || break
    sleep 0.5
done

own=0
for node in "${nodes[@]}"; do
    own=$((own + 1))
    [[ ${node%%=*} != "$name" ]] || break
done
part <"$bookinfo/manifests/bookinfo.yaml" |
    cat "$bookinfo/manifests/namespace.yaml" <(echo ---) - |
    meshctl testbed up -f - --images "$bookinfo/images.yaml" --cidr "198.18.$own.0/24"
routes
END

cat >/etc/systemd/system/bookinfo.service <<'END'
[Unit]
Description=This node's part of Bookinfo
After=meshd.service network-online.target
Wants=meshd.service network-online.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/local/sbin/bookinfo
ExecStop=/usr/bin/meshctl testbed down

[Install]
WantedBy=multi-user.target
END
systemctl daemon-reload
systemctl enable --quiet bookinfo.service
systemctl restart bookinfo.service
meshctl testbed ps
