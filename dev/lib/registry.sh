# shellcheck shell=bash
# Apicurio Registry, which speaks Confluent's API under /apis/ccompat/v7. It keeps the schemas in memory: a restart
# forgets them.

REGISTRY_VERSION=3.0.9

registry_url() {
    echo "http://127.0.0.1:$(port_of registry)/apis/ccompat/v7"
}

registry_answers() {
    [[ $(curl -s --max-time 5 "$(registry_url)/subjects") == \[* ]]
}

registry_settled() {
    registry_answers || ! running registry >/dev/null
}

registry_start() {
    running registry >/dev/null && return
    [[ -e $STATE/logs/registry.log ]] && mv "$STATE/logs/registry.log" "$STATE/logs/registry-before.log"
    QUARKUS_HTTP_HOST=127.0.0.1 QUARKUS_HTTP_PORT=$(port_of registry) detached registry \
        java -Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Dtablecast.instance="$STATE/" \
        -jar "$CACHE/registry-$REGISTRY_VERSION/apicurio-registry-app-$REGISTRY_VERSION-runner.jar"
    wait_until "$START_TIMEOUT" registry_settled
    registry_answers || { log_tail registry && return 1; }
}

registry_pid() { running registry; }
registry_stop() { end registry TERM 30; }
registry_kill() { end registry KILL 10; }
registry_remove() { :; }

registry_describe() {
    echo "Apicurio Registry $REGISTRY_VERSION, $(registry_url)"
}

registry_env() {
    echo "export TABLECAST_REGISTRY=$(registry_url)"
    echo "export TABLECAST_REGISTRY_PORT=$(port_of registry)"
}
