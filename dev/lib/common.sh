# shellcheck shell=bash
# What every service needs: where things lie, how processes are started, watched and ended, which ports are free.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
CACHE=${TABLECAST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tablecast}
INSTANCE=${TABLECAST_SERVICES:-default}
STATE=$ROOT/.services/$INSTANCE
# shellcheck disable=SC2034 # the services' files use it
START_TIMEOUT=90 # seconds: a cold JVM on a busy machine takes 30

fail() {
    echo "dev/$(basename "$0"): $*" >&2
    exit 1
}

check_instance_name() {
    [[ $INSTANCE =~ ^[A-Za-z0-9_-]{1,40}$ ]] || fail "TABLECAST_SERVICES='$INSTANCE': use letters, digits, _ and -"
}

# with_lock FILE COMMAND…: one process at a time. The command runs in a subshell; what it starts doesn't inherit
# the lock, since `detached` closes it.
with_lock() {
    local file=$1
    shift
    mkdir -p "$(dirname "$file")"
    (
        flock 9
        "$@"
    ) 9>"$file"
}

# wait_until SECONDS COMMAND…: true as soon as the command is.
wait_until() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@"; do
        ((SECONDS < deadline)) || return 1
        sleep 0.1
    done
}

# remember NAME VALUE, recall NAME: what an instance has to know again after a restart.
remember() {
    mkdir -p "$STATE/remembered"
    printf '%s\n' "$2" >"$STATE/remembered/$1"
}

recall() {
    cat "$STATE/remembered/$1" 2>/dev/null
}

# port_of SERVICE: the same port for as long as the instance lives. Below the range from which the kernel takes the
# ports of outgoing connections, so that none of those sits on it while the service is down.
port_of() {
    local port
    port=$(recall "$1.port") && [[ $port ]] && echo "$port" && return
    for _ in {1..100}; do
        port=$((15000 + (RANDOM << 2 ^ RANDOM) % 17000))
        if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && mkdir "$(ports_taken)/$port" 2>/dev/null; then
            remember "$1.port" "$port"
            echo "$port"
            return
        fi
    done
    fail "no free port found for $1"
}

# A folder a port, so that two instances that start at once don't choose the same one.
ports_taken() {
    mkdir -p "$CACHE/ports"
    echo "$CACHE/ports"
}

free_ports() {
    local file
    for file in "$STATE"/remembered/*.port; do
        [[ -e $file ]] && rmdir "$CACHE/ports/$(<"$file")" 2>/dev/null
    done
    return 0
}

# detached NAME COMMAND…: starts a process that outlives this shell, logs to logs/NAME.log and leaves its pid.
detached() {
    local name=$1
    shift
    mkdir -p "$STATE/logs"
    setsid nohup "$@" </dev/null >>"$STATE/logs/$name.log" 2>&1 9>&- &
    local pid=$!
    disown
    remember "$name.pid" "$pid"
    # Until setsid is what runs there, it still looks like this shell.
    # shellcheck disable=SC2317,SC2329 # called by wait_until
    became() { running "$1" >/dev/null || ! kill -0 "$2" 2>/dev/null; }
    wait_until 10 became "$name" "$pid"
}

# running NAME: prints the pid if the process still is the one that was started: pids are used again, so its command
# line must name the instance's folder.
running() {
    local pid
    pid=$(recall "$1.pid") && [[ -r /proc/$pid/cmdline ]] && tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null |
        grep -qF "$STATE/" && echo "$pid"
}

# end NAME SIGNAL SECONDS: sends the signal and waits until the process is gone.
end() {
    local pid
    pid=$(running "$1") || return 0
    kill "-$2" "$pid" 2>/dev/null
    # shellcheck disable=SC2317,SC2329 # called by wait_until
    gone() { ! running "$1" >/dev/null; }
    wait_until "$3" gone "$1" ||
        { echo "dev/services: $1 (pid $pid) did not end within $3 s of SIG$2" >&2 && return 1; }
}

# log_tail NAME: why a service did not start.
log_tail() {
    echo "--- the end of $STATE/logs/$1.log" >&2
    tail -n "${2:-15}" "$STATE/logs/$1.log" >&2
}
