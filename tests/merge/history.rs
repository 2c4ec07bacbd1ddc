//! What must hold of a topic's records, key by key; pure.
//!
//! A row's versions grow in the order in which its key's transactions commit, across deletions and changes of keys too:
//! whoever writes a key takes its version while nobody else can write that key. So of each key's records
//!
//! - none has a lower version than one before it. The same again is right: a chunk may repeat what the stream brought;
//! - the first after a tombstone has a *higher* version than all before it: an old chunk must not bring back what was
//!   deleted. Tombstones may repeat: a TRUNCATE writes one for each key that may be alive;
//! - each has a version that was committed, and under that key;
//! - no version is missing that was committed since the slot was there, whatever came later: the stream brings it.

use std::collections::{BTreeMap, BTreeSet};

use super::ledger::{Ledger, Row};

/// More records of a key say no more.
const RECORDS_SHOWN: usize = 80;

/// A record of some key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub partition: i32,
    pub offset: i64,
    /// `None` is a tombstone.
    pub version: Option<i64>,
}

/// A topic's records in their order, by key.
pub type Histories = BTreeMap<String, Vec<Seen>>;
/// The columns of each row, by key.
pub type Rows = BTreeMap<String, Vec<Option<String>>>;

/// What is wrong with the order of a key's records, if anything is.
pub fn disorder(history: &[Seen]) -> Option<String> {
    let mut newest = None;
    let mut is_dead = false;
    for seen in history {
        if seen.partition != history[0].partition {
            return Some("it is in several partitions".to_owned());
        }
        let Some(version) = seen.version else {
            is_dead = true;
            continue;
        };
        let offset = seen.offset;
        match newest {
            Some(newest) if version < newest => {
                return Some(format!("at offset {offset} version {version} follows {newest}"));
            }
            Some(newest) if is_dead && version == newest => {
                return Some(format!("at offset {offset} version {version} is back from the dead"));
            }
            _ => newest = Some(version),
        }
        is_dead = false;
    }
    None
}

/// A table, its topic, and what is known of both.
pub struct Case<'c> {
    pub name: &'c str,
    pub place: usize,
    /// A row's key as it is shown.
    pub key: &'c dyn Fn(i64) -> String,
    /// The numbers of all rows that there ever were.
    pub numbers: i64,
    pub ledger: &'c Ledger,
    pub histories: &'c Histories,
    /// The topic, folded.
    pub folded: &'c Rows,
    pub rows: &'c Rows,
}

impl Case<'_> {
    /// All that is wrong.
    pub fn complaints(&self) -> Vec<String> {
        let numbers: BTreeMap<String, i64> = (0..self.numbers).map(|n| ((self.key)(n), n)).collect();
        let mut wrong: BTreeMap<&str, String> = BTreeMap::new();
        for (key, history) in self.histories {
            let number = numbers.get(key);
            let foreign = |seen: &Seen| {
                let version = seen.version?;
                let here = |row: Row| row.table == self.place && Some(&row.number) == number;
                let known = self.ledger.get(version).is_some_and(|written| here(written.row));
                (!known)
                    .then(|| format!("version {version} at offset {} was never committed under this key", seen.offset))
            };
            if let Some(what) = disorder(history).or_else(|| history.iter().find_map(foreign)) {
                wrong.insert(key, what);
            }
        }
        let keys: BTreeSet<&String> = self.rows.keys().chain(self.folded.keys()).collect();
        for key in keys {
            let (row, folded) = (self.rows.get(key), self.folded.get(key));
            if row != folded && !wrong.contains_key(key.as_str()) {
                let (row, folded) = (row.map(|row| shown_row(row)), folded.map(|row| shown_row(row)));
                wrong.insert(key, format!("the row is {row:?}, the last record {folded:?}"));
            }
        }
        let mut complaints: Vec<_> = wrong.iter().map(|(key, what)| self.complaint(key, what, &numbers)).collect();
        complaints.extend(self.missing());
        complaints
    }

    /// With the whole history of the key.
    fn complaint(&self, key: &str, what: &str, numbers: &BTreeMap<String, i64>) -> String {
        let show = |seen: &Seen| format!("{}@{}", seen.version.map_or("-".to_owned(), |v| v.to_string()), seen.offset);
        let history: Vec<_> = self.histories.get(key).into_iter().flatten().map(show).collect();
        let row = numbers.get(key).map(|number| Row { table: self.place, number: *number });
        let committed = row.map_or_else(Vec::new, |row| self.ledger.versions_of(row));
        let version = self.rows.get(key).map(|row| shown_row(row));
        format!(
            "{} key {key}: {what}\n    records (version@offset): {}\n    committed: {committed:?}\n    row: {version:?}",
            self.name,
            shown(&history)
        )
    }

    fn missing(&self) -> Vec<String> {
        let seen: BTreeSet<i64> = self.histories.values().flatten().filter_map(|seen| seen.version).collect();
        let is_due = |(version, written): &(i64, super::ledger::Written)| {
            written.row.table == self.place && written.streamed && !seen.contains(version)
        };
        let mut missing: Vec<_> = self.ledger.iter().filter(is_due).collect();
        missing.sort_unstable_by_key(|(version, _)| *version);
        let what = |(version, written): (i64, super::ledger::Written)| {
            let key = (self.key)(written.row.number);
            format!("{} key {key}: version {version} was committed and is not there", self.name)
        };
        missing.into_iter().map(what).collect()
    }
}

