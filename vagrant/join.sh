#!/bin/bash
# join.sh NAME SERVER NAME=ADDRESS… : on the machine that runs vagrant: have node NAME join the
# server, and run its part of Bookinfo then.
set -euo pipefail

name=$1 server=$2
shift 2
on() {
    vagrant ssh "$1" --command "$2" </dev/null | tr -d '\r'
}

if [[ -z $(on "$name" "grep -E '^role: \"?agent' /etc/meshd/meshd.yaml || true") ]]; then
    token=$(on server "sudo meshctl token create --node $name --output name")
    on "$name" "sudo meshctl join $server --token $token"
fi
on "$name" "sudo /vagrant/vagrant/bookinfo.sh $name $*"
