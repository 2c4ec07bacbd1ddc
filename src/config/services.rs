//! `[kafka]`, `[registry]`, `[http]` and `[topics]`.

use std::collections::BTreeMap;

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaConfRes;

use super::meant::{Http, Kafka, Registry, TopicDefaults};
use super::written::{HTTP, KAFKA, REGISTRY, Reader, Section, TOPICS, Text};

/// A property on which a promise of tablecast rests.
struct Owned {
    names: &'static [&'static str],
    /// The values that change nothing.
    harmless: &'static [&'static str],
    why: &'static str,
    remedy: &'static str,
}

const LEAVE_OUT: &str = "leave it out";

const OWNED: &[Owned] = &[
    Owned {
        names: &["bootstrap.servers", "metadata.broker.list"],
        harmless: &[],
        why: "the brokers have a setting of their own",
        remedy: "write `kafka.bootstrap_servers`",
    },
    Owned {
        names: &["transactional.id"],
        harmless: &[],
        why: "tablecast derives it from the connector's name, so that a second daemon fences the first",
        remedy: LEAVE_OUT,
    },
    Owned {
        names: &["enable.idempotence"],
        harmless: &["true"],
        why: "without idempotence records could come twice or out of order",
        remedy: LEAVE_OUT,
    },
    Owned {
        names: &["acks", "request.required.acks"],
        harmless: &["all", "-1"],
        why: "records that not all replicas hold could be lost after Postgres has let go of them",
        remedy: LEAVE_OUT,
    },
    Owned {
        names: &["partitioner"],
        harmless: &["murmur2_random"],
        why: "another partitioner would send a key's later records to another partition",
        remedy: LEAVE_OUT,
    },
    Owned {
        names: &["delivery.report.only.error"],
        harmless: &["true"],
        why: "a committed transaction is the acknowledgement, and a report for each record would only cost time",
        remedy: LEAVE_OUT,
    },
    Owned {
        names: &["isolation.level"],
        harmless: &["read_committed"],
        why: "a position that was never committed must not be read",
        remedy: LEAVE_OUT,
    },
];

/// `[kafka]`.
pub(super) fn kafka(reader: &mut Reader<'_>, root: &Section<'_>) -> Option<Kafka> {
    let section = required(reader, root, "kafka", "bootstrap_servers = \"127.0.0.1:9092\"", KAFKA)?;
    let servers = section.required_text(reader, "bootstrap_servers", "127.0.0.1:9092");
    let mut properties = BTreeMap::new();
    for entry in section.named(reader, "properties").iter().flat_map(Section::entries) {
        if let Some(value) = entry.scalar(reader) {
            check_property(reader, entry.name, &value);
            properties.insert(entry.name.to_owned(), value.value);
        }
    }
    let servers = servers?;
    check_servers(reader, &servers);
    Some(Kafka { bootstrap_servers: servers.value, properties })
}

fn check_servers(reader: &mut Reader<'_>, servers: &Text) {
    let is_address = |server: &str| {
        let (host, port) = server.trim().rsplit_once(':').unwrap_or(("", ""));
        !host.is_empty() && !host.contains(char::is_whitespace) && port.parse::<u16>().is_ok_and(|port| port > 0)
    };
    if !servers.value.split(',').all(is_address) {
        let problem = format!("{} is not a list of brokers", servers.shown());
        reader.reject(&servers.place, problem, "write `HOST:PORT`, several separated by commas");
    }
}

fn check_property(reader: &mut Reader<'_>, name: &str, value: &Text) {
    if let Some(owned) = OWNED.iter().find(|owned| owned.names.contains(&name)) {
        if !owned.harmless.contains(&value.value.as_str()) {
            reader.reject(&value.place, format!("not for you to set: {}", owned.why), owned.remedy);
        }
        return;
    }
    // librdkafka itself is the judge; its message is not passed on, since it quotes the value.
    match ClientConfig::new().set(name, value.value.as_str()).create_native_config() {
        Ok(_) => {}
        Err(KafkaError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, ..)) => {
            reader.reject(&value.place, "librdkafka has no such property", "see librdkafka's CONFIGURATION.md");
        }
        Err(_) => {
            let remedy = "see librdkafka's CONFIGURATION.md for the values that it takes";
            reader.reject(&value.place, "librdkafka does not take this value", remedy);
        }
    }
}