fn shown_row(row: &[Option<String>]) -> String {
    let cell = |cell: &Option<String>| cell.as_ref().map_or("null".to_owned(), |text| text.chars().take(40).collect());
    row.iter().map(cell).collect::<Vec<_>>().join(" ")
}

/// The last of them.
fn shown(records: &[String]) -> String {
    let skipped = records.len().saturating_sub(RECORDS_SHOWN);
    let more = if skipped > 0 { format!("({skipped} more) ") } else { String::new() };
    more + &records[skipped..].join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(versions: &[Option<i64>]) -> Vec<Seen> {
        let seen =
            |(offset, version): (usize, &Option<i64>)| Seen { partition: 0, offset: offset as i64, version: *version };
        versions.iter().enumerate().map(seen).collect()
    }

    #[test]
    fn versions_that_grow_or_repeat_and_rows_that_come_anew_after_their_tombstone_are_right() {
        for right in [
            &[][..],
            &[None],
            &[Some(1), Some(1), Some(4), None, None, Some(5), Some(5)],
            &[None, Some(1), None, Some(2), None],
        ] {
            assert_eq!(disorder(&history(right)), None, "{right:?}");
        }
    }

    #[test]
    fn a_version_that_goes_back_is_wrong() {
        let told = disorder(&history(&[Some(1), Some(3), Some(2), Some(3)]));
        assert_eq!(told.as_deref(), Some("at offset 2 version 2 follows 3"));
        let told = disorder(&history(&[Some(3), None, Some(2)]));
        assert_eq!(told.as_deref(), Some("at offset 2 version 2 follows 3"));
    }

    #[test]
    fn a_row_that_was_deleted_and_comes_back_as_it_was_is_wrong() {
        let told = disorder(&history(&[Some(3), None, None, Some(3)]));
        assert_eq!(told.as_deref(), Some("at offset 3 version 3 is back from the dead"));
    }

    #[test]
    fn a_key_in_two_partitions_is_wrong() {
        let mut seen = history(&[Some(1), Some(2)]);
        seen[1].partition = 1;
        assert_eq!(disorder(&seen).as_deref(), Some("it is in several partitions"));
    }

    fn complaints(seen: &[Option<i64>], row: Option<&str>) -> Vec<String> {
        let mut ledger = Ledger::default();
        let row_of = |number| Row { table: 0, number };
        ledger.first(row_of(0), 1);
        ledger.committed(vec![(2, row_of(0)), (3, row_of(1))], false);
        ledger.committed(vec![(4, row_of(0))], true);
        let histories = Histories::from([("0".to_owned(), history(seen))]);
        let rows: Rows = row.map(|text| ("0".to_owned(), vec![Some(text.to_owned())])).into_iter().collect();
        let last = seen.last().copied().flatten();
        let folded: Rows = last.map(|version| ("0".to_owned(), vec![Some(version.to_string())])).into_iter().collect();
        let key = |number: i64| number.to_string();
        let (ledger, histories, folded, rows) = (&ledger, &histories, &folded, &rows);
        Case { name: "t", place: 0, key: &key, numbers: 2, ledger, histories, folded, rows }.complaints()
    }

    #[test]
    fn a_topic_that_is_its_table_is_right_whatever_it_lacks_from_before_the_slot() {
        assert_eq!(complaints(&[Some(2), Some(4)], Some("4")), Vec::<String>::new());
        assert_eq!(complaints(&[Some(4), None], None), Vec::<String>::new());
    }

    #[test]
    fn what_is_missing_or_was_never_committed_or_differs_is_told_with_the_history() {
        assert_eq!(complaints(&[Some(2)], Some("2")), ["t key 0: version 4 was committed and is not there"]);
        let told = complaints(&[Some(3), Some(4)], Some("4")).join("");
        assert!(told.starts_with("t key 0: version 3 at offset 0 was never committed under this key\n"), "{told}");
        let told = complaints(&[Some(2), Some(4), None], Some("4")).join("");
        assert!(told.contains("the last record None\n    records (version@offset): 2@0 4@1 -@2\n"), "{told}");
        assert!(told.contains("committed: [1, 2, 4]"), "{told}");
    }
}
