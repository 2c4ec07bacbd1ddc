//! Where the services are, by the environment that `dev/services env` prints, and what they run on.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

/// The way to Postgres.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    Tcp,
    Unix,
}

impl Via {
    pub const BOTH: [Via; 2] = [Via::Tcp, Via::Unix];

    /// For names of slots and connectors.
    pub fn short(self) -> &'static str {
        match self {
            Via::Tcp => "tcp",
            Via::Unix => "unix",
        }
    }

    pub fn shown(self) -> &'static str {
        match self {
            Via::Tcp => "TCP",
            Via::Unix => "Unix socket",
        }
    }
}

/// Where the services are.
#[derive(Clone, Debug)]
pub struct Services {
    pub kafka: String,
    pub registry: String,
    postgres_port: u16,
    socket_dir: String,
}

impl Services {
    pub fn from_environment() -> Result<Self> {
        let get = |name: &str| env::var(name).with_context(|| format!("{name} is not set: `bench/run` sets it"));
        Ok(Self {
            kafka: get("TABLECAST_KAFKA")?,
            registry: get("TABLECAST_REGISTRY")?,
            postgres_port: get("TABLECAST_POSTGRES_PORT")?.parse().context("TABLECAST_POSTGRES_PORT is no port")?,
            socket_dir: get("TABLECAST_POSTGRES_SOCKET_DIR")?,
        })
    }

    pub fn postgres_port(&self) -> u16 {
        self.postgres_port
    }

    /// A connection string that libpq, the daemon and this program understand. No TLS: it is not what is measured.
    pub fn database(&self, database: &str, via: Via) -> String {
        let Self { postgres_port: port, socket_dir, .. } = self;
        match via {
            Via::Tcp => format!("host=127.0.0.1 port={port} user=postgres dbname={database} sslmode=disable"),
            Via::Unix => format!("host={socket_dir} port={port} user=postgres dbname={database}"),
        }
    }
}

/// The lines that say what was measured on what.
pub fn machine_and_versions(services: &Services) -> Result<Vec<String>> {
    let mut client = postgres::Client::connect(&services.database("postgres", Via::Tcp), postgres::NoTls)?;
    let server: String = client.query_one("SHOW server_version", &[])?.get(0);
    let (_, librdkafka) = rdkafka::util::get_rdkafka_version();
    let given = |name: &str| env::var(name).unwrap_or_else(|_| "?".to_owned());
    Ok(vec![
        format!("Machine: {}", machine()),
        format!("Load before the start, over one minute: {}", first_word("/proc/loadavg")),
        format!("PostgreSQL {server} (fsync off, no TLS), {}", first_line("pg_recvlogical", &["--version"])),
        format!(
            "Kafka and Kafka Connect {}, Apicurio Registry {}, Debezium {}, {}",
            given("BENCH_KAFKA_VERSION"),
            given("BENCH_REGISTRY_VERSION"),
            given("BENCH_DEBEZIUM_VERSION"),
            java_version(),
        ),
        format!(
            "tablecast {}, librdkafka {librdkafka}, {}",
            given("BENCH_COMMIT"),
            first_line("rustc", &["--version"])
        ),
        format!("Command: `bench/run {}`", env::args().skip(1).collect::<Vec<_>>().join(" ")),
    ])
}

fn machine() -> String {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let models: Vec<&str> = cpus.lines().filter_map(|line| line.strip_prefix("model name")).collect();
    let model = models.first().map_or("?", |model| model.trim_start_matches([' ', '\t', ':']));
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib: u64 = memory.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or(0);
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let system = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or("?").trim_matches('"');
    let kernel = first_line("uname", &["-sr"]);
    format!("{} × {model}, {} GiB, {system}, {kernel}; everything on it, over loopback", models.len(), kib >> 20)
}

/// It tells its version on stderr.
fn java_version() -> String {
    let output = Command::new("java").arg("-version").output().map(|output| output.stderr).unwrap_or_default();
    String::from_utf8_lossy(&output).lines().next().unwrap_or("?").replace('"', "")
}

fn first_word(file: &str) -> String {
    fs::read_to_string(PathBuf::from(file)).unwrap_or_default().split_whitespace().next().unwrap_or("?").to_owned()
}

fn first_line(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).lines().next().unwrap_or("?").to_owned()
}
