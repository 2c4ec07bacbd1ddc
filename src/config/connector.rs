//! `[connectors.NAME]` and its tables.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use super::database;
use super::meant::{Connector, Delivery, SnapshotMode, TableMapping, TablePattern, TopicTemplate};
use super::names::{MAX_NAME_BYTES, table_pattern};
use super::topic::{collision_key, objection};
use super::units;
use super::written::{CONNECTOR, Entry, Place, Reader, Section, TABLE, Text, list, nearest};
use crate::relation::Unrepresentable;

const DELIVERIES: &[(&str, Delivery)] =
    &[("exactly-once", Delivery::ExactlyOnce), ("at-least-once", Delivery::AtLeastOnce)];
const SNAPSHOTS: &[(&str, SnapshotMode)] = &[("initial", SnapshotMode::Initial), ("never", SnapshotMode::Never)];
const UNREPRESENTABLE: &[(&str, Unrepresentable)] =
    &[("error", Unrepresentable::Error), ("null", Unrepresentable::Null)];

/// Large enough that the cost of a commit does not show, small enough to be held in memory a few times over.
const BATCH_MAX_BYTES: usize = 4 << 20;
/// From one record's worth to what a broker's transaction can hold without timing out.
const BATCH_MAX_BYTES_BOUNDS: (u64, u64) = (1 << 10, 1 << 30);
const BATCH_MAX_LATENCY: Duration = Duration::from_millis(100);
/// Half of librdkafka's default `transaction.timeout.ms` is the most: a batch must be committed before it times out.
const BATCH_MAX_LATENCY_BOUNDS: (Duration, Duration) = (Duration::from_millis(1), Duration::from_secs(30));
const SNAPSHOT_READERS: usize = 2;
/// Large enough that a transaction's round trips don't matter, small enough that neither its snapshot nor its Kafka
/// transaction keeps others waiting.
const SNAPSHOT_CHUNK_BYTES: usize = 1 << 20;
const SNAPSHOT_CHUNK_BYTES_BOUNDS: (u64, u64) = (1 << 10, 64 << 20);
/// Each is a connection to the source, and some megabytes.
const SNAPSHOT_READERS_MAX: i64 = 64;
const POSITION_INTERVAL: Duration = Duration::from_secs(10);
/// Longer, and an idle connector would hold back WAL for no gain.
const POSITION_INTERVAL_BOUNDS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3600));
const CATALOG_INTERVAL: Duration = Duration::from_secs(10);
/// Longer, and a topic would differ from its table for longer than anybody would look for the reason.
const CATALOG_INTERVAL_BOUNDS: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(3600));

/// A connector, and where the names stand that it shares with others.
struct Placed {
    connector: Connector,
    slot: Place,
    publication: Place,
    /// Of each table, in the order of `connector.tables`.
    tables: Vec<Place>,
}

/// Reads all connectors; those that can't be read are left out, and noted.
pub(super) fn connectors(reader: &mut Reader<'_>, section: &Section<'_>) -> BTreeMap<String, Connector> {
    let placed: Vec<_> = section.entries().iter().filter_map(|entry| connector(reader, entry)).collect();
    reject_shared_slots(reader, &placed);
    reject_shared_topics(reader, &placed);
    placed.into_iter().map(|placed| (placed.connector.name.clone(), placed.connector)).collect()
}

