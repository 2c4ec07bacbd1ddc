//! The configuration as written: TOML tables, read setting by setting.
//!
//! serde would stop at the first mistake and quote the value in it. This reader goes on, so that one run shows all that
//! is wrong, and it quotes no value that came from the environment. The lists of settings below are all that exists;
//! anything else is an unknown setting.

use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::Mistake;
use super::expand::{Environment, expand};

pub(super) const ROOT: &[&str] = &["kafka", "registry", "http", "topics", "connectors"];
pub(super) const KAFKA: &[&str] = &["bootstrap_servers", "properties"];
pub(super) const REGISTRY: &[&str] = &["url", "auto_register"];
pub(super) const HTTP: &[&str] = &["listen"];
pub(super) const TOPICS: &[&str] = &["partitions", "replication_factor"];
pub(super) const CONNECTOR: &[&str] = &[
    "database_url",
    "slot",
    "publication",
    "delivery",
    "snapshot",
    "snapshot_readers",
    "snapshot_chunk_bytes",
    "topic",
    "tables",
    "unrepresentable",
    "batch_max_bytes",
    "batch_max_latency",
    "position_interval",
    "catalog_interval",
];
pub(super) const TABLE: &[&str] = &["topic", "key", "exclude_columns", "columns", "snapshot", "unrepresentable"];

/// Where a setting stands.
#[derive(Clone)]
pub(super) struct Place {
    /// Its path, as TOML writes it.
    pub setting: String,
    /// The byte of the file where it starts.
    pub at: usize,
}

/// A string with its references filled in. It has no `Debug`: it may be a secret.
pub(super) struct Text {
    pub value: String,
    /// Which bytes of `value` came from the environment or a file.
    pub foreign: Vec<Range<usize>>,
    pub place: Place,
}

impl Text {
    /// The value for a message, unless it may be a secret.
    pub fn shown(&self) -> String {
        if self.foreign.is_empty() { format!("`{}`", self.value) } else { "what `${…}` stands for".to_owned() }
    }
}

/// Reads the file, and notes all that is wrong with it.
pub(super) struct Reader<'a> {
    file: &'a str,
    directory: &'a Path,
    environment: &'a dyn Environment,
    pub mistakes: Vec<Mistake>,
}

impl<'a> Reader<'a> {
    pub fn new(file: &'a str, directory: &'a Path, environment: &'a dyn Environment) -> Self {
        Reader { file, directory, environment, mistakes: Vec::new() }
    }

    /// Where relative paths start.
    pub fn directory(&self) -> &'a Path {
        self.directory
    }

    /// Notes that something is wrong, and what to do about it.
    pub fn reject(&mut self, place: &Place, problem: impl Into<String>, remedy: impl Into<String>) {
        self.mistakes.push(Mistake {
            line: Some(self.line(place.at)),
            setting: place.setting.clone(),
            problem: problem.into(),
            remedy: Some(remedy.into()),
        });
    }

    /// Notes that a whole section is missing: there is no line to point at.
    pub fn reject_missing(&mut self, setting: &str, remedy: String) {
        let (setting, problem) = (setting.to_owned(), "missing".to_owned());
        self.mistakes.push(Mistake { line: None, setting, problem, remedy: Some(remedy) });
    }

    /// Notes that the file is not TOML.
    pub fn reject_syntax(&mut self, error: &toml::de::Error) {
        let message = error.message().lines().collect::<Vec<_>>().join(", ");
        self.mistakes.push(Mistake {
            line: error.span().map(|span| self.line(span.start)),
            setting: String::new(),
            problem: format!("not TOML: {message}"),
            remedy: None,
        });
    }

    fn line(&self, at: usize) -> usize {
        let before = &self.file.as_bytes()[..at.min(self.file.len())];
        1 + before.iter().filter(|byte| **byte == b'\n').count()
    }

    /// Fills in the references of a string, or says which ones lead nowhere.
    fn text(&mut self, place: Place, raw: &str) -> Option<Text> {
        match expand(raw, self.directory, self.environment) {
            Ok(expanded) => Some(Text { value: expanded.value, foreign: expanded.foreign, place }),
            Err(unresolved) => {
                for reference in unresolved {
                    self.reject(&place, reference.problem, reference.remedy);
                }
                None
            }
        }
    }

    fn wrong_type(&mut self, place: &Place, found: &DeValue<'_>, expected: &str) {
        self.reject(place, format!("must be {expected}"), format!("this is {}", article(found.type_str())));
    }
}

