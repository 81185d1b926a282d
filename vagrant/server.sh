#!/bin/bash
# server.sh ADDRESS : be the server that other nodes take configuration and certificates from.
set -euo pipefail

cat >/etc/meshd/meshd.yaml <<END
role: server
control:
  advertise: $1
END
systemctl restart meshd
# Until it can make tokens, it is not there yet.
for _ in {1..100}; do
    ! meshctl status >/dev/null 2>&1 || exit 0
    sleep 0.2
done
meshctl status