fn connector(reader: &mut Reader<'_>, entry: &Entry<'_>) -> Option<Placed> {
    let name = entry.name;
    let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_name) {
        let remedy = "use lower case letters, digits, `_` and `-`";
        reader.reject(&entry.place, "is not a connector's name", remedy);
    }
    let section = entry.section(reader, Some(CONNECTOR))?;
    let standard = format!("tablecast_{}", name.replace('-', "_"));
    let example = "postgres://tablecast:${PASSWORD}@127.0.0.1:5432/shop";
    let url = section.required_text(reader, "database_url", example);
    let database = url.and_then(|url| match database::parse(&url, name, reader.directory()) {
        Ok(database) => Some(database),
        Err(bad) => {
            reader.reject(&url.place, bad.problem, bad.remedy);
            None
        }
    });
    let slot = slot(reader, &section, &standard);
    let publication = publication(reader, &section, &standard);
    let delivery = choice(reader, &section, "delivery", DELIVERIES).unwrap_or(Delivery::ExactlyOnce);
    let snapshot = choice(reader, &section, "snapshot", SNAPSHOTS).unwrap_or(SnapshotMode::Initial);
    let unrepresentable = choice(reader, &section, "unrepresentable", UNREPRESENTABLE).unwrap_or_default();
    let snapshot_readers = section.integer(reader, "snapshot_readers", 1..SNAPSHOT_READERS_MAX + 1);
    let topic = template(reader, &section).unwrap_or_else(TopicTemplate::standard);
    let batch_max_bytes = size(reader, &section, "batch_max_bytes", BATCH_MAX_BYTES, BATCH_MAX_BYTES_BOUNDS);
    let snapshot_chunk_bytes =
        size(reader, &section, "snapshot_chunk_bytes", SNAPSHOT_CHUNK_BYTES, SNAPSHOT_CHUNK_BYTES_BOUNDS);
    let batch_max_latency = duration(reader, &section, "batch_max_latency", BATCH_MAX_LATENCY_BOUNDS);
    let position_interval = duration(reader, &section, "position_interval", POSITION_INTERVAL_BOUNDS);
    let catalog_interval = duration(reader, &section, "catalog_interval", CATALOG_INTERVAL_BOUNDS);
    let (tables, places) = tables(reader, &section).into_iter().unzip();
    let (database, tls) = database?;
    let connector = Connector {
        name: name.to_owned(),
        database,
        tls,
        slot,
        publication,
        delivery,
        snapshot,
        snapshot_readers: snapshot_readers
            .map_or(SNAPSHOT_READERS, |readers| usize::try_from(readers).unwrap_or(SNAPSHOT_READERS)),
        snapshot_chunk_bytes,
        unrepresentable,
        topic,
        tables,
        batch_max_bytes,
        batch_max_latency: batch_max_latency.unwrap_or(BATCH_MAX_LATENCY),
        position_interval: position_interval.unwrap_or(POSITION_INTERVAL),
        catalog_interval: catalog_interval.unwrap_or(CATALOG_INTERVAL),
    };
    let (slot, publication) = (section.place_of("slot"), section.place_of("publication"));
    Some(Placed { connector, slot, publication, tables: places })
}

fn slot(reader: &mut Reader<'_>, section: &Section<'_>, standard: &str) -> String {
    let text = section.text(reader, "slot");
    let (slot, place) = named(text.as_ref(), section, standard);
    let is_valid = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    if slot.len() > MAX_NAME_BYTES {
        let remedy = "write a shorter `slot`, at most 63 bytes";
        reader.reject(place, "the slot's name is longer than Postgres takes", remedy);
    } else if text.is_some() && (slot.is_empty() || !slot.bytes().all(is_valid)) {
        reader.reject(place, "is not a slot's name", "use lower case letters, digits and `_`");
    }
    slot.to_owned()
}

fn publication(reader: &mut Reader<'_>, section: &Section<'_>, standard: &str) -> String {
    let text = section.text(reader, "publication");
    let (publication, place) = named(text.as_ref(), section, standard);
    if publication.len() > MAX_NAME_BYTES {
        let remedy = "write a shorter `publication`, at most 63 bytes";
        reader.reject(place, "the publication's name is longer than Postgres takes", remedy);
    } else if publication.is_empty() || publication.contains('\0') {
        reader.reject(place, "is not a publication's name", "write a name, or leave it out for the default");
    }
    publication.to_owned()
}

/// The name as written, or the standard one, which stands where the connector does.
fn named<'v>(text: Option<&'v Text>, section: &'v Section<'_>, standard: &'v str) -> (&'v str, &'v Place) {
    text.map_or((standard, &section.place), |text| (text.value.as_str(), &text.place))
}

fn choice<T: Copy>(reader: &mut Reader<'_>, section: &Section<'_>, key: &str, choices: &[(&str, T)]) -> Option<T> {
    let text = section.text(reader, key)?;
    if let Some((_, choice)) = choices.iter().find(|(name, _)| *name == text.value) {
        return Some(*choice);
    }
    let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
    let remedy = match nearest(&text.value, &names) {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("write one of {}", list(&names)),
    };
    reader.reject(&text.place, format!("{} is not a choice", text.shown()), remedy);
    None
}