fn article(kind: &str) -> String {
    let article = if kind.starts_with(['a', 'i']) { "an" } else { "a" };
    format!("{article} {kind}")
}

/// One TOML table, with its path.
pub(super) struct Section<'t> {
    pub place: Place,
    table: &'t DeTable<'t>,
}

/// One entry of a table whose keys are the user's own names.
pub(super) struct Entry<'t> {
    pub name: &'t str,
    /// Where the name stands.
    pub place: Place,
    value: &'t Spanned<DeValue<'t>>,
}

impl<'t> Section<'t> {
    /// The whole file. Unknown settings are noted here and below, once for each table.
    pub fn root(reader: &mut Reader<'_>, table: &'t DeTable<'t>) -> Section<'t> {
        let section = Section { place: Place { setting: String::new(), at: 0 }, table };
        section.reject_unknown(reader, ROOT);
        section
    }

    /// Where `key` stands, or where it would have to.
    pub fn place_of(&self, key: &str) -> Place {
        let at = self.find(key).map_or(self.place.at, |entry| entry.place.at);
        Place { setting: join(&self.place.setting, key), at }
    }

    /// Whether the setting is written, well or badly.
    pub fn has(&self, key: &str) -> bool {
        self.find(key).is_some()
    }

    /// All entries in the order of the file.
    pub fn entries(&self) -> Vec<Entry<'t>> {
        let mut entries: Vec<_> = self
            .table
            .iter()
            .map(|(key, value)| Entry {
                name: key.get_ref().as_ref(),
                place: Place { setting: join(&self.place.setting, key.get_ref()), at: key.span().start },
                value,
            })
            .collect();
        entries.sort_by_key(|entry| entry.place.at);
        entries
    }

