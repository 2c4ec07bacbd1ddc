# shellcheck shell=bash
# Debezium and an Avro converter, plugins of the Kafka Connect that comes with Kafka. Only `make bench` needs them.

DEBEZIUM_VERSION=3.7.0.Final
# shellcheck disable=SC2034 # bench/run uses it
DEBEZIUM=$CACHE/debezium-$DEBEZIUM_VERSION

fetch_debezium() {
    nice mvn -B -f "$ROOT/dev/debezium.xml" dependency:copy-dependencies@converter dependency:copy@debezium \
        -Dfolder="$1" -Ddebezium.version="$DEBEZIUM_VERSION" || return
    tar -xzf "$1"/*.tar.gz -C "$1" && rm "$1"/*.tar.gz || return
    # The converter has no manifest by which Connect would find it without looking into every jar at each start.
    java -cp "$CACHE/kafka-$KAFKA_VERSION/*" org.apache.kafka.tools.ConnectPluginPath sync-manifests --plugin-path "$1"
}

install_debezium() {
    [[ -e $DEBEZIUM ]] || need mvn maven
    need java openjdk-17-jre-headless
    install_missing "the benchmark"
    unpack_once "$CACHE/kafka-$KAFKA_VERSION" fetch_kafka
    unpack_once "$DEBEZIUM" fetch_debezium
}