/// `[registry]`.
pub(super) fn registry(reader: &mut Reader<'_>, root: &Section<'_>) -> Option<Registry> {
    let section = required(reader, root, "registry", "url = \"http://127.0.0.1:8081\"", REGISTRY)?;
    let auto_register = section.switch(reader, "auto_register").unwrap_or(true);
    let url = section.required_text(reader, "url", "http://127.0.0.1:8081")?;
    match base_url(&url.value) {
        Ok(url) => Some(Registry { url, auto_register }),
        Err(problem) => {
            // The URL is not quoted: it may carry a password.
            let remedy = "write `http://HOST:8081`, or `https://USER:PASSWORD@HOST/apis/ccompat/v7`";
            reader.reject(&url.place, problem, remedy);
            None
        }
    }
}

fn base_url(url: &str) -> Result<String, &'static str> {
    let (scheme, rest) = url.split_once("://").ok_or("is not an http or https URL")?;
    if !["http", "https"].contains(&scheme.to_ascii_lowercase().as_str()) {
        return Err("is not an http or https URL");
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    let address = authority.rsplit_once('@').map_or(authority, |(_, address)| address);
    if address.is_empty() || address.starts_with(':') {
        return Err("names no host");
    }
    // An `@` further on is a password's slash that was not percent-encoded.
    if rest[authority.len()..].contains('@') || rest.contains(['?', '#']) || rest.contains(char::is_whitespace) {
        return Err("is more than an address and a path");
    }
    Ok(url.trim_end_matches('/').to_owned())
}

/// `[http]`, which is left out where nothing is to be served.
pub(super) fn http(reader: &mut Reader<'_>, root: &Section<'_>) -> Option<Http> {
    let section = root.section(reader, "http", HTTP)?;
    let listen = section.required_text(reader, "listen", "127.0.0.1:9187")?;
    match listen.value.parse() {
        Ok(listen) => Some(Http { listen }),
        Err(_) => {
            let problem = format!("{} is not an IP address with a port", listen.shown());
            reader.reject(&listen.place, problem, "write `127.0.0.1:9187`, or `0.0.0.0:9187` for all addresses");
            None
        }
    }
}

/// `[topics]`.
pub(super) fn topics(reader: &mut Reader<'_>, root: &Section<'_>) -> TopicDefaults {
    let mut defaults = TopicDefaults { partitions: 1, replication_factor: -1 };
    let Some(section) = root.section(reader, "topics", TOPICS) else {
        return defaults;
    };
    // The upper bounds are what Kafka's protocol and one broker's memory can hold, far above what is sensible.
    if let Some(partitions) = section.integer(reader, "partitions", 1..100_001) {
        defaults.partitions = i32::try_from(partitions).unwrap_or(defaults.partitions);
    }
    if let Some(factor) = section.integer(reader, "replication_factor", -1..32_768) {
        if factor == 0 {
            let remedy = "write 1 or more, or -1 for the broker's default";
            reader.reject(&section.place_of("replication_factor"), "0 replicas hold nothing", remedy);
        }
        defaults.replication_factor = i32::try_from(factor).unwrap_or(defaults.replication_factor);
    }
    defaults
}

fn required<'t>(
    reader: &mut Reader<'_>,
    root: &Section<'t>,
    key: &str,
    example: &str,
    known: &[&str],
) -> Option<Section<'t>> {
    if !root.has(key) {
        reader.reject_missing(key, format!("add `[{key}]` with `{example}`"));
    }
    root.section(reader, key, known)
}
