# shellcheck shell=bash
# Apache Kafka in KRaft mode, one node that is broker and controller.

# Kafka 4.3.0 to 4.4.0 leave out a transaction's markers for a partition that has no leader, as when the only broker comes
# or goes, and call the transaction complete (KAFKA-20734): it is committed, and hangs or is aborted.
KAFKA_VERSION=${KAFKA_VERSION:-4.2.1}

# A short start on few cores: a small collector, and the classes as the JVM has prepared them (4.3 s without, 2 s with).
# KAFKA_JVM_OPTIONS are others, for where its pauses matter.
KAFKA_CLASSES=$CACHE/kafka-$KAFKA_VERSION-classes
read -ra KAFKA_JVM <<<"${KAFKA_JVM_OPTIONS:--Xms128m -Xmx1g -XX:+UseSerialGC}"
KAFKA_JAVA=(java "${KAFKA_JVM[@]}" -cp "$CACHE/kafka-$KAFKA_VERSION/*")

kafka_prepare() {
    [[ -e $STATE/kafka/data/meta.properties ]] && return
    local port controller cluster
    port=$(port_of kafka)
    controller=$(port_of kafka-controller)
    cluster=$(head -c 16 /dev/urandom | base64 | tr '+/' '-_' | tr -d '=\n')
    mkdir -p "$STATE/kafka"
    cat >"$STATE/kafka/server.properties" <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller
advertised.listeners=PLAINTEXT://127.0.0.1:$port
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=$STATE/kafka/data
num.partitions=1
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
# A broker that was killed may come back when its session has run out: after 9 s by default.
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500

# One node holds every copy.
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
PROPERTIES
    "${KAFKA_JAVA[@]}" -XX:TieredStopAtLevel=1 -XX:SharedArchiveFile="$KAFKA_CLASSES/kafka.jsa" \
        kafka.tools.StorageTool format "--cluster-id=$cluster" -c "$STATE/kafka/server.properties"
}

# The log of this start says that the server has started. True too where the process has ended: no need to wait on.
kafka_settled() {
    grep -q 'Kafka Server started' "$STATE/logs/kafka.log" || ! running kafka >/dev/null
}

kafka_start() {
    running kafka >/dev/null && return
    mkdir -p "$STATE/logs"
    kafka_prepare >"$STATE/logs/kafka-setup.log" 2>&1 || { log_tail kafka-setup && return 1; }
    kafka_run -XX:SharedArchiveFile="$KAFKA_CLASSES/kafka.jsa"
    running kafka >/dev/null || { log_tail kafka && return 1; }
}

kafka_run() {
    [[ -e $STATE/logs/kafka.log ]] && mv "$STATE/logs/kafka.log" "$STATE/logs/kafka-before.log"
    detached kafka "${KAFKA_JAVA[@]}" "$@" -Dorg.slf4j.simpleLogger.showDateTime=true \
        kafka.Kafka "$STATE/kafka/server.properties"
    wait_until "$START_TIMEOUT" kafka_settled
}

# kafka_archive_classes FOLDER: runs a broker once, which leaves its classes there when it stops.
# shellcheck disable=SC2030 # in a subshell, so that STATE is another only here
kafka_archive_classes() (
    STATE=$1/instance
    mkdir -p "$STATE/logs"
    kafka_prepare && kafka_run -XX:ArchiveClassesAtExit="$1/kafka.jsa" && kafka_stop
    free_ports
    rm -r "$STATE"
    [[ -e $1/kafka.jsa ]]
)

kafka_pid() { running kafka; }
kafka_stop() { end kafka TERM 60; }
kafka_kill() { end kafka KILL 10; }
kafka_remove() { :; }

kafka_describe() {
    echo "Kafka $KAFKA_VERSION, 127.0.0.1:$(port_of kafka)"
}

kafka_env() {
    echo "export TABLECAST_KAFKA=127.0.0.1:$(port_of kafka)"
}
