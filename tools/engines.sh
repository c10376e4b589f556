#!/bin/sh
# Install what the tests run against: a real Docker Engine (started here), bubblewrap, slirp4netns, and the servers that the tests
# start for themselves: PostgreSQL, MariaDB, Redis, HAProxy, Prometheus; skopeo; a registry; a browser, Chromium; the checker of units
# of systemd; and what functions in other languages need: gcc, Go, Node with npm. Idempotent; needs root once.
set -eu

say() { echo "engines: $*" >&2; }

need_root() {
    [ "$(id -u)" = 0 ] || { say "$1 is missing; run this script once as root"; exit 1; }
}

install_packages() {
    need_root "$*"
    say "installing $*"
    export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 # the packages must not start services of their own
    apt-get update -qq >/dev/null
    apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

missing=""
command -v dockerd >/dev/null || missing="$missing docker.io iptables"
command -v ip >/dev/null || missing="$missing iproute2"
command -v iptables >/dev/null || missing="$missing iptables"
command -v bwrap >/dev/null || missing="$missing bubblewrap"
command -v slirp4netns >/dev/null || missing="$missing slirp4netns"
command -v redis-server >/dev/null || missing="$missing redis-server"
command -v haproxy >/dev/null || missing="$missing haproxy"
command -v mariadbd >/dev/null || missing="$missing mariadb-server"
ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || missing="$missing postgresql"
command -v skopeo >/dev/null || missing="$missing skopeo"
command -v docker-registry >/dev/null || missing="$missing docker-registry"
command -v prometheus >/dev/null || missing="$missing prometheus"
command -v chromium >/dev/null || missing="$missing chromium"
command -v systemd-analyze >/dev/null || missing="$missing systemd"
command -v gcc >/dev/null || missing="$missing gcc libc6-dev"
command -v go >/dev/null || missing="$missing golang-go"
command -v node >/dev/null || missing="$missing nodejs"
command -v npm >/dev/null || missing="$missing npm"
# shellcheck disable=SC2086 # a list of package names
[ -z "$missing" ] || install_packages $missing

# The tests start a hundred processes a second. With the usual 32768 numbers a number is soon somebody else's, maybe that of
# a thread of the tests.
if [ "$(id -u)" = 0 ] && [ -w /proc/sys/kernel/pid_max ]; then
    echo 4194304 >/proc/sys/kernel/pid_max 2>/dev/null || say "the numbers of processes stay few"
fi

# Networks of functions need it for every user, which is what udev makes of it; a machine without udev may not have it.
if [ "$(id -u)" = 0 ]; then
    [ -e /dev/net/tun ] || { mkdir -p /dev/net && mknod /dev/net/tun c 10 200; }
    chmod 0666 /dev/net/tun
fi

answers() { curl -fs --max-time 5 --unix-socket /var/run/docker.sock http://engine/_ping >/dev/null 2>&1; }

wait_for_answer() {
    for _ in $(seq 150); do
        answers && return 0
        kill -0 "$1" 2>/dev/null || return 1
        sleep 0.2
    done
    return 1
}

start_engine() {
    log=/var/log/hearth-test-dockerd.log
    rm -f /var/run/docker.pid
    setsid dockerd "$@" >"$log" 2>&1 </dev/null &
    wait_for_answer $! && return 0
    kill $! 2>/dev/null || true
    return 1
}

if ! answers; then
    need_root "a running Docker Engine"
    say "starting dockerd"
    start_engine || start_engine --iptables=false --bridge=none ||
        start_engine --storage-driver=vfs --iptables=false --bridge=none ||
        { say "dockerd does not start; see /var/log/hearth-test-dockerd.log"; exit 1; }
fi