fn template(reader: &mut Reader<'_>, section: &Section<'_>) -> Option<TopicTemplate> {
    let text = section.text(reader, "topic")?;
    match TopicTemplate::parse(&text.value) {
        Ok(template) => Some(template),
        Err(_) if !text.foreign.is_empty() => {
            let problem = format!("{} is not a topic's name", text.shown());
            reader.reject(&text.place, problem, "use letters, digits, `.`, `_` and `-`");
            None
        }
        Err(bad) => {
            reader.reject(&text.place, bad.problem, bad.remedy);
            None
        }
    }
}

fn size(
    reader: &mut Reader<'_>,
    section: &Section<'_>,
    key: &str,
    standard: usize,
    (least, most): (u64, u64),
) -> usize {
    let entries = section.entries();
    let Some(entry) = entries.iter().find(|entry| entry.name == key) else {
        return standard;
    };
    let Some(text) = entry.scalar(reader) else {
        return standard;
    };
    match units::bytes(&text.value) {
        Some(bytes) if (least..=most).contains(&bytes) => return usize::try_from(bytes).unwrap_or(standard),
        Some(_) => {
            let problem = format!("{} is out of range", text.shown());
            let remedy =
                format!("write a size between `{}` and `{}`", units::show_bytes(least), units::show_bytes(most));
            reader.reject(&text.place, problem, remedy);
        }
        None => {
            let problem = format!("{} is not a size", text.shown());
            reader.reject(&text.place, problem, "write bytes, or a number with a unit, like `4MiB` or `4MB`");
        }
    }
    standard
}

fn duration(
    reader: &mut Reader<'_>,
    section: &Section<'_>,
    key: &str,
    (least, most): (Duration, Duration),
) -> Option<Duration> {
    let entries = section.entries();
    let text = entries.iter().find(|entry| entry.name == key)?.scalar(reader)?;
    match units::duration(&text.value) {
        Some(duration) if (least..=most).contains(&duration) => Some(duration),
        Some(_) => {
            let problem = format!("{} is out of range", text.shown());
            reader.reject(&text.place, problem, format!("write a duration between `{least:?}` and `{most:?}`"));
            None
        }
        None => {
            let problem = format!("{} is not a duration", text.shown());
            reader.reject(&text.place, problem, "write a whole number with a unit, like `100ms`, `10s` or `5m`");
            None
        }
    }
}

fn tables(reader: &mut Reader<'_>, connector: &Section<'_>) -> Vec<(TableMapping, Place)> {
    let entries = match connector.named(reader, "tables") {
        Some(section) => section.entries(),
        None if connector.has("tables") => return Vec::new(),
        None => Vec::new(),
    };
    if entries.is_empty() {
        let remedy =
            format!("add `[{}.tables.\"public.*\"]`, or one such entry for each table", connector.place.setting);
        reader.reject(&connector.place_of("tables"), "no table is captured", remedy);
    }
    let mut tables: Vec<(TableMapping, Place)> = Vec::new();
    for entry in entries {
        let Some(mapping) = table(reader, &entry) else { continue };
        match tables.iter().find(|(other, _)| other.pattern == mapping.pattern) {
            Some((_, other)) => {
                let problem = format!("names the same as `{}`", other.setting);
                reader.reject(&entry.place, problem, "keep one of the two");
            }
            None => tables.push((mapping, entry.place)),
        }
    }
    tables
}

fn table(reader: &mut Reader<'_>, entry: &Entry<'_>) -> Option<TableMapping> {
    let pattern = table_pattern(entry.name).map_err(|bad| reader.reject(&entry.place, bad.problem, bad.remedy)).ok();
    let section = entry.section(reader, Some(TABLE))?;
    let topic = template(reader, &section);
    let key = columns(reader, &section, "key");
    let exclude_columns = columns(reader, &section, "exclude_columns").unwrap_or_default();
    let string_columns = string_columns(reader, &section, &exclude_columns);
    let snapshot = choice(reader, &section, "snapshot", SNAPSHOTS);
    let unrepresentable = choice(reader, &section, "unrepresentable", UNREPRESENTABLE);
    if key.as_ref().is_some_and(Vec::is_empty) {
        let remedy = "name its columns, or leave it out for the primary key";
        reader.reject(&section.place_of("key"), "is empty: every row would have the same key", remedy);
    }
    for column in key.iter().flatten().filter(|column| exclude_columns.contains(column)) {
        let problem = format!("`{column}` is excluded, and so cannot be a part of the key");
        reader.reject(&section.place_of("key"), problem, "take it out of `key` or of `exclude_columns`");
    }
    let pattern = pattern?;
    Some(TableMapping { pattern, topic, key, exclude_columns, string_columns, snapshot, unrepresentable })
}

