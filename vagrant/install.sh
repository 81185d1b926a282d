#!/bin/bash
# install.sh NAME=ADDRESS… : install the package in dist/, and know the other machines by name.
set -euo pipefail

export DEBIAN_FRONTEND=noninteractive
packages=(/vagrant/dist/meshd_*.deb)
[[ -f ${packages[-1]} ]] || { echo "there is no package in dist/: run make deb first" >&2 && exit 1; }
# Its dependencies come with every Debian but for a few, which apt knows where to get.
dpkg --install "${packages[-1]}" >/dev/null 2>&1 ||
    { apt-get update -qq && apt-get install -qq --fix-broken; }

for node in "$@"; do
    name=${node%%=*} address=${node#*=}
    grep -q "^$address $name\$" /etc/hosts || echo "$address $name" >>/etc/hosts
done
# Debian's boxes give the machine's own name a loopback address.
sed -i "/^127\.0\.[12]\.1[[:space:]].*\b$(hostname)\b/d" /etc/hosts
meshctl version