    fn find(&self, key: &str) -> Option<Entry<'t>> {
        self.entries().into_iter().find(|entry| entry.name == key)
    }

    /// The table `key`, whose settings must be `known` ones.
    pub fn section(&self, reader: &mut Reader<'_>, key: &str, known: &[&str]) -> Option<Section<'t>> {
        self.find(key)?.section(reader, Some(known))
    }

    /// The table `key`, whose keys are the user's own names.
    pub fn named(&self, reader: &mut Reader<'_>, key: &str) -> Option<Section<'t>> {
        self.find(key)?.section(reader, None)
    }

    /// The string `key`.
    pub fn text(&self, reader: &mut Reader<'_>, key: &str) -> Option<Text> {
        self.find(key)?.text(reader)
    }

    /// The string `key`, which has no default.
    pub fn required_text(&self, reader: &mut Reader<'_>, key: &str, example: &str) -> Option<Text> {
        if !self.has(key) {
            reader.reject(&self.place_of(key), "missing", format!("add `{key} = \"{example}\"`"));
        }
        self.text(reader, key)
    }

    /// The whole number `key`, which must be in the range.
    pub fn integer(&self, reader: &mut Reader<'_>, key: &str, range: Range<i64>) -> Option<i64> {
        let entry = self.find(key)?;
        let number = entry.integer(reader)?;
        if range.contains(&number) {
            return Some(number);
        }
        reader.reject(
            &entry.place,
            format!("{number} is out of range"),
            format!("write a number between {} and {}", range.start, range.end - 1),
        );
        None
    }

    /// The switch `key`.
    pub fn switch(&self, reader: &mut Reader<'_>, key: &str) -> Option<bool> {
        let entry = self.find(key)?;
        let value = entry.value.get_ref();
        if value.as_bool().is_none() {
            reader.wrong_type(&entry.place, value, "`true` or `false`");
        }
        value.as_bool()
    }

    /// The list of strings `key`.
    pub fn texts(&self, reader: &mut Reader<'_>, key: &str) -> Option<Vec<Text>> {
        let entry = self.find(key)?;
        let Some(items) = entry.value.get_ref().as_array() else {
            reader.wrong_type(&entry.place, entry.value.get_ref(), "a list of strings, like [\"id\"]");
            return None;
        };
        let item = |(index, value): (usize, &'t Spanned<DeValue<'t>>)| {
            let setting = format!("{}[{index}]", entry.place.setting);
            Entry { name: entry.name, place: Place { setting, at: value.span().start }, value }.text(reader)
        };
        // All of them first: collecting into an Option would stop at the first mistake.
        let items: Vec<_> = items.iter().enumerate().map(item).collect();
        items.into_iter().collect()
    }

    fn reject_unknown(&self, reader: &mut Reader<'_>, known: &[&str]) {
        for entry in self.entries() {
            if known.contains(&entry.name) {
                continue;
            }
            let remedy = match nearest(entry.name, known) {
                Some(name) => format!("did you mean `{name}`?"),
                None => format!("known here: {}", list(known)),
            };
            reader.reject(&entry.place, "unknown setting", remedy);
        }
    }
}

impl<'t> Entry<'t> {
    /// The entry as a table; with `known`, nothing else may be in it.
    pub fn section(&self, reader: &mut Reader<'_>, known: Option<&[&str]>) -> Option<Section<'t>> {
        let Some(table) = self.value.get_ref().as_table() else {
            reader.wrong_type(&self.place, self.value.get_ref(), "a table");
            return None;
        };
        let section = Section { place: self.place.clone(), table };
        if let Some(known) = known {
            section.reject_unknown(reader, known);
        }
        Some(section)
    }

    /// The entry as a string.
    pub fn text(&self, reader: &mut Reader<'_>) -> Option<Text> {
        let Some(raw) = self.value.get_ref().as_str() else {
            reader.wrong_type(&self.place, self.value.get_ref(), "a string");
            return None;
        };
        reader.text(self.place.clone(), raw)
    }

    /// The entry as a string, where a number or a boolean serves as well.
    pub fn scalar(&self, reader: &mut Reader<'_>) -> Option<Text> {
        let value = match self.value.get_ref() {
            DeValue::Integer(number) if number.radix() == 10 => number.as_str().to_owned(),
            DeValue::Float(number) => number.as_str().to_owned(),
            DeValue::Boolean(value) => value.to_string(),
            _ => return self.text(reader),
        };
        Some(Text { value, foreign: Vec::new(), place: self.place.clone() })
    }

    fn integer(&self, reader: &mut Reader<'_>) -> Option<i64> {
        let Some(number) = self.value.get_ref().as_integer() else {
            reader.wrong_type(&self.place, self.value.get_ref(), "a whole number");
            return None;
        };
        let parsed = i64::from_str_radix(number.as_str(), number.radix()).ok();
        if parsed.is_none() {
            reader.reject(&self.place, "is too large a number", "write a smaller one");
        }
        parsed
    }
}

/// The path of `key` below `parent`; a key that TOML would quote is quoted.
fn join(parent: &str, key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    let dot = if parent.is_empty() { "" } else { "." };
    if bare { format!("{parent}{dot}{key}") } else { format!("{parent}{dot}{key:?}") }
}

/// The name that was probably meant, if one is near enough.
pub(super) fn nearest<'n>(written: &str, names: &[&'n str]) -> Option<&'n str> {
    let distance = |name: &str| strsim::damerau_levenshtein(written, name);
    let (distance, name) = names.iter().map(|name| (distance(name), *name)).min()?;
    // A third of the letters wrong is a slip of the pen; more is another word.
    (distance <= 1.max(name.chars().count() / 3)).then_some(name)
}

/// `a`, `b`, `c`.
pub(super) fn list(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