/// A list of columns, each of which is there once.
fn columns(reader: &mut Reader<'_>, section: &Section<'_>, key: &str) -> Option<Vec<String>> {
    let texts = section.texts(reader, key)?;
    let mut seen = HashSet::new();
    for text in &texts {
        if text.value.is_empty() {
            reader.reject(&text.place, "is not a column's name", "write the name as the catalog has it");
        } else if !seen.insert(&text.value) {
            reader.reject(&text.place, format!("{} is there twice", text.shown()), "keep one of the two");
        }
    }
    Some(texts.into_iter().map(|text| text.value).collect())
}

fn string_columns(reader: &mut Reader<'_>, section: &Section<'_>, excluded: &[String]) -> Vec<String> {
    let mut columns = Vec::new();
    for entry in section.named(reader, "columns").iter().flat_map(Section::entries) {
        let Some(text) = entry.text(reader) else { continue };
        if text.value != "string" {
            let remedy = "there is only `\"string\"`: Postgres's own text, whatever the column's type";
            reader.reject(&text.place, format!("{} is not a choice", text.shown()), remedy);
        } else if excluded.iter().any(|excluded| excluded == entry.name) {
            let remedy = "take it out of `columns` or of `exclude_columns`";
            reader.reject(&text.place, "is excluded, and so cannot be written", remedy);
        }
        columns.push(entry.name.to_owned());
    }
    columns
}

/// Two connectors with one slot would take turns at losing each other's changes; with one publication, each would add
/// its own tables to what the other gets. Slots belong to a server, publications to a database.
fn reject_shared_slots(reader: &mut Reader<'_>, connectors: &[Placed]) {
    for (index, one) in connectors.iter().enumerate() {
        for other in &connectors[..index] {
            let (ours, theirs) = (&one.connector, &other.connector);
            if server(ours) != server(theirs) {
                continue;
            }
            if ours.slot == theirs.slot {
                let problem = format!("its slot `{}` is that of connector `{}` too", ours.slot, theirs.name);
                reader.reject(&one.slot, problem, "write a `slot` of its own");
            }
            if ours.publication == theirs.publication && ours.database.get_dbname() == theirs.database.get_dbname() {
                let problem = format!("its publication is that of connector `{}` too", theirs.name);
                reader.reject(&one.publication, problem, "write a `publication` of its own");
            }
        }
    }
}

fn server(connector: &Connector) -> (&[tokio_postgres::config::Host], &[std::net::IpAddr], &[u16]) {
    let ports = connector.database.get_ports();
    // No port at all is the default one.
    let ports = if ports.is_empty() { &[5432] } else { ports };
    (connector.database.get_hosts(), connector.database.get_hostaddrs(), ports)
}

/// The topic of a table that is named is known here; those of a pattern are for `tablecast check` to see.
fn reject_shared_topics(reader: &mut Reader<'_>, connectors: &[Placed]) {
    let mut taken: HashMap<String, (String, &Place)> = HashMap::new();
    for placed in connectors {
        let connector = &placed.connector;
        for (mapping, place) in connector.tables.iter().zip(&placed.tables) {
            let template = mapping.topic.as_ref().unwrap_or(&connector.topic);
            let TablePattern::Table { schema, name } = &mapping.pattern else {
                if !template.names_the_table() {
                    let remedy = "put `{table}` into `topic`";
                    reader.reject(place, "stands for several tables, and all of them would get one topic", remedy);
                }
                continue;
            };
            let topic = template.render(&connector.name, schema, name);
            if let Some(objection) = objection(&topic) {
                reader.reject(place, format!("its topic is `{topic}`, {objection}"), "write another `topic`");
            }
            match taken.get(&collision_key(&topic)) {
                Some((other, first)) if *other == topic => {
                    let problem = format!("its topic `{topic}` is that of `{}` too", first.setting);
                    reader.reject(place, problem, "write another `topic` for one of them");
                }
                Some((other, first)) => {
                    let problem = format!("its topic `{topic}` and `{other}`, that of `{}`, collide", first.setting);
                    let remedy = "write another `topic` for one of them: Kafka takes `.` and `_` for the same";
                    reader.reject(place, problem, remedy);
                }
                None => {
                    taken.insert(collision_key(&topic), (topic, place));
                }
            }
        }
    }
}
